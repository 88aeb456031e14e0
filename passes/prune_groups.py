"""Groups of channels that can be removed, each proved on the network itself before it is offered.

A group is named after its first layer's module path, which is the layer's name in the exported network too. Proof:
half of its units are removed from a copy, and the result must equal the whole network with the columns that read
them set to zero, up to rounding. That refuses whatever tracing cannot see: widths written into ``forward`` (the
zero-padded shortcut of the CIFAR residual networks fixes the width of each stage's stream; the channels inside the
blocks are free), norms over channels, reshapes that mix heads.

Attention heads are tried where channels alone do not pass: channels of one head go together, and the module's own
count of heads (``num_heads``, ``heads`` …) follows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn

from passes.device import modes_kept
from passes.prune_counts import example_tensors, layer_macs
from passes.prune_graph import LAYERS, DependencyGraph, Member, Role, is_depthwise, units_of, weight_rows
from precision import Inputs, ModelError

HEAD_COUNTS = ("num_heads", "heads", "n_heads", "n_head", "nhead", "num_attention_heads")
TOLERANCE = 1e-4  # of the largest output: float32 sums in another order stay below 1e-5
EFFECT = 1e-2  # of what silencing the channels changes, so that a bug shows in a network that hardly reacts to them


class Status(StrEnum):
    """Whether a group may be pruned."""

    PRUNABLE = "prunable"
    KEPT = "kept"  # by default; may be pruned by name
    FIXED = "fixed"  # cannot be pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneGroup:
    """Channels of several layers that can only be removed together.

    Attributes:
        name: Module path of the first layer that produces them.
        channels: Output channels of that layer.
        units: Sets of these channels that only go together: one channel each, or a head.
        heads: Path of the integer that counts the heads, such as ``blocks.0.attention.heads``; empty without.
        members: Every layer touched.
        weights: Weights that go with the channels: rows of producers, columns of consumers.
        weights_share: ``weights`` over those of all layers, 0 to 1.
        macs: Multiply-adds per sample that go with the channels.
        macs_share: ``macs`` over those of the network, 0 to 1.
        status: Whether it may be pruned.
        reason: Why not; empty for prunable ones.
    """

    name: str
    channels: int
    units: tuple[tuple[int, ...], ...]
    heads: str
    members: tuple[Member, ...]
    weights: int
    weights_share: float
    macs: int
    macs_share: float
    status: Status
    reason: str

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers with weights in it."""
        return tuple(dict.fromkeys(member.layer for member in self.members if member.layer))


def find_prune_groups(module: nn.Module, inputs: Inputs) -> tuple[PruneGroup, ...]:
    """Every group in the order of definition, those that cannot be pruned with the reason.

    Args:
        module: The trained network; left as it is.
        inputs: One array per argument of ``forward``, shape (n, …); two samples are used.

    Raises:
        ModelError: If the module cannot be traced.
        WorkloadError: If Torch-Pruning is not installed.
    """
    examples = example_tensors(module, inputs)
    traced = copy.deepcopy(module)
    graph = DependencyGraph(traced, examples)
    macs = layer_macs(traced, inputs)
    weights = {name: part.weight.numel() for name, part in traced.named_modules() if isinstance(part, LAYERS)}
    found: list[PruneGroup] = []
    for root in graph.roots():
        members = graph.members(root)
        # A convolution of groups has its input columns in all of them: shares of channels hold for it as well.
        parts = _parts(traced, members)
        units, heads, reason = _prove(module, examples, graph, root, members)
        status = Status.FIXED if reason else Status.PRUNABLE
        if not found and not reason:
            status, reason = Status.KEPT, "the network's first layer is in it"
        touched = round(sum(weights[name] * part for name, part in parts.items()))
        cost = round(sum(macs.get(name, 0) * part for name, part in parts.items()))
        found.append(
            PruneGroup(
                name=root,
                channels=sum(map(len, units)),
                units=units,
                heads=heads,
                members=members,
                weights=touched,
                weights_share=touched / sum(weights.values()),
                macs=cost,
                macs_share=cost / max(1, macs[""]),
                status=status,
                reason=reason,
            )
        )
    return tuple(found)


def remove_units(
    module: nn.Module, graph: DependencyGraph, group: tuple[str, str], channels: list[int], left: int
) -> None:
    """Remove channels of a group in place, and write the number of heads that is left.

    Args:
        module: The network that ``graph`` was made of.
        graph: Its dependencies.
        group: The group's name, and where its heads are counted or an empty string.
        channels: Of the root, whole units.
        left: Units that stay.
    """
    name, counter = group
    if channels:
        graph.remove(name, channels)
    if counter:
        owner, _, attribute = counter.rpartition(".")
        setattr(module.get_submodule(owner), attribute, left)


def mask_columns(module: nn.Module, members: tuple[Member, ...], channels: set[int]) -> None:
    """Set to zero, in place, the weights that read these channels of the group's root."""
    for member in members:
        if member.role is not Role.CONSUMER:
            continue
        layer = module.get_submodule(member.layer)
        assert isinstance(layer, LAYERS)
        # Columns are stored per group of a convolution; units cover the same place of each.
        weight = layer.weight.data
        axis = 1 - weight_rows(layer)
        width = weight.shape[axis]
        own = {c % width for c, root in zip(member.channels, member.roots, strict=True) if root in channels}
        weight.index_fill_(axis, torch.tensor(sorted(own), dtype=torch.long, device=weight.device), 0.0)


def outputs_of(module: nn.Module, examples: tuple[Tensor, ...]) -> list[Tensor]:
    """All tensors that the module returns in evaluation mode."""
    with modes_kept(module), torch.no_grad():
        module.eval()
        return _flat(module(*examples))


def _prove(
    module: nn.Module, examples: tuple[Tensor, ...], graph: DependencyGraph, root: str, members: tuple[Member, ...]
) -> tuple[tuple[tuple[int, ...], ...], str, str]:
    """(units, where heads are counted, why it cannot be pruned)."""
    units = units_of(graph, module, root)
    roles = {member.role for member in members}
    if Role.OUTPUT in roles or Role.CONSUMER not in roles:
        return units, "", "its channels are the network's outputs"
    reason = _differs(module, examples, (root, ""), members, units)
    if not reason:
        return units, "", ""
    for counter, count in _head_counters(module, root, len(units)):
        size = len(units) // count
        heads = tuple(
            tuple(sorted(c for unit in units[start : start + size] for c in unit))
            for start in range(0, len(units), size)
        )
        if not _differs(module, examples, (root, counter), members, heads):
            return heads, counter, ""
    return units, "", reason


def _differs(
    module: nn.Module,
    examples: tuple[Tensor, ...],
    group: tuple[str, str],
    members: tuple[Member, ...],
    units: tuple[tuple[int, ...], ...],
) -> str:
    """Why removing half of the units is not the same as not reading them; empty if it is."""
    if len(units) < 2:
        return "there is nothing to choose from"
    # Channels here and there: an index that is off by one, or a norm that was forgotten, shows.
    half = np.random.default_rng(0).permutation(len(units))[: len(units) // 2]
    channels = sorted(channel for index in half for channel in units[index])
    pruned, masked = copy.deepcopy(module), copy.deepcopy(module)
    try:
        remove_units(pruned, DependencyGraph(pruned, examples), group, channels, len(units) - len(half))
        outputs = outputs_of(pruned, examples)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, AttributeError, ModelError) as error:
        return f"the module does not run with fewer of them ({str(error).strip().splitlines()[0]})"
    mask_columns(masked, members, set(channels))
    whole = outputs_of(module, examples)
    for ours, wanted, before in zip(outputs, outputs_of(masked, examples), whole, strict=True):
        if ours.shape != wanted.shape:
            return f"the output's shape changes from {tuple(wanted.shape)} to {tuple(ours.shape)}"
        largest = wanted.abs().max().item()
        gap, effect = ((wanted - other).abs().max().item() / max(largest, 1e-12) for other in (ours, before))
        if not gap <= min(TOLERANCE, max(EFFECT * effect, TOLERANCE / 100)):
            return f"removing channels changes what the others compute (outputs differ by {gap:.1e} of the largest)"
    return ""


def _head_counters(module: nn.Module, root: str, units: int) -> list[tuple[str, int]]:
    """Integers of the root's parent that may count heads, with their value."""
    owner = root.rpartition(".")[0]
    parent = module.get_submodule(owner)
    found = [(f"{owner}.{name}" if owner else name, getattr(parent, name, None)) for name in HEAD_COUNTS]
    return [(path, count) for path, count in found if isinstance(count, int) and count > 1 and units % count == 0]


def _parts(module: nn.Module, members: tuple[Member, ...]) -> dict[str, float]:
    """Layer → the part of its weights that goes with the channels, 0 to 1."""
    kept: dict[str, float] = {}
    for member in members:
        layer = module.get_submodule(member.layer) if member.role is not Role.OUTPUT else None
        if not isinstance(layer, LAYERS):
            continue
        outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        whole = inputs if member.role is Role.CONSUMER and not is_depthwise(layer) else outputs
        kept[member.layer] = kept.get(member.layer, 1.0) * (1 - len(member.channels) / whole)
    return {name: 1 - part for name, part in kept.items()}


def _flat(outputs: object) -> list[Tensor]:
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = tuple(outputs.values())
    if isinstance(outputs, tuple | list):
        return [tensor for item in outputs for tensor in _flat(item)]
    return []
