"""Variants that structural passes propose: sparse weights, students. Each has a space of its own.

It races like a pruned variant, at uniform precisions; once it has had its full training, precisions for its layers are
solved for under the same constraints. Latencies are ratios to the given network's.
"""

from __future__ import annotations

from itertools import islice

from bitfront.core import Precision
from bitfront.search.execution.sensitivities import score_network, space_of
from bitfront.search.execution.variants import VariantExecutor
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.passes.base import StructuralPass
from bitfront.search.policy.variant import VariantState
from bitfront.search.proposals import seeds
from bitfront.search.space.space import Space
from bitfront.search.trial import Origin

UNIFORM = (Precision.FP32, Precision.INT8, Precision.INT4)


def enter_proposals(executor: VariantExecutor, structural: StructuralPass) -> None:
    """Make every variant that a pass proposes, try it, and let it race.

    One without anything of the given network's is made only where there is time to train it.
    """
    for proposal in structural.proposals(executor.builder.context):
        if structural.from_scratch and (executor.explorers[""].late or not executor.may_train):
            return
        variant = executor.make(proposal.label, [proposal.step], architecture=proposal.architecture)
        if variant is None:
            continue
        given = executor.explorers[""].space
        space = own_space(executor, variant) if structural.own_layers else given.with_prunes(())
        executor.open_explorer(variant, space)
        executor.enter(variant, [space.uniform(precision) for precision in UNIFORM])


def refine(executor: VariantExecutor, variant: VariantState) -> None:
    """Solve for a trained variant's precisions under the constraints, and try what comes of it."""
    explorer, trials, config = executor.explorer_of(variant), executor.trials, executor.policy.seeding
    tried = {explorer.encoding(trial) for trial in variant.trials}
    solved = seeds.solver_seeds(
        explorer.space,
        explorer.model,
        max_ratio=trials.max_ratio,
        max_bytes=trials.constraints.size_bytes,
        config=config,
    )
    with trials.watch.timed(Kind.SOLVER):
        found = list(islice(seeds.distinct(explorer.space, [solved], tried), config.student_seeds))
    executor.try_on(variant, [schemes for _, schemes in found], origin=Origin.STUDENT)


def own_space(executor: VariantExecutor, variant: VariantState) -> Space:
    """Return the space of a variant with layers of its own, losses scored on it as it is now."""
    context = executor.context.sensitivities
    samples = min(context.samples, executor.policy.seeding.student_samples)
    return space_of(context.runner, score_network(context, variant.id, samples), context.precisions, variant.id)
