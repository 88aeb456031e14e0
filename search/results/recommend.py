"""Front and recommendation: which measured points meet the limits, which are on the front, and which one to take.

Recommended is the point that ``ranking_key`` puts first of those that are within every limit and whose latency was
reproduced, but never one that a baseline beats. A point whose latency was not reproduced is neither on the front nor
recommended, nor does it beat another. The network as given is recommended only where nothing else is left, or where it
is told apart from what would be recommended, being more accurate (faster, where accuracy alone is limited): nobody
needs a search to deploy it. Accuracies are compared so that greater is better (``MetricInfo.oriented``).

    y beats p    y is within every limit too, is no less accurate, neither surely slower nor surely larger, and surely
                 better in one:
                 accuracy   the 95 % intervals do not overlap
                 latency    the intervals of the median and of the ratio do not overlap, and it is 2 % less
                 size       it is 1 % less

Where there is such a point within every limit, one is recommended: should baselines beat each other in a circle, they
are all left. Where there is none, ``nearest`` names one for each limit: of the points whose latency was reproduced and
that meet the others, the one that misses it least, or of all of those if none meets the others; where no latency was
reproduced, of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bitfront.core import Constraints, Limit, LimitCheck, MetricInfo, formatting
from bitfront.core.given_network import FP32_ID, GIVEN_ID, GivenNetwork
from bitfront.core.pareto import Objectives, pareto_front
from bitfront.core.point import Point
from bitfront.search.results.ranking import LATENCY_TIE, SIZE_TIE, choose_best, ranking_key

Checks = Mapping[Limit, LimitCheck]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Points with their front and recommendation: the results of a run.

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


def select(
    points: Iterable[Point], budget: Constraints, *, given: GivenNetwork, baselines: Sequence[str], metric: MetricInfo
) -> Selection:
    """Front and recommendation by what is shown of each point: the finalists' measurement, else the search's.

    Args:
        points: In the order they are to be listed.
        budget: The limits.
        given: The given network, from whose accuracy a drop counts.
        baselines: Ids of the points that none that they beat is recommended beside.
        metric: How its values are compared and written.
    """
    by_id = {point.id: point for point in points}
    measured = [
        point for point in by_id.values() if point.shown_latency is not None and point.shown_accuracy is not None
    ]
    objectives = {point.id: objectives_of(point, metric) for point in measured}
    reference = metric.oriented(given.shown_accuracy.value) if given.shown_accuracy else None
    checks = {id_: _check(found, budget, reference) for id_, found in objectives.items()}
    judged = {id_: _compared(point, checks.get(id_), metric) for id_, point in by_id.items()}
    sound = {id_: objectives[id_] for id_ in objectives if judged[id_].latency_reproduced is not False}
    ids = list(sound)
    front = [ids[index] for index in pareto_front(list(sound.values()))]
    recommended = _recommended([judged[id_] for id_ in sound if judged[id_].feasible], baselines, budget, metric)
    return Selection(
        points=judged,
        front=tuple(sorted(front, key=lambda id_: ranking_key(budget)(sound[id_]))),
        recommended=recommended,
        nearest={} if recommended else _nearest({id_: checks[id_] for id_ in ids or checks}),
        given=given,
        baselines=tuple(id_ for id_ in baselines if id_ in by_id),
    )


def objectives_of(point: Point, metric: MetricInfo) -> Objectives:
    """The objectives of a point that was measured, accuracy oriented so that greater is better."""
    assert point.shown_latency is not None
    assert point.shown_accuracy is not None
    return Objectives(
        accuracy=metric.oriented(point.shown_accuracy.value),
        latency_ms=point.shown_latency.median_ms,
        size_bytes=float(point.size_bytes),
    )


def _check(objectives: Objectives, budget: Constraints, reference: float | None) -> Checks:
    return budget.check(
        latency_ms=objectives.latency_ms,
        size_bytes=objectives.size_bytes,
        accuracy=objectives.accuracy,
        reference_accuracy=objectives.accuracy if reference is None else reference,
    )


def _compared(point: Point, checks: Checks | None, metric: MetricInfo) -> Point:
    """The point with what its comparison with the limits came to; None is of one that was not measured."""
    missed = [check for check in (checks or {}).values() if not check.met]
    texts = tuple(formatting.limit_missed(check, metric) for check in missed)
    return replace(point, feasible=checks is not None and not missed, violations=texts)


def beats(point: Point, other: Point, metric: MetricInfo) -> bool:
    """Whether, both within every limit, a point is to be taken rather than another: the module's first lines' rule."""
    return (
        objectives_of(point, metric).accuracy >= objectives_of(other, metric).accuracy
        and not _surely_faster(other, point)
        and not _surely_smaller(other, point)
        and (
            _surely_more_accurate(point, other, metric) or _surely_faster(point, other) or _surely_smaller(point, other)
        )
    )


def _surely_more_accurate(point: Point, other: Point, metric: MetricInfo) -> bool:
    if point.shown_accuracy is None or other.shown_accuracy is None:
        return False
    mine, theirs = (metric.oriented_stats(stats) for stats in (point.shown_accuracy, other.shown_accuracy))
    return mine.ci_low > theirs.ci_high


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


def _recommended(
    within: Sequence[Point], baselines: Sequence[str], budget: Constraints, metric: MetricInfo
) -> str | None:
    """The id to take of points within every limit; the network as given last, unless surely preferred."""
    yardsticks = [point for point in within if point.id in baselines]
    unbeaten = [point for point in within if not any(beats(yardstick, point, metric) for yardstick in yardsticks)]
    by_id = {point.id: point for point in unbeaten or within}
    given = by_id.pop(GIVEN_ID, None)
    chosen = choose_best({id_: objectives_of(point, metric) for id_, point in by_id.items()}, budget)
    if given is None:
        return chosen
    if chosen is None:
        return GIVEN_ID
    best = by_id[chosen]
    surely = _surely_faster(given, best) if budget.accuracy_alone else _surely_more_accurate(given, best, metric)
    return GIVEN_ID if surely else chosen


def _nearest(checks: Mapping[str, Checks]) -> dict[str, str]:
    """Limit → id of the point that is nearest to it."""
    found = {}
    for limit in Limit:
        distances = {id_: _distance(known, limit) for id_, known in checks.items() if limit in known}
        if distances:
            found[limit.value] = min(distances, key=distances.__getitem__)
    return found


def _distance(checks: Checks, limit: Limit) -> tuple[bool, float]:
    """Whether a point misses another limit, then by how much it misses this one."""
    others = (check for other, check in checks.items() if other is not limit)
    return any(not check.met for check in others), max(checks[limit].excess, 0.0)
