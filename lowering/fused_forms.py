"""Writing what ONNX Runtime fused when it saved an optimised network as the operators it was fused from.

    FusedConv(x, w, b, z)    activation(Conv(x, w, b) + z)
    FusedGemm(a, b, c)       activation(Gemm(a, b, c))
    FusedMatMul(a, b)        alpha · MatMul(a, b), b transposed where it is a constant matrix

Runtimes fuse them again. Left as they are: activations that are not in ``_ACTIVATIONS``, a FusedMatMul that transposes
its left operand, batch axes or what is no constant matrix, and operators in bodies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bitfront.lowering.graph import GraphView, attribute, free_name, tensor_names

_DOMAIN = "com.microsoft"
# Activation → names of its parameters, in order.
_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "": (),
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
_OWN = frozenset(("activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma"))


def split_fused(graph: onnx.GraphProto) -> None:
    """Replace fused operators by what they stand for, in place."""
    view, taken = GraphView(graph), tensor_names(graph)
    kept = onnx.GraphProto()
    for node in view.nodes:
        made = _split(node, view, graph, taken) if node.domain == _DOMAIN else None
        kept.node.extend(made or [node])
    del graph.node[:]
    graph.node.extend(kept.node)


def _split(
    node: onnx.NodeProto, view: GraphView, graph: onnx.GraphProto, taken: set[str]
) -> list[onnx.NodeProto] | None:
    if node.op_type == "FusedMatMul":
        return _split_matmul(node, view, graph, taken)
    if node.op_type not in ("FusedConv", "FusedGemm"):
        return None
    name = bytes(attribute(node, "activation", b"")).decode()
    if name not in _ACTIVATIONS:
        return None
    last = free_name(f"{node.output[0]}_linear", taken) if name or len(node.input) > 3 else node.output[0]
    layer = helper.make_node(node.op_type.removeprefix("Fused"), node.input[:3], [last], name=node.name)
    layer.attribute.extend(entry for entry in node.attribute if entry.name not in _OWN)
    nodes = [layer]
    if len(node.input) > 3 and node.input[3]:
        total = free_name(f"{node.output[0]}_sum", taken) if name else node.output[0]
        nodes.append(helper.make_node("Add", [last, node.input[3]], [total]))
        last = total
    if name:
        values = attribute(node, "activation_params", None) or [
            attribute(node, f"activation_{greek}", 0.0) for greek in ("alpha", "beta", "gamma")
        ]
        nodes.append(_activation(name, values, last, node.output[0], graph, taken))
    return nodes


def _activation(
    name: str, values: Sequence[float], source: str, result: str, graph: onnx.GraphProto, taken: set[str]
) -> onnx.NodeProto:
    given = dict(zip(_ACTIVATIONS[name], values, strict=False))
    if name != "Clip":
        node = helper.make_node(name, [source], [result])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in given.items())
        return node
    limits = [_scalar(given[limit], f"{result}_{limit}", graph, taken) for limit in _ACTIVATIONS[name]]
    return helper.make_node(name, [source, *limits], [result])


def _split_matmul(
    node: onnx.NodeProto, view: GraphView, graph: onnx.GraphProto, taken: set[str]
) -> list[onnx.NodeProto] | None:
    if any(attribute(node, flag, 0) for flag in ("transA", "transBatchA", "transBatchB")):
        return None
    left, right = node.input
    nodes: list[onnx.NodeProto] = []
    if attribute(node, "transB", 0):
        if right not in view.initializers or len(view.initializers[right].dims) != 2:
            return None
        turned = free_name(f"{right}_turned", taken)
        nodes.append(helper.make_node("Transpose", [right], [turned], perm=[1, 0]))
        right = turned
    alpha = float(attribute(node, "alpha", 1.0))
    product = node.output[0] if alpha == 1 else free_name(f"{node.output[0]}_product", taken)
    nodes.append(helper.make_node("MatMul", [left, right], [product], name=node.name))
    if alpha != 1:
        factor = _scalar(alpha, f"{node.output[0]}_alpha", graph, taken)
        nodes.append(helper.make_node("Mul", [product, factor], [node.output[0]]))
    return nodes


def _scalar(value: float, name: str, graph: onnx.GraphProto, taken: set[str]) -> str:
    made = free_name(name, taken)
    graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), made))
    return made
