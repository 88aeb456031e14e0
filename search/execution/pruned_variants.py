"""Solves for the pruned variants that are made on purpose, target by target (``policy.targets``).

Of several solutions that nearly add up to the same, each is pruned, not trained, and its divergence from the given
network measured: the one that diverges least is made. The sum of losses keeps its say because a divergence hardly grows
any more once a network is broken, while it still matters how badly. Losses that were measured after training are added
up as they are: what a whole pruning costs before training would say the opposite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bitfront.core import EngineError
from bitfront.search.execution.explorer import Explorer
from bitfront.search.execution.variants import VariantExecutor
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.policy.targets import (
    Costs,
    Target,
    least_costs,
    next_target,
    perturbed,
    pruning_loss,
    variant_outcomes,
)
from bitfront.search.proposals.history import History
from bitfront.search.proposals.seeds import joint_seeds
from bitfront.search.proposals.surrogate import Surrogate
from bitfront.search.space.space import Encoding, Space
from bitfront.sensitivity.divergence import divergence
from bitfront.sensitivity.sparsity import torch_outputs

Solver = Callable[[Space, Target], Encoding | None]


def starting_bounds(executor: VariantExecutor) -> tuple[Costs, Costs]:
    """Return the least of each cost that precisions alone reach, and the run's limits of them."""
    own = [t for t in executor.explorers[""].trials if t.measured and not t.candidate.variant]
    ratio, size_bytes = executor.trials.max_ratio, executor.trials.constraints.size_bytes
    limits = Costs(ratio if ratio is not None else math.inf, size_bytes if size_bytes is not None else math.inf)
    return least_costs(own), limits


def target_of(executor: VariantExecutor, number: int, bounds: tuple[Costs, Costs]) -> Target | None:
    """Return the limits to solve for next, by what all variants came to so far; None where there are none left.

    Args:
        executor: Of the run's variants.
        number: Of the target, from 0.
        bounds: As they were before the first target.
    """
    resources = executor.resources if executor.builder.options.recovery else None
    given, limits = bounds
    return next_target(
        number,
        given=given,
        limits=limits,
        outcomes=variant_outcomes(executor.variants, executor.evidence, resources, executor.policy.targets),
        config=executor.policy.targets,
    )


def solved(executor: VariantExecutor, target: Target, number: int, solver: Solver) -> Encoding | None:
    """Return the pruning and precisions to make a variant of; None where the target cannot be met.

    Args:
        executor: Of the run's variants.
        target: Limits.
        number: Of the target, for the random numbers.
        solver: What solves.
    """
    space, config = executor.explorers[""].space, executor.policy.targets
    first = solver(space, target)
    trained = any(prune.trained for prune in space.prunes)
    if first is None or trained or executor.unit < config.least_steps:
        return first
    generator = np.random.default_rng([executor.trials.seed, number])
    most = config.loss_slack * pruning_loss(space, first)
    encodings = {space.sparsity_indices(first): first}
    for _ in range(config.perturbations):
        encoding = solver(perturbed(space, generator, config), target)
        if encoding is not None and pruning_loss(space, encoding) <= most:
            encodings.setdefault(space.sparsity_indices(encoding), encoding)
    return _least_harmful(executor, list(encodings.values())) if len(encodings) > 1 else first


def solver_of(explorer: Explorer) -> Solver:
    """Return a solver that goes by what is known of latency, size and training so far."""
    context, policy = explorer.context, explorer.context.policy
    model, overhead = explorer.model(), explorer.overhead
    with context.watch.timed(Kind.SOLVER):
        history = History.of(explorer.space, explorer.study.live)
        limits = context.evaluator.limits
        weight = Surrogate(explorer.space, limits, history, policy.sampler.surrogate).prune_weight

    def solution(space: Space, target: Target) -> Encoding | None:
        with context.watch.timed(Kind.SOLVER):
            stream = joint_seeds(
                space,
                model,
                [target.ratio],
                [target.size_bytes],
                prune_weight=weight,
                overhead=overhead,
                config=policy.seeding,
            )
            return next(stream, None)

    return solution


def _least_harmful(executor: VariantExecutor, encodings: Sequence[Encoding]) -> Encoding:
    """The one whose pruning diverges least from the given network before training, on inputs nothing was trained on."""
    context, builder, space = executor.context, executor.builder, executor.explorers[""].space
    inputs = {name: array[: context.divergence_samples] for name, array in context.unseen.items()}
    losses = []
    with executor.trials.watch.timed(Kind.CALIBRATION):
        reference = torch_outputs(builder.context.base, inputs)
        for encoding in encodings:
            try:
                pruned = builder.pipeline.module_of([builder.prune_step(space.pruning(encoding))])
            except EngineError:
                losses.append(math.inf)
                continue
            assert pruned is not None, "nothing is trained"
            answers = torch_outputs(pruned, inputs)
            loss = float(divergence(context.measure, reference, answers).mean())
            losses.append(loss if math.isfinite(loss) else math.inf)
    return encodings[int(np.argmin(losses))]
