"""A metric as a value: the function that scores a network's outputs, and how its numbers are compared and written.

``MetricInfo`` is what files and reports need to know of a metric, ``Metric`` adds the function. A plain function is a
metric whose values are better when higher; attributes of the function with the names of ``Metric``'s fields
(``direction``, ``unit``, ``bounds``, ``outputs_are``, ``per_sample``, ``compared_with``, ``samples_first``) say
otherwise.

A metric compares outputs with labels, or with the given network's outputs on the same samples, which needs no labels.

Inside the search the greater value is always the better one: ``oriented`` negates the values of a metric that is
better when lower where they are computed, and turns them back where they are written or shown.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import WorkloadError
from bitfront.core.measurement import AccuracyStats

Array = NDArray[np.generic]

# (outputs of the network in its order and layout, labels) -> per-sample scores (n,) or one number.
# In place of the labels a metric that compares with the given network gets that network's outputs, a tuple.
# Per-sample scores give the result a confidence interval and let scoring stop early.
MetricFunction = Callable[[tuple[Array, ...], Any], "NDArray[np.generic] | float"]

# What a metric reads of a network: one of OUTPUT_KINDS for all outputs, or one each from the first on; None: unknown.
OutputsRead = str | tuple[str, ...] | None
OUTPUT_KINDS = ("classes", "values", "unread")

PERCENT = "%"
DIRECTION_KEY, UNIT_KEY = "metric_direction", "metric_unit"  # among the settings in ``measurement.json``
COMPARED_KEY, DETAIL_KEY = "metric_compared_with", "metric_detail"  # there where it is not labels, where there is one
_NO_OPTIONS: Mapping[str, MetricOption] = MappingProxyType({})
_DECLARED = ("direction", "unit", "bounds", "outputs_are", "per_sample", "compared_with", "samples_first")


class Direction(StrEnum):
    """Direction in which values of a metric are better."""

    HIGHER = "higher"
    LOWER = "lower"


class ComparedWith(StrEnum):
    """Targets that a metric holds a network's outputs against."""

    LABELS = "labels"
    GIVEN = "given"
    """The outputs of the given network on the same samples."""
    EITHER = "either"
    """Labels where there are any, else the given network's outputs; ``core.metric_spec.fit_metric`` decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricInfo:
    """Properties of a metric without its function: name, direction, unit, bounds.

    Attributes:
        name: A built-in metric's, or ``module:function``.
        direction: Whether higher or lower values are better.
        unit: Written behind values: ``dB``. Of ``%`` the values are fractions, written in percent, and their
            differences in points.
        bounds: The lowest and the highest possible value.
        compared_with: What outputs are held against.
        detail: What exactly is compared, in words; empty where the name says it.

    Raises:
        WorkloadError: If a field is not what it should be.
    """

    name: str
    direction: Direction = Direction.HIGHER
    unit: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    compared_with: ComparedWith = ComparedWith.LABELS
    detail: str = ""

    def __post_init__(self) -> None:
        if self.direction not in list(Direction):
            raise WorkloadError(
                f"metric '{self.name}': direction is {self.direction!r}, expected 'higher' or 'lower'",
                "say which values are better",
            )
        object.__setattr__(self, "direction", Direction(self.direction))
        if self.compared_with not in list(ComparedWith):
            raise WorkloadError(
                f"metric '{self.name}': compared_with is {self.compared_with!r}, expected "
                "'labels', 'given' or 'either'",
                "say what outputs are held against",
            )
        object.__setattr__(self, "compared_with", ComparedWith(self.compared_with))
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
        """Word for the values in tables and limits: ``accuracy``, or ``error`` where lower is better.

        ``agreement`` where outputs are compared with the given network's, of whose accuracy that says nothing.
        """
        if self.lower_is_better:
            return "error"
        return "agreement" if self.compared_with is ComparedWith.GIVEN else "accuracy"

    @property
    def text(self) -> str:
        """The metric in words: its name, what it reads, and that it knows no labels where that is so."""
        detail = f" ({self.detail})" * bool(self.detail)
        given = " with the network as given, no labels" * (self.compared_with is ComparedWith.GIVEN)
        return f"{self.name}{detail}{given}"

    def oriented(self, value: float) -> float:
        """``value`` so that greater is better, or such a value turned back: negated where lower is better."""
        return -value if self.lower_is_better else value

    def oriented_stats(self, stats: AccuracyStats) -> AccuracyStats:
        """``stats`` so that greater is better, or such stats turned back, as ``oriented``."""
        return stats.negated() if self.lower_is_better else stats

    def settings(self) -> dict[str, str]:
        """The entries of ``measurement.json``'s settings that ``core.builtin_metrics.info_from_settings`` reads."""
        settings = {"metric": self.name, DIRECTION_KEY: self.direction.value, UNIT_KEY: self.unit}
        if self.compared_with is not ComparedWith.LABELS:
            settings[COMPARED_KEY] = self.compared_with.value
        return settings | ({DETAIL_KEY: self.detail} if self.detail else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputInfo:
    """An output of a network, as far as its graph tells.

    Attributes:
        name: Its name.
        is_float: Whether it holds floating-point numbers.
        class_axis: The axis of the classes in an array (n, …), where it holds scores or probabilities of classes; None
            where it holds other numbers, or the graph does not tell.
    """

    name: str
    is_float: bool = True
    class_axis: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricOption:
    """A setting of a metric, ``KEY=VALUE`` behind its name.

    Attributes:
        parse: Text → value; raises ValueError for what makes no sense.
        text: What the values are and which is the default, in words.
    """

    parse: Callable[[str], object]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(MetricInfo):
    """Function that scores a network's outputs; called with (outputs, labels).

    Attributes:
        compute: (outputs in the network's order, labels or the given network's outputs) → a score a sample, shape (n,),
            or one number.
        outputs_are: What it reads: ``"classes"`` are scores or probabilities of classes, ``"values"`` are numbers whose
            size matters, ``"unread"`` outputs do not count. A word is about every output, a sequence of words about the
            first ones, those behind being unread; None where it is not known.
        per_sample: Whether there is a score a sample; None where only a call tells.
        classification: Whether labels are class numbers, shape (n,), and the first output has a column for each class,
            which is checked before a search.
        samples_first: Whether outputs are handed over with the samples on the first axis, (n, …), whatever the
            network's layout; of samples of different shapes as an array (n,) of each sample's own (``core.ragged``).
            Always so where they are compared with the given network's.
        reads: Names of the outputs that ``compute`` gets, in this order; empty for all in the network's order.
        options: Keyword arguments of ``compute`` that may be set by ``NAME:KEY=VALUE``.
        fit: Makes the metric for the outputs of one network, where ``compute`` depends on them; None where it does not.

    Raises:
        WorkloadError: If a field is not what it should be.
    """

    compute: MetricFunction
    outputs_are: OutputsRead = None
    per_sample: bool | None = None
    classification: bool = False
    samples_first: bool = False
    reads: tuple[str, ...] = ()
    options: Mapping[str, MetricOption] = field(default_factory=lambda: _NO_OPTIONS, hash=False)
    fit: Callable[[Metric, Sequence[OutputInfo]], Metric] | None = None

    def __post_init__(self) -> None:
        MetricInfo.__post_init__(self)
        object.__setattr__(self, "outputs_are", _outputs_read(self.outputs_are))
        if self.compared_with is not ComparedWith.LABELS:
            object.__setattr__(self, "samples_first", True)
        if not callable(self.compute):
            raise WorkloadError(
                f"metric '{self.name}': compute is {self.compute!r}, expected a function (outputs, labels) -> scores",
                "write compute=my_function",
            )

    def __call__(self, outputs: tuple[Array, ...], labels: Array | tuple[Array, ...]) -> NDArray[np.generic] | float:
        """Scores of all samples, (n,), or one number."""
        return self.compute(outputs, labels)

    def reading(self, index: int) -> str | None:
        """Kind of the output of this index for the metric, of ``OUTPUT_KINDS``; None where unknown."""
        if self.outputs_are is None or isinstance(self.outputs_are, str):
            return self.outputs_are
        return self.outputs_are[index] if index < len(self.outputs_are) else "unread"


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
