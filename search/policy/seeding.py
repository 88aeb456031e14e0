"""Order in which a search starts: what other searches found, then greedy, segment and solver seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from bitfront.core import Scheme
from bitfront.search.policy.config import DEFAULTS, SeedingConfig
from bitfront.search.proposals import seeds
from bitfront.search.proposals.file_overhead import FileOverhead
from bitfront.search.proposals.latency_model import LatencyModel
from bitfront.search.space.space import Assignment, Encoding, Space
from bitfront.search.trial import Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedingState:
    """State that seeding goes by.

    Attributes:
        tried: What needs no further trial.
        solved: Solver seeds among that.
        max_ratio: Latency limit over the given network's latency; None is none.
        max_bytes: Size limit; None is none.
        overhead: What files hold besides weights.
        seed: Of the segments.
        fraction: Of the usual numbers of seeds.
    """

    tried: frozenset[Encoding]
    solved: int
    max_ratio: float | None
    max_bytes: float | None
    overhead: FileOverhead
    seed: int
    fraction: float = 1.0


def seed_order(
    space: Space,
    state: SeedingState,
    starts: Iterable[Assignment],
    model: Callable[[], LatencyModel],
    config: SeedingConfig = DEFAULTS.seeding,
) -> Iterator[tuple[Origin, dict[str, Scheme]]]:
    """Yield what is worth trying first, lazily and without repeats.

    Args:
        space: The space.
        state: What was tried, and the limits.
        starts: Assignments that come first.
        model: Gives the latency model as it is by then; asked before each solve.
        config: How many of each.
    """

    def count(usual: int) -> int:
        return max(1, round(state.fraction * usual))

    solver = seeds.solver_seeds(
        space, model, max_ratio=state.max_ratio, max_bytes=state.max_bytes, overhead=state.overhead, config=config
    )
    streams = (
        ((Origin.OTHER_BACKEND, dict(assignment)) for assignment in starts),
        islice(seeds.greedy_seeds(space), count(config.greedy_seeds)),
        seeds.segment_seeds(space, np.random.default_rng(state.seed), count(config.segment_seeds), config),
        islice(solver, max(count(config.solver_seeds) - state.solved, 0)),
    )
    return seeds.distinct(space, streams, set(state.tried))
