"""The sampler of the study: proposes what has not been tried and should extend the measured front.

A proposal is the candidate with the best score (``surrogate``) in a pool of mutations (``mutations``) of the front's
members, those within the limits first; now and then it is any of the pool, because scores come from models. What the
latency model, refitted after every measurement, sees over the limit even at the fast end of its spread is not built,
unless all of the pool is: some runtimes take minutes for a build. All knowledge is read back from the study's trials,
and the draws of a trial depend on the seed and the trial's number alone, so a resumed study proposes what the
uninterrupted one would have.

Where networks may be pruned, proposals are for the variants that the executor says were made (``VariantOffer``); only
where it says that a new one may be made now are there proposals for others too.

Not handled: parameters outside the space (drawn at random), and parallel trials beyond not repeating each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from bitfront.core import Constraints
from bitfront.search.policy.config import DEFAULTS, SamplerConfig
from bitfront.search.proposals.history import History
from bitfront.search.proposals.mutations import (
    draw,
    move_to_pruning,
    mutate_groups,
    mutate_pruning,
    proposable,
    set_segment,
    solve_perturbed,
    trade_precisions,
)
from bitfront.search.proposals.surrogate import Surrogate
from bitfront.search.space.pruning import SparsityIndices
from bitfront.search.space.space import Encoding, Space


class Operator(StrEnum):
    """Mutation that a proposal came from."""

    TRADE = "trade"
    SEGMENT = "segment"
    MUTATION = "mutation"
    SOLVE = "solve"
    TRANSFER = "transfer"
    PRUNING = "pruning"
    RANDOM = "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantOffer:
    """The variants that may be proposed at the moment.

    Attributes:
        prunings: Sparsity indices of those that were made; the network without pruning is always among them.
        may_add: Whether a pruning may be proposed that was not made.
    """

    prunings: tuple[SparsityIndices, ...] = ()
    may_add: bool = False


class FrontSampler(BaseSampler):
    """Multi-objective sampler over a ``Space``; ask with ``space.distributions()``.

    Args:
        space: What may be decided.
        budget: Limits, the accuracy's a floor (``Constraints.absolute``); the volume within them counts most.
        seed: Of every random draw.
        config: Sizes of the pool, and how it is judged.

    Attributes:
        offer: The variants that may be proposed; the executor sets it before it asks.
    """

    def __init__(
        self,
        space: Space,
        budget: Constraints | None = None,
        seed: int = 0,
        config: SamplerConfig = DEFAULTS.sampler,
    ) -> None:
        self._space = space
        self._config = config
        self.offer = VariantOffer()
        self._budget = budget or Constraints()
        assert self._budget.max_drop is None, "a drop is from the given network's accuracy, which is not in the study"
        self._seed = seed
        self._random = RandomSampler(seed)
        self._operator: Operator | None = None

    @property
    def operator(self) -> Operator | None:
        """Operator that the last proposal came from; None before the first."""
        return self._operator

    def exhausted(self, study: Study) -> bool:
        """Whether everything that may be proposed was tried; asking then repeats something at random."""
        if self._count() > self._config.enumerable:
            return False
        tried = History.of(self._space, study).tried
        return all(encoding in tried for encoding in self._everything())

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space, whatever the study has seen."""
        del study, trial
        return self._space.distributions()

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose one assignment and pruning, as ``Space.to_params`` writes them."""
        del search_space
        encoding = self._propose(History.of(self._space, study), np.random.default_rng([self._seed, trial.number]))
        return dict(self._space.to_params(self._space.decode(encoding), self._space.pruning(encoding)))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter that is not the space's at random."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _prunings(self) -> list[SparsityIndices]:
        """Canonical sparsity indices that proposals may have without a new variant."""
        space = self._space
        groups, unpruned = (0,) * len(space.groups), (0,) * len(space.prunes)
        offered = (unpruned, *self.offer.prunings)
        found = (space.sparsity_indices(space.canonical((*groups, *indices))) for indices in offered)
        return list(dict.fromkeys(found))

    def _propose(self, history: History, rng: np.random.Generator) -> Encoding:
        surrogate = Surrogate(self._space, self._budget, history, self._config.surrogate)
        prunings, may_add = self._prunings(), self.offer.may_add
        pool: dict[Encoding, Operator] = {}
        for operator, encoding in self._candidates(surrogate, history, prunings, rng):
            if encoding not in history.tried and (may_add or self._space.sparsity_indices(encoding) in prunings):
                pool.setdefault(encoding, operator)
        if not pool:
            self._operator = Operator.RANDOM
            return self._unexplored(history, prunings, rng)
        encodings = [encoding for encoding in pool if not surrogate.too_slow(encoding)] or list(pool)
        scores = surrogate.scores(encodings)
        if rng.random() < self._config.random_fraction or scores.max() <= 0:
            chosen = encodings[int(rng.integers(len(encodings)))]
        else:
            chosen = encodings[int(np.argmax(scores))]
        self._operator = pool[chosen]
        return chosen

    def _candidates(
        self,
        surrogate: Surrogate,
        history: History,
        prunings: Sequence[SparsityIndices],
        rng: np.random.Generator,
    ) -> Iterator[tuple[Operator, Encoding]]:
        space, problem, config = self._space, surrogate.problem, self._config
        members = [seen.encoding for seen in surrogate.front]
        start = members or [space.encode(assignment) for _, assignment in space.baselines()]
        start = [proposable(space, encoding) for encoding in start]
        within = [proposable(space, r.encoding) for r in surrogate.front if surrogate.limits.met_by(r)]
        counts = {
            Operator.TRADE: config.trades,
            Operator.SEGMENT: config.segments,
            Operator.MUTATION: config.mutations,
            Operator.SOLVE: config.solves,
            Operator.TRANSFER: config.transfers if len(prunings) > 1 else 0,
            Operator.PRUNING: config.prunings if self.offer.may_add else 0,
        }
        for operator, number in ((operator, n) for operator, count in counts.items() for n in range(count)):
            pick = within if within and rng.random() < config.within_fraction else start
            member = pick[int(rng.integers(len(pick)))]
            if operator is Operator.TRADE:
                encoding = trade_precisions(problem, space, member, rng, config)
            elif operator is Operator.SEGMENT:
                encoding = set_segment(space, member, rng, config)
            elif operator is Operator.MUTATION:
                encoding = mutate_groups(space, member, rng, config)
            elif operator is Operator.TRANSFER:
                encoding = move_to_pruning(space, member, _any(prunings, rng))
            elif operator is Operator.PRUNING and number > 0:
                encoding = mutate_pruning(space, member, rng, config)
            else:  # a solve, and the first of the new prunings, which leaves the pruning free
                fixed = _any(prunings, rng) if operator is Operator.SOLVE else None
                ratio, size = self._targets(surrogate, fixed, rng)
                encoding = solve_perturbed(problem, ratio, size, history.tried, rng, fixed, config)
            if encoding is not None:
                yield operator, encoding

    def _targets(
        self, surrogate: Surrogate, indices: SparsityIndices | None, rng: np.random.Generator
    ) -> tuple[float | None, float | None]:
        """Draw limits for a solve: near the budgets, or anywhere between a variant's extremes where there is none.

        Without ``indices`` it is for a variant of any pruning.
        """
        space, problem, limits = self._space, surrogate.problem, surrogate.limits
        uniform = [space.schemes(space.encode(assignment)) for _, assignment in space.baselines()]
        encodings = [space.canonical((*schemes, *(indices or (0,) * len(space.prunes)))) for schemes in uniform]
        ratios = sorted(problem.ratio(encoding) for encoding in encodings)
        sizes = sorted(problem.size(encoding) for encoding in encodings)
        if indices is None:
            ratios[0], sizes[0] = self._config.deepest * ratios[0], self._config.deepest * sizes[0]
        near = float(rng.uniform(*self._config.near_limit))
        ratio = limits.ratio * near if limits.ratio is not None else float(rng.uniform(ratios[0], ratios[-1]))
        size = limits.size_bytes * near if limits.size_bytes is not None else float(rng.uniform(sizes[0], sizes[-1]))
        # Never both at once.
        free = rng.random(2) < self._config.free_fraction
        if limits.ratio is None and free[0] and (limits.size_bytes is not None or not free[1]):
            return None, size
        if limits.size_bytes is None and free[1]:
            return ratio, None
        return ratio, size

    def _unexplored(self, history: History, prunings: Sequence[SparsityIndices], rng: np.random.Generator) -> Encoding:
        for _ in range(self._config.draws):
            encoding = draw(self._space, rng, _any(prunings, rng))
            if encoding not in history.tried:
                return encoding
        if self._count() <= self._config.enumerable:
            left = [encoding for encoding in self._everything() if encoding not in history.tried]
            if left:
                return left[int(rng.integers(len(left)))]
        return draw(self._space, rng, _any(prunings, rng))

    def _count(self) -> int:
        """Count the encodings that may be proposed, equal networks apart."""
        if self.offer.may_add:
            return self._space.cardinality
        return math.prod(len(group.proposed) for group in self._space.groups) * len(self._prunings())

    def _everything(self) -> Iterator[Encoding]:
        """Yield what may be proposed, equal networks repeated."""
        space = self._space
        every = product(*(range(len(p.sparsities)) for p in space.prunes))
        for indices in every if self.offer.may_add else self._prunings():
            for schemes in product(*(group.proposed for group in space.groups)):
                yield space.canonical((*schemes, *indices))


def _any(prunings: Sequence[SparsityIndices], rng: np.random.Generator) -> SparsityIndices:
    return prunings[int(rng.integers(len(prunings)))] if len(prunings) > 1 else prunings[0]
