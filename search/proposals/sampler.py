"""The sampler of the study: proposes what has not been tried and should extend the measured front.

A proposal is the candidate with the best score (``surrogate``) among a pool of moves (``moves``) from
members of the front, members within the budget first; now and then it is any of the pool, because scores come
from models. What the latency model, refitted after every measurement, sees over the limit by more than it errs is not
built, unless all of the pool is: some runtimes take minutes for a build. All knowledge is read back from the study's
trials, and the draws of a trial depend on the seed and the trial's number alone, so a resumed study proposes what the
uninterrupted one would have.

Where networks may be pruned, proposals are for the networks that were made; only where the caller says that a new one
may be made now are there proposals for others too.

Not handled: parameters outside the space (drawn at random), and parallel trials beyond not repeating each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from bitfront.core import Constraints
from bitfront.search.proposals.history import History
from bitfront.search.proposals.moves import draw, flip, mutate, proposable, reprune, resolve, swap, transfer
from bitfront.search.proposals.surrogate import Surrogate
from bitfront.search.space.prune_space import Levels
from bitfront.search.space.space import Encoding, Space

_POOL = {"swap": 12, "flip": 12, "mutate": 12, "resolve": 1}  # candidates a move gives to one proposal
_TRANSFERS = 8  # likewise, where more than one network was made
_REPRUNES = 8  # and where one may be made now; the first is a joint re-solve
_SURPRISE = 0.1  # share of proposals taken from the pool without regard to scores
_NEAR_LIMIT = (0.8, 1.03)  # re-solves aim between these multiples of a budget
_DEEPEST = 0.5  # of what precisions alone reach, where a joint re-solve without a budget may aim
_ENUMERABLE = 20_000
_DRAWS = 200


class FrontSampler(BaseSampler):
    """Multi-objective sampler over a ``Space``; ask with ``space.distributions()``.

    Args:
        space: What may be decided.
        budget: Limits, the accuracy's a floor (``Constraints.absolute``); the volume within them counts most.
        seed: Of every random draw.
        prunings: Tells the levels of the networks that were made; the given network alone by default.
        fresh: Tells whether a new pruning may be proposed now; never by default.
    """

    def __init__(
        self,
        space: Space,
        budget: Constraints | None = None,
        seed: int = 0,
        prunings: Callable[[], Sequence[Levels]] | None = None,
        fresh: Callable[[], bool] | None = None,
    ) -> None:
        self._space = space
        self._prunings = prunings or (lambda: [(0,) * len(space.prunes)])
        self._fresh = fresh or (lambda: False)
        self._budget = budget or Constraints()
        assert self._budget.max_drop is None, "a drop is from the given network's accuracy, which is not in the study"
        self._seed = seed
        self._random = RandomSampler(seed)
        self._move = ""

    @property
    def move(self) -> str:
        """Which move the last proposal came from: one of ``moves``, or random; empty before the first."""
        return self._move

    def exhausted(self, study: Study) -> bool:
        """Whether everything that may be proposed was tried; asking then repeats something at random."""
        if self._count() > _ENUMERABLE:
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

    def _networks(self) -> list[Levels]:
        """Canonical levels of the networks that proposals may be for without making one."""
        groups = (0,) * len(self._space.groups)
        found = (self._space.levels(self._space.canonical((*groups, *levels))) for levels in self._prunings())
        return list(dict.fromkeys(found))

    def _propose(self, history: History, rng: np.random.Generator) -> Encoding:
        surrogate, networks, fresh = Surrogate(self._space, self._budget, history), self._networks(), self._fresh()
        pool: dict[Encoding, str] = {}
        for move, encoding in self._candidates(surrogate, history, networks, fresh, rng):
            if encoding not in history.tried and (fresh or self._space.levels(encoding) in networks):
                pool.setdefault(encoding, move)
        if not pool:
            self._move = "random"
            return self._unexplored(history, networks, rng)
        encodings = [encoding for encoding in pool if not surrogate.too_slow(encoding)] or list(pool)
        scores = surrogate.scores(encodings)
        if rng.random() < _SURPRISE or scores.max() <= 0:
            chosen = encodings[int(rng.integers(len(encodings)))]
        else:
            chosen = encodings[int(np.argmax(scores))]
        self._move = pool[chosen]
        return chosen

    def _candidates(
        self,
        surrogate: Surrogate,
        history: History,
        networks: Sequence[Levels],
        fresh: bool,
        rng: np.random.Generator,
    ) -> Iterator[tuple[str, Encoding]]:
        space, problem = self._space, surrogate.problem
        members = [record.encoding for record in surrogate.front]
        start = members or [space.encode(assignment) for _, assignment in space.baselines()]
        start = [proposable(space, encoding) for encoding in start]
        within = [proposable(space, r.encoding) for r in surrogate.front if surrogate.limits.met_by(r)]
        counts = _POOL | {"transfer": _TRANSFERS if len(networks) > 1 else 0, "reprune": _REPRUNES if fresh else 0}
        for move, number in ((move, number) for move, count in counts.items() for number in range(count)):
            pick = within if within and rng.random() < 0.5 else start
            member = pick[int(rng.integers(len(pick)))]
            if move == "swap":
                encoding = swap(problem, space, member, rng)
            elif move == "flip":
                encoding = flip(space, member, rng)
            elif move == "mutate":
                encoding = mutate(space, member, rng)
            elif move == "transfer":
                encoding = transfer(space, member, _any(networks, rng))
            elif move == "reprune" and number > 0:
                encoding = reprune(space, member, rng)
            else:
                fixed = _any(networks, rng) if move == "resolve" else None
                ratio, size = self._targets(surrogate, fixed, rng)
                encoding = resolve(problem, ratio, size, history.tried, rng, fixed)
            if encoding is not None:
                yield move, encoding

    def _targets(
        self, surrogate: Surrogate, levels: Levels | None, rng: np.random.Generator
    ) -> tuple[float | None, float | None]:
        """Limits for a re-solve: near the budgets, or anywhere between a network's extremes where there is none.

        Without ``levels`` it is for a network of any pruning.
        """
        space, problem, limits = self._space, surrogate.problem, surrogate.limits
        uniform = [space.schemes(space.encode(assignment)) for _, assignment in space.baselines()]
        encodings = [space.canonical((*schemes, *(levels or (0,) * len(space.prunes)))) for schemes in uniform]
        ratios = sorted(problem.ratio(encoding) for encoding in encodings)
        sizes = sorted(problem.size(encoding) for encoding in encodings)
        if levels is None:
            ratios[0], sizes[0] = _DEEPEST * ratios[0], _DEEPEST * sizes[0]
        near = float(rng.uniform(*_NEAR_LIMIT))
        ratio = limits.ratio * near if limits.ratio is not None else float(rng.uniform(ratios[0], ratios[-1]))
        size = limits.size_bytes * near if limits.size_bytes is not None else float(rng.uniform(sizes[0], sizes[-1]))
        # An objective without a budget is left free half of the time, never both at once.
        free = rng.random(2) < 0.5
        if limits.ratio is None and free[0] and (limits.size_bytes is not None or not free[1]):
            return None, size
        if limits.size_bytes is None and free[1]:
            return ratio, None
        return ratio, size

    def _unexplored(self, history: History, networks: Sequence[Levels], rng: np.random.Generator) -> Encoding:
        for _ in range(_DRAWS):
            encoding = draw(self._space, rng, _any(networks, rng))
            if encoding not in history.tried:
                return encoding
        if self._count() <= _ENUMERABLE:
            left = [encoding for encoding in self._everything() if encoding not in history.tried]
            if left:
                return left[int(rng.integers(len(left)))]
        return draw(self._space, rng, _any(networks, rng))

    def _count(self) -> int:
        """How many encodings may be proposed, equal networks counted apart."""
        if self._fresh():
            return self._space.cardinality
        return math.prod(len(group.proposed) for group in self._space.groups) * len(self._networks())

    def _everything(self) -> Iterator[Encoding]:
        """What may be proposed, equal networks repeated."""
        space = self._space
        networks = product(*(range(len(p.sparsities)) for p in space.prunes)) if self._fresh() else self._networks()
        for levels in networks:
            for schemes in product(*(group.proposed for group in space.groups)):
                yield space.canonical((*schemes, *levels))


def _any(networks: Sequence[Levels], rng: np.random.Generator) -> Levels:
    return networks[int(rng.integers(len(networks)))] if len(networks) > 1 else networks[0]
