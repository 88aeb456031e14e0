"""Architectures of the user's own: each is trained by distillation and has a space of its own.

A student races like a pruned variant, at uniform precisions; once it has had its full training, precisions for its
layers are solved for under the same constraints. Latencies are ratios to the given network's.
"""

from __future__ import annotations

from itertools import islice

from bitfront.core import Precision
from bitfront.search.execution.sensitivities import score_network, space_of
from bitfront.search.execution.variants import VariantExecutor
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.policy.variant import Variant
from bitfront.search.proposals import seeds
from bitfront.search.space.space import Space
from bitfront.search.trial import Origin

UNIFORM = (Precision.FP32, Precision.INT8, Precision.INT4)


def enter_students(executor: VariantExecutor) -> None:
    """Make every student, try it, and let it race."""
    making = executor.making
    if not making.options.distil:
        return
    for name in making.maker.students:
        if executor.explorers[""].late or not executor.may_train:
            return
        variant = executor.make(f"student {name}", [making.maker.student_step(name)], architecture=name)
        if variant is None:
            continue
        space = student_space(executor, variant)
        executor.open_explorer(variant, space)
        executor.enter(variant, [space.uniform(precision) for precision in UNIFORM])


def refine(executor: VariantExecutor, variant: Variant) -> None:
    """Solve for a trained student's precisions under the constraints, and try what comes of it."""
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


def student_space(executor: VariantExecutor, variant: Variant) -> Space:
    """Return the space of a student's precisions, their losses scored on it as it is now."""
    context, network = executor.context.sensitivities, variant.network
    samples = min(context.samples, executor.policy.seeding.student_samples)
    return space_of(context.runner, score_network(context, network, samples), context.precisions, network)
