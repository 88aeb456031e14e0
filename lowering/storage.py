"""Storage of a layer's weight, as nodes that ONNX Runtime folds when it loads the model.

| scheme             | written as                                                   | after loading         |
| ------------------ | ------------------------------------------------------------ | --------------------- |
| fp32               | initialiser                                                  | float weight          |
| fp16               | FLOAT16 initialiser → Cast                                   | float weight          |
| int8 weight-only   | INT8 initialiser → Cast → Mul(scale)                         | float weight          |
| int4 weight-only   | INT4 initialiser → Cast → Mul(scale)                         | float weight          |
| int8               | INT8 initialiser → DequantizeLinear                          | 8-bit weight          |
| int4               | INT4 initialiser → Cast to INT8 → DequantizeLinear           | 8-bit weight          |
| … with zeros       | the same with a Pad before DequantizeLinear                  | 8-bit weight          |

So FP16 and INT4 are storage types here: the file shrinks, memory in use does not. Channels of zeros that kernels want
are not stored, unless they take less than the node would.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from bitfront.core import LoweringError, Scheme
from bitfront.lowering.fp16 import FP16_MAX
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.writer import GraphWriter

# What a Pad takes in a file, its constant included.
_PAD_BYTES = 160


def write_fp16(writer: GraphWriter, weight: NDArray[np.float32], layer: Layer) -> str:
    """Half-precision storage; returns the name of the float tensor.

    Raises:
        LoweringError: If a weight does not fit FP16.
    """
    largest = float(np.abs(weight).max(initial=0.0))
    if largest > FP16_MAX:
        raise LoweringError(
            f"layer '{layer.name}': its largest weight, {largest:g}, is beyond FP16's {FP16_MAX:g}",
            "leave the layer at fp32 or int8",
        )
    stored = writer.constant(weight.astype(np.float16), f"{layer.weight}_h")
    result = writer.fresh(f"{layer.weight}_f")
    writer.node("Cast", [stored], [result], attributes={"to": TensorProto.FLOAT})
    return result


def write_integer(
    writer: GraphWriter, rounded: RoundedWeight, layer: Layer, *, dequantise: bool, zeros: Sequence[int] = ()
) -> str:
    """Integer storage with one scale per output channel; returns the name of the float tensor.

    Args:
        writer: Where to.
        rounded: Codes of the weight's shape, scales (channels,).
        layer: The layer.
        dequantise: Whether integer arithmetic is to find a DequantizeLinear (else Cast and Mul, folded at load).
        zeros: How many zeros each axis has behind its integers when the model is loaded, and scales of 1 as many as the
            channels; with ``dequantise`` alone. Empty for none.
    """
    scales, codes = rounded.scales.reshape(-1), rounded.integers
    pads = [0] * codes.ndim + list(zeros)
    if zeros:
        assert dequantise, "only integer arithmetic wants channels of zeros"
        scales = np.concatenate([scales, np.ones(zeros[layer.channel_axis], np.float32)])
        padded = np.pad(codes, [(0, count) for count in zeros])
        if (padded.size - codes.size) * rounded.bits // 8 <= _PAD_BYTES:
            codes, pads = padded, []
    result = writer.fresh(f"{layer.weight}_f")
    if rounded.bits == 4:
        integers = writer.int4_constant(codes, f"{layer.weight}_4")
    else:
        integers = writer.constant(codes, f"{layer.weight}_8")
    if dequantise:
        if rounded.bits == 4:
            wide = writer.fresh(f"{layer.weight}_8")
            writer.node("Cast", [integers], [wide], attributes={"to": TensorProto.INT8})
            integers = wide
        if any(pads):
            wider = writer.fresh(f"{layer.weight}_p")
            amounts = writer.constant(np.array(pads, np.int64), f"{layer.weight}_n")
            writer.node("Pad", [integers, amounts], [wider])
            integers = wider
        scale = writer.constant(scales, f"{layer.weight}_s")
        inputs = [integers, scale]
        if layer.op == "Gemm":
            # QGemm alone insists on a zero point that the others take to be 0.
            inputs.append(writer.constant(np.zeros(scales.shape, np.int8), f"{layer.weight}_z"))
        writer.node("DequantizeLinear", inputs, [result], attributes={"axis": layer.channel_axis})
        return result
    shape = [size if axis in layer.channel_axes else 1 for axis, size in enumerate(layer.weight_shape)]
    scale = writer.constant(scales.reshape(shape), f"{layer.weight}_s")
    wide = writer.fresh(f"{layer.weight}_w")
    writer.node("Cast", [integers], [wide], attributes={"to": TensorProto.FLOAT})
    writer.node("Mul", [wide, scale], [result])
    return result


def stored_bytes(layer: Layer, scheme: Scheme, *, scale_bytes: int = 4) -> int:
    """Bytes of a layer's integers and scales: a scale a channel, or one a group of the reduction axis.

    Args:
        layer: The layer.
        scheme: What it becomes.
        scale_bytes: Bytes of one scale, with its zero point if one is written.
    """
    stored = (layer.parameters * scheme.precision.bits + 7) // 8
    if not scheme.precision.is_integer:
        return stored
    channels = layer.channels
    if (group_size := scheme.weights.group_size) is not None:
        groups = -(-layer.weight_shape[1 - layer.channel_axis] // group_size)
        return channels * groups * (group_size * scheme.precision.bits // 8 + scale_bytes)
    return stored + channels * scale_bytes


def pack_groups(rounded: RoundedWeight, layer: Layer, *, transposed: bool, group_size: int) -> NDArray[np.uint8]:
    """Codes in MatMulNBits' layout: (out, groups, group_size / 2), unsigned with zero point 8.

    Args:
        rounded: Codes of the weight's shape, 4 bits.
        layer: The layer, for its weight's shape.
        transposed: Whether the weight is (out, in) already.
        group_size: Weights per group along the reduction axis; the last group is padded with zeros.
    """
    assert layer.op in ("Gemm", "MatMul")
    rows = rounded.integers if transposed else rounded.integers.T
    out, reduction = rows.shape
    groups = -(-reduction // group_size)
    padded = np.full((out, groups * group_size), 8, np.uint8)
    padded[:, :reduction] = (rows.astype(np.int16) + 8).astype(np.uint8)
    pairs = padded.reshape(out, groups, group_size // 2, 2)
    packed: NDArray[np.uint8] = pairs[..., 0] | (pairs[..., 1] << 4)
    return packed
