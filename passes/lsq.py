"""Learned step size quantisation: Esser et al., "Learned Step Size Quantization", arXiv:1902.08153.

    v̂ = clip(⌊v / s⌉, low, high) · s                                             (section 2, eq. 1 and 2)
    ∂v̂/∂s = ⌊v / s⌉ − v / s   for low < v / s < high, else the end it is clipped to   (eq. 3)
    ∂v̂/∂v = 1                 for low < v / s < high, else 0                          (eq. 5)

The step's gradient is multiplied by g = 1 / √(N · high), N being the values that share the step (section 2.2). Codes
are counted from the zero point: an unsigned byte with zero point z has low = −z and high = 255 − z.

We depart from the paper in two ways. Steps start where calibration and weight rounding put them, which is closer than
its 2·mean|v| / √high. And what the optimiser sees is a step's ratio to where it started, and weights as shares of the
largest value their channel could hold at the start: folded batch norms leave channels of very different sizes, and one
learning rate has to fit them all.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

# A step never shrinks below this share of where it started: at zero there would be no way back.
SMALLEST_RATIO = 1 / 64


class _Lsq(torch.autograd.Function):
    """Eq. 1 and 2 forwards, eq. 3 and 5 backwards.

    Activations are large and each pass over them costs: integers are clipped before they are rounded, which gives the
    same ones and tells what was outside, and one operator, the gradient of a clip, stands for compare and select.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, low: int, high: int, gradient_scale: float) -> Tensor:
        clipped = (values / step).clamp_(low, high)
        ctx.save_for_backward(clipped)
        ctx.ends = (low, high)
        ctx.gradient_scale = gradient_scale
        ctx.step_shape = step.shape
        return torch.round(clipped).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        (clipped,) = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward  # its first operand between the ends, 0 on and beyond them
        slope = torch.round(clipped).sub_(inside(clipped, clipped, *ctx.ends))
        for_step = slope.mul_(gradients[0]).sum_to_size(ctx.step_shape) * ctx.gradient_scale
        return inside(gradients[0], clipped, *ctx.ends), for_step, None, None, None


def quantise(values: Tensor, step: Tensor, low: int, high: int, *, sharing: int) -> Tensor:
    """Fake quantisation with gradients for values and step.

    Args:
        values: Any shape.
        step: Positive, broadcastable to ``values``.
        low: Smallest code, from the zero point; at most 0.
        high: Largest code, likewise; above ``low``.
        sharing: N, how many values share one step.
    """
    result: Tensor = _Lsq.apply(values, step, low, high, gradient_scale(sharing, high))  # type: ignore[no-untyped-call]
    return result


def gradient_scale(sharing: int, high: int) -> float:
    """G = 1 / √(N · high)."""
    return 1 / math.sqrt(max(1, sharing) * max(1, high))


class LearnedStep(nn.Module):
    """A positive step, or several, learned as ratios to where they started.

    Args:
        start: Any shape; positive.
    """

    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.register_buffer("start", start.clone())
        self.ratio = nn.Parameter(torch.ones_like(start))

    def forward(self) -> Tensor:
        """The step."""
        step: Tensor = self.start * self.ratio.clamp_min(SMALLEST_RATIO)
        return step


class TensorQuantiser(nn.Module):
    """The quantiser of one activation: a learned step and a zero point that stays.

    Args:
        step: Where the step starts.
        zero_point: The code of 0.
        low: Smallest code of the type: 0 or −128.
        high: Largest: 255 or 127.
    """

    def __init__(self, step: float, zero_point: int, low: int, high: int) -> None:
        super().__init__()
        self.step = LearnedStep(torch.tensor(step))
        self.zero_point = zero_point
        self.low, self.high = low - zero_point, high - zero_point

    def forward(self, values: Tensor) -> Tensor:
        """Fake-quantised ``values``, (n, …)."""
        return quantise(values, self.step(), self.low, self.high, sharing=values[:1].numel())

    def value_of(self, code: int) -> Tensor:
        """Number that an integer stands for."""
        value: Tensor = self.step() * (code - self.zero_point)
        return value

    @torch.no_grad()
    def range(self) -> tuple[float, float]:
        """(low, high) from which lowering finds this very quantiser again.

        A signed type is taken as symmetric: −127 steps to 127.
        """
        step = float(self.step())
        low = -self.high if self.zero_point == 0 and self.low < 0 else self.low
        return low * step, self.high * step


class LsqWeight(nn.Module):
    """Parametrisation of an integer weight: shares of the largest weight → ŵ = integers · scale.

    Args:
        scales: Where the scales start, broadcastable to the weight.
        low: Smallest code.
        high: Largest.
        least: Scales stay at or above these; as ``scales``.
        stays: Where weights may be other than zero, the weight's shape; None is everywhere.
    """

    unit: Tensor
    least: Tensor
    stays: Tensor | None

    def __init__(self, scales: Tensor, low: int, high: int, least: Tensor, stays: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("stays", stays, persistent=False)
        self.low, self.high = low, high
        self.register_buffer("unit", scales * high)
        self.register_buffer("least", least)
        self.step = LearnedStep(scales)

    def scales(self) -> Tensor:
        """The scales as they are now."""
        return torch.maximum(self.step(), self.least)

    def forward(self, shares: Tensor) -> Tensor:
        """Shares (the weight's shape) → ŵ."""
        scales = self.scales()
        shares = shares if self.stays is None else shares * self.stays
        return quantise(shares * self.unit, scales, self.low, self.high, sharing=shares.numel() // scales.numel())

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Weight → shares."""
        return weight / self.unit


class FloatWeight(nn.Module):
    """Parametrisation of a weight stored in ``kind``: shares of its channel's largest → weight.

    Args:
        unit: The largest weight of each channel, broadcastable to the weight.
        kind: ``torch.float32``, or ``torch.float16`` for a weight that is rounded to it.
        stays: As in ``LsqWeight``.
    """

    unit: Tensor
    stays: Tensor | None

    def __init__(self, unit: Tensor, kind: torch.dtype, stays: Tensor | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("stays", stays, persistent=False)
        self.register_buffer("unit", unit)

    def forward(self, shares: Tensor) -> Tensor:
        """Shares (the weight's shape) → weight as the artifact holds it."""
        shares = shares if self.stays is None else shares * self.stays
        return (shares * self.unit).to(self.kind).to(shares.dtype)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Weight → shares."""
        return weight / self.unit
