"""Operators that hold weights and are no layers, with the reason: what a network without layers consists of.

Weights are constants of two axes or more, positions and masks apart. Each operator is named once, those in bodies of
If, Loop and Scan too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

import onnx

from bitfront.lowering.collect_layers import SMALLEST_TABLE
from bitfront.lowering.layers import QuantisableLayers

_LEAST_AXES = 2
_INDICES = (onnx.TensorProto.INT32, onnx.TensorProto.INT64, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)
_NO_TENSORS: Mapping[str, onnx.TensorProto] = MappingProxyType({})
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
    for node, weights in weight_readers(model.graph):
        name = node.name or node.output[0]
        if name in layers or name in found:
            continue
        held = "×".join(map(str, weights[0].dims))
        if node.op_type in _INTEGER:
            found[name] = f"{node.op_type} with weights of {held}: they are integers already"
        else:
            found[name] = (
                f"{node.op_type} with weights of {held}: only Conv, ConvTranspose, Gemm and MatMul are layers, and "
                f"Gather from tables of {SMALLEST_TABLE:,} elements on"
            )
    return found


def weight_readers(
    graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto] = _NO_TENSORS
) -> Iterator[tuple[onnx.NodeProto, tuple[onnx.TensorProto, ...]]]:
    """Nodes that read weights, each with those it reads, bodies of If, Loop and Scan included.

    Args:
        graph: The graph or body.
        outer: Constants of the graphs around it, by name.
    """
    tensors = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    for node in graph.node:
        weights = tuple(tensors[name] for name in node.input if name in tensors and _is_weight(tensors[name]))
        if weights:
            yield node, weights
        for entry in node.attribute:
            for body in [*([entry.g] if entry.HasField("g") else []), *entry.graphs]:
                yield from weight_readers(body, tensors)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    return len(tensor.dims) >= _LEAST_AXES and tensor.data_type not in _INDICES
