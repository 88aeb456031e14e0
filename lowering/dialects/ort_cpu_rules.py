"""Abilities of ONNX Runtime's CPU provider with each operator."""

from __future__ import annotations

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
    if layer.op == "Conv" and len(layer.weight_shape) not in (3, 4):
        return f"integer convolutions over {len(layer.weight_shape) - 2} axes are not offered"
    return why_no_integer_bias(node, view) or why_no_plain_gemm(layer, node, view)


def missing_channels(layer: Layer, outputs: int) -> int:
    """Number of input channels of zeros that let a quantised Conv with so many outputs use the fast kernels."""
    if layer.conv_groups != 1 or outputs < _FAST_OUTPUTS:
        return 0
    return -layer.weight_shape[1] % _FAST_INPUTS


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
