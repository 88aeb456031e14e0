"""From raw scores to the losses that a search adds up.

**Dropped** is a choice that could not be scored, or whose score is NaN or infinite in either context. Nothing else:
choices that another one beats are left to the space.

**Loss** of a choice that stays is ½ · max(alone, 0) + ½ · max(restored, 0). The two contexts are what a group adds
when it is the first to be lowered and when it is the last, that is, the two extreme terms of its Shapley value
(L. Shapley, "A value for n-person games", 1953); their mean stands for all orders. One alone misleads: alone misses
what errors do together, restored is taken where the output may be so damaged that little can be added. A negative
part is noise: a choice that seems to heal the network gains nothing by it.

Restored is measured for the best rounding of each rung (``sensitivity.ladder``). Other roundings take its value, so
that they differ by their own alone score; where a group has none at all, the loss is the alone score.

**Monotone.** The loss of a choice is raised to that of every rung at least as precise: to the least among the
rung's roundings, and to that of its own rounding there. Raised and not averaged, because sampling noise that makes
INT4 look better than INT8 must not buy bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from precision import LayerChoice
from sensitivity.ladder import at_least_as_precise, best_of_each_rung, from_most_precise, rung
from sensitivity.table import SensitivityRow


def clean(rows: Sequence[SensitivityRow]) -> tuple[SensitivityRow, ...]:
    """The rows with ``loss`` and ``dropped`` filled in, in the same order.

    Args:
        rows: ``restored`` is NaN where it was not measured and infinite where the measured score was not finite;
            ``dropped`` says why a choice could not be scored.
    """
    by_group: dict[str, list[SensitivityRow]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(replace(row, dropped=_reason(row), loss=math.nan))
    losses = {group: _losses([row for row in members if not row.dropped]) for group, members in by_group.items()}
    return tuple(
        row if row.dropped else replace(row, loss=losses[group][row.choice])
        for group, members in by_group.items()
        for row in members
    )


def interaction(row: SensitivityRow) -> float:
    """How much more the choice hurts a network that is low everywhere than one that is FP32: restored − alone."""
    return row.restored - row.alone


def disagrees(row: SensitivityRow, *, factor: float = 3.0, noise: float = 1e-4) -> bool:
    """Whether the contexts differ by more than ``factor`` and ``noise``, so that the loss is to be trusted less."""
    if not math.isfinite(row.restored) or not math.isfinite(row.alone):
        return False
    low, high = sorted((max(row.alone, 0.0), max(row.restored, 0.0)))
    return high > max(factor * low, low + noise)


def _reason(row: SensitivityRow) -> str:
    if row.dropped:
        return row.dropped
    if not math.isfinite(row.alone):
        return f"its outputs alone in the FP32 network are not finite (score {row.alone:g})"
    if math.isinf(row.restored):
        return "its outputs in the all-low network are not finite"
    return ""


def _losses(rows: Sequence[SensitivityRow]) -> dict[LayerChoice, float]:
    """Choice → cleaned loss, for one group's rows that stay."""
    alone = {row.choice: row.alone for row in rows}
    restored = {row.choice: row.restored for row in rows}
    best = best_of_each_rung(alone)
    losses = {
        choice: _loss(
            alone[choice], restored[choice] if math.isfinite(restored[choice]) else restored[best[rung(choice)]]
        )
        for choice in alone
    }
    for choice in from_most_precise(losses):
        above: dict[object, list[LayerChoice]] = {}
        for other in losses:
            if rung(other) != rung(choice) and at_least_as_precise(other, choice):
                above.setdefault(rung(other), []).append(other)
        for members in above.values():
            same = [losses[other] for other in members if other.rounding is choice.rounding]
            losses[choice] = max(losses[choice], min(losses[other] for other in members), *same)
    return losses


def _loss(alone: float, restored: float) -> float:
    first = max(alone, 0.0)
    return first if math.isnan(restored) else (first + max(restored, 0.0)) / 2
