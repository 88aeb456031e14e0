"""Targets of latency and size that pruned variants are solved for, and the other losses they are solved with.

With a floor of accuracy the targets close in on the least latency, and the least size, of a variant that is expected to
reach it after its fine-tuning; without one they are fractions of what the given network reaches by precisions alone.

The solver adds up what each pruning costs alone. Several together cost something else, all branches of a stage far
more; so its solution is compared with solutions for slightly other losses whose sum is not much larger.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from bitfront.search.policy.config import DEFAULTS, TargetConfig
from bitfront.search.policy.fine_tuning import TrainingResources, training_multiple
from bitfront.search.policy.improvement import Evidence
from bitfront.search.policy.variant import VariantState
from bitfront.search.space.space import Encoding, Space
from bitfront.search.trial import Trial


class Costs(NamedTuple):
    """Costs of a candidate, or limits of them; infinite where there is none.

    Attributes:
        ratio: Latency over the given network's.
        size_bytes: Of the file.
    """

    ratio: float
    size_bytes: float


class Target(NamedTuple):
    """Limits to solve for; None is none."""

    ratio: float | None
    size_bytes: float | None


class VariantOutcome(NamedTuple):
    """Outcome of a variant: the least of each cost, and whether it is expected to reach the floor."""

    costs: Costs
    reaches_floor: bool


def next_target(
    number: int,
    *,
    given: Costs,
    limits: Costs,
    outcomes: Sequence[VariantOutcome] | None,
    config: TargetConfig = DEFAULTS.targets,
) -> Target | None:
    """Return the limits to solve for next; None where there are none left.

    Near the limits at first if they are out of the given network's reach; then within them, below what precisions
    reach.

    Args:
        number: Of this target, from 0.
        given: The least of each cost that precisions alone reach.
        limits: The run's.
        outcomes: Of the variants tried so far; None without a floor of accuracy.
        config: Fractions and multiples.
    """
    out_of_reach = limits.ratio < given.ratio or limits.size_bytes < given.size_bytes
    near = config.near_limits if out_of_reach else ()
    if number < len(near):
        return _target(limits.ratio * near[number][0], limits.size_bytes * near[number][1])
    index, for_size = divmod(number - len(near), 2)
    if index >= len(config.fractions):
        return None
    within = Costs(limits.ratio * config.near_limits[0][0], limits.size_bytes * config.near_limits[0][1])
    kind = 1 if for_size else 0
    wanted = list(within)
    known = None if outcomes is None else [(o.costs[kind], o.reaches_floor) for o in outcomes]
    wanted[kind] = min(_closing_in(given[kind], config.fractions[index], known, config), within[kind])
    return _target(*wanted)


def _target(ratio: float, size_bytes: float) -> Target:
    return Target(ratio if ratio < math.inf else None, size_bytes if size_bytes < math.inf else None)


def _closing_in(
    given: float, fraction: float, outcomes: Sequence[tuple[float, bool]] | None, config: TargetConfig
) -> float:
    """Target between the least cost that reaches the floor and the most below it that does not; else a fraction."""
    if outcomes is None:
        return given * fraction
    reached = min([given, *(cost for cost, reaches in outcomes if reaches)])
    missed = max([0.0, *(cost for cost, reaches in outcomes if not reaches and cost < reached)])
    return math.sqrt(reached * missed) if missed else reached * config.fractions[0]


def variant_outcomes(
    variants: Sequence[VariantState],
    evidence: Evidence,
    resources: TrainingResources | None,
    config: TargetConfig = DEFAULTS.targets,
) -> list[VariantOutcome] | None:
    """Outcome of each variant that was scored; None without a floor.

    Args:
        variants: Made so far.
        evidence: What is known of them.
        resources: Of the fine-tuning to come; None where there is none.
        config: The caution.
    """
    if not math.isfinite(evidence.floor):
        return None
    found = []
    for variant in variants:
        scored = [trial for trial in variant.trials if trial.accuracy and trial.latency]
        if scored:
            times = 1.0
            if resources is not None:
                shared_s = resources.config.shared_fraction * resources.left_s
                times = training_multiple(variant, shared_s, resources)
            expected = evidence.expected_accuracy(scored, times, config.caution)
            found.append(VariantOutcome(least_costs(scored), expected >= evidence.floor))
    return found


def least_costs(trials: Sequence[Trial]) -> Costs:
    """Return the least ratio and the least size of trials.

    Raises:
        ValueError: If there are none.
    """
    return Costs(
        min(trial.latency.ratio if trial.latency else math.inf for trial in trials),
        min(float(trial.size_bytes or math.inf) for trial in trials),
    )


def perturbed(space: Space, generator: np.random.Generator, config: TargetConfig = DEFAULTS.targets) -> Space:
    """Return the space with other losses of prunings, each group's by one log-normal factor."""
    factors = np.exp(generator.normal(0, config.perturbation_spread, len(space.prunes)))
    prunes = (
        replace(prune, losses=tuple(float(factor * loss) for loss in prune.losses))
        for prune, factor in zip(space.prunes, factors, strict=True)
    )
    return replace(space, prunes=tuple(prunes))


def pruning_loss(space: Space, encoding: Encoding) -> float:
    """Return the sum of the losses of a solution's prunings."""
    indices = space.sparsity_indices(encoding)
    return math.fsum(prune.losses[index] for prune, index in zip(space.prunes, indices, strict=True))
