"""A synthetic search problem with a known truth: what a sampler is judged on without a runtime.

It has what makes the real one hard. Losses span orders of magnitude and the table that a sampler sees is off by a
log-normal factor a group; neighbouring INT4 groups hurt more together than apart; accuracy falls with the summed
loss and flattens out; some groups gain nothing from integer arithmetic, and every boundary between domains costs about
what a group could save, so that a lone INT8 group is slower than none. FP16 is storage alone, or real arithmetic on a
runtime that has it. Timing carries noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitfront.core import FP16, FP32, SCHEMES
from bitfront.core.pareto import Objectives
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.space.space import ActivationType, Encoding, GroupSpace, Space

_INT8 = SCHEMES["int8:mse"]
_INT4 = SCHEMES["int4:gptq"]
_ACCURACY, _CHANCE = 0.92, 0.1
_REFERENCE_MS = 10.0
_OVERHEAD_BYTES = 20_000
_TIMING_NOISE = 0.01
_PAIR_FACTOR = 0.5  # extra loss of two neighbouring INT4 groups, as a share of the smaller one's


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthetic:
    """A synthetic search problem.

    Attributes:
        space: What a sampler sees, the erring losses included.
        losses: The true losses, one row a group.
        latency: True share of the latency in FP32 arithmetic, per group; sums to 1.
        left: ComputeType → share of it left, per group; what is not among them takes as long as FP32.
        boundary: What a boundary costs, per edge, over the whole latency.
        seed: Of the timing noise.
    """

    space: Space
    losses: tuple[tuple[float, ...], ...]
    latency: tuple[float, ...]
    left: Mapping[ComputeType, tuple[float, ...]]
    boundary: tuple[float, ...]
    seed: int

    @classmethod
    def random(cls, groups: int, seed: int, fp16: ComputeType = ComputeType.FP32) -> Synthetic:
        """A chain of ``groups`` groups with a shortcut over every third; ``fp16`` says what FP16 computes in."""
        rng = np.random.default_rng([groups, seed])
        weights = np.exp(rng.normal(9.0, 1.0, groups)).astype(int) + 64
        spaces, truth = [], []
        for g in range(groups):
            int8 = 10.0 ** rng.uniform(-5.0, -2.5)
            row = (0.0, int8 * 1e-2, int8, int8 * 10.0 ** rng.uniform(0.7, 2.0))
            truth.append(row)
            spaces.append(
                GroupSpace(
                    name=f"layer{g}",
                    schemes=(FP32, FP16, _INT8, _INT4),
                    losses=(0.0, *(loss * math.exp(rng.normal(0.0, 0.6)) for loss in row[1:])),
                    size_bytes=tuple(int(weights[g] * bits // 8) for bits in (32, 16, 8, 4)),
                    compute_types=(ComputeType.FP32, fp16, ComputeType.INT8, ComputeType.INT8),
                )
            )
        edges = sorted({(g, g + 1) for g in range(groups - 1)} | {(g, g + 3) for g in range(0, groups - 3, 3)})
        latency = rng.dirichlet(np.full(groups, 2.0))
        integer = np.where(rng.random(groups) < 0.2, 1.0, rng.uniform(0.2, 0.6, groups))
        boundary = rng.uniform(0.1, 0.7, len(edges)) / groups
        left = {ComputeType.INT8: tuple(integer.tolist())}
        if fp16 is ComputeType.FP16:
            left[ComputeType.FP16] = tuple(rng.uniform(0.4, 0.7, groups).tolist())
        return cls(
            space=Space(groups=tuple(spaces), edges=tuple(edges)),
            losses=tuple(truth),
            latency=tuple(latency.tolist()),
            left=left,
            boundary=tuple(boundary.tolist()),
            seed=seed,
        )

    def truth(self, encoding: Encoding) -> Objectives:
        """Accuracy, latency and size without noise."""
        schemes = [group.schemes[i] for group, i in zip(self.space.groups, encoding, strict=True)]
        kinds = [group.compute_types[i] for group, i in zip(self.space.groups, encoding, strict=True)]
        domains = [ActivationType.of(kind) for kind in kinds]
        ratio = sum(
            share * (self.left[kind][g] if kind in self.left else 1.0)
            for g, (share, kind) in enumerate(zip(self.latency, kinds, strict=True))
        )
        loss = sum(row[i] for row, i in zip(self.losses, encoding, strict=True))
        for (u, v), cost in zip(self.space.edges, self.boundary, strict=True):
            if domains[u] is not domains[v]:
                ratio += cost
            if schemes[u] == _INT4 == schemes[v]:
                loss += _PAIR_FACTOR * min(self.losses[u][encoding[u]], self.losses[v][encoding[v]])
        return Objectives(
            accuracy=_CHANCE + (_ACCURACY - _CHANCE) * math.exp(-1.5 * loss),
            latency_ms=_REFERENCE_MS * ratio,
            size_bytes=self.space.size_bytes(self.space.decode(encoding)) + _OVERHEAD_BYTES,
        )

    def measure(self, encoding: Encoding) -> Objectives:
        """``truth`` with the noise of a timing; the same for the same encoding."""
        exact = self.truth(encoding)
        noise = np.random.default_rng([self.seed, *encoding]).normal(0.0, _TIMING_NOISE)
        return Objectives(
            accuracy=exact.accuracy,
            latency_ms=exact.latency_ms * math.exp(noise),
            size_bytes=exact.size_bytes,
        )

    @property
    def reference(self) -> Objectives:
        """FP32 without noise."""
        return self.truth(tuple(0 for _ in self.space.groups))
