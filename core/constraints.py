"""Limits that the result must keep to, on latency, size and accuracy, in any combination.

This is the one place that compares what was measured with a limit. Accuracies are given so that greater is better
(``MetricInfo.oriented``), and the floor that comes of the limits is such a value too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from bitfront.core.document import JsonValue
from bitfront.core.errors import UsageError
from bitfront.core.metric import MetricInfo

BYTES_PER_MB = 1_000_000
# A drop of exactly ``max_drop`` is a difference of two rounded fractions: their last bits are allowed.
ACCURACY_TOLERANCE = 1e-9
ESTIMATE = 0.5  # the confidence that the estimate itself has


class Limit(StrEnum):
    """Quantity that is limited."""

    LATENCY = "latency"
    SIZE = "size"
    ACCURACY = "accuracy"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """Measured value beside its limit.

    Attributes:
        limit: What is limited.
        value: What was measured: a latency (in ms, or any unit that the bound has as well), bytes, or the metric,
            greater being better.
        best: The favourable end of its interval; the value itself where there is none.
        bound: The limit in the value's unit: the highest latency or size, the lowest metric.
        assured: What it is with the confidence that was asked for; None is the value itself.
    """

    limit: Limit
    value: float
    best: float
    bound: float
    assured: float | None = None

    @property
    def excess(self) -> float:
        """Distance beyond the bound of what is assured, in the value's unit; ≤ 0 is met."""
        return self._excess(self.value if self.assured is None else self.assured)

    @property
    def relative_excess(self) -> float:
        """The excess over the bound, of a metric the excess itself; ≤ 0 is met."""
        return self.excess if self.limit is Limit.ACCURACY else self.value / self.bound - 1

    @property
    def met(self) -> bool:
        """Whether the value is within the limit."""
        return self.excess <= 0

    @property
    def surely_missed(self) -> bool:
        """Whether even the favourable end of the interval is beyond the bound."""
        return self._excess(self.best) > 0

    def _excess(self, value: float) -> float:
        if self.limit is Limit.ACCURACY:
            return self.bound - ACCURACY_TOLERANCE - value
        return value - self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints(JsonValue):
    """Limits a deployable model must meet.

    Attributes:
        latency_ms: Upper limit of the latency on an undisturbed machine, in milliseconds.
        size_bytes: Upper limit of the file's size.
        min_accuracy: Lower limit of a metric that is better when higher; of a fraction 0.75 is 75 %.
        max_drop: Upper limit of its absolute loss against the given network; of a fraction 0.01 is one point.
        max_error: Upper limit of a metric that is better when lower.
        max_rise: Upper limit of its absolute increase over the given network's.
        confidence: Probability with which limits of the metric are to hold; 0.5 takes its estimate.

    Raises:
        UsageError: If a limit is not finite, or not positive where it has to be, or the confidence no probability.
    """

    latency_ms: float | None = None
    size_bytes: float | None = None
    min_accuracy: float | None = None
    max_drop: float | None = None
    max_error: float | None = None
    max_rise: float | None = None
    confidence: float = ESTIMATE

    def __post_init__(self) -> None:
        if not ESTIMATE <= self.confidence < 1:
            raise UsageError(
                f"--confidence: expected a probability from {ESTIMATE:g} to below 1, got {self.confidence:g}",
                "0.5 takes the estimate as it is, 0.95 asks for near certainty",
            )
        for option, value, unit in (
            ("--budget-ms", self.latency_ms, 1),
            ("--budget-mb", self.size_bytes, BYTES_PER_MB),
        ):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"{option}: expected a positive number, got {value / unit:g}", "leave it out for no limit"
                )
        for option, value in (("--min-acc", self.min_accuracy), ("--max-error", self.max_error)):
            if value is not None and not math.isfinite(value):
                raise UsageError(f"{option}: expected a finite number, got {value:g}", "leave it out for no limit")
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(
                f"--max-drop: expected zero or a positive fraction, got {self.max_drop:g}", "0.01 is one point"
            )
        if self.max_rise is not None and not (math.isfinite(self.max_rise) and self.max_rise >= 0):
            raise UsageError(
                f"--max-rise: expected zero or a positive number, got {self.max_rise:g}", "it is in the metric's unit"
            )

    def to_json(self) -> dict[str, Any]:
        """The limits by name; those of a metric that is better when lower, and a confidence, only where set."""
        found = {
            "latency_ms": self.latency_ms,
            "size_bytes": self.size_bytes,
            "min_accuracy": self.min_accuracy,
            "max_drop": self.max_drop,
        }
        lower = {"max_error": self.max_error, "max_rise": self.max_rise}
        sure = {"confidence": self.confidence} if self.confidence != ESTIMATE else {}
        return found | {name: value for name, value in lower.items() if value is not None} | sure

    @property
    def limits_accuracy(self) -> bool:
        """Whether the metric is limited."""
        return any(limit is not None for limit in (self.min_accuracy, self.max_drop, self.max_error, self.max_rise))

    @property
    def limits_anything(self) -> bool:
        """Whether there is any limit."""
        return self.limits_accuracy or self.latency_ms is not None or self.size_bytes is not None

    @property
    def accuracy_alone(self) -> bool:
        """Whether accuracy is limited and nothing else: the fastest that keeps it is wanted then."""
        return self.limits_accuracy and self.latency_ms is None and self.size_bytes is None

    def accuracy_floor(self, reference_accuracy: float) -> float:
        """The lowest accuracy that meets every limit of the metric, greater being better; −∞ without any.

        Args:
            reference_accuracy: The given network's, greater being better as well.
        """
        floor, fall = self._floor, self._fall
        relative = -math.inf if fall is None else reference_accuracy - fall
        return max(-math.inf if floor is None else floor, relative)

    def absolute(self, reference_accuracy: float) -> Constraints:
        """The same limits once the given network's accuracy is known: one floor, greater being better."""
        if self.max_drop is None and self.max_error is None and self.max_rise is None:
            return self
        floor = self.accuracy_floor(reference_accuracy)
        return replace(self, min_accuracy=floor, max_drop=None, max_error=None, max_rise=None)

    def check(
        self,
        *,
        latency_ms: float | None = None,
        size_bytes: float | None = None,
        accuracy: float | None = None,
        reference_accuracy: float = math.nan,
        latency_low_ms: float | None = None,
        accuracy_high: float | None = None,
        accuracy_low: float | None = None,
        change_low: float | None = None,
    ) -> dict[Limit, LimitCheck]:
        """Each limit that is set, beside the measured value; values that were not measured (None) are left out.

        Args:
            latency_ms: Median latency.
            size_bytes: Size of the file.
            accuracy: The metric, greater being better (``MetricInfo.oriented``).
            reference_accuracy: The given network's, so too; read only where the change from it is limited.
            latency_low_ms: The favourable end of the latency's interval; the latency itself where not given.
            accuracy_high: The favourable end of the accuracy's interval; the accuracy itself where not given.
            accuracy_low: What the accuracy is with the confidence asked for; the accuracy itself where not given.
            change_low: What its difference to the given network's is with that confidence; likewise.
        """
        found = {}
        if self.latency_ms is not None and latency_ms is not None:
            best = latency_ms if latency_low_ms is None else latency_low_ms
            found[Limit.LATENCY] = LimitCheck(limit=Limit.LATENCY, value=latency_ms, best=best, bound=self.latency_ms)
        if self.size_bytes is not None and size_bytes is not None:
            found[Limit.SIZE] = LimitCheck(limit=Limit.SIZE, value=size_bytes, best=size_bytes, bound=self.size_bytes)
        if accuracy is not None:
            best = accuracy if accuracy_high is None else accuracy_high
            floor, fall = self._floor, self._fall
            pairs = [(floor, accuracy_low)] if floor is not None else []
            if fall is not None and math.isfinite(reference_accuracy):
                low = None if change_low is None else reference_accuracy + change_low
                pairs.append((reference_accuracy - fall, low))
            checks = [
                LimitCheck(limit=Limit.ACCURACY, value=accuracy, best=best, bound=bound, assured=low)
                for bound, low in pairs
            ]
            if checks:
                found[Limit.ACCURACY] = max(checks, key=lambda check: check.excess)
        return found

    @property
    def _floor(self) -> float | None:
        """The lowest accuracy by limits of the metric itself, greater being better."""
        floors = [self.min_accuracy, None if self.max_error is None else -self.max_error]
        return max((floor for floor in floors if floor is not None), default=None)

    @property
    def _fall(self) -> float | None:
        """The largest loss against the given network."""
        return min((fall for fall in (self.max_drop, self.max_rise) if fall is not None), default=None)

    def refuse_other_direction(self, metric: MetricInfo) -> None:
        """Refuse limits that are about a metric of the other direction.

        Raises:
            UsageError: If there is one; its hint names the option to use.
        """
        higher = {"--min-acc": self.min_accuracy, "--max-drop": self.max_drop}
        lower = {"--max-error": self.max_error, "--max-rise": self.max_rise}
        wrong, right = (higher, lower) if metric.lower_is_better else (lower, higher)
        for (option, value), instead in zip(wrong.items(), right, strict=True):
            if value is not None:
                raise UsageError(
                    f"{option}: metric '{metric.name}' is better when {metric.direction}",
                    f"limit it by {instead} {value:g}",
                )
