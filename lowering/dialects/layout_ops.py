"""Layout operators: those that run on an 8-bit tensor as they are, and how they are written there."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.quantiser import Quantiser
from bitfront.lowering.writer import GraphWriter

# What a shortcut written as a convolution needs for a fast kernel: inputs by so many, so many outputs at least.
_FAST_INPUTS, _FAST_OUTPUTS = 4, 16

# Kernels for uint8 that give the float kernel's result on the integers.
_LAYOUT = frozenset(
    ("Slice", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Gather", "Split", "Identity")
)


def is_layout_op(view: GraphView, index: int) -> bool:
    """Whether a node runs on an 8-bit tensor as it is, its results keeping the quantiser."""
    node = view.nodes[index]
    if node.domain not in ("", "ai.onnx") or not node.input or not view.is_float(node.input[0]):
        return False
    if node.input[0] in view.initializers:
        return False
    if node.op_type == "MaxPool":
        return len(node.output) == 1
    if node.op_type == "Pad":
        return _pad_value(view, node) is not None
    if node.op_type in ("Relu", "Clip"):
        return _bounds(view, node) is not None
    return node.op_type in _LAYOUT


def is_clamp(view: GraphView, index: int) -> bool:
    """Whether a node is a Relu or Clip that holds 0, so that a quantiser's range can stand for it."""
    node = view.nodes[index]
    bounds = _bounds(view, node) if node.op_type in ("Relu", "Clip") else None
    return bounds is not None and bounds[0] <= 0 <= bounds[1]


def _bounds(view: GraphView, node: onnx.NodeProto) -> tuple[float, float] | None:
    if node.op_type == "Relu":
        return 0.0, math.inf
    limits = [-math.inf, math.inf]
    for position in (1, 2):
        if len(node.input) > position and node.input[position]:
            value = view.array(node.input[position])
            if value is None:
                return None
            limits[position - 1] = float(value.reshape(-1)[0])
    return limits[0], limits[1]


def _pad_value(view: GraphView, node: onnx.NodeProto) -> float | None:
    """The constant a Pad fills in; None where it cannot be written on 8-bit tensors."""
    if attribute(node, "mode", b"constant") != b"constant":
        return None
    if len(node.input) > 2 and node.input[2]:
        value = view.array(node.input[2])
        # Zero is the only value every quantiser holds exactly.
        return 0.0 if value is not None and float(value.reshape(-1)[0]) == 0.0 else None
    return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """A strided Slice followed by a Pad of channels: the parameter-free shortcut of a residual network.

    Attributes:
        pad: Index of the Pad.
        strides: Along height and width.
        channels: Read.
        before, after: Channels of zeros in front and behind.
    """

    pad: int
    strides: tuple[int, int]
    channels: int
    before: int
    after: int


def shortcut_at(view: GraphView, index: int) -> Shortcut | None:
    """The shortcut that begins with the Slice at ``index``, if fast kernels fit it as a 1×1 convolution."""
    node = view.nodes[index]
    shape, readers = view.shape(node.input[0]), view.consumers(node.output[0])
    if node.op_type != "Slice" or shape is None or len(shape) != 4 or shape[1] is None or len(readers) != 1:
        return None
    pad, values = view.nodes[readers[0]], view.constant_inputs(node)
    if pad.op_type != "Pad" or _pad_value(view, pad) is None or len(pad.input) > 3 or set(values) != {1, 2, 3, 4}:
        return None
    if view.is_output(node.output[0]) or view.is_captured(node.output[0]):
        return None
    steps = {int(axis): int(step) for axis, step in zip(values[3], values[4], strict=True)}
    whole = all(
        start == 0 and end >= (shape[axis] or 2**31)
        for axis, start, end in zip(values[3], values[1], values[2], strict=True)
        if axis in (2, 3)
    )
    pads = view.array(pad.input[1])
    if not whole or not set(steps) <= {2, 3} or min(steps.values()) < 1 or pads is None or len(pads) != 8:
        return None
    before, after = int(pads[1]), int(pads[5])
    if np.count_nonzero(pads) != np.count_nonzero(pads[[1, 5]]) or min(before, after) < 0:
        return None
    if shape[1] % _FAST_INPUTS or shape[1] + before + after < _FAST_OUTPUTS:
        return None
    strides = (steps.get(2, 1), steps.get(3, 1))
    return Shortcut(pad=readers[0], strides=strides, channels=shape[1], before=before, after=after)


def write_shortcut(writer: GraphWriter, shortcut: Shortcut, name: str, source: str, scale: str, zero: str) -> str:
    """Write a shortcut as a 1×1 convolution that copies channels: exact, and faster than Slice and Pad.

    Args:
        writer: Where to.
        shortcut: The shortcut.
        name: Tensor the Pad writes.
        source: Floating form of the tensor the Slice reads, behind a DequantizeLinear.
        scale: Scale of that tensor's quantiser; the result has the same.
        zero: Zero point likewise.
    """
    outputs = shortcut.before + shortcut.channels + shortcut.after
    integers = np.zeros((outputs, shortcut.channels, 1, 1), np.int8)
    channels = np.arange(shortcut.channels)
    integers[shortcut.before + channels, channels] = 7
    wide, weight, raw, result = (writer.fresh(f"{name}_{suffix}") for suffix in ("8", "f", "r", "q"))
    writer.node("Cast", [writer.int4_constant(integers, f"{name}_4")], [wide], attributes={"to": TensorProto.INT8})
    step = writer.constant(np.array(1 / 7, np.float32), f"{name}_w")
    writer.node("DequantizeLinear", [wide, step], [weight])
    writer.node("Conv", [source, weight], [raw], attributes={"strides": list(shortcut.strides)})
    writer.node("QuantizeLinear", [raw, scale, zero], [result])
    return result


def write_layout_op(
    writer: GraphWriter, view: GraphView, index: int, source: str, quantiser: Quantiser, zero: str
) -> list[str]:
    """Write a layout operator on the 8-bit tensor ``source``; returns the 8-bit results' names."""
    node = view.nodes[index]
    if node.op_type in ("Relu", "Clip"):
        bounds = _bounds(view, node)
        assert bounds is not None
        integers = [quantiser.quantise(bound) for bound in bounds]
        if integers == [0, 255]:
            return [source]
        limits = [writer.constant(np.array(integer, np.uint8), f"{source}_c") for integer in integers]
        result = writer.fresh(f"{node.output[0]}_q")
        writer.node("Clip", [source, *limits], [result])
        return [result]
    results = [writer.fresh(f"{name}_q") for name in node.output]
    inputs = [source, *node.input[1:]]
    if node.op_type == "Pad":
        inputs = [source, node.input[1], zero, *node.input[3:]]
    writer.copy(node, inputs, results)
    return results
