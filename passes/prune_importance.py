r"""Importances of prunable units, each by its effect in all layers of its group at once.

Every unit gets a gate per sample, a factor of 1 on its channels wherever a layer reads them. With g and h the first and
second derivatives of one sample's loss with respect to such a gate, closing it changes the loss by −g + h/2, to second
order:

| importance | per unit | source |
| --- | --- | --- |
| magnitude | Σ w² over the members' rows and columns | Fang et al., arXiv:2301.12900, section 3.3 |
| taylor | mean over samples of \|g\| | Molchanov et al., arXiv:1611.06440, equation 8 |
| fisher | mean over samples of g² / 2 | Liu et al., arXiv:2108.00708, equation 6 |
| hessian | \|mean over samples of h\| / 2 | LeCun et al., Optimal Brain Damage, NIPS 1989 |

The loss is cross-entropy with the labels. Without labels they are drawn from the network's own predictions, softened
by a temperature since a trained network is certain of what it was trained on; ``fisher`` is then the second-order
change of the divergence from these predictions, exact in expectation; ``hessian`` takes that divergence itself. Its
diagonal is estimated from products with random signs of each sample's own (Hutchinson, Commun. Stat. Simul. 18, 1989);
a negative estimate is a small value's noise, or a curvature that holds only nearby, so it is its size that counts.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from bitfront.lowering.module_calls import call
from bitfront.passes.data import Batch, TrainingData
from bitfront.passes.device import device_of, seeded
from bitfront.passes.equivalence import tensors_in
from bitfront.passes.prune_graph import LAYERS, Role, is_depthwise, weight_rows
from bitfront.passes.prune_groups import PruneGroup

_Hook = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]

TEMPERATURE = 4.0  # of predictions that labels are drawn from
_PROBES = 2  # random signs per sample


class Importance(StrEnum):
    """The criterion by which units are ranked; formulas above."""

    MAGNITUDE = "magnitude"
    TAYLOR = "taylor"
    FISHER = "fisher"
    HESSIAN = "hessian"


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
    """Group → importance of its units, float64 (units,), on the CPU.

    Args:
        module: The network; left as it is.
        groups: Of ``find_prune_groups``.
        importance: Which.
        data: Not read for ``magnitude``.
        samples: The first so many are used.
        batch_size: Samples per backward pass.
        seed: Of labels that are drawn, and of signs.
    """
    if importance is Importance.MAGNITUDE:
        return {group.name: _per_unit(_magnitudes(module, group), group) for group in groups}
    if not groups:
        return {}
    working = copy.deepcopy(module).eval().requires_grad_(False)
    device, used = device_of(module), min(samples, len(data))
    gates = _Gates(groups)
    totals = torch.zeros(gates.count, dtype=torch.float64)
    with seeded(seed, device), gates.on(working), torch.enable_grad():
        for batch in data.batches(batch_size, device, used):
            measure = _curvatures if importance is Importance.HESSIAN else _slopes
            values = measure(working, gates, batch).double().cpu()
            totals += {
                Importance.TAYLOR: values.abs(),
                Importance.FISHER: values.square() / 2,
                Importance.HESSIAN: values / 2,
            }[importance].sum(0)
    parts = torch.split(totals.abs() / used, [len(group.units) for group in groups])
    return {group.name: part for group, part in zip(groups, parts, strict=True)}


class _Gates:
    """Gates on the inputs of all layers that read a unit, one per sample and unit; open until told otherwise.

    Args:
        groups: Whose units; gates are in their order.
    """

    def __init__(self, groups: Sequence[PruneGroup]) -> None:
        *starts, self.count = accumulate((len(group.units) for group in groups), initial=0)
        self._opening = torch.ones(0)
        self._readers: dict[str, list[tuple[Tensor, Tensor]]] = {}  # layer → its channels, the gate of each
        for start, group in zip(starts, groups, strict=True):
            units = start + _unit_of_channel(group)
            for member in group.members:
                if member.role is Role.CONSUMER:
                    pair = torch.tensor(member.channels), units[list(member.roots)]
                    self._readers.setdefault(member.layer, []).append(pair)

    @contextmanager
    def on(self, module: nn.Module) -> Iterator[None]:
        """Put them before the layers of ``module``."""
        hooks = [module.get_submodule(name).register_forward_pre_hook(self._gate(name)) for name in self._readers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def opened(self, module: nn.Module, count: int) -> Tensor:
        """Open gates for the next batch, (samples, gates), with a gradient."""
        self._opening = next(module.parameters()).new_ones(count, self.count).requires_grad_(True)
        return self._opening

    def _gate(self, name: str) -> _Hook:
        def hook(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            inputs, *others = arguments
            opening, axis = self._opening, -1 if isinstance(layer, nn.Linear) else 1
            factors = opening.new_ones(len(opening), inputs.shape[axis])
            for channels, gates in self._readers[name]:
                change = opening[:, gates.to(opening.device)] - 1
                factors = factors.index_add(1, channels.to(opening.device), change)
            factors = factors.repeat_interleave(len(inputs) // len(opening), 0)
            shape = [len(inputs), *[1] * (inputs.dim() - 1)]
            shape[axis] = inputs.shape[axis]
            return (inputs * factors.reshape(shape), *others)

        return hook


def _slopes(module: nn.Module, gates: _Gates, batch: Batch) -> Tensor:
    """First derivatives of each sample's loss by each gate, (n, gates)."""
    opening = gates.opened(module, len(batch))
    logits, labels = _logits(module, batch), batch.labels
    if labels is None:
        logits = logits / TEMPERATURE
        labels = torch.multinomial(logits.detach().softmax(1), 1)[:, 0]
    return torch.autograd.grad(functional.cross_entropy(logits, labels, reduction="sum"), opening)[0]


def _curvatures(module: nn.Module, gates: _Gates, batch: Batch) -> Tensor:
    """Second derivatives of each sample's loss by each gate, (n, gates), exact in expectation."""
    opening = gates.opened(module, len(batch))
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels of attention have no second derivative
        logits, labels = _logits(module, batch), batch.labels
        if labels is None:
            logits = logits / TEMPERATURE
            labels = logits.detach().softmax(1)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        slope = torch.autograd.grad(loss, opening, create_graph=True)[0]
        total = torch.zeros_like(opening)
        for _ in range(_PROBES):
            signs = _signs(opening)
            total += signs * torch.autograd.grad((slope * signs).sum(), opening, retain_graph=True)[0]
    return total / _PROBES


def _signs(like: Tensor) -> Tensor:
    return torch.randint(0, 2, like.shape, device=like.device).to(like.dtype) * 2 - 1


def _logits(module: nn.Module, batch: Batch) -> Tensor:
    logits: Tensor = tensors_in(call(module, batch.inputs))[0].reshape(len(batch), -1)
    return logits


def _magnitudes(module: nn.Module, group: PruneGroup) -> Tensor:
    """Squared norm per channel of the root, float64 (channels,)."""
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


def _unit_of_channel(group: PruneGroup) -> Tensor:
    """Index of the unit of each channel of the root."""
    found = torch.empty(group.channels, dtype=torch.long)
    for index, unit in enumerate(group.units):
        found[list(unit)] = index
    return found


def _per_unit(values: Tensor, group: PruneGroup) -> Tensor:
    """(channels,) → (units,), summed over each unit's channels."""
    return torch.zeros(len(group.units), dtype=values.dtype).index_add_(0, _unit_of_channel(group), values)
