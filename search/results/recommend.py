"""The final word on measured points: which meet the budget, which are on the front, and which to take.

Recommended is the point that ``preference`` puts first of those that are within every limit and hold, but never one
that a baseline beats. A point that did not hold when it was timed again is neither on the front nor recommended, nor
does it beat another. The network as given is recommended only where nothing else is left, or where it is told apart
from what would be recommended, being more accurate (faster, where accuracy alone is limited): one needs no search to
deploy it.

    y beats p    y is within every limit too, is no less accurate, neither surely slower nor surely larger, and surely
                 better in one:
                 accuracy   the 95 % intervals do not overlap
                 latency    the intervals of the median and of the ratio do not overlap, and it is 2 % less
                 size       it is 1 % less

Where a point holds within every limit, one is recommended: should baselines beat each other in a circle, they are all
left. Where none does, ``nearest`` names one for each limit: of the points that hold and meet the others, the one that
misses it least, or of all that hold if none meets the others; where none holds, of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bitfront.core import Constraints
from bitfront.report import wording
from bitfront.report.front import Objectives, pareto_front
from bitfront.report.given import FP32_ID, GIVEN_ID, GivenNetwork
from bitfront.report.results import Point
from bitfront.search.results.preference import LATENCY_TIE, SIZE_TIE, choose, preference

LIMITS = ("latency", "size", "accuracy")
Misses = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a run found.

    Attributes:
        points: Id → point, ``feasible`` and ``violations`` filled in.
        front: Ids of the Pareto-optimal points, the preferred first.
        recommended: Id of the point to take, None where none meets every limit.
        nearest: Limit → id; empty where a point is recommended.
        given: What was measured of the given network, with which all are compared.
        baselines: Ids of the uniform points, and of the given network where it is a point of its own.
    """

    points: Mapping[str, Point]
    front: tuple[str, ...]
    recommended: str | None
    nearest: Mapping[str, str]
    given: GivenNetwork
    baselines: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Id of the point that stands for the given network: its own, or that of FP32, which makes no difference."""
        return GIVEN_ID if GIVEN_ID in self.points else FP32_ID


def judge(
    points: Iterable[Point], budget: Constraints, *, given: GivenNetwork, baselines: Sequence[str], metric: str
) -> Judgement:
    """Judge points by what is to be shown of them: the finalists' measurement, else the search's.

    Args:
        points: In the order they are to be listed.
        budget: The limits.
        given: The given network, from whose accuracy a drop counts.
        baselines: Ids of the points that none that they beat is recommended beside.
        metric: The metric's name, for words.
    """
    by_id = {point.id: point for point in points}
    accuracy = given.shown_accuracy.value if given.shown_accuracy else None
    misses = {id_: _misses(point, budget, accuracy) for id_, point in by_id.items() if _measured(point)}
    judged = {
        id_: replace(
            point,
            feasible=id_ in misses and max(misses[id_]) <= 0,
            violations=_violations(point, budget, misses[id_], metric) if id_ in misses else (),
        )
        for id_, point in by_id.items()
    }
    sound = [point for id_, point in judged.items() if id_ in misses and point.held is not False]
    objectives = {point.id: _objectives(point) for point in sound}
    ids = list(objectives)
    front = [ids[index] for index in pareto_front(list(objectives.values()))]
    within = [point for point in sound if point.feasible]
    yardsticks = [point for point in within if point.id in baselines]
    unbeaten = [point for point in within if not any(beats(yardstick, point) for yardstick in yardsticks)]
    recommended = _recommended(unbeaten or within, objectives, budget)
    return Judgement(
        points=judged,
        front=tuple(sorted(front, key=lambda id_: preference(budget)(objectives[id_]))),
        recommended=recommended,
        nearest={} if recommended else _nearest({id_: misses[id_] for id_ in ids or misses}, budget),
        given=given,
        baselines=tuple(id_ for id_ in baselines if id_ in by_id),
    )


def beats(point: Point, other: Point) -> bool:
    """Whether, both within every limit, a point is to be taken rather than another: the module's first lines' rule."""
    better = (_surely_more_accurate, _surely_faster, _surely_smaller)
    return (
        _objectives(point).accuracy >= _objectives(other).accuracy
        and not _surely_faster(other, point)
        and not _surely_smaller(other, point)
        and any(surely(point, other) for surely in better)
    )


def _surely_more_accurate(point: Point, other: Point) -> bool:
    mine, theirs = point.shown_accuracy, other.shown_accuracy
    return mine is not None and theirs is not None and mine.ci_low > theirs.ci_high


def _surely_faster(point: Point, other: Point) -> bool:
    mine, theirs = point.shown_latency, other.shown_latency
    return (
        mine is not None
        and theirs is not None
        and mine.ci_high_ms < theirs.ci_low_ms
        and mine.ratio_high < theirs.ratio_low
        and mine.median_ms * LATENCY_TIE < theirs.median_ms
    )


def _surely_smaller(point: Point, other: Point) -> bool:
    return point.size_bytes * SIZE_TIE < other.size_bytes


def _recommended(candidates: Sequence[Point], objectives: Mapping[str, Objectives], budget: Constraints) -> str | None:
    """Which of the points that may be recommended is; the network as given last, but where it is surely preferred."""
    by_id = {point.id: point for point in candidates}
    given = by_id.pop(GIVEN_ID, None)
    chosen = choose({id_: objectives[id_] for id_ in by_id}, budget)
    if given is None:
        return chosen
    surely = _surely_faster if budget.accuracy_alone else _surely_more_accurate
    return GIVEN_ID if chosen is None or surely(given, by_id[chosen]) else chosen


def _measured(point: Point) -> bool:
    return point.shown_latency is not None and point.shown_accuracy is not None


def _objectives(point: Point) -> Objectives:
    assert point.shown_latency is not None
    assert point.shown_accuracy is not None
    return Objectives(
        accuracy=point.shown_accuracy.value,
        latency_ms=point.shown_latency.median_ms,
        size_bytes=float(point.size_bytes),
    )


def _misses(point: Point, budget: Constraints, given: float | None) -> Misses:
    objectives = _objectives(point)
    return budget.violations(
        latency_ms=objectives.latency_ms,
        size_bytes=objectives.size_bytes,
        accuracy=objectives.accuracy,
        reference_accuracy=objectives.accuracy if given is None else given,
    )


def _violations(point: Point, budget: Constraints, misses: Misses, metric: str) -> tuple[str, ...]:
    objectives = _objectives(point)
    texts = []
    if misses[0] > 0:
        texts.append(f"latency {objectives.latency_ms:.4g} ms > {budget.latency_ms:g} ms")
    if misses[1] > 0:
        texts.append(f"size {wording.size(point.size_bytes)} > {wording.size(budget.size_bytes)}")
    if misses[2] > 0:
        floor = objectives.accuracy + misses[2]
        texts.append(f"accuracy {wording.accuracy(objectives.accuracy, metric)} < {wording.accuracy(floor, metric)}")
    return tuple(texts)


def _nearest(misses: Mapping[str, Misses], budget: Constraints) -> dict[str, str]:
    limited = (
        budget.latency_ms is not None,
        budget.size_bytes is not None,
        budget.min_accuracy is not None or budget.max_drop is not None,
    )
    found = {}
    for index, limit in enumerate(LIMITS):
        if limited[index] and misses:
            distances = {id_: _distance(missed, index) for id_, missed in misses.items()}
            found[limit] = min(distances, key=distances.__getitem__)
    return found


def _distance(misses: Misses, index: int) -> tuple[bool, float]:
    """Whether a point misses another limit, then by how much it misses this one."""
    others = (miss for other, miss in enumerate(misses) if other != index)
    return any(miss > 0 for miss in others), max(misses[index], 0.0)
