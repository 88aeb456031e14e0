"""Batch norm in training and after surgery: frozen statistics, and statistics measured anew.

Removing channels, rounding weights or training with other inputs moves the activations that batch norm was measured
on; its running mean and variance are then simply wrong, and measuring them again costs a forward pass and no labels
(Sun et al., "Hybrid 8-bit floating point training", NeurIPS 2019, section 3; Li et al., EagleEye, arXiv:2007.02491).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitfront.core import Inputs
from bitfront.lowering.module_calls import call
from bitfront.passes.data import TrainingData
from bitfront.passes.device import device_of, modes_kept


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Every batch norm that keeps running statistics."""
    return [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]


def freeze_batch_norm(module: nn.Module) -> None:
    """Use the running statistics as they are, in place, until ``module.train()`` is called again."""
    for norm in batch_norms(module):
        norm.eval()


def reestimate_batch_norm(module: nn.Module, inputs: Inputs, *, batch_size: int = 256, samples: int = 2048) -> int:
    """Measure running mean and variance anew, in place: the plain average over batches.

    Everything else (dropout) stays in evaluation mode; the modes are restored.

    Args:
        module: The network.
        inputs: One array per input, shape (n, …).
        batch_size: Samples per forward pass.
        samples: So many at most, the first ones.

    Returns:
        How many batch norms were measured.
    """
    norms = batch_norms(module)
    if not norms:
        return 0
    data = TrainingData(inputs=inputs)
    # A last batch of one sample has no variance over a 1×1 map; a short one would weigh as much as the others.
    count = min(samples, len(data))
    count -= count % batch_size if count > batch_size else 0
    with modes_kept(module), _cumulative(norms), torch.no_grad():
        module.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.train()
        for batch in data.batches(batch_size, device_of(module), count):
            call(module, batch.inputs)
    return len(norms)


@contextmanager
def _cumulative(norms: list[_BatchNorm]) -> Iterator[None]:
    """Momentum None averages over all batches since the reset."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
