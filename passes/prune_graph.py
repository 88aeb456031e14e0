"""Channels that depend on each other: Torch-Pruning's dependency graph (Fang et al., arXiv:2301.12900), as values.

Removing an output channel of one layer removes the matching channel of its batch norm, of every layer that is added
to it, and the matching inputs of every layer that reads it. The library finds these by tracing; here its answer is
turned into names and indices, and its surgery is called.

Not handled: modules with parametrised weights, since surgery would replace the parameter behind the parametrisation.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitfront.core import ModelError, WorkloadError
from bitfront.lowering.module_calls import call, named_tensors
from bitfront.passes.device import modes_kept

Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
LAYERS = (*CONVOLUTIONS, nn.Linear)


class Role(StrEnum):
    """Side of a layer that the channels of a group are on."""

    PRODUCER = "producer"  # they are its outputs
    CONSUMER = "consumer"  # it reads them
    CARRIER = "carrier"  # both: norms, depthwise convolutions, parameters added or multiplied
    OUTPUT = "output"  # the network returns them
    WHOLE = "whole"  # not channels but all of the layer, which is in a residual branch


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A layer's part in a group.

    Attributes:
        layer: Module path; empty for the network's output.
        role: Side of the layer.
        channels: The layer's own channels on that side.
        roots: For each of them the channel of the group's root that it depends on.
        share: Part of the layer's weights that goes with all of them, 0 to 1; 0 for norms and parameters.
    """

    layer: str
    role: Role
    channels: tuple[int, ...]
    roots: tuple[int, ...]
    share: float


class DependencyGraph:
    """The dependencies of one module, which its surgery changes in place.

    Args:
        module: The network.
        examples: Input name → tensor.

    Raises:
        ModelError: If the module is parametrised or its graph cannot be traced.
        WorkloadError: If Torch-Pruning is not installed.
    """

    def __init__(self, module: nn.Module, examples: Mapping[str, Tensor]) -> None:
        for name, part in module.named_modules():
            if parametrize.is_parametrized(part):
                raise ModelError(
                    f"layer '{name}': its weights are parametrised, channels cannot be removed from it",
                    "prune before quantisation-aware training, or bake the parametrisation first",
                )
        try:
            library = importlib.import_module("torch_pruning")
        except ImportError as error:
            raise WorkloadError(
                "structured pruning needs Torch-Pruning, which is not installed", "install the 'torch' extra"
            ) from error
        self._module = module
        self._names = {part: name for name, part in module.named_modules()}
        self._layers = {name: part for part, name in self._names.items() if isinstance(part, LAYERS)}
        self._graph = library.DependencyGraph()
        self._output = library.ops.OPTYPE.OUTPUT
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        try:
            with modes_kept(module), torch.enable_grad():
                self._graph.build_dependency(module, examples, forward_fn=_forward, verbose=False)
        except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, AssertionError, IndexError) as error:
            raise ModelError(
                f"the module's dependencies cannot be traced ({type(error).__name__}: {error})",
                "leave structured pruning out",
            ) from error

    def roots(self) -> Iterator[str]:
        """Layers that stand for the groups, one each: the first in the order of definition."""
        seen: set[str] = set()
        for name, part in self._module.named_modules():
            if name in seen or not isinstance(part, LAYERS) or part not in self._graph.module2node:
                continue
            if is_depthwise(part):
                continue  # its channels are those of whoever it reads
            members = self.members(name)
            seen |= {member.layer for member in members if member.role is Role.PRODUCER}
            yield name

    def members(self, root: str, channels: Sequence[int] | None = None) -> tuple[Member, ...]:
        """Channels that go with these output channels of ``root``; None is all of them."""
        merged: dict[tuple[str, Role], dict[int, int]] = {}
        for item in self._group(root, channels):
            role = self._role(item.dep)
            if role is not None:
                name = "" if role is Role.OUTPUT else self._name(item.dep.target.module)
                merged.setdefault((name, role), {}).update(zip(item.idxs, item.root_idxs, strict=True))
        return tuple(
            Member(
                layer=name,
                role=role,
                channels=tuple(pairs),
                roots=tuple(pairs.values()),
                share=self._share(name, role, len(pairs)),
            )
            for (name, role), pairs in merged.items()
        )

    def remove(self, root: str, channels: Sequence[int]) -> None:
        """Remove these output channels of ``root`` and everything that goes with them, in place."""
        self._group(root, channels).prune(record_history=False)

    def _group(self, root: str, channels: Sequence[int] | None) -> Any:
        layer = self._module.get_submodule(root)
        pruner = self._graph.get_pruner_of_module(layer)
        wanted = range(pruner.get_out_channels(layer)) if channels is None else channels
        return self._graph.get_pruning_group(layer, pruner.prune_out_channels, list(wanted))

    def _role(self, dependency: Any) -> Role | None:
        part, handler = dependency.target.module, dependency.handler
        if dependency.target.type == self._output:
            return Role.OUTPUT
        if not isinstance(part, nn.Parameter) and part not in self._names:
            return None  # an operator of the library's own: addition, reshaping, concatenation
        if isinstance(part, LAYERS) and not is_depthwise(part):
            return Role.PRODUCER if self._graph.is_out_channel_pruning_fn(handler) else Role.CONSUMER
        return Role.CARRIER

    def _share(self, name: str, role: Role, channels: int) -> float:
        # A convolution of groups has its input columns in all of them: shares of channels hold for it as well.
        layer = self._layers.get(name)
        if layer is None or role is Role.OUTPUT:
            return 0.0
        outputs = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
        inputs = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        return channels / (inputs if role is Role.CONSUMER else outputs)

    def _name(self, part: Any) -> str:
        if isinstance(part, nn.Parameter):
            return next(name for name, parameter in self._module.named_parameters() if parameter is part)
        name: str = self._names[part]
        return name


def units_of(graph: DependencyGraph, module: nn.Module, root: str) -> tuple[tuple[int, ...], ...]:
    """The root's channels in sets that can only go together, one channel each as a rule.

    Query, key and value computed by one layer tie its thirds; a convolution of g groups ties the same place of each.
    """
    members = graph.members(root)
    channels = sorted(next(member.channels for member in members if member.layer == root))
    tied = {channel: {channel} for channel in channels}
    producers = {member.layer for member in members if member.role is Role.PRODUCER}
    first = _own(graph, root, 0)
    if len(first) > 1:
        tied = {channel: _own(graph, root, channel) for channel in channels}
    sides = {member.layer for member in members if member.role is Role.CONSUMER} | producers
    groups = [getattr(module.get_submodule(name), "groups", 1) for name in sorted(sides)]
    together = math.lcm(*groups)
    if together > 1 and len(first) == 1 and len(channels) % together == 0:
        step = len(channels) // together
        tied = {channel: set(range(channel % step, len(channels), step)) for channel in channels}
    return tuple(sorted({tuple(sorted(places)) for places in tied.values()}))


def is_depthwise(part: nn.Module) -> bool:
    """Whether each output channel of a convolution reads one input channel, its own."""
    return isinstance(part, CONVOLUTIONS) and 1 < part.groups == part.out_channels


def weight_rows(layer: nn.Module) -> int:
    """Axis of the weight that holds output channels: transposed convolutions store (in, out // groups, …)."""
    return 1 if isinstance(layer, TRANSPOSED) else 0


def _own(graph: DependencyGraph, root: str, channel: int) -> set[int]:
    return {
        own
        for member in graph.members(root, [channel])
        if member.layer == root and member.role is Role.PRODUCER
        for own in member.channels
    }


def _forward(module: nn.Module, examples: Mapping[str, Tensor]) -> list[Tensor]:
    return list(named_tensors(call(module, examples)).values())
