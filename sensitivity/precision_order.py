"""A partial order of schemes by precision, and what follows from it for a table: the lowest scheme, the ranking.

Schemes are ordered by what they do to the numbers, not by what they scored:

    fp32 ≥ fp16 ≥ int8 ≥ int4             bits of the weights
    floating ≥ 8-bit activations          at equal bits, weight-only is no worse
    finer ≥ coarser scales                at equal bits, smaller groups of weights are no worse

Roundings of one rank share it. Two ranks of which each is better in one respect (``int8`` with 8-bit activations,
``int4`` weight-only) are not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bitfront.core import Precision, Scheme
from bitfront.sensitivity.table import SensitivityTable

# A group is at most 256 weights long; one scale a channel is coarser than any.
_WHOLE_CHANNEL = 1 << 30

PrecisionRank = tuple[Precision, bool, int | None]


def rank(scheme: Scheme) -> PrecisionRank:
    """Rank of a scheme in the order: precision, whether weight-only, group size; its rounding aside."""
    return (scheme.precision, scheme.weight_only, scheme.group_size)


def at_least_as_precise(upper: Scheme, lower: Scheme) -> bool:
    """Whether ``upper`` keeps at least as much of the numbers as ``lower``, by the orders above."""
    if upper.quantises_activations and not lower.quantises_activations:
        return False
    if upper.precision.bits != lower.precision.bits:
        return upper.precision.bits > lower.precision.bits
    return (upper.group_size or _WHOLE_CHANNEL) <= (lower.group_size or _WHOLE_CHANNEL)


def from_most_precise(schemes: Iterable[Scheme]) -> list[Scheme]:
    """The schemes sorted so that each comes after all of other ranks that are at least as precise."""
    return sorted(
        schemes,
        key=lambda scheme: (
            scheme.quantises_activations,
            -scheme.precision.bits,
            scheme.group_size or _WHOLE_CHANNEL,
            scheme.rounding,
        ),
    )


def lowest(scores: Mapping[Scheme, float]) -> Scheme:
    """The scheme with the fewest bits, 8-bit activations preferred, then of the best score; NaN and infinite last.

    Args:
        scores: Scheme → score, not empty.
    """
    usable = [scheme for scheme, score in scores.items() if math.isfinite(score)] or list(scores)
    return min(
        usable,
        key=lambda scheme: (scheme.precision.bits, not scheme.quantises_activations, scores[scheme], scheme.text),
    )


def best_of_each_rank(scores: Mapping[Scheme, float]) -> dict[PrecisionRank, Scheme]:
    """Rank → its scheme with the best score; ranks without a finite score are left out."""
    best: dict[PrecisionRank, Scheme] = {}
    for scheme, score in scores.items():
        known = best.get(rank(scheme))
        if math.isfinite(score) and (known is None or score < scores[known]):
            best[rank(scheme)] = scheme
    return best


def ranking(table: SensitivityTable) -> tuple[str, ...]:
    """Groups by the loss of their lowest scheme that stays, most sensitive first; equals in the table's order."""
    losses = {group: scores[lowest(scores)] for group, scores in table.losses().items()}
    return tuple(sorted(losses, key=lambda group: -losses[group]))
