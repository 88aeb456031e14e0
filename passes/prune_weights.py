"""Unstructured and N:M sparsity: weights set to zero, for size and for sparse tensor cores.

Zeros alone make nothing faster or smaller. N:M leaves in every M weights that are neighbours along the *input*
axis at most N that are not zero, for each output channel and kernel position: what TensorRT's sparse kernels ask
for ("Structured sparsity" in its developer guide: 2 of 4 along C of a K, C, R, S weight; the dot product's axis of a
matrix). Ampere, the first with such tensor cores, is described in Mishra et al., arXiv:2104.08378.

Training must keep the zeros: ``masked`` puts a mask on each weight by parametrisation and ``bake`` writes the
result back, before export.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitfront.core import ConfigError
from bitfront.passes.data import TrainingData
from bitfront.passes.options import options_from_json, options_to_json
from bitfront.passes.prune_graph import LAYERS, Layer, weight_rows


class Scope(StrEnum):
    """The set of weights out of which the smallest are taken."""

    NETWORK = "network"  # one threshold for all layers
    LAYER = "layer"  # the same sparsity in each layer


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstructuredPrune:
    """Sets the smallest weights to zero (Han et al., arXiv:1506.02626, section 3).

    Attributes:
        sparsity: Fraction of the weights, in [0, 1).
        scope: Where they are sought.
        keep: Layers that are left alone, by module path.
    """

    sparsity: float
    scope: Scope = Scope.NETWORK
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ConfigError(
                f"pruning: expected a sparsity in [0, 1), got {self.sparsity:g}",
                "0.8 makes four fifths of the weights zero",
            )

    def to_json(self) -> dict[str, Any]:
        """Every option as plain JSON."""
        return options_to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> UnstructuredPrune:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If an option is unknown or wrong.
        """
        return options_from_json(cls, data, "pass 'prune-weights'")

    def masks(self, module: nn.Module) -> dict[str, Tensor]:
        """Layer → mask of the weights that stay, in the weight's shape.

        Raises:
            ConfigError: If a layer of ``keep`` is none of the module.
        """
        sizes = {name: layer.weight.detach().abs() for name, layer in _layers(module, self.keep).items()}
        if self.scope is Scope.LAYER:
            return {name: _largest(size, self.sparsity) for name, size in sizes.items()}
        if not sizes:
            return {}
        flat = _largest(torch.cat([size.flatten() for size in sizes.values()]), self.sparsity)
        parts = torch.split(flat, [size.numel() for size in sizes.values()])
        return {name: part.reshape(size.shape) for (name, size), part in zip(sizes.items(), parts, strict=True)}

    def apply(self, module: nn.Module, data: TrainingData) -> nn.Module:  # noqa: ARG002 - the signature of a pass
        """A copy with the zeros written into its weights."""
        return bake(masked(module, self.masks(module)))


@dataclass(frozen=True, slots=True, kw_only=True)
class NMPrune:
    """N:M sparsity: leaves the ``n`` largest of every ``m`` neighbours along the input axis.

    A layer whose inputs (per group) are not divisible by ``m`` is left alone: no sparse kernel would take it.

    Attributes:
        n: Weights that stay.
        m: Out of how many.
        keep: Layers that are left alone, by module path.
    """

    n: int = 2
    m: int = 4
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ConfigError(
                f"pruning: expected 0 < n < m, got {self.n} of {self.m}",
                "2 of 4 is what hardware with sparse kernels takes",
            )

    def to_json(self) -> dict[str, Any]:
        """Every option as plain JSON."""
        return options_to_json(self)

    @classmethod
    def from_json(cls, data: Any) -> NMPrune:
        """Read what ``to_json`` wrote.

        Raises:
            ConfigError: If an option is unknown or wrong.
        """
        return options_from_json(cls, data, "pass 'prune-n-of-m'")

    def masks(self, module: nn.Module) -> dict[str, Tensor]:
        """Layer → mask of the weights that stay, in the weight's shape.

        Raises:
            ConfigError: If a layer of ``keep`` is none of the module.
        """
        found = {}
        for name, layer in _layers(module, self.keep).items():
            axis = 1 - weight_rows(layer)
            size = layer.weight.detach().abs().movedim(axis, -1)
            if size.shape[-1] % self.m == 0:
                blocks = torch.unflatten(size, -1, (-1, self.m))
                order = blocks.sort(dim=-1, descending=True, stable=True).indices
                stays = torch.zeros_like(blocks, dtype=torch.bool).scatter_(-1, order[..., : self.n], value=True)
                found[name] = stays.flatten(-2).movedim(-1, axis).contiguous()
        return found

    def apply(self, module: nn.Module, data: TrainingData) -> nn.Module:  # noqa: ARG002 - the signature of a pass
        """A copy with the zeros written into its weights."""
        return bake(masked(module, self.masks(module)))


class Mask(nn.Module):
    """A parametrisation that multiplies a weight with a mask.

    Args:
        stays: The mask.
    """

    stays: Tensor

    def __init__(self, stays: Tensor) -> None:
        super().__init__()
        self.register_buffer("stays", stays)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with zeros outside the mask; its gradient is zero there too."""
        return weight * self.stays


def masked(module: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """A copy whose weights are masked by parametrisation: ready for recovery training, not for export."""
    found = copy.deepcopy(module)
    for name, stays in masks.items():
        parametrize.register_parametrization(found.get_submodule(name), "weight", Mask(stays))
    return found


def bake(module: nn.Module) -> nn.Module:
    """A copy in which masked weights are plain parameters again, zeros and all."""
    found = copy.deepcopy(module)
    for part in list(found.modules()):
        if parametrize.is_parametrized(part, "weight") and _masked(part):
            # Copies share the class that torch made for the parametrised layer, and removal changes that class.
            made = type(part)
            part.__class__ = type(made.__name__, made.__bases__, dict(vars(made)))
            parametrize.remove_parametrizations(part, "weight", leave_parametrized=True)
            # Removal puts the weight behind the bias; it goes where it was, for graphs list parameters in order.
            for name in [name for name, _ in part.named_parameters(recurse=False) if name != "weight"]:
                part.register_parameter(name, part._parameters.pop(name))
    return found


def _masked(part: nn.Module) -> bool:
    return any(isinstance(step, Mask) for step in part.parametrizations.weight)  # type: ignore[union-attr]


def _layers(module: nn.Module, keep: tuple[str, ...]) -> dict[str, Layer]:
    layers = {name: part for name, part in module.named_modules() if isinstance(part, LAYERS)}
    for name in keep:
        if name not in layers:
            raise ConfigError(f"pruning: the network has no layer '{name}' with weights", "correct or remove the name")
    return {name: layer for name, layer in layers.items() if name not in keep}


def _largest(size: Tensor, sparsity: float) -> Tensor:
    """A mask of the entries that stay: all but the ⌊sparsity · n⌋ smallest, those in front kept among equals."""
    order = size.flatten().sort(descending=True, stable=True).indices
    stays = torch.zeros(size.numel(), dtype=torch.bool, device=size.device)
    stays[order[: size.numel() - int(sparsity * size.numel())]] = True
    return stays.reshape(size.shape)
