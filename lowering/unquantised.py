"""Operators that hold weights and are no layers, with the reason: what a network without layers consists of.

Weights are constants of two axes or more. Each operator is named once, those in bodies of If, Loop and Scan too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import onnx

from bitfront.lowering.collect_layers import SMALLEST_TABLE
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import QuantisableLayers

_LEAST_AXES = 2
_INTEGER = frozenset(
    (
        *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DequantizeLinear", "QGemm", "QAttention"),
        *(
            "DynamicQuantizeMatMul",
            "MatMulIntegerToFloat",
            "DynamicQuantizeLSTM",
            "MatMulNBits",
            "GatherBlockQuantized",
        ),
    )
)


def unquantised_operators(model: onnx.ModelProto, quantisable: QuantisableLayers) -> dict[str, str]:
    """Operator name → why it is no quantisable layer, for every operator that holds weights or computes them.

    Args:
        model: The normalised network.
        quantisable: Its quantisable layers.
    """
    found = dict(quantisable.left_alone)
    layers = {layer.node for layer in quantisable.layers}
    shapes = {name: tuple(tensor.dims) for name, tensor in GraphView(model.graph).initializers.items()}
    for node, shape in _holders(model.graph, shapes):
        name = node.name or node.output[0]
        if name in layers or name in found:
            continue
        held = "×".join(map(str, shape))
        if node.op_type in _INTEGER:
            found[name] = f"{node.op_type} with weights of {held}: they are integers already"
        else:
            found[name] = (
                f"{node.op_type} with weights of {held}: only Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN are "
                f"layers, and Gather from tables of {SMALLEST_TABLE:,} elements on"
            )
    return found


def _holders(
    graph: onnx.GraphProto, outer: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[onnx.NodeProto, tuple[int, ...]]]:
    """Each node that reads a weight, with the shape of the first one it reads."""
    shapes = {**outer, **{tensor.name: tuple(tensor.dims) for tensor in graph.initializer}}
    for node in graph.node:
        weights = [shapes[name] for name in node.input if len(shapes.get(name, ())) >= _LEAST_AXES]
        if weights:
            yield node, weights[0]
        for entry in node.attribute:
            for body in [*([entry.g] if entry.HasField("g") else []), *entry.graphs]:
                yield from _holders(body, shapes)
