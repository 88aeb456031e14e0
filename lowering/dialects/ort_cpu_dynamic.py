"""Layers whose input is quantised anew at run time, as ONNX Runtime's processor provider runs them.

| operator     | written as                                                                                   |
| ------------ | -------------------------------------------------------------------------------------------- |
| LSTM         | ``DynamicQuantizeLSTM``, W and R transposed, a scale per gate row                            |
| Gemm, MatMul | ``DynamicQuantizeLinear``, one for all that read a tensor, then ``MatMulIntegerToFloat``     |

Floats go in and come out, and no calibrated range is used. The scale is that of a whole tensor, all samples of a run
included, so that answers depend slightly on what else is in the batch.

Not handled: GRU, RNN and convolutions (there is no kernel, or a slow one), an LSTM with the batch first (``layout``).
"""

from __future__ import annotations

import numpy as np
import onnx

from bitfront.lowering.dialect import LayerSite
from bitfront.lowering.dialects.qdq import QdqEmitter
from bitfront.lowering.dialects.qdq_schemes import why_no_plain_gemm
from bitfront.lowering.graph import attribute
from bitfront.lowering.layers import Layer

# Inputs of LSTM; scales and zero points of W and R come behind them.
_LSTM_INPUTS = 8
# Weights of the smallest product for which it is offered: one row by 128 × 128 takes as long as in FP32.
SMALLEST_PRODUCT = 128 * 128
OPERATORS = frozenset(("LSTM", "Gemm", "MatMul"))


def why_not_dynamic(site: LayerSite) -> str:
    """Reason why a layer's input cannot be quantised at run time; empty where it can."""
    layer = site.layer
    if layer.op == "LSTM":
        return "DynamicQuantizeLSTM has no layout attribute" if attribute(site.node, "layout", 0) else ""
    if not site.view.is_float(site.node.input[0]):
        return "its input is not known to be float32"
    if layer.parameters < SMALLEST_PRODUCT:
        return f"its {layer.parameters:,} weights are fewer than the {SMALLEST_PRODUCT:,} from which it gains"
    return why_no_plain_gemm(layer, site.node, site.view)


def dynamic_bytes(layer: Layer, scheme: object) -> int:  # noqa: ARG001 (the signature of ``SchemeSupport``)
    """Integers, a scale a channel, and of an LSTM a zero point a channel."""
    return layer.parameters + (5 if layer.op == "LSTM" else 4) * layer.channels


def write_dynamic_lstm(emitter: QdqEmitter, site: LayerSite) -> None:
    """Write an LSTM as DynamicQuantizeLSTM."""
    node, writer = site.node, emitter.writer
    inputs = [emitter.as_float(name) for name in node.input] + [""] * (_LSTM_INPUTS - len(node.input))
    scales: list[str] = []
    for layer in emitter.layers_at(node):
        rounded, shape = emitter.rounded(layer), layer.weight_shape[:2]
        transposed = np.ascontiguousarray(rounded.integers.swapaxes(1, 2))
        inputs[layer.operand] = writer.constant(transposed, f"{layer.weight}_8")
        scales.append(writer.constant(rounded.scales.reshape(shape), f"{layer.weight}_s"))
        scales.append(writer.constant(np.zeros(shape, np.int8), f"{layer.weight}_z"))
    dynamic = onnx.NodeProto()
    dynamic.CopyFrom(node)
    dynamic.op_type, dynamic.domain = "DynamicQuantizeLSTM", "com.microsoft"
    del dynamic.attribute[:]
    dynamic.attribute.extend(entry for entry in node.attribute if entry.name != "layout")
    writer.copy(dynamic, [*inputs, *scales], list(node.output))
    emitter.keep_floating(site)


def write_dynamic_product(emitter: QdqEmitter, site: LayerSite, quantised: tuple[str, str, str]) -> None:
    """Write a Gemm or MatMul of an input that is quantised: names of its integers, scale and zero point."""
    layer, node, writer, rounded = site.layer, site.node, emitter.writer, emitter.rounded(site.layer)
    integers = rounded.integers if layer.channel_axis == 1 else np.ascontiguousarray(rounded.integers.T)
    weight = writer.constant(integers, f"{layer.weight}_8")
    scale = writer.constant(rounded.scales.reshape(-1), f"{layer.weight}_s")
    x, x_scale, x_zero = quantised
    inputs = [x, weight, x_scale, scale, x_zero]
    if len(node.input) > 2 and node.input[2]:
        inputs += ["", node.input[2]]
    writer.node("MatMulIntegerToFloat", inputs, list(node.output), domain="com.microsoft")
    emitter.keep_floating(site)
