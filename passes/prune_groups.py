"""The groups of channels and branches that can be removed, each checked on the network itself before it is offered.

A group of channels is named after its first layer's module path, which is the layer's name in the exported network
too. Equivalence check: half of its units are removed from a copy, and the result must equal the whole network with the
columns that read them set to zero, up to rounding. That refuses whatever tracing cannot see: widths written into
``forward`` (the zero-padded shortcut of the CIFAR residual networks fixes the width of each stage's stream; the
channels inside the blocks are free), norms over channels, reshapes that mix heads.

Attention heads are tried where channels alone do not pass: channels of one head go together, and the module's own
count of heads (``num_heads``, ``heads`` …) follows.

A residual branch (``prune_branches``) is a group of one unit: all of it goes, or nothing.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor, nn

from bitfront.core import Inputs, ModelError
from bitfront.core.formatting import first_line
from bitfront.passes.equivalence import difference, outputs_of
from bitfront.passes.prune_branches import Branch, checked, find_branches
from bitfront.passes.prune_counts import example_tensors, layer_macs
from bitfront.passes.prune_graph import LAYERS, DependencyGraph, Member, Role, units_of, weight_rows

UNTRACED = "residual branches"  # the group that says why branches were not looked for
HEAD_COUNTS = ("num_heads", "heads", "n_heads", "n_head", "nhead", "num_attention_heads")


class Status(StrEnum):
    """Whether a group may be pruned."""

    PRUNABLE = "prunable"
    KEPT = "kept"  # by default; may be pruned by name
    FIXED = "fixed"  # cannot be pruned


def rounded_channels(channels: int, sparsity: float, round_to: int) -> int:
    """Channels that stay: the multiple of ``round_to`` nearest to ``channels · (1 − sparsity)``, the larger of two.

    Never fewer than ``round_to``, so never none, and never more than there are; all of them at sparsity 0.
    """
    if sparsity <= 0:
        return channels
    wanted = round_to * math.floor(channels * (1 - sparsity) / round_to + 0.5)
    return min(channels, max(round_to, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneGroup:
    """Channels of several layers that can only be removed together, or a residual branch.

    Attributes:
        name: Module path of the first layer that produces them; of a branch the path that its layers share.
        channels: Output channels of that layer; 1 for a branch.
        units: Sets of these channels that only go together: one channel each, or a head; a branch is one.
        heads: Path of the integer that counts the heads, such as ``blocks.0.attention.heads``; empty without.
        members: Every layer touched.
        weights: Weights that go with the channels: rows of producers, columns of consumers.
        weights_share: ``weights`` over those of all layers, 0 to 1.
        macs: Multiply-adds per sample that go with the channels.
        macs_share: ``macs`` over those of the network, 0 to 1.
        status: Whether it may be pruned.
        reason: Why not; empty for prunable ones.
        branch: Whether it is a residual branch, all of which goes at sparsity 1; there is none in between.
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
    branch: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Paths of the layers with weights in it."""
        return tuple(dict.fromkeys(member.layer for member in self.members if member.layer))

    def kept(self, sparsity: float, round_to: int) -> int:
        """Units that stay.

        Args:
            sparsity: Fraction to remove, 0 to 1.
            round_to: Channels that stay are a multiple of it, heads in so many that their channels are.
        """
        if self.branch:
            return int(sparsity < 1)
        size = self.channels // len(self.units)
        return rounded_channels(len(self.units), sparsity, math.lcm(round_to, size) // size)

    def parts(self, sparsity: float, round_to: int) -> dict[str, float]:
        """Layer → the fraction of its weights and multiply-adds that stays; arguments as for ``kept``."""
        return _parts(self.members, 1 - self.kept(sparsity, round_to) / len(self.units))


def find_prune_groups(module: nn.Module, inputs: Inputs) -> tuple[PruneGroup, ...]:
    """Every group of channels in the order of definition, then every residual branch in the order of computation.

    Those that cannot be removed come with the reason; where ``forward`` cannot be traced for branches, a group named
    ``residual branches`` without layers says so.

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
    whole = (sum(weights.values()), max(1, macs[""]))
    found: list[PruneGroup] = []
    for root in graph.roots():
        members = graph.members(root)
        units, heads, reason = _checked_units(module, examples, graph, root, members)
        status = Status.FIXED if reason else Status.PRUNABLE
        if not found and not reason:
            status, reason = Status.KEPT, "the network's first layer is in it"
        stays = _parts(members, 1.0)
        touched = round(sum(weights[name] * (1 - part) for name, part in stays.items()))
        cost = round(sum(macs.get(name, 0) * (1 - part) for name, part in stays.items()))
        found.append(
            PruneGroup(
                name=root,
                channels=sum(map(len, units)),
                units=units,
                heads=heads,
                members=members,
                weights=touched,
                weights_share=touched / whole[0],
                macs=cost,
                macs_share=cost / whole[1],
                status=status,
                reason=reason,
            )
        )
    try:
        branches = checked(module, find_branches(module, examples), examples)
    except ModelError as error:
        return (*found, _branch_group(Branch(name=UNTRACED, reason=error.message), whole))
    return (*found, *(_branch_group(branch, whole) for branch in branches))


def _branch_group(branch: Branch, whole: tuple[int, int]) -> PruneGroup:
    """A branch as a group of one unit, in a network of so many (weights, multiply-adds)."""
    return PruneGroup(
        name=branch.name,
        channels=1,
        units=((0,),),
        heads="",
        members=tuple(
            Member(layer=layer, role=Role.WHOLE, channels=(), roots=(), share=1.0) for layer in branch.layers
        ),
        weights=branch.weights,
        weights_share=branch.weights / whole[0],
        macs=branch.macs,
        macs_share=branch.macs / whole[1],
        status=Status.FIXED if branch.reason else Status.PRUNABLE,
        reason=branch.reason,
        branch=True,
    )


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


def _checked_units(
    module: nn.Module, examples: Mapping[str, Tensor], graph: DependencyGraph, root: str, members: tuple[Member, ...]
) -> tuple[tuple[tuple[int, ...], ...], str, str]:
    """The units of a group by the equivalence check: (units, where heads are counted, why it cannot be pruned)."""
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
    examples: Mapping[str, Tensor],
    group: tuple[str, str],
    members: tuple[Member, ...],
    units: tuple[tuple[int, ...], ...],
) -> str:
    """Reason why removing half of the units is not equivalent to masking what reads them; empty if it is."""
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
        return f"the module does not run with fewer of them ({first_line(error)})"
    mask_columns(masked, members, set(channels))
    return difference("channels", outputs, outputs_of(masked, examples), outputs_of(module, examples))


def _head_counters(module: nn.Module, root: str, units: int) -> list[tuple[str, int]]:
    """Integers of the root's parent that may count heads, with their value."""
    owner = root.rpartition(".")[0]
    parent = module.get_submodule(owner)
    found = [(f"{owner}.{name}" if owner else name, getattr(parent, name, None)) for name in HEAD_COUNTS]
    return [(path, count) for path, count in found if isinstance(count, int) and count > 1 and units % count == 0]


def _parts(members: tuple[Member, ...], removed: float) -> dict[str, float]:
    """Layer → the fraction of its weights that stays once the fraction ``removed`` of the units is removed."""
    stays: dict[str, float] = {}
    for member in members:
        if member.share > 0:  # a layer that produces and reads these channels shrinks twice
            stays[member.layer] = stays.get(member.layer, 1.0) * (1 - member.share * removed)
    return stays
