"""The schemes that processors' runtimes with integer kernels share, and what holds for each of them alike."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from bitfront.core import SCHEMES, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import LAYERS, TABLES, LayerSite, SchemeSupport
from bitfront.lowering.dialects.qdq import QdqEmitter
from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.layers import TABLE_READERS, Layer
from bitfront.lowering.storage import stored_bytes

GROUP_SIZE = 32

Reason = Callable[[LayerSite], str]


def qdq_schemes(
    *, why_no_int8: Reason, why_no_groups: Reason, fp16: ComputeType, stored: frozenset[str]
) -> tuple[SchemeSupport[QdqEmitter], ...]:
    """The table of a dialect. At 8 bits GPTQ has nothing to gain, at 4 rounding to nearest has nothing to offer.

    Args:
        why_no_int8: Why a layer cannot compute on 8-bit activations; empty where it can.
        why_no_groups: Why it cannot have a scale per group of weights; empty where it can.
        fp16: What FP16 layers compute in.
        stored: Operators besides ``LAYERS`` whose weights may be stored smaller: tables, recurrent ones.
    """
    operators, floats = LAYERS | (stored & TABLES), LAYERS | stored
    entries = (
        floating("fp32", floats),
        floating("fp16", floats, compute_type=fp16),
        static("int8:nearest", operators, why_no_int8),
        static("int8:mse", operators, why_no_int8),
        static("int4:mse", operators, why_no_int8),
        static("int4:gptq", operators, why_no_int8),
        floating("int8:mse:weight-only", floats),
        floating("int4:gptq:weight-only", operators, why_not=_why_no_product),
        grouped("int4:mse:block32", why_no_groups),
    )
    return (*entries, floating("int4:mse:weight-only", stored)) if stored else entries


def floating(
    text: str,
    operators: frozenset[str] = LAYERS,
    *,
    compute_type: ComputeType = ComputeType.FP32,
    why_not: Reason = lambda _: "",
) -> SchemeSupport[QdqEmitter]:
    """A scheme of floating activations, its weights unfolded when the model is loaded."""

    def write(emitter: QdqEmitter, site: LayerSite) -> None:
        emitter.floating_layer(site)

    return SchemeSupport(
        scheme=SCHEMES[text], compute_type=compute_type, write=write, why_not=why_not, operators=operators
    )


def static(text: str, operators: frozenset[str], why_not: Reason) -> SchemeSupport[QdqEmitter]:
    """A scheme of 8-bit activations with calibrated scales; a Gemm's scales have zero points of a byte."""

    def write(emitter: QdqEmitter, site: LayerSite) -> None:
        emitter.integer_layer(site)

    def weight_bytes(layer: Layer, scheme: Scheme) -> int:
        return stored_bytes(layer, scheme, scale_bytes=5 if layer.op == "Gemm" else 4)

    return SchemeSupport(
        scheme=SCHEMES[text],
        compute_type=ComputeType.INT8,
        write=write,
        why_not=lambda site: _why_no_product(site) or why_not(site),
        operators=operators,
        weight_bytes=weight_bytes,
    )


def grouped(
    text: str, why_not: Reason, weight_bytes: Callable[[Layer, Scheme], int] = stored_bytes
) -> SchemeSupport[QdqEmitter]:
    """A scheme of floating activations and integer weights with a scale per group, in a fused kernel."""

    def write(emitter: QdqEmitter, site: LayerSite) -> None:
        emitter.grouped_layer(site)

    return SchemeSupport(
        scheme=SCHEMES[text],
        compute_type=ComputeType.WEIGHT_ONLY,
        write=write,
        why_not=why_not,
        weight_bytes=weight_bytes,
    )


def _why_no_product(site: LayerSite) -> str:
    return "a table is looked up, nothing is multiplied by it" if site.layer.op in TABLE_READERS else ""


def why_no_plain_gemm(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    """Reason why a Gemm does more than multiply and add; empty where it does not, and for other layers."""
    if layer.op != "Gemm":
        return ""
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0 or attribute(node, "transA", 0):
        return "the Gemm has alpha, beta or transA set"
    bias = view.shape(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is not None and bias != (layer.weight_shape[layer.channel_axis],):
        return f"the Gemm's bias has shape {bias}, not one value per output"
    return ""


def why_no_integer_bias(node: onnx.NodeProto, view: GraphView) -> str:
    """Reason why a layer's bias cannot be stored in 32 bits; empty where it can, or there is none."""
    bias = view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    return "" if bias is None or np.isfinite(bias).all() else "its bias has values that are not finite"


def why_no_matmul_groups(site: LayerSite) -> str:
    """Reason why a layer cannot have a scale per group of ``GROUP_SIZE`` weights; empty where it can."""
    layer, node, view = site.layer, site.node, site.view
    if layer.op not in ("Gemm", "MatMul"):
        return "block-wise weights are for Gemm and MatMul"
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    reduction = layer.weight_shape[1 - layer.channel_axis]
    if reduction < GROUP_SIZE:
        return f"its {reduction} inputs are fewer than the block size {GROUP_SIZE}"
    return why_no_plain_gemm(layer, node, view)
