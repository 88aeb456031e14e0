"""The final word on measured points: which meet the budget, which are on the front, and which to take.

Recommended is the point that ``preference`` puts first of those within every limit, but never one that a
baseline beats (no worse in accuracy, latency and size, better in one). A point that did not hold when it was timed
again is neither on the front nor recommended. Where no point meets every limit, ``nearest`` names one for each limit:
of the points that meet the others, the one that misses it least, or of all points if none meets the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from precision import Budget
from report import wording
from report.front import Objectives, pareto_front
from report.results import Point
from search.results.preference import choose, preference

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
    """

    points: Mapping[str, Point]
    front: tuple[str, ...]
    recommended: str | None
    nearest: Mapping[str, str]


def judge(
    points: Iterable[Point], budget: Budget, *, reference: str, baselines: Sequence[str], metric: str
) -> Judgement:
    """Judge points by what is to be shown of them: the finalists' measurement, else the search's.

    Args:
        points: In the order they are to be listed.
        budget: The limits.
        reference: Id of the FP32 point.
        baselines: Ids of the uniform points.
        metric: The metric's name, for words.
    """
    by_id = {point.id: point for point in points}
    known = by_id.get(reference)
    fp32 = known.shown_accuracy.value if known and known.shown_accuracy else None
    misses = {id_: _misses(point, budget, fp32) for id_, point in by_id.items() if _measured(point)}
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
    yardsticks = [_objectives(judged[id_]) for id_ in baselines if id_ in misses]
    candidates = [
        point.id
        for point in sound
        if point.feasible and not any(other.dominates(objectives[point.id]) for other in yardsticks)
    ]
    recommended = choose({id_: objectives[id_] for id_ in candidates}, budget)
    return Judgement(
        points=judged,
        front=tuple(sorted(front, key=lambda id_: preference(budget)(objectives[id_]))),
        recommended=recommended,
        nearest={} if recommended else _nearest({id_: misses[id_] for id_ in ids}, budget),
    )


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


def _misses(point: Point, budget: Budget, fp32: float | None) -> Misses:
    objectives = _objectives(point)
    return budget.violations(
        latency_ms=objectives.latency_ms,
        size_bytes=objectives.size_bytes,
        accuracy=objectives.accuracy,
        reference_accuracy=objectives.accuracy if fp32 is None else fp32,
    )


def _violations(point: Point, budget: Budget, misses: Misses, metric: str) -> tuple[str, ...]:
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


def _nearest(misses: Mapping[str, Misses], budget: Budget) -> dict[str, str]:
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
