"""Seeds of a search: assignments worth measuring before a sampler has anything to learn from.

    baselines      uniform precisions, the yardstick
    greedy_seeds   a uniform low precision with the k most sensitive groups, or the first or last k, one step higher
    segment_seeds  random contiguous segments of one compute type each: the mixes of few conversions that tell a
                   group's own latency from its conversions' (seeded)
    solver_seeds   least summed loss under a grid of limits, nearest to the user's first
    joint_seeds    the same over precisions and prunings: variants worth making, each with its precisions

Each is a lazy stream of (origin, assignment), of encodings where networks are pruned, so a caller can interleave them,
stop any time, and refit the latency model between two solver seeds; ``distinct`` joins streams without repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from bitfront.core import Precision, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.policy.config import DEFAULTS, SeedingConfig
from bitfront.search.proposals.file_overhead import NO_FILE_OVERHEAD, FileOverhead
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import LatencyModel
from bitfront.search.proposals.solver import solve
from bitfront.search.space.space import COMPUTE_ORDER, Encoding, Space
from bitfront.search.trial import Origin

Seed = tuple[Origin, dict[str, Scheme]]  # origin, assignment


def distinct(space: Space, streams: Iterable[Iterable[Seed]], tried: set[Encoding]) -> Iterator[Seed]:
    """The streams one after the other without what is in ``tried``, to which each yielded assignment is added."""
    for stream in streams:
        for origin, assignment in stream:
            encoding = space.encode(assignment)
            if encoding not in tried:
                tried.add(encoding)
                yield origin, assignment


def greedy_seeds(space: Space) -> Iterator[Seed]:
    """Uniform INT8 and INT4 with k = 1, 2, 4 … groups one step higher.

    The k groups are the most sensitive ones at the low precision, the first ones, or the last ones. All small k
    come before any large k. Nothing is yielded for a precision that no group offers.
    """
    count = len(space.groups)
    orders = [
        (low, high, order)
        for low, high in ((Precision.INT8, Precision.FP16), (Precision.INT4, Precision.INT8))
        if any(group.schemes[group.lead(low)].precision is low for group in space.groups)
        for order in (ranking(space, low), range(count), range(count - 1, -1, -1))
    ]
    k = 1
    while k < count:
        for low, high, order in orders:
            raised = set(order[:k])
            yield (
                Origin.GREEDY,
                space.decode(tuple(g.lead(high if i in raised else low) for i, g in enumerate(space.groups))),
            )
        k *= 2


def ranking(space: Space, precision: Precision) -> Sequence[int]:
    """Indices of the groups by their loss at ``precision``, most sensitive first, ties in the network's order."""
    losses = [group.losses[group.lead(precision)] for group in space.groups]
    return sorted(range(len(losses)), key=lambda i: (-losses[i], i))


def segment_seeds(
    space: Space, rng: np.random.Generator, count: int, config: SeedingConfig = DEFAULTS.seeding
) -> Iterator[Seed]:
    """Yield ``count`` mixes of 2 to ``most_segments`` contiguous segments, each of another compute type."""
    groups, sides = len(space.groups), _levels(space)
    if groups < 2 or len(sides) < 2:
        return
    for _ in range(count):
        segments = int(rng.integers(2, min(config.most_segments, groups) + 1))
        cuts = sorted(rng.choice(np.arange(1, groups), size=segments - 1, replace=False).tolist())
        side = int(rng.integers(len(sides)))
        encoding: list[int] = []
        for start, stop in zip((0, *cuts), (*cuts, groups), strict=True):
            levels = sides[side]
            level = levels[int(rng.integers(len(levels)))]
            encoding += [group.lead(level) for group in space.groups[start:stop]]
            side = (side + 1 + int(rng.integers(len(sides) - 1))) % len(sides)
        yield Origin.SEGMENTS, space.decode(tuple(encoding))


def _levels(space: Space) -> list[list[Precision]]:
    """Precisions by the arithmetic that they bring about, the most preferred one that any group reaches."""
    sides: dict[ComputeType, list[Precision]] = {}
    for precision in Precision:
        reached = [group.compute_types[group.lead(precision)] for group in space.groups]
        sides.setdefault(min(reached, key=COMPUTE_ORDER.index, default=ComputeType.FP32), []).append(precision)
    return list(sides.values())


def solver_seeds(
    space: Space,
    model: Callable[[], LatencyModel],
    *,
    max_ratio: float | None,
    max_bytes: float | None,
    overhead: FileOverhead = NO_FILE_OVERHEAD,
    config: SeedingConfig = DEFAULTS.seeding,
) -> Iterator[Seed]:
    """Solutions of least summed loss under a grid of budgets.

    Args:
        space: The space.
        model: Gives the latency model to solve with; asked before each solve, so that a refit counts.
        max_ratio: The latency limit over the given network's latency; None spans the reachable range.
        max_bytes: The size budget of the whole file; None likewise.
        overhead: What files hold besides the groups' weights.
        config: Multiples of a limit, and grid points where there is none.
    """
    ratios = _near(max_ratio, config) or (None, *_latency_steps(space, model(), config.grid_steps))
    sizes = _near(max_bytes, config) or (None, *_size_steps(space, overhead, config.grid_steps))
    for ratio, size in _pairs(ratios, sizes):
        problem = IlpInstance.of(space, model(), overhead)
        encoding = solve(problem, max_ratio=ratio, max_bytes=size, fixed=(0,) * len(space.prunes))
        if encoding is not None:
            yield Origin.SOLVER, space.decode(encoding)


def joint_seeds(
    space: Space,
    model: LatencyModel,
    ratios: Sequence[float | None],
    sizes: Sequence[float | None],
    *,
    prune_weight: float = 1.0,
    overhead: FileOverhead = NO_FILE_OVERHEAD,
    config: SeedingConfig = DEFAULTS.seeding,
) -> Iterator[Encoding]:
    """Solutions of least summed loss over precisions and prunings, each of another pruning, none unpruned.

    Args:
        space: The space.
        model: The latency model to solve with.
        ratios: Limits over the given network's latency; None is none. Each is tried with each of ``sizes``, the first
            ones first.
        sizes: Limits of the whole file in bytes; None is none.
        prune_weight: How much of a pruning's loss is left after training.
        overhead: What files hold besides the groups' weights.
        config: The optimality gap.
    """
    problem = IlpInstance.of(space, model, overhead, prune_weight)
    seen = {(0,) * len(space.prunes)}
    for ratio, size in _pairs(ratios, sizes):
        encoding = solve(problem, max_ratio=ratio, max_bytes=size, gap=config.joint_gap)
        if encoding is not None and space.sparsity_indices(encoding) not in seen:
            seen.add(space.sparsity_indices(encoding))
            yield encoding


def _pairs(
    ratios: Sequence[float | None], sizes: Sequence[float | None]
) -> Iterator[tuple[float | None, float | None]]:
    """Every limit with every other, the first ones first; without the pair of no limit at all, which is FP32."""
    indices = ((i, j) for i in range(len(ratios)) for j in range(len(sizes)))
    for i, j in sorted(indices, key=lambda pair: (pair[0] + pair[1], pair)):
        if ratios[i] is not None or sizes[j] is not None:
            yield ratios[i], sizes[j]


def _near(limit: float | None, config: SeedingConfig) -> tuple[float | None, ...]:
    return () if limit is None else tuple(limit * factor for factor in config.limit_multiples)


def _latency_steps(space: Space, model: LatencyModel, steps: int) -> tuple[float, ...]:
    fastest = min(model.predict(assignment) for _, assignment in space.baselines())
    slowest = model.base
    if all(kind is ComputeType.FP32 for group in space.groups for kind in group.compute_types):
        return ()  # everything runs at FP32's speed
    return tuple(np.linspace(fastest, slowest, steps + 1)[:-1].tolist())


def _size_steps(space: Space, overhead: FileOverhead, steps: int) -> tuple[float, ...]:
    sizes = [overhead.sizes(group) for group in space.groups]
    smallest = sum(map(min, sizes)) + overhead.base
    largest = sum(row[0] for row in sizes) + overhead.base
    return tuple(np.geomspace(max(smallest, 1.0), max(largest, 1.0), steps + 1)[:-1].tolist())
