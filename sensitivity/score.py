"""Scoring every (group, scheme) in two contexts, for the divergence of the outputs from FP32's.

    single layer   every scheme of every group, the rest of the network FP32 ("alone" in files)
    leave one out  the best rounding of each rank, the rest at its lowest precision (fewest bits, 8-bit activations, the
                   rounding that scored best alone), minus the score of FP32 in its place, sample by sample
                   ("restored" in files)

``Scoring.PROPAGATED`` runs each scheme in its own layer and carries the error to the outputs (``propagated``), and
takes the whole network for groups that do not run alone; ``Scoring.WHOLE`` takes it for all (``whole_network``).

Scores are kept under the digests of all they depend on, so a run that was killed repeats none, and two schemes that are
written alike are run once. A scheme that the lowerer or the backend refuses is dropped with what it said; if they
refuse FP32, that is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import cast

import numpy as np

from bitfront.backends.base import Backend
from bitfront.backends.batches import FIRST_AXIS
from bitfront.core import FP32, Batching, ContentStore, Inputs, Precision, Scheme
from bitfront.core.batching import take_rows
from bitfront.lowering.layers import PrecisionGroup, QuantisableLayers
from bitfront.sensitivity.divergence_metric import OutputReading
from bitfront.sensitivity.group_scores import GroupScores
from bitfront.sensitivity.losses import with_losses
from bitfront.sensitivity.precision_order import best_of_each_rank, lowest
from bitfront.sensitivity.propagated import propagated_scores
from bitfront.sensitivity.scheme_lowerer import PartLowerer, SchemeLowerer
from bitfront.sensitivity.table import SensitivityRow, SensitivityTable
from bitfront.sensitivity.whole_network import RefusedError, Schemes, WholeNetworkScorer, mean_and_error

_NOT_MEASURED = (math.nan, math.nan)


class Scoring(Enum):
    """Ways of scoring schemes."""

    PROPAGATED = "propagated"
    WHOLE = "whole"


def planned_steps(quantisable: QuantisableLayers, precisions: Sequence[Precision]) -> int:
    """Number of steps that ``score_sensitivities`` reports."""
    return sum(len(_schemes(group, precisions)) for group in quantisable.groups)


def score_sensitivities(
    lowerer: SchemeLowerer,
    backend: Backend,
    inputs: Inputs,
    *,
    samples: int,
    read: Sequence[OutputReading],
    precisions: Sequence[Precision],
    threads: int,
    store: ContentStore,
    on_step: Callable[[str], None],
    batching: Batching = FIRST_AXIS,
    scoring: Scoring = Scoring.PROPAGATED,
) -> SensitivityTable:
    """Score every (group, scheme) of the allowed precisions.

    Args:
        lowerer: Writes the candidates; a ``PartLowerer`` where schemes are scored in their own layers.
        backend: Runs them.
        inputs: Unlabelled inputs, (n, …) each.
        samples: How many of them each score is taken on at most, from the first on.
        read: How each output is read, which decides on the divergence metric.
        precisions: Allowed besides FP32.
        threads: Intra-operator threads of the backend.
        store: Where scores are kept.
        on_step: Told of each step, in a few words; ``planned_steps`` says how many there will be.
        batching: Where the samples are in the network's own arrays; outputs without a row a sample are left aside.
        scoring: How.

    Returns:
        One row per (group, scheme), cleaned.

    Raises:
        LoweringError: If the FP32 network cannot be written.
        BackendError: If the backend refuses the FP32 network.
        DataError: If the inputs do not fit, or the FP32 network's outputs are not finite.
    """
    quantisable = lowerer.quantisable
    scored = {name: take_rows(array, np.arange(min(samples, len(array)))) for name, array in inputs.items()}
    scorer = WholeNetworkScorer(lowerer, backend, scored, read, threads, store, batching)
    offered = {group.name: _schemes(group, precisions) for group in quantisable.groups}
    propagated: dict[str, GroupScores] = {}
    taken = 0
    if scoring is Scoring.PROPAGATED:
        propagated, taken = propagated_scores(
            cast("PartLowerer", lowerer),
            backend,
            scored,
            offered,
            divergence_metric=scorer.divergence_metric,
            context=scorer.context,
            threads=threads,
            store=store,
            on_step=on_step,
        )
    all_fp32 = dict.fromkeys(offered, FP32)

    single_layer: dict[str, dict[Scheme, float]] = {}
    refused: dict[tuple[str, Scheme], str] = {}
    for group, schemes in offered.items():
        if group in propagated:
            single_layer[group] = propagated[group].single_layer()
            refused |= {(group, scheme): reason for scheme, reason in propagated[group].refused.items()}
            continue
        single_layer[group] = {FP32: 0.0}
        for scheme in schemes[1:]:
            try:
                single_layer[group][scheme] = float(scorer.score({**all_fp32, group: scheme}).mean())
            except RefusedError as error:
                refused[group, scheme] = error.reason
            on_step(f"{group} {scheme.text}")

    all_low = {group: lowest(scores) for group, scores in single_layer.items()}
    leave_one_out: dict[tuple[str, Scheme], tuple[float, float]] = {}
    for group, scores in single_layer.items():
        if group in propagated:
            found = propagated[group].leave_one_out
        else:
            found = _leave_one_out(scorer, all_low, group, scores)
            on_step(f"{group} restored")
        leave_one_out |= {(group, scheme): value for scheme, value in found.items()}

    rows = [
        SensitivityRow(
            group=group,
            scheme=scheme,
            single_layer=single_layer[group].get(scheme, math.nan),
            leave_one_out=leave_one_out.get((group, scheme), _NOT_MEASURED)[0],
            leave_one_out_error=leave_one_out.get((group, scheme), _NOT_MEASURED)[1],
            loss=math.nan,
            dropped=refused.get((group, scheme), ""),
        )
        for group, schemes in offered.items()
        for scheme in schemes
    ]
    return SensitivityTable(
        divergence_metric=scorer.divergence_metric, samples=taken or scorer.samples, rows=with_losses(rows)
    )


def _schemes(group: PrecisionGroup, precisions: Sequence[Precision]) -> tuple[Scheme, ...]:
    """FP32, then the group's other schemes of allowed precisions."""
    return (FP32, *(scheme for scheme in group.schemes if scheme != FP32 and scheme.precision in precisions))


def _leave_one_out(
    scorer: WholeNetworkScorer, all_low: Schemes, group: str, single_layer: Mapping[Scheme, float]
) -> dict[Scheme, tuple[float, float]]:
    """Leave-one-out scores of one group and their standard errors; only FP32's where the context cannot be scored.

    The score is infinite where the scheme's output is not finite in this context.
    """
    found = {FP32: (0.0, 0.0)}
    try:
        base = scorer.score({**all_low, group: FP32})
    except RefusedError:
        return found
    if not np.isfinite(base).all():
        return found
    for scheme in best_of_each_rank(single_layer).values():
        if scheme == FP32:
            continue
        try:
            difference = scorer.score({**all_low, group: scheme}) - base
        except RefusedError:
            continue  # refused for the sake of its neighbours' schemes: alone it ran
        found[scheme] = mean_and_error(difference) if np.isfinite(difference).all() else (math.inf, math.nan)
    return found
