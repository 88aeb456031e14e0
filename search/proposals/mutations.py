"""Mutation operators over encodings: how a sampler gets from what it knows to something new.

    trade_precisions  raise one group, lower another at about equal predicted cost: along the front
    set_segment       contiguous groups to one precision: across the valley that conversions dig around single groups
    mutate_groups     a few groups to any scheme
    solve_perturbed   solve again under log-normally re-weighted losses: the table may be wrong about a group, and this
                      is the way to find out (SPDY, Frantar & Alistarh, ICML 2022, §3.2: search over per-layer
                      coefficients that a budgeted solver turns into candidates)
    move_to_pruning   the same precisions on another variant that was made by pruning
    mutate_pruning    a few prune variables a sparsity up or down: a variant that is still to be made

All but the last two keep the pruning of their start, or the given one. Each returns None where it found nothing to do;
none looks at what was tried.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from bitfront.core import Precision
from bitfront.search.policy.config import DEFAULTS, SamplerConfig
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.solver import solve
from bitfront.search.space.pruning import SparsityIndices
from bitfront.search.space.space import Encoding, GroupSpace, Space


def trade_precisions(
    problem: IlpInstance,
    space: Space,
    encoding: Encoding,
    rng: np.random.Generator,
    config: SamplerConfig = DEFAULTS.sampler,
) -> Encoding | None:
    """Lower one group's loss and raise another's, so that predicted latency and size stay about the same."""
    left = space.kept_fractions(encoding)
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

    looked_at = [lowers[i] for i in rng.permutation(len(lowers))[: config.trade_partners].tolist()]
    ranked = sorted(looked_at, key=lambda change: (imbalance(change), change))[: config.trade_choices]
    return _with(raised, ranked[int(rng.integers(len(ranked)))])


def set_segment(
    space: Space, encoding: Encoding, rng: np.random.Generator, config: SamplerConfig = DEFAULTS.sampler
) -> Encoding | None:
    """Set contiguous groups to one precision, as far as each offers it."""
    count = len(space.groups)
    if not count:
        return None
    length = min(1 + int(rng.geometric(min(1.0, config.segment_divisor / count))), count)
    start = int(rng.integers(count - length + 1))
    level = list(Precision)[int(rng.integers(len(Precision)))]
    run = range(start, start + length)
    schemes = (_step(group, level) if g in run else encoding[g] for g, group in enumerate(space.groups))
    new = space.canonical((*schemes, *space.sparsity_indices(encoding)))
    return new if new != encoding else None


def mutate_groups(
    space: Space, encoding: Encoding, rng: np.random.Generator, config: SamplerConfig = DEFAULTS.sampler
) -> Encoding | None:
    """Draw another scheme for one to ``most_changes`` groups."""
    left = space.kept_fractions(encoding)
    movable = [g for g, group in enumerate(space.groups) if len(group.proposed) > 1 and left[g]]
    if not movable:
        return None
    new = encoding
    for g in _some(movable, rng, config):
        others = [c for c in space.groups[g].proposed if c != encoding[g]]
        new = _with(new, (g, others[int(rng.integers(len(others)))]))
    return new


def solve_perturbed(
    problem: IlpInstance,
    max_ratio: float | None,
    max_bytes: float | None,
    tried: frozenset[Encoding],
    rng: np.random.Generator,
    fixed: SparsityIndices | None = None,
    config: SamplerConfig = DEFAULTS.sampler,
) -> Encoding | None:
    """Return the best untried solution under randomly re-weighted losses, at the pruning ``fixed`` or at any."""
    weights = np.exp(config.weight_spread * rng.standard_normal(len(problem.losses) + problem.variables))
    return solve(
        problem,
        max_ratio=max_ratio,
        max_bytes=max_bytes,
        weights=weights.tolist(),
        fixed=fixed,
        tried=tried,
        gap=config.solve_gap,
        time_limit_s=config.solve_limit_s,
    )


def move_to_pruning(space: Space, encoding: Encoding, pruning: SparsityIndices) -> Encoding | None:
    """Keep the precisions at another pruning; groups that were gone take the precision that most of the others have."""
    left, schemes = space.kept_fractions(encoding), space.schemes(encoding)
    rows = list(zip(space.groups, schemes, left, strict=True))
    taken = Counter(group.schemes[c].precision for group, c, part in rows if part)
    common = max(taken, key=lambda level: taken[level], default=Precision.FP32)
    revived = (c if part else _step(group, common) for group, c, part in rows)
    new = space.canonical((*revived, *pruning))
    return new if new != encoding else None


def mutate_pruning(
    space: Space, encoding: Encoding, rng: np.random.Generator, config: SamplerConfig = DEFAULTS.sampler
) -> Encoding | None:
    """Take one to ``most_changes`` prune variables a sparsity up or down."""
    indices = list(space.sparsity_indices(encoding))
    movable = [p for p, prune in enumerate(space.prunes) if len(prune.sparsities) > 1]
    if not movable:
        return None
    for p in _some(movable, rng, config):
        up = bool(rng.integers(2)) if indices[p] < len(space.prunes[p].sparsities) - 1 else False
        indices[p] += 1 if up or indices[p] == 0 else -1
    return move_to_pruning(space, encoding, tuple(indices))


def draw(space: Space, rng: np.random.Generator, pruning: SparsityIndices | None = None) -> Encoding:
    """Draw any assignment, every scheme of a group alike, at a pruning; by default none is pruned."""
    schemes = [group.proposed[int(rng.integers(len(group.proposed)))] for group in space.groups]
    return space.canonical((*schemes, *((0,) * len(space.prunes) if pruning is None else pruning)))


def proposable(space: Space, encoding: Encoding) -> Encoding:
    """Replace every scheme that a baseline alone may use by the one that dominates it."""
    rows = zip(space.groups, space.schemes(encoding), strict=True)
    return (*(c if c in group.proposed else _alike(group, c) for group, c in rows), *space.sparsity_indices(encoding))


def _some(movable: list[int], rng: np.random.Generator, config: SamplerConfig) -> list[int]:
    count = min(int(rng.integers(1, config.most_changes + 1)), len(movable))
    found: list[int] = rng.choice(movable, size=count, replace=False).tolist()
    return found


def _with(encoding: Encoding, change: tuple[int, int]) -> Encoding:
    group, scheme = change
    return (*encoding[:group], scheme, *encoding[group + 1 :])


def _step(group: GroupSpace, level: Precision) -> int:
    """The group's best scheme at ``level``; where a baseline alone may use it, the one that dominates it."""
    lead = group.lead(level)
    return lead if lead in group.proposed else _alike(group, lead)


def _alike(group: GroupSpace, scheme: int) -> int:
    """The best scheme that may be proposed and runs in the same arithmetic."""
    alike = [c for c in group.proposed if group.compute_types[c] is group.compute_types[scheme]]
    return min(alike, key=lambda c: (group.losses[c], group.size_bytes[c]))
