"""A partial order of schemes by precision, and what follows from it for a table: the lowest scheme, the ranking.

Schemes are ordered by what they do to the numbers, not by what they scored:

    fp32 ≥ fp16 ≥ int8 ≥ int4             bits of the weights
    floating ≥ dynamic ≥ static           activations, at equal bits of the weights
    group ≥ channel ≥ tensor              scales, at equal bits; smaller groups are no worse

Methods of one rank share it. Two ranks of which each is better in one respect (``int8`` with 8-bit activations,
``int4`` weight-only) are not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bitfront.core import ActivationMode, Granularity, Scheme, WeightScheme
from bitfront.core.quantisation import ActivationScheme
from bitfront.core.scheme_text import method_word
from bitfront.sensitivity.table import SensitivityTable

# Groups are at most 256 weights long; a scale a channel is for more, one a tensor for all.
_EXTENT = {Granularity.CHANNEL: 1 << 30, Granularity.TENSOR: 1 << 31}
_ACTIVATIONS = {ActivationMode.NONE: 0, ActivationMode.DYNAMIC: 1, ActivationMode.STATIC: 2}

PrecisionRank = tuple[str, Granularity, int | None, bool, ActivationScheme]


def rank(scheme: Scheme) -> PrecisionRank:
    """Rank of a scheme in the order: weights and activations, its methods aside."""
    weights = scheme.weights
    return weights.dtype, weights.granularity, weights.group_size, weights.symmetric, scheme.activations


def _extent(weights: WeightScheme) -> int:
    """Largest number of weights that share a scale; only compared."""
    return weights.group_size or _EXTENT[weights.granularity]


def at_least_as_precise(upper: Scheme, lower: Scheme) -> bool:
    """Whether ``upper`` keeps at least as much of the numbers as ``lower``, by the orders above."""
    if _ACTIVATIONS[upper.activations.mode] > _ACTIVATIONS[lower.activations.mode]:
        return False
    if upper.precision.bits != lower.precision.bits:
        return upper.precision.bits > lower.precision.bits
    return _extent(upper.weights) <= _extent(lower.weights)


def from_most_precise(schemes: Iterable[Scheme]) -> list[Scheme]:
    """The schemes sorted so that each comes after all of other ranks that are at least as precise."""
    return sorted(
        schemes,
        key=lambda scheme: (
            _ACTIVATIONS[scheme.activations.mode],
            -scheme.precision.bits,
            _extent(scheme.weights),
            method_word(scheme.weights),
        ),
    )


def lowest(scores: Mapping[Scheme, float]) -> Scheme:
    """The scheme with the fewest bits, quantised activations preferred, then of the best score; NaN and infinite last.

    Args:
        scores: Scheme → score, not empty.
    """
    usable = [scheme for scheme, score in scores.items() if math.isfinite(score)] or list(scores)
    return min(
        usable,
        key=lambda scheme: (
            scheme.precision.bits,
            -_ACTIVATIONS[scheme.activations.mode],
            scores[scheme],
            scheme.text,
        ),
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
