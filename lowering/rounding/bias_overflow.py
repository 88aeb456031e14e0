"""Scales with which a bias that is quantised to 32 bits is neither saturated nor lost.

ONNX Runtime stores the bias of an integer layer as INT32 with scale s_x·s_w. Where a channel's weights are tiny and
its bias is not, b / (s_x·s_w) leaves the INT32 range and saturates without a word. So that it cannot,

    s_w[c] ≥ max(|b[c]| · (1 + δ) / (s_x · (2³¹ − 1)),  t / s_x)

δ leaves room for float32 arithmetic and for a bias correction, which moves the bias by at most 127·k steps; with the
smallest normal float32 t the product s_x·s_w does not vanish.

A channel whose weights are all zero has no scale of its own, and an arbitrary one may be too coarse: with s_w = 1 the
bias is rounded to multiples of s_x. Its scale is ``ZERO_WEIGHTS`` times the lower limit, which leaves the bias 27 bits,
more than float32 has. In other channels the quantised input is the coarser of the two: its error of s_x / 2 is
multiplied by weights of up to 127 steps s_w (7 at 4 bits), that of the bias is half a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfront.lowering.graph import GraphView, attribute

MARGIN = 2.0**-8
# Of the lower limit. The quantiser met at run time may be finer than the one assumed, where glue shares it.
ZERO_WEIGHTS = 16.0
INT32_MAX = 2**31 - 1


def activation_scale(low: float, high: float) -> float:
    """Scale of an asymmetric U8 tensor whose range is (low, high), extended to include 0."""
    return (max(high, 0.0) - min(low, 0.0)) / 255 or 1.0


def min_scales_for_bias(bias: NDArray[np.floating[Any]], activation_range: tuple[float, float]) -> NDArray[np.float64]:
    """The smallest weight scale of each output channel for which its bias fits, (channels,); 0 for no bias."""
    step = activation_scale(*activation_range)
    fitting = np.abs(bias.astype(np.float64)) * (1 + MARGIN) / (step * INT32_MAX)
    normal = np.finfo(np.float32)
    return np.where(bias == 0, 0.0, np.clip(fitting, float(normal.tiny) / step, float(normal.max) / (2 * ZERO_WEIGHTS)))


def layer_bias(view: GraphView, node: onnx.NodeProto, channels: int) -> NDArray[np.float64] | None:
    """The constant added to the layer's output, (channels,): its bias operand, or the Add behind a MatMul.

    Returns None where there is none, or it is not one finite value a channel (then the runtime does not quantise it).
    """
    name = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    readers = view.consumers(node.output[0])
    if node.op_type == "MatMul" and len(readers) == 1 and view.nodes[readers[0]].op_type == "Add":
        name = next((operand for operand in view.nodes[readers[0]].input if operand != node.output[0]), "")
    bias = view.array(name)
    if bias is None or bias.size not in (1, channels) or not np.isfinite(bias).all():
        return None
    scale = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    return np.broadcast_to(bias.astype(np.float64).reshape(-1) * scale, (channels,))
