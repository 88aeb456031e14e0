"""How a sampler gets from what it knows to something new: moves over index tuples.

    swap     raise one group, lower another at about equal predicted cost: along the front
    flip     a run of neighbouring groups to one precision: across the valley that boundaries dig around single groups
    mutate   one to three groups to anything
    resolve  solve again under log-normally re-weighted losses: the table may be wrong about a group, and this is the
             way to find out (SPDY, Frantar & Alistarh, ICML 2022, §3.2: search over per-layer coefficients that a
             budgeted solver turns into candidates)
    transfer the same precisions on another network that was made by pruning
    reprune  one to three prune variables a level up or down: a network that is still to be made

All but the last two stay on the network they start from, or are given. Each returns None where it found nothing to do.
None of them looks at what was tried.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from bitfront.core import Precision
from bitfront.search.proposals.problem import Problem
from bitfront.search.proposals.solver import solve
from bitfront.search.space.prune_space import Levels
from bitfront.search.space.space import Encoding, GroupSpace, Space

_SWAP_TRIALS = 16  # partners a swap looks at
_SWAP_SCHEMES = 3  # and how many best-balanced ones it is drawn from
_WEIGHT_SPREAD = 0.8  # standard deviation of the logarithm of a loss's weight
_SOLVE_LIMIT_S = 0.5
_SOLVE_GAP = 0.01  # the weights are random anyway


def swap(problem: Problem, space: Space, encoding: Encoding, rng: np.random.Generator) -> Encoding | None:
    """Lower one group's loss and raise another's, so that predicted latency and size stay about the same."""
    left = space.remaining(encoding)
    changes = [(g, c) for g, group in enumerate(space.groups) if left[g] for c in group.proposed if c != encoding[g]]
    loss = {(g, c): problem.losses[g][c] - problem.losses[g][encoding[g]] for g, c in changes}
    raises = [change for change in changes if loss[change] < 0]
    if not raises:
        return None
    better = raises[int(rng.integers(len(raises)))]
    lowers = [change for change in changes if loss[change] >= 0 and change[0] != better[0]]
    if not lowers:
        return None
    raised = _with(encoding, better)
    here_ratio, here_size = problem.ratio(encoding), problem.size(encoding)

    def imbalance(change: tuple[int, int]) -> float:
        both = _with(raised, change)
        return abs(problem.ratio(both) / here_ratio - 1) + abs(problem.size(both) / max(here_size, 1.0) - 1)

    looked_at = [lowers[i] for i in rng.permutation(len(lowers))[:_SWAP_TRIALS].tolist()]
    ranked = sorted(looked_at, key=lambda change: (imbalance(change), change))[:_SWAP_SCHEMES]
    return _with(raised, ranked[int(rng.integers(len(ranked)))])


def flip(space: Space, encoding: Encoding, rng: np.random.Generator) -> Encoding | None:
    """Set a run of neighbouring groups to one precision, as far as each offers it."""
    count = len(space.groups)
    if not count:
        return None
    length = min(1 + int(rng.geometric(min(1.0, 3.0 / count))), count)
    start = int(rng.integers(count - length + 1))
    level = list(Precision)[int(rng.integers(len(Precision)))]
    run = range(start, start + length)
    schemes = (_step(group, level) if g in run else encoding[g] for g, group in enumerate(space.groups))
    new = space.canonical((*schemes, *space.levels(encoding)))
    return new if new != encoding else None


def mutate(space: Space, encoding: Encoding, rng: np.random.Generator) -> Encoding | None:
    """Give one to three groups any other scheme."""
    left = space.remaining(encoding)
    movable = [g for g, group in enumerate(space.groups) if len(group.proposed) > 1 and left[g]]
    if not movable:
        return None
    new = encoding
    for g in rng.choice(movable, size=min(int(rng.integers(1, 4)), len(movable)), replace=False).tolist():
        others = [c for c in space.groups[g].proposed if c != encoding[g]]
        new = _with(new, (g, others[int(rng.integers(len(others)))]))
    return new


def resolve(
    problem: Problem,
    max_ratio: float | None,
    max_bytes: float | None,
    tried: frozenset[Encoding],
    rng: np.random.Generator,
    fixed: Levels | None = None,
) -> Encoding | None:
    """The best untried solution under randomly re-weighted losses, on the network of ``fixed`` or on any."""
    weights = np.exp(_WEIGHT_SPREAD * rng.standard_normal(len(problem.losses) + problem.variables))
    return solve(
        problem,
        max_ratio=max_ratio,
        max_bytes=max_bytes,
        weights=weights.tolist(),
        fixed=fixed,
        tried=tried,
        gap=_SOLVE_GAP,
        time_limit_s=_SOLVE_LIMIT_S,
    )


def transfer(space: Space, encoding: Encoding, levels: Levels) -> Encoding | None:
    """The same precisions at other levels; groups that were gone take the precision that most of the others have."""
    left, schemes = space.remaining(encoding), space.schemes(encoding)
    rows = list(zip(space.groups, schemes, left, strict=True))
    taken = Counter(group.schemes[c].precision for group, c, part in rows if part)
    common = max(taken, key=lambda level: taken[level], default=Precision.FP32)
    revived = (c if part else _step(group, common) for group, c, part in rows)
    new = space.canonical((*revived, *levels))
    return new if new != encoding else None


def reprune(space: Space, encoding: Encoding, rng: np.random.Generator) -> Encoding | None:
    """Take one to three prune variables a level up or down."""
    levels = list(space.levels(encoding))
    movable = [p for p, prune in enumerate(space.prunes) if len(prune.sparsities) > 1]
    if not movable:
        return None
    for p in rng.choice(movable, size=min(int(rng.integers(1, 4)), len(movable)), replace=False).tolist():
        up = bool(rng.integers(2)) if levels[p] < len(space.prunes[p].sparsities) - 1 else False
        levels[p] += 1 if up or levels[p] == 0 else -1
    return transfer(space, encoding, tuple(levels))


def draw(space: Space, rng: np.random.Generator, levels: Levels | None = None) -> Encoding:
    """Any assignment, every choice of a group alike, at ``levels``; on the network as it was given by default."""
    schemes = [group.proposed[int(rng.integers(len(group.proposed)))] for group in space.groups]
    return space.canonical((*schemes, *((0,) * len(space.prunes) if levels is None else levels)))


def proposable(space: Space, encoding: Encoding) -> Encoding:
    """``encoding`` with every scheme that a baseline alone may use replaced by the one that dominates it."""
    rows = zip(space.groups, space.schemes(encoding), strict=True)
    return (*(c if c in group.proposed else _alike(group, c) for group, c in rows), *space.levels(encoding))


def _with(encoding: Encoding, change: tuple[int, int]) -> Encoding:
    group, scheme = change
    return (*encoding[:group], scheme, *encoding[group + 1 :])


def _step(group: GroupSpace, level: Precision) -> int:
    """The group's best scheme at ``level``; where a baseline alone may use it, the one that dominates it."""
    lead = group.lead(level)
    return lead if lead in group.proposed else _alike(group, lead)


def _alike(group: GroupSpace, scheme: int) -> int:
    """The best scheme that may be proposed and runs in the same arithmetic."""
    alike = [c for c in group.proposed if group.arithmetic[c] is group.arithmetic[scheme]]
    return min(alike, key=lambda c: (group.losses[c], group.size_bytes[c]))
