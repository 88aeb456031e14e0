"""Prunings that a search may decide: a sparsity a prune group, with its loss and what it leaves of each layer.

A prune variable cuts across precision groups: the channels that go between two convolutions take rows of the one and
columns of the other, a residual branch takes all its layers. What is left of a layer is the product of what each
variable leaves; what is left of a precision group is the mean over its layers, weighted by their FP32 bytes.

======  =====================================================  =================
symbol  meaning                                                shape
======  =====================================================  =================
s_p     level of prune variable p: an index, 0 prunes nothing  (variables,)
q_lp    part of layer l that stays at p's level                1 where p spares l
r_g     Σ_l share_l·Π_p q_lp over the layers l of group g      (groups,)
======  =====================================================  =================

Different levels may be one network: where a branch is gone, so are the channels inside it. Of such levels the
canonical ones are those in which a variable whose layers are all gone through others prunes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitfront.core import ConfigError

Pruning = Mapping[str, float]  # prune group → sparsity; a missing one is 0
SparsityIndices = tuple[int, ...]  # index into each prune variable's sparsities, in the space's order of variables

PREFIX = "prune:"  # of the names of prune variables among Optuna's parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneVariable:
    """Sparsities of one prune group, with their losses.

    Attributes:
        name: The prune group's name.
        sparsities: 0 first, ascending; 1 removes the whole (a residual branch).
        losses: Loss of each, ≥ 0, in the measure of the precisions' losses; 0 first.
        parts: Layer name → share of the layer's weights and multiply-adds that stays, one a sparsity: 1 first, 0 where
            the layer is gone.
        trained: Whether the losses are what a short training leaves.
    """

    name: str
    sparsities: tuple[float, ...]
    losses: tuple[float, ...]
    parts: Mapping[str, tuple[float, ...]]
    trained: bool = False

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip(self.sparsities, self.sparsities[1:], strict=False))
        if not self.sparsities or self.sparsities[0] != 0 or not ascending or self.sparsities[-1] > 1:
            raise ValueError(f"prune group '{self.name}': expected sparsities from 0 upwards, got {self.sparsities}")
        finite = all(math.isfinite(loss) and loss >= 0 for loss in self.losses)
        if len(self.losses) != len(self.sparsities) or not finite or self.losses[0] != 0:
            raise ValueError(f"prune group '{self.name}': expected a loss a sparsity, 0 first, got {self.losses}")
        if not self.parts:
            raise ValueError(f"prune group '{self.name}': expected at least one layer")
        for layer, parts in self.parts.items():
            within = all(0 <= part <= 1 for part in parts)
            if len(parts) != len(self.sparsities) or not within or parts[0] != 1:
                raise ValueError(
                    f"prune group '{self.name}': expected a share of '{layer}' a sparsity, 1 first, got {parts}"
                )

    @property
    def texts(self) -> tuple[str, ...]:
        """The sparsities as Optuna's categories."""
        return tuple(f"{sparsity:g}" for sparsity in self.sparsities)

    @property
    def param(self) -> str:
        """The variable's name among Optuna's parameters."""
        return PREFIX + self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningEffects:
    """Parts of the groups that prunings leave.

    Attributes:
        members: Per group: layer name → its share of the group's FP32 bytes; they sum to 1.
        prunes: The prune variables.
    """

    members: tuple[Mapping[str, float], ...]
    prunes: tuple[PruneVariable, ...]

    def layers(self, levels: SparsityIndices) -> dict[str, float]:
        """Layer name → the part of it that stays; layers that are not pruned are left out."""
        left: dict[str, float] = {}
        for prune, level in zip(self.prunes, levels, strict=True):
            if level:
                for layer, parts in prune.parts.items():
                    left[layer] = left.get(layer, 1.0) * parts[level]
        return left

    def groups(self, levels: SparsityIndices) -> tuple[float, ...]:
        """The part of each group that stays: exactly 1 where nothing is pruned, exactly 0 where all is gone."""
        if not any(levels):
            return (1.0,) * len(self.members)
        left = self.layers(levels)
        return tuple(self.part(group, left) for group in range(len(self.members)))

    def part(self, group: int, left: Mapping[str, float]) -> float:
        """The part of one group that stays where ``layers`` are left so."""
        members = self.members[group]
        parts = [left.get(layer, 1.0) for layer in members]
        lost = math.fsum(share * (1 - part) for share, part in zip(members.values(), parts, strict=True))
        return 1 - lost if any(parts) else 0.0

    def touching(self, group: int) -> tuple[int, ...]:
        """Indices of the variables that leave less than all of a group at some level."""
        return tuple(
            p
            for p, prune in enumerate(self.prunes)
            if any(min(prune.parts.get(layer, (1.0,))) < 1 for layer in self.members[group])
        )

    def covers(self, variable: int) -> tuple[tuple[int, int], ...]:
        """(other variable, its level) where the other one alone removes all layers of ``variable``."""
        return tuple(
            (other, level)
            for other, prune in enumerate(self.prunes)
            if other != variable
            for level in range(len(prune.sparsities))
            if all(layer in prune.parts and prune.parts[layer][level] == 0 for layer in self.prunes[variable].parts)
        )

    def canonical(self, encoding: tuple[int, ...]) -> tuple[int, ...]:
        """The encoding (schemes, then levels) that stands for all those of the same network and precisions.

        Of variables that remove the same layers, the one that removes more stays; a group that is gone takes scheme 0.
        """
        schemes, levels = encoding[: len(self.members)], list(encoding[len(self.members) :])
        if not (self.prunes and any(levels)):
            return encoding
        for p in sorted(range(len(levels)), key=lambda p: (len(self.prunes[p].parts), -p)):
            if levels[p]:
                without = self.layers((*levels[:p], 0, *levels[p + 1 :]))
                if all(without.get(layer) == 0 for layer in self.prunes[p].parts):
                    levels[p] = 0
        left = self.groups(tuple(levels))
        return (*(scheme if part else 0 for scheme, part in zip(schemes, left, strict=True)), *levels)

    def sparsity_indices(self, pruning: Pruning) -> SparsityIndices:
        """Indices of a pruning's sparsities.

        Raises:
            ConfigError: If a variable or its sparsity is not the space's.
        """
        offered = {prune.name: prune.sparsities for prune in self.prunes}
        for name, sparsity in pruning.items():
            if sparsity not in offered.get(name, (0.0,)):
                raise _not_offered(name, f"{sparsity:g}", [f"{s:g}" for s in offered.get(name, (0.0,))])
        return tuple(prune.sparsities.index(pruning.get(prune.name, 0.0)) for prune in self.prunes)

    def parse(self, params: Mapping[str, object]) -> dict[str, float]:
        """The sparsities among Optuna's parameters, without those that are 0; a missing one is 0.

        Raises:
            ConfigError: If a variable or its sparsity is not the space's.
        """
        offered = {prune.param: dict(zip(prune.texts, prune.sparsities, strict=True)) for prune in self.prunes}
        found = {}
        for param, text in params.items():
            if param.startswith(PREFIX):
                name, sparsities = param.removeprefix(PREFIX), offered.get(param, {"0": 0.0})
                if text not in sparsities:
                    raise _not_offered(name, str(text), list(sparsities))
                found[name] = sparsities[str(text)]
        return {name: sparsity for name, sparsity in found.items() if sparsity}

    def describe(self, pruning: Pruning) -> list[str]:
        """Sentences on what is pruned by how much, and what is gone, as far as there is any."""
        named: dict[float, list[str]] = {}
        for prune in self.prunes:
            named.setdefault(pruning.get(prune.name, 0.0), []).append(prune.name)
        thinned = [f"{100 * s:.3g}% {', '.join(named[s])}" for s in sorted(named) if 0 < s < 1]
        found = [f"pruned {', '.join(thinned)}"] if thinned else []
        return [*found, f"without {', '.join(named[1.0])}"] if 1.0 in named else found


def _not_offered(name: str, got: str, offered: Sequence[str]) -> ConfigError:
    return ConfigError(
        f"prune group '{name}': expected a sparsity of {', '.join(offered)}, got {got}",
        "the pruning belongs to another space: use the same model and --passes",
    )
