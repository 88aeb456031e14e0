"""The trained parts of a network: one weight each, as its artifact will store it, and one bias a layer.

Weights are parametrised (``torch.nn.utils.parametrize``): what the optimiser moves are shares of the largest value a
channel can hold, what the network computes with is the weight after rounding. Biases are trained in the same unit and,
in front of 8-bit arithmetic, rounded to INT32 with scale s_x·s_w, as the runtime has them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bitfront.core import Precision, Scheme
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.scales import INTEGER_RANGES
from bitfront.passes.lsq import FloatWeight, LsqWeight

# A latent weight starts at most this far, in steps, from its code: nearer to the border, where GPTQ leaves many, the
# first few updates would undo the rounding training starts from.
_WITHIN = 0.25


class TrainedWeight(nn.Module):
    """Weight that is trained; layers that share it share this."""

    weight: Tensor

    def __init__(self, weight: Tensor, kind: LsqWeight | FloatWeight) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.kind = kind
        parametrize.register_parametrization(self, "weight", kind)

    @property
    def scales(self) -> Tensor | None:
        """Scales (channels,) of an integer weight; None for a floating one."""
        return self.kind.scales().reshape(-1) if isinstance(self.kind, LsqWeight) else None

    @property
    def unit(self) -> Tensor:
        """The largest weight each channel could hold at the start, (channels,)."""
        return self.kind.unit.reshape(-1)


class TrainedLayer(nn.Module):
    """Operands of a layer that is trained.

    Args:
        weight: Its weight.
        bias: Its bias, (output channels,), where that is trained.
        integer: Whether it computes on 8-bit activations.
    """

    bias_unit: Tensor

    def __init__(self, weight: TrainedWeight, bias: Tensor | None, *, integer: bool) -> None:
        super().__init__()
        self.weight = weight
        self.integer = integer
        self.bias = None
        if bias is not None:
            self.register_buffer("bias_unit", weight.unit.repeat(bias.numel() // weight.unit.numel()))
            self.bias = nn.Parameter(bias / self.bias_unit)

    def forward(self, input_step: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Weight in its stored shape and bias (output channels,).

        Args:
            input_step: Step of the 8-bit input; None for a floating one.
        """
        weight, bias = self.weight.weight, self.bias
        if bias is None:
            return weight, None
        value = bias * self.bias_unit
        scales = self.weight.scales
        if self.integer and input_step is not None and scales is not None:
            with torch.no_grad():
                step = input_step * scales
                rest = torch.round(value / step) * step - value
            value = value + rest
        return weight, value


def trained_weight(
    layer: Layer,
    scheme: Scheme,
    weight: NDArray[np.float32],
    start: tuple[NDArray[np.int8], NDArray[np.float32]] | None,
    bits: int,
    least: NDArray[np.float64] | None,
) -> TrainedWeight:
    """A layer's weight as it starts. What is zero in the network, and in the integers, stays zero: it was pruned.

    Args:
        layer: The layer.
        scheme: What it becomes.
        weight: As the network has it.
        start: Codes and scales to start from; None for floating precisions.
        bits: Of the integers.
        least: Scales may not go below these, (channels,).
    """
    shape = [1] * weight.ndim
    shape[layer.channel_axis] = -1
    exact = torch.from_numpy(np.array(weight))
    if start is None:
        axes = [axis for axis in range(weight.ndim) if axis != layer.channel_axis]
        unit = exact.abs().amax(dim=axes, keepdim=True)
        kind = torch.float16 if scheme.precision is Precision.FP16 else torch.float32
        return TrainedWeight(exact, FloatWeight(torch.where(unit > 0, unit, 1.0), kind, _some(exact != 0)))
    integers, scales = torch.from_numpy(np.array(start[0])), torch.from_numpy(np.array(start[1])).reshape(shape)
    # The integers it starts with stay, and of the weight as much as does not change them.
    latent = scales * (integers + (exact / scales - integers).clamp(-_WITHIN, _WITHIN))
    floor = np.full(scales.numel(), np.finfo(np.float32).tiny) if least is None else least
    floors = torch.from_numpy(np.maximum(floor, np.finfo(np.float32).tiny).astype(np.float32)).reshape(shape)
    low, high = INTEGER_RANGES[bits]
    stays = _some((exact != 0) | (integers != 0))
    return TrainedWeight(latent, LsqWeight(scales, low, high, torch.minimum(floors, scales), stays))


def _some(stays: Tensor) -> Tensor | None:
    """A mask, or None where it is all true."""
    return None if bool(stays.all()) else stays
