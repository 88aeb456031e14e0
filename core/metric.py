"""A metric as a value: the function that scores a network's outputs, and how its numbers are compared and written.

``MetricInfo`` is what files and reports need to know of a metric, ``Metric`` adds the function. A plain function is a
metric whose values are better when higher; attributes of the function with the names of ``Metric``'s fields
(``direction``, ``unit``, ``bounds``, ``outputs_are``, ``per_sample``) say otherwise.

Inside the search the greater value is always the better one: ``oriented`` negates the values of a metric that is
better when lower where they are computed, and turns them back where they are written or shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import WorkloadError
from bitfront.core.measurement import AccuracyStats

Array = NDArray[np.generic]

# (outputs of the network in its order and layout, labels) -> per-sample scores (n,) or one number.
# Per-sample scores give the result a confidence interval and let scoring stop early.
MetricFunction = Callable[[tuple[Array, ...], Array], "NDArray[np.generic] | float"]

# What a metric reads of a network: one of OUTPUT_KINDS for all outputs, or one each from the first on; None: unknown.
OutputsRead = str | tuple[str, ...] | None
OUTPUT_KINDS = ("classes", "values", "unread")

PERCENT = "%"
DIRECTION_KEY, UNIT_KEY = "metric_direction", "metric_unit"  # among the settings in ``measurement.json``
_DECLARED = ("direction", "unit", "bounds", "outputs_are", "per_sample")


class Direction(StrEnum):
    """Direction in which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """Properties of a metric without its function: name, direction, unit, bounds.

    Attributes:
        name: A built-in metric's, or ``module:function``.
        direction: Whether higher or lower values are better.
        unit: Written behind values: ``dB``. Of ``%`` the values are fractions, written in percent, and their
            differences in points.
        bounds: The lowest and the highest possible value.

    Raises:
        WorkloadError: If a field is not what it should be.
    """

    name: str
    direction: Direction = Direction.HIGHER
    unit: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)

    def __post_init__(self) -> None:
        if self.direction not in list(Direction):
            raise WorkloadError(
                f"metric '{self.name}': direction is {self.direction!r}, expected 'higher' or 'lower'",
                "say which values are better",
            )
        object.__setattr__(self, "direction", Direction(self.direction))
        if not isinstance(self.unit, str):
            raise WorkloadError(f"metric '{self.name}': unit is {self.unit!r}, expected text", "for example unit='dB'")
        try:
            low, high = map(float, self.bounds)
        except (TypeError, ValueError):
            low, high = math.nan, math.nan
        if not low < high:
            raise WorkloadError(
                f"metric '{self.name}': bounds are {self.bounds!r}, expected the lowest and the highest value",
                "for example bounds=(0.0, 1.0), or bounds=(0.0, math.inf)",
            )
        object.__setattr__(self, "bounds", (low, high))

    @property
    def lower_is_better(self) -> bool:
        """Whether lower values are better."""
        return self.direction is Direction.LOWER

    @property
    def in_percent(self) -> bool:
        """Whether values are fractions that are written in percent."""
        return self.unit == PERCENT

    @property
    def quantity(self) -> str:
        """Word for the values in tables and limits: ``accuracy``, or ``error`` where lower is better."""
        return "error" if self.lower_is_better else "accuracy"

    def oriented(self, value: float) -> float:
        """``value`` so that greater is better, or such a value turned back: negated where lower is better."""
        return -value if self.lower_is_better else value

    def oriented_stats(self, stats: AccuracyStats) -> AccuracyStats:
        """``stats`` so that greater is better, or such stats turned back, as ``oriented``."""
        return stats.negated() if self.lower_is_better else stats

    def settings(self) -> dict[str, str]:
        """The entries of ``measurement.json``'s settings that ``from_settings`` reads."""
        return {"metric": self.name, DIRECTION_KEY: self.direction.value, UNIT_KEY: self.unit}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(MetricInfo):
    """Function that scores a network's outputs; called with (outputs, labels).

    Attributes:
        compute: (outputs in the network's order, labels) → a score a sample, shape (n,), or one number.
        outputs_are: What it reads: ``"classes"`` are scores or probabilities of classes, ``"values"`` are numbers whose
            size matters, ``"unread"`` outputs do not count. A word is about every output, a sequence of words about the
            first ones, those behind being unread; None where it is not known.
        per_sample: Whether there is a score a sample; None where only a call tells.
        classification: Whether labels are class numbers, shape (n,), and the first output has a column for each class,
            which is checked before a search.

    Raises:
        WorkloadError: If a field is not what it should be.
    """

    compute: MetricFunction
    outputs_are: OutputsRead = None
    per_sample: bool | None = None
    classification: bool = False

    def __post_init__(self) -> None:
        MetricInfo.__post_init__(self)
        object.__setattr__(self, "outputs_are", _outputs_read(self.outputs_are))
        if not callable(self.compute):
            raise WorkloadError(
                f"metric '{self.name}': compute is {self.compute!r}, expected a function (outputs, labels) -> scores",
                "write compute=my_function",
            )

    def __call__(self, outputs: tuple[Array, ...], labels: Array) -> NDArray[np.generic] | float:
        """Scores of all samples, (n,), or one number."""
        return self.compute(outputs, labels)


def as_metric(metric: Metric | MetricFunction) -> Metric:
    """A metric as a value: a plain function with what its attributes declare, a ``functools.partial`` as its function.

    Raises:
        WorkloadError: If an attribute is not what it should be.
    """
    if isinstance(metric, Metric):
        return metric
    if isinstance(metric, partial):
        return replace(as_metric(metric.func), compute=metric)
    declared: Mapping[str, Any] = {
        name: value for name in _DECLARED if (value := getattr(metric, name, None)) is not None
    }
    return Metric(name=_qualified_name(metric), compute=metric, **declared)


def _qualified_name(function: MetricFunction) -> str:
    owner: Any = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}:{owner.__qualname__}"


def _outputs_read(found: object) -> OutputsRead:
    if found is None:
        return None
    words = (found,) if isinstance(found, str) else tuple(found) if isinstance(found, tuple | list) else (None,)
    if not words or any(word not in OUTPUT_KINDS for word in words) or set(words) == {"unread"}:
        raise WorkloadError(
            f"the metric's outputs_are: expected one of {', '.join(OUTPUT_KINDS)}, or a sequence of them that reads an "
            f"output, got {found!r}",
            "write for example metric.outputs_are = 'values'",
        )
    return found if isinstance(found, str) else tuple(found)  # type: ignore[arg-type]
