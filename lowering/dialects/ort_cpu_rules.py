"""Abilities of ONNX Runtime's CPU provider with each operator."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx

from bitfront.lowering.dialect import LayerSite
from bitfront.lowering.dialects.qdq_schemes import why_no_integer_bias, why_no_plain_gemm
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import pack_groups
from bitfront.lowering.writer import GraphWriter

_FAST_INPUTS, _FAST_OUTPUTS = 4, 16
# Zeros of a kernel and, in two dimensions, size of a kernel and channels to one of zeros, up to which zeros pay.
_FEW_ZEROS, _LARGE_KERNEL, _FEW_CHANNELS = 32, 49, 3

# Activations the provider fuses into a floating Gemm before it looks for quantised ones.
_GEMM_ACTIVATIONS = frozenset(
    ("Elu", "HardSigmoid", "LeakyRelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Tanh", "ThresholdedRelu")
)
# Operators the provider fuses with Q/DQ around them into a QLinear… kernel.
_ARITHMETIC = frozenset(("Add", "Mul", "Concat", "GlobalAveragePool", "LeakyRelu", "Sigmoid"))


def why_no_int8(site: LayerSite) -> str:
    """Reason why a layer cannot compute on 8-bit activations; empty where it can."""
    layer, node, view = site.layer, site.node, site.view
    if layer.op == "ConvTranspose":
        return "ONNX Runtime's CPU provider has no integer ConvTranspose; weight-only storage is offered"
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    if layer.op == "Conv" and len(layer.weight_shape) not in (3, 4, 5):
        return f"integer convolutions over {len(layer.weight_shape) - 2} axes are not offered"
    return why_no_integer_bias(node, view) or why_no_plain_gemm(layer, node, view)


def missing_channels(layer: Layer, outputs: int) -> int:
    """Number of input channels of zeros that let a quantised Conv of so many outputs run faster; 0 where none pay."""
    channels, kernel = layer.weight_shape[1], layer.weight_shape[2:]
    missing = -channels % _FAST_INPUTS
    if layer.conv_groups != 1 or outputs < _FAST_OUTPUTS:
        return 0
    return missing if zeros_pay(channels, missing, kernel) else 0


def zeros_pay(channels: int, missing: int, kernel: tuple[int, ...]) -> bool:
    """Whether a convolution of so many input channels runs faster with so many more of zeros.

    They do where they are few, and in two dimensions where they are a third of the channels or less and the kernel is
    not large. Time with zeros over time without, by input channels, where they are left out in brackets
    (``experiments/channel_padding_study.py`` on an AMD EPYC with AVX-512 VNNI, ONNX Runtime 1.31.1, one thread):

    ======  ======  ======  ======  ======  ======  ======
    kernel  1       2       3       5       6       7
    ======  ======  ======  ======  ======  ======  ======
    1×1     0.69    0.68    0.66    0.65    0.64    0.64
    3×3     0.66    0.66    0.67    0.68    0.66    0.64
    5×5     (0.93)  (0.88)  0.80    (0.88)  0.84    0.81
    7×7     (1.32)  (1.10)  0.93    (1.12)  0.96    0.89
    11×11   (1.38)  (1.17)  (1.02)  (1.13)  (0.98)  (0.91)
    16×16   (1.80)  (1.30)  (1.11)  (0.99)  (0.93)  (0.82)
    3       0.78    0.73    0.68    0.70    0.64    0.65
    9       0.86    0.80    0.73    0.72    0.72    0.70
    25      (1.35)  (1.12)  0.97    (1.09)  (1.02)  0.92
    80      (2.17)  (1.60)  (1.23)  (1.30)  (1.13)  (1.01)
    512     (3.20)  (1.84)  (1.30)  (1.51)  (1.28)  (1.09)
    ======  ======  ======  ======  ======  ======  ======
    """
    taps = prod(kernel)
    wide = len(kernel) == 2 and taps <= _LARGE_KERNEL and _FEW_CHANNELS * missing <= channels
    return missing * taps <= _FEW_ZEROS or wide


def with_conv_groups(node: onnx.NodeProto, groups: int) -> onnx.NodeProto:
    """A Conv with another number of groups."""
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    for entry in changed.attribute:
        if entry.name == "group":
            entry.i = groups
    return changed


def is_arithmetic(view: GraphView, index: int) -> bool:
    """Whether a node has a kernel that computes on 8-bit tensors with quantisers of their own."""
    node = view.nodes[index]
    if node.op_type not in _ARITHMETIC or node.domain not in ("", "ai.onnx"):
        return False
    return all(name and name not in view.initializers and view.is_float(name) for name in node.input)


def may_write_floats(view: GraphView, index: int) -> bool:
    """Whether an integer layer can leave its result floating; a Conv without Q/DQ behind it is not fused."""
    node = view.nodes[index]
    if node.op_type != "Gemm":
        return node.op_type == "MatMul"
    readers = view.consumers(node.output[0])
    return not (len(readers) == 1 and view.nodes[readers[0]].op_type in _GEMM_ACTIVATIONS)


def write_matmul_nbits(
    writer: GraphWriter, site: LayerSite, rounded: RoundedWeight, source: str, group_size: int
) -> None:
    """Write a Gemm or MatMul as MatMulNBits with 4-bit groups.

    Args:
        writer: Where to.
        site: The layer.
        rounded: Its weight, scales (channels, groups).
        source: Name of its floating input.
        group_size: Weights a group.
    """
    layer, node = site.layer, site.node
    out = layer.weight_shape[layer.channel_axis]
    reduction = layer.weight_shape[1 - layer.channel_axis]
    packed = pack_groups(rounded, layer, transposed=layer.channel_axis == 0, group_size=group_size)
    inputs = [
        source,
        writer.constant(packed, f"{layer.weight}_4"),
        writer.constant(rounded.scales.reshape(out, -1), f"{layer.weight}_s"),
    ]
    bias = site.view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is not None or (rounded.bias_correction is not None and layer.op == "Gemm"):
        total = np.zeros(out, np.float32) if bias is None else bias.astype(np.float32)
        if rounded.bias_correction is not None:
            total = total + rounded.bias_correction
        inputs += ["", "", writer.constant(total.astype(np.float32), f"{layer.weight}_b")]
    writer.node(
        "MatMulNBits",
        inputs,
        list(node.output),
        domain="com.microsoft",
        name=layer.name,
        attributes={"K": reduction, "N": out, "bits": 4, "block_size": group_size, "accuracy_level": 4},
    )
