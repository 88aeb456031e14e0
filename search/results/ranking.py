"""Ranking of points, by what is wanted most (``core.preference``).

    accuracy    the most accurate; of equals the faster, then the smaller
    latency     the fastest; of equals the smaller, then the more accurate
    size        the smallest; of equals the faster, then the more accurate

The last two where accuracy is limited. Where it is not, nothing else says how much of it may be lost: the most accurate
come first there too, and of equals the faster or the smaller.

When one point is recommended, a difference that nobody can tell or would pay for is none: accuracies that a paired test
does not tell from the best, sizes within 1 % of the smallest, and latencies within 2 % of the fastest are equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bitfront.core import Constraints, Prefer, Preference
from bitfront.core.pareto import Objectives

SIZE_TIE = 1.01
LATENCY_TIE = 1.02

Key = tuple[float, float, float]
Id = TypeVar("Id", str, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """Order in which quantities decide.

    Attributes:
        order: All three, the first that decides first.
    """

    order: tuple[Prefer, Prefer, Prefer]

    @classmethod
    def of(cls, budget: Constraints, preference: Preference) -> Ranking:
        """The order for what is limited and wanted."""
        prefer = preference.within(budget)
        costs = (Prefer.SIZE, Prefer.LATENCY) if prefer is Prefer.SIZE else (Prefer.LATENCY, Prefer.SIZE)
        if preference.accuracy_first(budget):
            return cls(order=(Prefer.ACCURACY, *costs))
        return cls(order=(*costs, Prefer.ACCURACY))

    def key(self, found: Objectives) -> Key:
        """The sort key that puts the preferred point first."""
        values = {
            Prefer.ACCURACY: -found.accuracy,
            Prefer.LATENCY: found.latency_ms,
            Prefer.SIZE: found.size_bytes,
        }
        first, second, third = (values[quantity] for quantity in self.order)
        return first, second, third


def choose_best(
    candidates: Mapping[Id, Objectives],
    ranking: Ranking,
    *,
    told_worse: Callable[[Id, Id], bool] | None = None,
    untimed: frozenset[Id] = frozenset(),
) -> Id | None:
    """The id to recommend; None where there are no candidates.

    Args:
        candidates: Id → objectives.
        ranking: What decides.
        told_worse: Whether the first is less accurate than the second as far as can be told; by the values where not
            given.
        untimed: Ids whose latency is in doubt and decides nothing, unless that of all is.
    """
    if not candidates:
        return None
    worse = told_worse or (lambda one, other: candidates[one].accuracy < candidates[other].accuracy)
    left = list(candidates)
    for quantity in ranking.order:
        if quantity is Prefer.ACCURACY:
            best = max(left, key=lambda id_: candidates[id_].accuracy)
            left = [id_ for id_ in left if id_ == best or not worse(id_, best)]
        elif quantity is Prefer.LATENCY:
            left = _fastest(candidates, [id_ for id_ in left if id_ not in untimed] or left)
        else:
            least = min(candidates[id_].size_bytes for id_ in left) * SIZE_TIE
            left = [id_ for id_ in left if candidates[id_].size_bytes <= least]
    return min(left, key=lambda id_: ranking.key(candidates[id_]))


def _fastest(candidates: Mapping[Id, Objectives], ids: Sequence[Id]) -> list[Id]:
    limit = min(candidates[id_].latency_ms for id_ in ids) * LATENCY_TIE
    return [id_ for id_ in ids if candidates[id_].latency_ms <= limit]
