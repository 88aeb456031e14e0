"""Losses that a search adds up, from raw sensitivity scores.

**Dropped** is a scheme that could not be scored, or whose score is NaN or infinite in either context. Nothing else:
schemes that another one beats are left to the space.

**Loss** of a scheme that stays, with a = max(single-layer score, 0), r = max(leave-one-out score, 0) and its standard
error e:

    loss = a + ½ · w · (r − a),    w = max(0, 1 − (2 e / (r − a))²)

The two contexts are what a group adds when it is the first to be lowered and when it is the last: the extreme
terms of its Shapley value (L. Shapley, "A value for n-person games", 1953). Their mean stands for all orders, and
where the leave-one-out score is certain that is the loss. But it is the difference of two large divergences: with every
layer at 4 bit, casting one to FP16, which alone changes nothing, moves the output as much as most schemes do. So
the difference counts only as far as it stands out of two standard errors (the positive-part shrinkage of W. James
and C. Stein, "Estimation with quadratic loss", 1961), and where it is noise the loss is the single-layer score. A
negative part is no gain: no scheme heals the network.

The leave-one-out score is measured for the best rounding of each rank (``sensitivity.precision_order``). Other
roundings take its second term, so that they differ by their own single-layer score; where a group has none at all, the
loss is the single-layer score.

**Monotone.** The loss of a scheme is raised to that of every rank at least as precise: to the least among the
rank's roundings, and to that of its own rounding there; a rounding that makes up for its errors on data is not raised
to a rank of as many bits that has none such. Raised and not averaged, because sampling noise that makes
INT4 look better than INT8 must not buy bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from bitfront.core import Scheme
from bitfront.core.scheme_text import method_word
from bitfront.lowering.rounding.methods import uses_calibration
from bitfront.sensitivity.precision_order import at_least_as_precise, from_most_precise, rank
from bitfront.sensitivity.table import SensitivityRow


def with_losses(rows: Sequence[SensitivityRow]) -> tuple[SensitivityRow, ...]:
    """The rows with ``loss`` and ``dropped`` filled in, in the same order.

    Args:
        rows: ``leave_one_out`` is NaN where it was not measured and infinite where the measured score was not finite;
            ``dropped`` says why a scheme could not be scored.
    """
    by_group: dict[str, list[SensitivityRow]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(replace(row, dropped=_reason(row), loss=math.nan))
    losses = {group: _losses([row for row in members if not row.dropped]) for group, members in by_group.items()}
    return tuple(
        row if row.dropped else replace(row, loss=losses[group][row.scheme])
        for group, members in by_group.items()
        for row in members
    )


def contexts_disagree(row: SensitivityRow, *, factor: float = 3.0) -> bool:
    """Whether the contexts differ by more than ``factor`` and more than sampling noise: the layers interact."""
    if not math.isfinite(row.leave_one_out) or not math.isfinite(row.single_layer):
        return False
    low, high = sorted((max(row.single_layer, 0.0), max(row.leave_one_out, 0.0)))
    return high > factor * low and _weight(high - low, row.leave_one_out_error) > 0


def _reason(row: SensitivityRow) -> str:
    if row.dropped:
        return row.dropped
    if not math.isfinite(row.single_layer):
        return f"its outputs alone in the FP32 network are not finite (score {row.single_layer:g})"
    if math.isinf(row.leave_one_out):
        return "its outputs in the all-low network are not finite"
    return ""


def _losses(rows: Sequence[SensitivityRow]) -> dict[Scheme, float]:
    """Scheme → cleaned loss, for one group's rows that stay."""
    scores = {row.scheme: max(row.single_layer, 0.0) for row in rows}
    shift = {rank(row.scheme): _shift(row) for row in rows if math.isfinite(row.leave_one_out)}
    losses = {scheme: max(value + shift.get(rank(scheme), 0.0), 0.0) for scheme, value in scores.items()}
    for scheme in from_most_precise(losses):
        above: dict[object, list[Scheme]] = {}
        for other in losses:
            if rank(other) != rank(scheme) and at_least_as_precise(other, scheme):
                above.setdefault(rank(other), []).append(other)
        for members in above.values():
            if not _comparable(scheme, members):
                continue
            same = [losses[other] for other in members if method_word(other.weights) == method_word(scheme.weights)]
            losses[scheme] = max(losses[scheme], min(losses[other] for other in members), *same)
    return losses


def _comparable(scheme: Scheme, others: Sequence[Scheme]) -> bool:
    """Whether a rank bounds a scheme: not one of as many bits of which no rounding makes up for its errors."""
    compensates = uses_calibration(scheme.weights)
    return not compensates or any(
        other.precision.bits != scheme.precision.bits or uses_calibration(other.weights) for other in others
    )


def _shift(row: SensitivityRow) -> float:
    """Amount that the all-low context adds to a scheme's single-layer score; negative where it takes away."""
    difference = max(row.leave_one_out, 0.0) - max(row.single_layer, 0.0)
    return _weight(difference, row.leave_one_out_error) * difference / 2


def _weight(difference: float, error: float) -> float:
    """Shrinkage factor of a difference: 1 without error, 0 within two standard errors."""
    if difference == 0 or math.isinf(error):
        return 0.0
    return max(0.0, 1 - (2 * error / difference) ** 2)
