"""Ranking of points, by what the user left open.

    latency or size limited    the most accurate; of equals the smaller, then the faster
    accuracy limited alone     the fastest: how much accuracy may be given up was said, what for was not; of equals
                               the smaller, then the more accurate

When one point is recommended, a difference that nobody would pay for is none: sizes within 1 % of the smallest, and
latencies within 2 % of the fastest, are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bitfront.core import Constraints
from bitfront.core.pareto import Objectives

SIZE_TIE = 1.01
LATENCY_TIE = 1.02

Key = tuple[float, float, float]


def ranking_key(budget: Constraints) -> Callable[[Objectives], Key]:
    """The sort key that puts the preferred point first."""
    return _fastest if budget.accuracy_alone else _most_accurate


def choose_best(candidates: Mapping[str, Objectives], budget: Constraints) -> str | None:
    """The id to recommend; None where there are no candidates."""
    if not candidates:
        return None
    if budget.accuracy_alone:
        limit = min(found.latency_ms for found in candidates.values()) * LATENCY_TIE
        best = {id_: found for id_, found in candidates.items() if found.latency_ms <= limit}
        return min(best, key=lambda id_: (best[id_].size_bytes, -best[id_].accuracy, best[id_].latency_ms))
    accuracy = max(found.accuracy for found in candidates.values())
    best = {id_: found for id_, found in candidates.items() if found.accuracy == accuracy}
    limit = min(found.size_bytes for found in best.values()) * SIZE_TIE
    return min((id_ for id_ in best if best[id_].size_bytes <= limit), key=lambda id_: best[id_].latency_ms)


def _most_accurate(found: Objectives) -> Key:
    return -found.accuracy, found.size_bytes, found.latency_ms


def _fastest(found: Objectives) -> Key:
    return found.latency_ms, found.size_bytes, -found.accuracy
