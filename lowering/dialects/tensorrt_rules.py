"""Abilities of TensorRT with each layer, and what it should not be asked to do.

Sources, by section: "Working with Quantized Types" (symmetric INT8, INT4 for weights of GEMMs alone) and "Explicit
Quantization" of NVIDIA's TensorRT documentation, 10.x and 11.x; ``IConvolutionLayer::setNbGroups`` of the API reference
(grouped INT8); the exclusions of NVIDIA's Model Optimizer for ONNX (``quantization/graph_utils.py``: convolutions
under 16 channels, small GEMMs and GEMVs, which run slower with Q/DQ than without).

Not handled: a GEMV that is one only at run time, by a dynamic batch of 1.
"""

from __future__ import annotations

import onnx

from bitfront.lowering.dialect import LayerSite
from bitfront.lowering.fp16 import FP16_MAX
from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.layers import Layer

_NARROW, _ALIGNED, _CONV_GROUP = 16, 8, 4

# Layers that only move values; TensorRT moves Q and DQ across them ("Q/DQ Layer-Placement Recommendations"). Averages
# are not among them: they do not commute with rounding.
_LAYOUT = frozenset(("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split"))


def why_no_fp16(site: LayerSite) -> str:
    """Reason why a layer may not be FP16; empty where it may."""
    if reason := _why_unknown(site):
        return reason
    for name in site.node.input[1:]:
        value = site.view.array(name)
        if value is not None and value.size and not abs(value).max() <= FP16_MAX:
            return f"its operand '{name}' goes beyond FP16's {FP16_MAX:g}"
    return ""


def why_no_int8(site: LayerSite) -> str:
    """Reason why a layer should not compute in INT8; empty where it should."""
    if reason := _why_unknown(site):
        return reason
    if site.layer.op == "ConvTranspose":
        return _why_no_integer_transpose(site.layer)
    if site.layer.op == "Conv":
        return _why_no_integer_conv(site.layer, site.node, site.view)
    return _why_no_integer_gemm(site.layer, site.node, site.view)


def why_no_groups(site: LayerSite, *, group_size: int) -> str:
    """Reason why a layer cannot have INT4 weights with a scale per group; empty where it can."""
    if reason := _why_unknown(site):
        return reason
    layer = site.layer
    if layer.op not in ("Gemm", "MatMul"):
        return "block-wise weights are for Gemm and MatMul"
    reduction, outs = layer.weight_shape[1 - layer.channel_axis], layer.weight_shape[layer.channel_axis]
    if reduction % group_size:
        return f"its {reduction} inputs are not divisible by block size {group_size}"
    if outs < _NARROW:
        return f"its {outs} outputs are fewer than the {_NARROW} that GEMMs want"
    return _why_no_plain_gemm(site.node)


def _why_unknown(site: LayerSite) -> str:
    known = site.view.is_float(site.node.input[0]) and site.view.is_float(site.node.output[0])
    return "" if known else "its input or output is not known to be float32"


def _why_no_integer_conv(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    outs, ins, *kernel = layer.weight_shape
    if len(kernel) not in (1, 2, 3):
        return f"convolutions over {len(kernel)} axes are not offered"
    if layer.conv_groups > 1:
        return _why_no_grouped_conv(outs, ins, layer.conv_groups, kernel)
    if min(outs, ins) >= _NARROW:
        return ""
    first = node.input[0] in view.inputs
    aligned = outs % _ALIGNED == 0 or ins % _ALIGNED == 0
    if aligned and (first or max(outs, ins) >= _NARROW) and len(set(kernel)) == 1:
        return ""
    return f"its {ins} input and {outs} output channels are too few for TensorRT's INT8 kernels"


def _why_no_grouped_conv(outs: int, ins: int, groups: int, kernel: list[int]) -> str:
    if ins == 1:
        if outs % _ALIGNED or min(kernel) < 3:
            return f"a depthwise INT8 convolution wants channels by eights and kernels from 3, not {outs} and {kernel}"
        return ""
    if ins % _CONV_GROUP or (outs // groups) % _CONV_GROUP:
        return f"INT8 groups want channels by fours, not {ins} in and {outs // groups} out"
    return ""


def _why_no_integer_transpose(layer: Layer) -> str:
    ins, outs, *kernel = layer.weight_shape
    if layer.conv_groups > 1:
        return "TensorRT runs grouped INT8 deconvolutions group by group, slower than floating ones"
    if len(kernel) not in (2, 3) or min(ins, outs) < _NARROW:
        return f"its {ins} input and {outs} output channels are too few for TensorRT's INT8 kernels"
    return ""


def _why_no_integer_gemm(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    reduction, outs = layer.weight_shape[1 - layer.channel_axis], layer.weight_shape[layer.channel_axis]
    if min(reduction, outs) < _NARROW:
        return f"its {reduction} inputs and {outs} outputs are fewer than the {_NARROW} that INT8 GEMMs want"
    shape = view.shape(node.input[0])
    if shape is not None and (len(shape) < 2 or (len(shape) == 2 and shape[0] == 1)):
        return "it multiplies a matrix by a single vector, which INT8 does not speed up"
    return _why_no_plain_gemm(node)


def _why_no_plain_gemm(node: onnx.NodeProto) -> str:
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0):
        return "the Gemm has alpha, beta or transA set"
    return ""


def is_layout_op(view: GraphView, index: int) -> bool:
    """Whether a node only moves values of one floating tensor, so that it may run between Q/DQ of one scale."""
    node = view.nodes[index]
    if node.domain not in ("", "ai.onnx") or not (node.op_type in _LAYOUT or _pads_zeros(view, node)):
        return False
    outputs = [name for name in node.output if name]
    if node.op_type == "MaxPool" and len(outputs) > 1:
        return False
    return node.input[0] not in view.initializers and all(view.is_float(name) for name in (node.input[0], *outputs))


def _pads_zeros(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node is a Pad that fills in what every symmetric quantiser holds exactly."""
    if node.op_type != "Pad" or attribute(node, "mode", b"constant") != b"constant":
        return False
    if len(node.input) < 3 or not node.input[2]:
        return True
    value = view.array(node.input[2])
    return value is not None and not value.any()


def is_joining(view: GraphView, index: int) -> bool:
    """Whether a node is a Concat of floating activations."""
    node = view.nodes[index]
    if node.op_type != "Concat" or node.domain not in ("", "ai.onnx"):
        return False
    return all(name not in view.initializers and view.is_float(name) for name in (*node.input, node.output[0]))
