"""Instance for the solver: loss, predicted latency, bytes of every assignment and pruning, from a few coefficients.

======  =================================================================================================
symbol  meaning
======  =================================================================================================
r_g     part of group g that stays, from the levels of the prune variables; 1 where nothing is pruned
loss    Σ_g loss_gc over the groups that stay + ρ·Σ_p loss_ps
ratio   base + Σ_g [latency_gc·r_g − scaling_g·(1 − r_g)] + Σ_e boundary_e + Σ_p branch_p over the p at sparsity 1
size    overhead + Σ_g bytes_gc·r_g
======  =================================================================================================

with e over the edges between groups that stay and whose domains differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitfront.search.proposals.file_overhead import NO_FILE_OVERHEAD, FileOverhead
from bitfront.search.proposals.latency_model import LatencyModel
from bitfront.search.space.pruning import PruningEffects, SparsityIndices
from bitfront.search.space.space import ActivationType, Encoding, Space

_UNPRUNABLE = PruningEffects(members=(), prunes=())


@dataclass(frozen=True, slots=True, kw_only=True)
class IlpInstance:
    """Coefficients, one row a group and one entry a scheme.

    Attributes:
        losses: loss_gc ≥ 0.
        latency: latency_gc, in units of the given network's latency, as are all that follow.
        sizes: bytes_gc, with what a scheme brings besides weights.
        domains: What the scheme reads and writes: an edge whose ends differ in it is a boundary.
        allowed: Whether the scheme may be taken.
        edges: Pairs of group indices.
        boundary: boundary_e.
        overhead_bytes: What every file holds besides.
        base: Predicted ratio where every coefficient is 0.
        pruning_effects: What pruning leaves of the groups; its variables are the problem's.
        scaling: scaling_g; empty where nothing may be pruned.
        branches: branch_p; empty likewise.
        prune_weight: ρ, what is left of a pruning's loss after training.
    """

    losses: tuple[tuple[float, ...], ...]
    latency: tuple[tuple[float, ...], ...]
    sizes: tuple[tuple[float, ...], ...]
    domains: tuple[tuple[ActivationType, ...], ...]
    allowed: tuple[tuple[bool, ...], ...]
    edges: tuple[tuple[int, int], ...] = ()
    boundary: tuple[float, ...] = ()
    overhead_bytes: float = 0.0
    base: float = 1.0
    pruning_effects: PruningEffects = _UNPRUNABLE
    scaling: tuple[float, ...] = ()
    branches: tuple[float, ...] = ()
    prune_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, rows in (("loss", self.losses), ("latency", self.latency), ("size", self.sizes)):
            for group, row in enumerate(rows):
                if not all(map(math.isfinite, row)):
                    raise ValueError(f"{name} of group {group} must be finite, got {row}")
        if not all(map(math.isfinite, (*self.boundary, self.overhead_bytes, self.base))):
            raise ValueError(f"boundary, overhead and base must be finite, got {self.boundary}")
        if not all(map(math.isfinite, (*self.scaling, *self.branches, self.prune_weight))) or self.prune_weight < 0:
            raise ValueError(
                "scaling, branches and a prune weight of at least 0 must be finite, "
                f"got {self.scaling}, {self.branches} and {self.prune_weight}"
            )
        if self.pruning_effects.prunes and (len(self.scaling), len(self.branches)) != (
            len(self.losses),
            self.variables,
        ):
            raise ValueError(
                "expected a scaling cost a group and a branch cost a prune variable, "
                f"got {len(self.scaling)} and {len(self.branches)}"
            )
        if len(self.edges) != len(self.boundary):
            raise ValueError(f"expected one boundary cost an edge, got {len(self.boundary)} for {len(self.edges)}")

    @classmethod
    def of(
        cls, space: Space, model: LatencyModel, overhead: FileOverhead = NO_FILE_OVERHEAD, prune_weight: float = 1.0
    ) -> IlpInstance:
        """The problem a space and a latency model pose."""
        return cls(
            losses=tuple(group.losses for group in space.groups),
            latency=tuple(
                tuple(model.scheme_cost(g, c) for c in range(len(group.schemes)))
                for g, group in enumerate(space.groups)
            ),
            sizes=tuple(overhead.sizes(group) for group in space.groups),
            domains=tuple(tuple(map(ActivationType.of, group.compute_types)) for group in space.groups),
            allowed=tuple(tuple(c not in group.baseline_only for c in group.schemes) for group in space.groups),
            edges=space.edges,
            boundary=model.boundary,
            overhead_bytes=overhead.base,
            base=model.base,
            pruning_effects=space.pruning_effects,
            scaling=model.scaling,
            branches=model.branches,
            prune_weight=prune_weight,
        )

    @property
    def variables(self) -> int:
        """Number of prune variables."""
        return len(self.pruning_effects.prunes)

    def loss(self, encoding: Encoding) -> float:
        """Summed loss of a solution, a pruning's by the prune weight, groups and variables otherwise unweighted."""
        schemes, levels, left = self._parts(encoding)
        rows = [row[c] for row, c, part in zip(self.losses, schemes, left, strict=True) if part]
        pruned = zip(self.pruning_effects.prunes, levels, strict=True)
        return math.fsum((*rows, *(self.prune_weight * prune.losses[level] for prune, level in pruned)))

    def ratio(self, encoding: Encoding) -> float:
        """Predicted latency of a solution over the given network's."""
        schemes, levels, left = self._parts(encoding)
        costs = (self.cost(g, c, part) for g, (c, part) in enumerate(zip(schemes, left, strict=True)))
        domains = [row[c] for row, c in zip(self.domains, schemes, strict=True)]
        edges = zip(self.edges, self.boundary, strict=True)
        crossed = (cost for (u, v), cost in edges if left[u] and left[v] and domains[u] != domains[v])
        removed = (self.removal(p, level) for p, level in enumerate(levels))
        return math.fsum((self.base, *costs, *crossed, *removed))

    def size(self, encoding: Encoding) -> float:
        """Bytes of a solution, overhead included."""
        schemes, _, left = self._parts(encoding)
        rows = zip(self.sizes, schemes, left, strict=True)
        return math.fsum((self.overhead_bytes, *(row[c] * part for row, c, part in rows)))

    def cost(self, group: int, scheme: int, part: float) -> float:
        """Part of the ratio that comes of a group of which ``part`` stays, boundaries apart."""
        whole = self.latency[group][scheme]
        return whole if part == 1 else whole * part - self.scaling[group] * (1 - part)

    def removal(self, variable: int, level: int) -> float:
        """Part of the ratio that comes of a prune variable by itself."""
        return self.branches[variable] if self.pruning_effects.prunes[variable].sparsities[level] == 1 else 0.0

    def _parts(self, encoding: Encoding) -> tuple[Encoding, SparsityIndices, tuple[float, ...]]:
        """Schemes, levels and what stays of each group."""
        groups = len(self.losses)
        levels = encoding[groups:]
        return encoding[:groups], levels, self.pruning_effects.groups(levels) if any(levels) else (1.0,) * groups


def keeps(problem: IlpInstance, encoding: Encoding, max_ratio: float | None, max_bytes: float | None) -> bool:
    """Whether a solution keeps both limits, evaluated in plain arithmetic."""
    return (max_ratio is None or problem.ratio(encoding) <= max_ratio) and (
        max_bytes is None or problem.size(encoding) <= max_bytes
    )
