"""Which choice is at least as precise as which, and what that says of a table: the lowest choice, the ranking.

Choices are ordered by what they do to the numbers, not by what they scored:

    fp32 ≥ fp16 ≥ int8 ≥ int4             bits of the weights
    floating ≥ 8-bit activations          at equal bits, weight-only is no worse
    finer ≥ coarser scales                at equal bits, smaller blocks are no worse

Roundings of one rung share it. Two rungs of which each is better in one respect (``int8`` with 8-bit activations,
``int4`` weight-only) are not comparable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from bitfront.precision import LayerChoice, Precision
from bitfront.sensitivity.table import SensitivityTable

# Blocks are at most 256 weights long; one scale a channel is coarser than any.
_WHOLE_CHANNEL = 1 << 30

Rung = tuple[Precision, bool, int | None]


def rung(choice: LayerChoice) -> Rung:
    """What a choice does to the numbers, its rounding aside."""
    return (choice.precision, choice.weight_only, choice.block_size)


def at_least_as_precise(upper: LayerChoice, lower: LayerChoice) -> bool:
    """Whether ``upper`` keeps at least as much of the numbers as ``lower``, by the orders above."""
    if upper.quantises_activations and not lower.quantises_activations:
        return False
    if upper.precision.bits != lower.precision.bits:
        return upper.precision.bits > lower.precision.bits
    return (upper.block_size or _WHOLE_CHANNEL) <= (lower.block_size or _WHOLE_CHANNEL)


def from_most_precise(choices: Iterable[LayerChoice]) -> list[LayerChoice]:
    """The choices so that each comes after all that are at least as precise and on another rung."""
    return sorted(
        choices,
        key=lambda choice: (
            choice.quantises_activations,
            -choice.precision.bits,
            choice.block_size or _WHOLE_CHANNEL,
            choice.rounding,
        ),
    )


def lowest(scores: Mapping[LayerChoice, float]) -> LayerChoice:
    """The choice with the fewest bits, 8-bit activations preferred, then of the best score; NaN and infinite last.

    Args:
        scores: Choice → score, not empty.
    """
    usable = [choice for choice, score in scores.items() if math.isfinite(score)] or list(scores)
    return min(
        usable,
        key=lambda choice: (choice.precision.bits, not choice.quantises_activations, scores[choice], choice.text),
    )


def best_of_each_rung(scores: Mapping[LayerChoice, float]) -> dict[Rung, LayerChoice]:
    """Rung → its choice of the best score; rungs without a finite score are left out."""
    best: dict[Rung, LayerChoice] = {}
    for choice, score in scores.items():
        held = best.get(rung(choice))
        if math.isfinite(score) and (held is None or score < scores[held]):
            best[rung(choice)] = choice
    return best


def ranking(table: SensitivityTable) -> tuple[str, ...]:
    """Groups by the loss of their lowest choice that stays, most sensitive first; equals in the table's order."""
    losses = {group: scores[lowest(scores)] for group, scores in table.losses().items()}
    return tuple(sorted(losses, key=lambda group: -losses[group]))
