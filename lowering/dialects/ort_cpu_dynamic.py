"""Layers whose input is quantised anew at run time, as ONNX Runtime's processor provider runs them.

| operator     | written as                                                        |
| ------------ | ----------------------------------------------------------------- |
| LSTM         | ``DynamicQuantizeLSTM``, W and R transposed, a scale per gate row |

Floats go in and come out; the kernel finds the scale of each input and of each state as it comes.

Not handled: GRU and RNN, for which there is no kernel, and an LSTM with the batch first (``layout``).
"""

from __future__ import annotations

import numpy as np
import onnx

from bitfront.core import SCHEMES
from bitfront.lowering.dialect import ComputeType, LayerSite, SchemeSupport
from bitfront.lowering.dialects.qdq import QdqEmitter
from bitfront.lowering.graph import attribute
from bitfront.lowering.layers import Layer

# Inputs of LSTM; scales and zero points of W and R come behind them.
_LSTM_INPUTS = 8


def _why_not(site: LayerSite) -> str:
    """Why a layer's input cannot be quantised at run time; empty where it can."""
    if site.layer.op != "LSTM":
        return f"ONNX Runtime's CPU provider has no {site.layer.op} that quantises its input itself"
    if attribute(site.node, "layout", 0):
        return "DynamicQuantizeLSTM has no layout attribute"
    return ""


def _weight_bytes(layer: Layer, scheme: object) -> int:  # noqa: ARG001 (the signature of ``SchemeSupport``)
    """Integers, and for each channel a scale of four bytes and a zero point of one."""
    return layer.parameters + 5 * layer.channels


def _write(emitter: QdqEmitter, site: LayerSite) -> None:
    """Write an LSTM as DynamicQuantizeLSTM."""
    node, writer = site.node, emitter.writer
    inputs = [emitter.as_float(name) for name in node.input] + [""] * (_LSTM_INPUTS - len(node.input))
    scales: list[str] = []
    for layer in emitter.layers_at(node):
        rounded = emitter.rounded(layer)
        shape = layer.weight_shape[:2]
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


DYNAMIC: SchemeSupport[QdqEmitter] = SchemeSupport(
    scheme=SCHEMES["int8:mse:dynamic"],
    compute_type=ComputeType.DYNAMIC_INT8,
    write=_write,
    why_not=_why_not,
    operators=frozenset(("LSTM",)),
    weight_bytes=_weight_bytes,
)
"""W8A8 with activations quantised at run time."""
