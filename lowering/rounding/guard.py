"""Scales that keep a quantised bias inside 32 bits.

ONNX Runtime stores the bias of an integer layer as INT32 with scale s_x·s_w. Where a channel's weights are tiny and
its bias is not, b / (s_x·s_w) leaves the INT32 range and saturates without a word. So that it cannot,

    s_w[c] ≥ |b[c]| · (1 + δ) / (s_x · (2³¹ − 1))

δ leaves room for float32 arithmetic and for a bias correction, which moves the bias by at most 127·k steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from lowering.graph import GraphView, attribute

MARGIN = 2.0**-8
INT32_MAX = 2**31 - 1


def activation_scale(low: float, high: float) -> float:
    """Scale of an asymmetric U8 tensor whose range is (low, high), extended to include 0."""
    return (max(high, 0.0) - min(low, 0.0)) / 255 or 1.0


def minimum_scales(bias: NDArray[np.floating[Any]], activation_range: tuple[float, float]) -> NDArray[np.float64]:
    """The smallest weight scale of each output channel for which its bias fits, (channels,); 0 for no bias."""
    step = activation_scale(*activation_range)
    return np.abs(bias.astype(np.float64)) * (1 + MARGIN) / (step * INT32_MAX)


def layer_bias(view: GraphView, node: onnx.NodeProto, channels: int) -> NDArray[np.float64] | None:
    """The constant added to the layer's output, (channels,): its bias operand, or the Add behind a MatMul.

    Returns None where there is none, or it is not one value a channel (then the runtime does not quantise it).
    """
    name = node.input[2] if node.op_type != "MatMul" and len(node.input) > 2 else ""
    readers = view.consumers(node.output[0])
    if node.op_type == "MatMul" and len(readers) == 1 and view.nodes[readers[0]].op_type == "Add":
        name = next((operand for operand in view.nodes[readers[0]].input if operand != node.output[0]), "")
    bias = view.array(name)
    if bias is None or bias.size not in (1, channels):
        return None
    scale = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    return np.broadcast_to(bias.astype(np.float64).reshape(-1) * scale, (channels,))
