r"""How much the network would miss each unit of a group, by what it does in all members at once.

With x the input of a layer that reads the channels and ∂L/∂x the gradient of one sample's loss, closing a gate at
channel c changes the loss to first order by v[n, c] = Σ x ∂L/∂x, over positions and all readers of the group:

| importance | per unit | source |
| --- | --- | --- |
| magnitude | Σ w² over the members' rows and columns | Fang et al., arXiv:2301.12900, section 3.3 |
| taylor | mean over samples of \|v\| | Molchanov et al., arXiv:1611.06440, equation 8 |
| fisher | mean over samples of v² / 2 | Liu et al., arXiv:2108.00708, equation 6 |

The loss is cross-entropy with the labels. Without labels they are drawn from the network's own predictions, softened
by a temperature since a trained network is certain of what it was trained on; ``fisher`` is then the second-order
change of the divergence from these predictions, exact in expectation.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn import functional

from passes.data import Batch, TrainingData
from passes.device import device_of, seeded
from passes.prune_graph import LAYERS, Role, is_depthwise, weight_rows
from passes.prune_groups import PruneGroup

_Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]


TEMPERATURE = 4.0  # of predictions that labels are drawn from


class Importance(StrEnum):
    """See the module."""

    MAGNITUDE = "magnitude"
    TAYLOR = "taylor"
    FISHER = "fisher"


def unit_importances(
    module: nn.Module,
    groups: Sequence[PruneGroup],
    importance: Importance,
    data: TrainingData,
    *,
    samples: int = 1024,
    batch_size: int = 128,
    seed: int = 0,
) -> dict[str, Tensor]:
    """For each group by name the importance of its units, float64 (units,), on the CPU.

    Args:
        module: The network; left as it is.
        groups: Of ``find_prune_groups``.
        importance: Which.
        data: Not read for ``magnitude``.
        samples: The first so many are used.
        batch_size: Samples per backward pass.
        seed: Of labels that are drawn.
    """
    if importance is Importance.MAGNITUDE:
        channels = {group.name: _magnitudes(module, group) for group in groups}
        return {group.name: _per_unit(channels[group.name][None], group)[0] for group in groups}
    totals = {group.name: torch.zeros(len(group.units), dtype=torch.float64) for group in groups}
    working = copy.deepcopy(module).eval().requires_grad_(True)
    device, used = device_of(module), min(samples, len(data))
    with seeded(seed, device):
        for batch in data.batches(batch_size, device, used):
            gates = _gate_gradients(working, groups, batch)
            for group in groups:
                values = _per_unit(_group_gates(group, gates), group)
                power = values.abs() if importance is Importance.TAYLOR else values.square() / 2
                totals[group.name] += power.sum(0)
    return {name: total / used for name, total in totals.items()}


def _magnitudes(module: nn.Module, group: PruneGroup) -> Tensor:
    """Squared norm per channel of the root, (channels,)."""
    total = torch.zeros(group.channels, dtype=torch.float64)
    for member in group.members:
        layer = module.get_submodule(member.layer) if member.role in (Role.PRODUCER, Role.CONSUMER) else None
        if layer is None:
            continue
        assert isinstance(layer, LAYERS)
        assert not is_depthwise(layer)
        rows = weight_rows(layer)
        axis = rows if member.role is Role.PRODUCER else 1 - rows
        squares = layer.weight.detach().double().cpu().square().transpose(0, axis).flatten(1).sum(1)
        own = torch.tensor(member.channels) % len(squares)  # columns are stored per group of a convolution
        total.index_add_(0, torch.tensor(member.roots), squares[own])
    return total


def _gate_gradients(module: nn.Module, groups: Sequence[PruneGroup], batch: Batch) -> dict[str, Tensor]:
    """For each layer that reads a group, Σ x ∂L/∂x per sample and input channel, (n, in), float64 on the CPU."""
    readers = {m.layer for group in groups for m in group.members if m.role is Role.CONSUMER}
    gates: dict[str, Tensor] = {}
    hooks = [module.get_submodule(name).register_forward_pre_hook(_gate(gates, name, len(batch))) for name in readers]
    try:
        with torch.enable_grad():
            output = module(*batch.inputs)
            logits: Tensor = (output if isinstance(output, Tensor) else output[0]).reshape(len(batch), -1)
            labels = batch.labels
            if labels is None:
                logits = logits / TEMPERATURE
                labels = torch.multinomial(logits.detach().softmax(1), 1)[:, 0]
            functional.cross_entropy(logits, labels, reduction="sum").backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    module.zero_grad(set_to_none=True)
    return gates


def _gate(gates: dict[str, Tensor], name: str, count: int) -> _Hook:
    def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs = arguments[0]
        if not inputs.requires_grad:
            return
        kept = inputs.detach()

        def on_gradient(gradient: Tensor) -> None:
            product = (kept * gradient).double()
            if isinstance(layer, nn.Linear):
                value = product.reshape(count, -1, product.shape[-1]).sum(1)
            else:
                value = product.reshape(count, product.shape[1], -1).sum(2)
            # A layer that is used twice is closed twice.
            gates[name] = gates[name] + value.cpu() if name in gates else value.cpu()

        inputs.register_hook(on_gradient)  # type: ignore[no-untyped-call]

    return hook


def _group_gates(group: PruneGroup, gates: Mapping[str, Tensor]) -> Tensor:
    """Sum over the group's readers, (n, channels of the root)."""
    readers = [member for member in group.members if member.role is Role.CONSUMER and member.layer in gates]
    count = len(next(iter(gates.values())))
    total = torch.zeros(count, group.channels, dtype=torch.float64)
    for member in readers:
        total.index_add_(1, torch.tensor(member.roots), gates[member.layer][:, list(member.channels)])
    return total


def _per_unit(values: Tensor, group: PruneGroup) -> Tensor:
    """(n, channels) → (n, units), summed over each unit's channels."""
    of_channel = torch.empty(group.channels, dtype=torch.long)
    for index, unit in enumerate(group.units):
        of_channel[list(unit)] = index
    out = torch.zeros(len(values), len(group.units), dtype=values.dtype)
    return out.index_add_(1, of_channel, values)
