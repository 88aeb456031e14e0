"""What may be pruned, and what it costs: sparsities as further variables of the space.

Scored on the search's part of the evaluation data, without labels. On inputs that the network was trained on, as those
for calibration often are, it is so sure of itself that thinner early layers seem to cost nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

from bitfront.backends.channel_alignment import dialect_writer, preferred_multiple
from bitfront.core import Precision, digest
from bitfront.search.proposals.prune_space import PruneSpace
from bitfront.search.proposals.space import Space
from bitfront.search.session import Session
from bitfront.search.stopwatch import Kind
from bitfront.search.variants.made import Making
from bitfront.sensitivity.sparsity import SparsityTable, planned_sparsity_steps, score_sparsities, score_trained

_TRAINED_PART = 0.15  # of the training budget, or of the time limit if that is less
_TRAINED_STEPS = (8, 40)  # fewer tell nothing, more tell little else
_TRAINED_SAMPLES = 1024  # what training leaves is small next to how samples differ


def prune_spaces(session: Session, making: Making, space: Space, measure: str) -> Space:
    """The space with a variable for each prune group; written as ``sparsity.csv`` too.

    Args:
        session: The run's things.
        making: Knows the groups.
        space: Of precisions.
        measure: What losses are measured in: that of the precisions.

    Raises:
        ModelError: If the module cannot be traced.
    """
    runner, options, maker = session.runner, making.options, making.maker
    multiple = options.round_to
    if multiple is None:
        session.listener.phase("channel counts", None)
        with runner.watch.timed(Kind.INFERENCE):
            multiple = preferred_multiple(
                runner.backend,
                dialect_writer(runner.lowerer.dialect),
                threads=runner.threads,
                store=session.store,
                precisions=[p for p in (Precision.FP32, Precision.INT8) if p in session.options.precisions],
                batch_size=runner.batch_size,
            ).multiple
    maker.round_to = multiple
    with runner.watch.timed(Kind.CALIBRATION):
        groups = maker.groups
        session.listener.phase("sparsity", planned_sparsity_steps(groups, levels=options.sparsities, round_to=multiple))
        table = score_sparsities(
            maker.module,
            groups,
            maker.data,
            session.unseen,
            levels=options.sparsities,
            round_to=multiple,
            samples=session.options.sensitivity_samples,
            divergence_metric=measure,
            store=session.store,
            key=digest(runner.lowerer.reference.fingerprint, maker.data_digest),
            on_step=session.listener.step,
            importance=options.importance,
        )
    table = _after_training(session, making, table)
    session.record.write_sparsity(table)
    layers = {layer.name for layer in runner.lowerer.quantisable.layers}
    found = {group.name: group for group in groups}
    prunes = []
    for name, losses in table.losses().items():
        shares = [found[name].parts(sparsity, multiple) for sparsity in losses]
        touched = [layer for layer in found[name].layers if layer in layers]
        if len(losses) > 1 and touched:
            prunes.append(
                PruneSpace(
                    name=name,
                    sparsities=tuple(losses),
                    losses=tuple(losses.values()),
                    trained=name in table.trained_groups,
                    parts={layer: tuple(share.get(layer, 1.0) for share in shares) for layer in touched},
                )
            )
    if not prunes:
        session.listener.warn("no channels or branches of this network can be pruned: sparsity.csv has the reasons")
    return replace(space, prunes=tuple(prunes))


def _after_training(session: Session, making: Making, table: SparsityTable) -> SparsityTable:
    """The table with what training takes back of each loss, where the user's own budget has time to find out."""
    options, groups = making.options, sum(len(losses) > 1 for losses in table.losses().values())
    if not options.distil or options.train_budget_s is None or not groups:
        return table
    limit_s = min(options.train_budget_s, session.options.time_limit_s or math.inf)
    least, most = _TRAINED_STEPS
    steps = min(int(_TRAINED_PART * limit_s / (groups * making.pace_s)), most)
    if steps < least:
        return table
    session.listener.phase("sparsity, trained", groups)
    with session.runner.watch.timed(Kind.TRAINING):
        return score_trained(
            table,
            making.maker.module,
            {name: array[:_TRAINED_SAMPLES] for name, array in session.unseen.items()},
            lambda sparsity: making.maker.trained(sparsity, steps),
            session.listener.warn,
        )
