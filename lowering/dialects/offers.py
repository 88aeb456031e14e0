"""The schemes that runtimes with integer kernels offer a layer, and what holds for each of them alike."""

from __future__ import annotations

import numpy as np
import onnx

from bitfront.core import FP16, FP32, Precision, Rounding, Scheme
from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.layers import Layer

GROUP_SIZE = 32

# Rounding costs neither latency nor size; at 8 bits GPTQ has nothing to gain, at 4 nearest has nothing to offer.
_INTEGER = (
    Scheme(precision=Precision.INT8, rounding=Rounding.NEAREST),
    Scheme(precision=Precision.INT8, rounding=Rounding.MSE),
    Scheme(precision=Precision.INT4, rounding=Rounding.MSE),
    Scheme(precision=Precision.INT4, rounding=Rounding.GPTQ),
)
_WEIGHT_ONLY = (
    Scheme(precision=Precision.INT8, rounding=Rounding.MSE, weight_only=True),
    Scheme(precision=Precision.INT4, rounding=Rounding.GPTQ, weight_only=True),
)


def offered(*, no_integers: str, no_groups: str) -> tuple[tuple[Scheme, ...], dict[str, str]]:
    """Schemes of a layer, and scheme text → reason for those it may not take.

    Args:
        no_integers: Why it cannot compute in integers; empty where it can.
        no_groups: Why it cannot have a scale per block of weights; empty where it can.
    """
    refused: dict[str, str] = {}
    schemes = [FP32, FP16]
    for scheme in _INTEGER:
        if no_integers:
            refused[scheme.text] = no_integers
        else:
            schemes.append(scheme)
    schemes += _WEIGHT_ONLY
    block = Scheme(precision=Precision.INT4, rounding=Rounding.MSE, weight_only=True, group_size=GROUP_SIZE)
    if no_groups:
        refused[block.text] = no_groups
    else:
        schemes.append(block)
    return tuple(schemes), refused


def offered_table() -> tuple[tuple[Scheme, ...], dict[str, str]]:
    """Schemes of a table that is looked up: storage alone, with a scale an entry."""
    schemes = (
        FP32,
        FP16,
        Scheme(precision=Precision.INT8, rounding=Rounding.MSE, weight_only=True),
        Scheme(precision=Precision.INT4, rounding=Rounding.MSE, weight_only=True),
    )
    others = (*_INTEGER, *(scheme for scheme in _WEIGHT_ONLY if scheme not in schemes))
    return schemes, {scheme.text: "a table is looked up, nothing is multiplied by it" for scheme in others}


def why_no_plain_gemm(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    """Why a Gemm is none that multiplies and adds alone; empty where it does, and for other layers."""
    if layer.op != "Gemm":
        return ""
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0):
        return "the Gemm has alpha, beta or transA set"
    bias = view.shape(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is not None and bias != (layer.weight_shape[layer.channel_axis],):
        return f"the Gemm's bias has shape {bias}, not one value per output"
    return ""


def why_no_integer_bias(node: onnx.NodeProto, view: GraphView) -> str:
    """Why a layer's bias cannot be stored in 32 bits; empty where it can, or there is none."""
    bias = view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return "" if bias is None or np.isfinite(bias).all() else "its bias has values that are not finite"


def why_no_groups(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    """Why a layer cannot have a scale per block of weights; empty where it can."""
    if layer.op not in ("Gemm", "MatMul"):
        return "block-wise weights are for Gemm and MatMul"
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    reduction = layer.weight_shape[1 - layer.channel_axis]
    if reduction < GROUP_SIZE:
        return f"its {reduction} inputs are fewer than the block size {GROUP_SIZE}"
    return why_no_plain_gemm(layer, node, view)
