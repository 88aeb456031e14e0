"""Structured pruning: channels and heads are removed for good, so that latency and size really fall.

Which groups exist is decided by ``prune_groups``, which of their units go by ``prune_importance``, how many by the
sparsity asked for and by the sizes that the runtime's kernels like.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from passes.batch_norm import reestimate_batch_norm
from passes.data import TrainingData
from passes.device import modes_kept
from passes.options import options_from_json, options_to_json
from passes.prune_counts import example_tensors
from passes.prune_graph import DependencyGraph
from passes.prune_groups import PruneGroup, Status, find_prune_groups, remove_units
from passes.prune_importance import Importance, unit_importances
from precision import ConfigError


def rounded_channels(channels: int, sparsity: float, round_to: int) -> int:
    """Channels that stay: the multiple of ``round_to`` nearest to ``channels · (1 − sparsity)``, the larger of two.

    Never fewer than ``round_to``, so never none, and never more than there are; all of them at sparsity 0.
    """
    if sparsity <= 0:
        return channels
    wanted = round_to * math.floor(channels * (1 - sparsity) / round_to + 0.5)
    return min(channels, max(round_to, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredPrune:
    """Removes the least important units of each named group.

    Attributes:
        sparsity: Group name → fraction of its channels to remove, in [0, 1); groups that are left out stay whole.
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
            if not 0 <= sparsity < 1:
                raise ConfigError(f"pruning, group '{name}': expected a sparsity in [0, 1), got {sparsity:g}")
        for name, least in (("round_to", 1), ("samples", 1), ("batch_norm_samples", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"pruning: expected {name} ≥ {least}, got {getattr(self, name)}")

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

    def apply(self, module: nn.Module, data: TrainingData, *, groups: Sequence[PruneGroup] | None = None) -> nn.Module:
        """A smaller copy.

        Args:
            module: The trained network, without parametrisations; left as it is.
            data: Inputs for tracing and importance, labels if there are any.
            groups: Of ``find_prune_groups`` for this module, if they are at hand.

        Raises:
            ConfigError: If a name is no group of the module, or a group cannot be pruned.
            ModelError: If the module cannot be traced.
        """
        found = {group.name: group for group in groups or find_prune_groups(module, data.inputs)}
        chosen = [found[name] for name in found if self.sparsity.get(name, 0) > 0]
        for name in self.sparsity:
            if name not in found:
                known = ", ".join(name for name, group in found.items() if group.status is Status.PRUNABLE)
                raise ConfigError(f"pruning: the network has no group '{name}'", f"groups that can be pruned: {known}")
        for group in chosen:
            if group.status is Status.FIXED:
                raise ConfigError(f"pruning: group '{group.name}' cannot be pruned: {group.reason}", "leave it out")
        kept = self.kept_units(module, chosen, data)
        smaller = copy.deepcopy(module)
        wanted = {name: parameter.requires_grad for name, parameter in smaller.named_parameters()}
        if chosen:
            graph = DependencyGraph(smaller, example_tensors(smaller, data.inputs))
            for group in chosen:
                stays = set(kept[group.name])
                channels = [c for index, unit in enumerate(group.units) if index not in stays for c in unit]
                remove_units(smaller, graph, (group.name, group.heads), sorted(channels), len(stays))
        for name, parameter in smaller.named_parameters():
            parameter.requires_grad_(wanted[name])
        if self.batch_norm_samples:
            with modes_kept(smaller):
                reestimate_batch_norm(smaller, data.inputs, samples=self.batch_norm_samples)
        return smaller

    def kept_units(
        self, module: nn.Module, groups: Sequence[PruneGroup], data: TrainingData
    ) -> dict[str, tuple[int, ...]]:
        """For each of these groups the units that stay, in ascending order."""
        scores = unit_importances(module, groups, self.importance, data, samples=self.samples, seed=self.seed)
        kept = {}
        for group in groups:
            size = group.channels // len(group.units)
            step = math.lcm(self.round_to, size) // size
            count = rounded_channels(len(group.units), self.sparsity.get(group.name, 0), step)
            order = torch.sort(scores[group.name], descending=True, stable=True).indices
            kept[group.name] = tuple(sorted(order[:count].tolist()))
        return kept
