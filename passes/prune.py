"""Structured pruning: channels, heads and residual branches are removed, so that latency and size really fall.

Which groups exist is decided by ``prune_groups``, which of their units go by ``prune_importance``, how many by the
sparsity asked for and by the sizes that the runtime's kernels like. A branch goes by name alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bitfront.core import ConfigError
from bitfront.passes.batch_norm import reestimate_batch_norm
from bitfront.passes.data import TrainingData
from bitfront.passes.device import modes_kept
from bitfront.passes.options import options_from_json, options_to_json
from bitfront.passes.prune_branches import find_branches, remove_branches
from bitfront.passes.prune_counts import example_tensors
from bitfront.passes.prune_graph import DependencyGraph
from bitfront.passes.prune_groups import PruneGroup, Status, find_prune_groups, remove_units
from bitfront.passes.prune_importance import Importance, unit_importances


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredPrune:
    """Removes the least important units of each named group.

    Attributes:
        sparsity: Group name → fraction of its channels to remove, in [0, 1), or 1 for a residual branch; groups that
            are left out stay whole, those whose layers all go with a branch are not looked at.
        importance: What is removed first.
        round_to: Channels that stay are a multiple of it, heads in so many that their channels are.
        samples: Samples for the importance.
        batch_norm_samples: Samples to measure batch norm on afterwards; 0 leaves its statistics.
        seed: Of labels that are drawn where there are none.
    """

    sparsity: Mapping[str, float] = field(default_factory=dict)
    importance: Importance = Importance.TAYLOR
    round_to: int = 8
    samples: int = 1024
    batch_norm_samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, sparsity in self.sparsity.items():
            if not 0 <= sparsity <= 1:
                raise ConfigError(
                    f"pruning, group '{name}': expected a sparsity in [0, 1], got {sparsity:g}",
                    "0 keeps the group whole, 1 removes a branch",
                )
        for name, least in (("round_to", 1), ("samples", 1), ("batch_norm_samples", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"pruning: expected {name} ≥ {least}, got {getattr(self, name)}",
                    "leave the option out for its default",
                )

    def to_json(self) -> dict[str, Any]:
        """Every option as plain JSON."""
        return options_to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> StructuredPrune:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If an option is unknown or wrong.
        """
        return options_from_json(cls, data, "pass 'prune'")

    def apply(
        self,
        module: nn.Module,
        data: TrainingData,
        *,
        groups: Sequence[PruneGroup] | None = None,
        scores: Mapping[str, Tensor] | None = None,
    ) -> nn.Module:
        """A pruned copy of a module.

        Args:
            module: The trained network, without parametrisations; left as it is.
            data: Inputs for tracing and importance, labels if there are any.
            groups: Of ``find_prune_groups`` for this module, if they are at hand.
            scores: Of ``importances`` for this module and options like these, if they are at hand.

        Raises:
            ConfigError: If a name is no group of the module, a group cannot be pruned, or not to that sparsity.
            ModelError: If the module cannot be traced.
        """
        found = {group.name: group for group in groups or find_prune_groups(module, data.inputs)}
        channels, branches = self._chosen(found)
        examples = example_tensors(module, data.inputs)
        if scores is None and channels:
            # Of all groups: what is estimated from random signs depends a little on what is scored with it.
            scores = self.importances(module, list(found.values()), data)
        kept = self.kept_units(module, channels, data, scores=scores)
        smaller = copy.deepcopy(module)
        wanted = {name: parameter.requires_grad for name, parameter in smaller.named_parameters()}
        if channels:
            graph = DependencyGraph(smaller, examples)
            for group in channels:
                stays = set(kept[group.name])
                removed = [c for index, unit in enumerate(group.units) if index not in stays for c in unit]
                remove_units(smaller, graph, (group.name, group.heads), sorted(removed), len(stays))
        if branches:
            # Channels first: a trace has widths and heads in it as they were.
            known = find_branches(module, examples)
            smaller = remove_branches(smaller, [branch for branch in known if branch.name in branches])
        for name, parameter in smaller.named_parameters():
            parameter.requires_grad_(wanted[name])
        if self.batch_norm_samples:
            with modes_kept(smaller):
                reestimate_batch_norm(smaller, data.inputs, samples=self.batch_norm_samples)
        return smaller

    def importances(self, module: nn.Module, groups: Sequence[PruneGroup], data: TrainingData) -> dict[str, Tensor]:
        """Group → importance of its units, float64 (units,), for each group of channels that is not fixed.

        They depend on the module, the data, ``importance``, ``samples`` and ``seed`` alone, so many prunings of one
        module can share them.
        """
        free = [group for group in groups if not group.branch and group.status is not Status.FIXED]
        return unit_importances(module, free, self.importance, data, samples=self.samples, seed=self.seed)

    def kept_units(
        self,
        module: nn.Module,
        groups: Sequence[PruneGroup],
        data: TrainingData,
        *,
        scores: Mapping[str, Tensor] | None = None,
    ) -> dict[str, tuple[int, ...]]:
        """Units that stay of each of these groups of channels, in ascending order."""
        known = self.importances(module, groups, data) if scores is None else scores
        kept = {}
        for group in groups:
            count = group.kept(self.sparsity.get(group.name, 0), self.round_to)
            order = torch.sort(known[group.name], descending=True, stable=True).indices
            kept[group.name] = tuple(sorted(order[:count].tolist()))
        return kept

    def _chosen(self, found: Mapping[str, PruneGroup]) -> tuple[list[PruneGroup], set[str]]:
        """Groups whose channels go, without those that go with a branch, and names of branches that go."""
        for name in self.sparsity:
            if name not in found:
                known = ", ".join(name for name, group in found.items() if group.status is Status.PRUNABLE)
                raise ConfigError(f"pruning: the network has no group '{name}'", f"groups that can be pruned: {known}")
        chosen = [group for name, group in found.items() if self.sparsity.get(name, 0) > 0]
        for group in chosen:
            if group.status is Status.FIXED:
                raise ConfigError(f"pruning: group '{group.name}' cannot be pruned: {group.reason}", "leave it out")
            if group.branch != (self.sparsity[group.name] == 1):
                what = "a residual branch: expected 0 or 1" if group.branch else "channels: expected less than 1"
                raise ConfigError(
                    f"pruning: group '{group.name}' is {what}, got a sparsity of {self.sparsity[group.name]:g}",
                    "0 keeps the group whole, 1 removes a branch",
                )
        removed = {layer for group in chosen if group.branch for layer in group.layers}
        channels = [group for group in chosen if not group.branch and not removed.issuperset(group.parts(0, 1))]
        return channels, {group.name for group in chosen if group.branch}
