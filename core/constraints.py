"""What the result must keep to: latency, size and accuracy limits, any combination of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bitfront.core.document import JsonValue
from bitfront.core.errors import UsageError

BYTES_PER_MB = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints(JsonValue):
    """Limits a deployable model must meet.

    Attributes:
        latency_ms: Upper limit of the median latency, in milliseconds.
        size_bytes: Upper limit of the file's size.
        min_accuracy: Lower limit of the metric, as a fraction (0.75 is 75 %).
        max_drop: Upper limit of the metric's absolute loss against the given network, as a fraction (0.01 is one
            point).
    """

    latency_ms: float | None = None
    size_bytes: float | None = None
    min_accuracy: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        for option, value, unit in (
            ("--budget-ms", self.latency_ms, 1),
            ("--budget-mb", self.size_bytes, BYTES_PER_MB),
        ):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise UsageError(
                    f"{option}: expected a positive number, got {value / unit:g}", "leave it out for no limit"
                )
        if self.min_accuracy is not None and not math.isfinite(self.min_accuracy):
            raise UsageError(
                f"--min-acc: expected a finite number, got {self.min_accuracy:g}", "leave it out for no limit"
            )
        if self.max_drop is not None and not (math.isfinite(self.max_drop) and self.max_drop >= 0):
            raise UsageError(
                f"--max-drop: expected zero or a positive fraction, got {self.max_drop:g}", "0.01 is one point"
            )

    @property
    def accuracy_alone(self) -> bool:
        """Whether accuracy is limited and nothing else: the fastest that keeps it is wanted then."""
        accuracy = self.min_accuracy is not None or self.max_drop is not None
        return accuracy and self.latency_ms is None and self.size_bytes is None

    def accuracy_floor(self, reference_accuracy: float) -> float:
        """The lowest accuracy that meets both accuracy limits; −inf without any."""
        floors = [-math.inf]
        if self.min_accuracy is not None:
            floors.append(self.min_accuracy)
        if self.max_drop is not None:
            floors.append(reference_accuracy - self.max_drop)
        return max(floors)

    def absolute(self, reference_accuracy: float) -> Constraints:
        """The same limits once the given network's accuracy is known: a floor in place of a drop."""
        if self.max_drop is None:
            return self
        return replace(self, min_accuracy=self.accuracy_floor(reference_accuracy), max_drop=None)

    def violations(
        self, *, latency_ms: float, size_bytes: float, accuracy: float, reference_accuracy: float
    ) -> tuple[float, float, float]:
        """How far each limit is missed: (latency in ms, size in bytes, accuracy); ≤ 0 is met."""
        # A drop of exactly max_drop is a difference of two rounded fractions: allow their last bits.
        floor = self.accuracy_floor(reference_accuracy) - 1e-9
        return (
            latency_ms - self.latency_ms if self.latency_ms is not None else -math.inf,
            size_bytes - self.size_bytes if self.size_bytes is not None else -math.inf,
            floor - accuracy if math.isfinite(floor) else -math.inf,
        )
