"""Theoretical costs of a module: weights, and multiply-adds per sample as torch's own flop counter sees them.

The counter sees convolutions and matrix products, functional ones included; additions, norms and activations are not
counted. Latency is another matter, and measured.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bitfront.core import Inputs
from bitfront.lowering.module_calls import call
from bitfront.passes.device import device_of, modes_kept

_SAMPLES = 2  # networks may refuse a single sample


def example_tensors(module: nn.Module, inputs: Inputs, samples: int = _SAMPLES) -> dict[str, Tensor]:
    """The first ``samples`` of each input (repeated where there are fewer), on the module's device."""
    device = device_of(module)
    arrays = {name: np.resize(array[:samples], (samples, *array.shape[1:])) for name, array in inputs.items()}
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device) for name, array in arrays.items()}


def count_parameters(module: nn.Module) -> int:
    """Parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, inputs: Inputs) -> int:
    """Multiply-adds of one sample.

    Args:
        module: In any mode.
        inputs: One array per input, shape (n, …).
    """
    return layer_macs(module, inputs)[""]


def layer_macs(module: nn.Module, inputs: Inputs) -> dict[str, int]:
    """Multiply-adds of one sample by module path, those of parts included; ``""`` is the whole module."""
    counter = FlopCounterMode(display=False)
    examples = example_tensors(module, inputs)
    with modes_kept(module), torch.no_grad(), counter:
        module.eval()
        call(module, examples)
    totals = {name: sum(counts.values()) // (2 * _SAMPLES) for name, counts in counter.get_flop_counts().items()}
    # Paths start with the class of the whole module; 'Global' counts everything once, and is missing where nothing is.
    macs = {name.partition(".")[2]: count for name, count in totals.items() if "." in name}
    macs[""] = totals.get("Global", 0)
    return macs
