"""Spaces of prunings and their losses: sparsities as further variables of the space.

Scored on the search's part of the evaluation data, without labels. On inputs that the network was trained on, as those
for calibration often are, it is so sure of itself that thinner early layers seem to cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bitfront.core import ContentStore, Inputs, Precision, digest
from bitfront.search.events import Listener
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.passes.prune import prune_groups
from bitfront.search.policy.config import PruningConfig
from bitfront.search.space.pruning import PruneVariable
from bitfront.search.variants.builder import VariantBuilder
from bitfront.search.variants.channel_alignment import dialect_writer, measure_channel_alignment
from bitfront.sensitivity.sparsity import SparsityTable, planned_sparsity_steps, score_sparsities, score_trained

if TYPE_CHECKING:
    from bitfront.passes.prune_groups import PruneGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneContext:
    """Values that scoring prunings needs.

    Attributes:
        runner: Runs the given network.
        listener: Hears of progress.
        store: The run's cache.
        unseen: Inputs that nothing is trained on.
        precisions: What layers may take.
        samples: Of each score.
        time_limit_s: The run's; None is none.
        config: How much is trained for it.
    """

    runner: ModelRunner
    listener: Listener
    store: ContentStore
    unseen: Inputs
    precisions: tuple[Precision, ...]
    samples: int
    time_limit_s: float | None
    config: PruningConfig


def prune_variables(
    context: PruneContext, builder: VariantBuilder, measure: str
) -> tuple[tuple[PruneVariable, ...], SparsityTable]:
    """Return a variable for each group that can be pruned, and the table that its losses are from.

    Args:
        context: What it takes.
        builder: Makes variants; its pruning gets the multiple of channels that is found here.
        measure: What losses are measured in: that of the precisions.

    Raises:
        ModelError: If the module cannot be traced.
    """
    runner, passes, options = context.runner, builder.context, builder.options.pruning
    assert options is not None, "pruning takes part"
    multiple = _channel_multiple(context) if options.round_to is None else options.round_to
    builder.options = builder.options.replacing(replace(options, round_to=multiple))
    with runner.watch.timed(Kind.CALIBRATION):
        groups = prune_groups(passes)
        context.listener.phase("sparsity", planned_sparsity_steps(groups, levels=options.sparsities, round_to=multiple))
        table = score_sparsities(
            passes.base,
            groups,
            passes.data,
            context.unseen,
            levels=options.sparsities,
            round_to=multiple,
            samples=context.samples,
            divergence_metric=measure,
            store=context.store,
            key=digest(runner.lowerer.reference.fingerprint, passes.data_digest),
            on_step=context.listener.step,
            importance=options.importance,
        )
    table = _after_training(context, builder, table)
    prunes = _variables(runner, groups, table, multiple)
    if not prunes:
        context.listener.warn("no channels or branches of this network can be pruned: sparsity.csv has the reasons")
    return prunes, table


def _channel_multiple(context: PruneContext) -> int:
    """Time which multiple of channels the runtime's kernels like."""
    runner = context.runner
    context.listener.phase("channel counts", None)
    with runner.watch.timed(Kind.INFERENCE):
        return measure_channel_alignment(
            runner.backend,
            dialect_writer(runner.lowerer.dialect, runner.lowerer.reference.interpreter),
            threads=runner.threads,
            store=context.store,
            precisions=[p for p in (Precision.FP32, Precision.INT8) if p in context.precisions],
            batch_size=runner.batch_size,
        ).multiple


def _variables(
    runner: ModelRunner, groups: Sequence[PruneGroup], table: SparsityTable, multiple: int
) -> tuple[PruneVariable, ...]:
    layers = {layer.name for layer in runner.lowerer.quantisable.layers}
    found = {group.name: group for group in groups}
    prunes = []
    for name, losses in table.losses().items():
        kept = [found[name].parts(sparsity, multiple) for sparsity in losses]
        touched = [layer for layer in found[name].layers if layer in layers]
        if len(losses) > 1 and touched:
            prunes.append(
                PruneVariable(
                    name=name,
                    sparsities=tuple(losses),
                    losses=tuple(losses.values()),
                    trained=name in table.trained_groups,
                    parts={layer: tuple(fractions.get(layer, 1.0) for fractions in kept) for layer in touched},
                )
            )
    return tuple(prunes)


def _after_training(context: PruneContext, builder: VariantBuilder, table: SparsityTable) -> SparsityTable:
    """The table with what training takes back of each loss, where the user's own budget has time to find out."""
    options, groups = builder.options, sum(len(losses) > 1 for losses in table.losses().values())
    if not options.recovery or options.train_budget_s is None or not groups:
        return table
    config = context.config
    limit_s = min(options.train_budget_s, context.time_limit_s or math.inf)
    least, most = config.training_steps
    steps = min(int(config.training_fraction * limit_s / (groups * builder.seconds_per_step)), most)
    if steps < least:
        return table
    context.listener.phase("sparsity, trained", groups)
    with context.runner.watch.timed(Kind.TRAINING):
        return score_trained(
            table,
            builder.context.base,
            {name: array[: config.training_samples] for name, array in context.unseen.items()},
            lambda sparsity: builder.pipeline.module_of([builder.prune_step(sparsity), builder.training_step(steps)]),
            context.listener.warn,
        )
