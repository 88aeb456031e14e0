"""Layers of which only the storage is chosen: weights are written smaller, and computed back on load, for all readers.

Weights read in bodies of If, Loop and Scan, of the bodies or of the graph around them, and weights of the main graph
that other operators read as well. What reads them stays as it is, so nothing has to be known of activations; schemes
that quantise those, or that need another operator, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from bitfront.core import FP32, Scheme
from bitfront.lowering.dialect import Dialect, LayerSite
from bitfront.lowering.graph import GraphView, attribute, bodies, tensor_names
from bitfront.lowering.layer_sites import QUANTISED, QUANTISED_ALREADY, UNHANDLED, is_quantised, is_table, layer_at
from bitfront.lowering.layers import RECURRENT, RECURRENT_WEIGHTS, TABLE_READERS, WEIGHTED, Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import write_fp16, write_integer
from bitfront.lowering.writer import GraphWriter


@dataclass(slots=True, kw_only=True, eq=False)
class StoredLayers:
    """Collects such layers.

    Attributes:
        dialect: Says which schemes are a matter of storage alone.
        taken: Names that layers have.
        outputs: Names of the graph's outputs.
        others: Identities of weights that are other layers' already, which are written for these alone.
        claimed: Identity of a weight → the layer that it is here.
        found: Index of a node of the main graph → the layers that it, or a body of it, holds.
        left_alone: Node name → why it is no layer.
        sharing: Node name → the same, of nodes that read a weight of a layer found before.
    """

    dialect: Dialect
    taken: set[str]
    outputs: frozenset[str]
    others: frozenset[int]
    claimed: dict[int, str] = field(default_factory=dict)
    found: dict[int, list[Layer]] = field(default_factory=dict)
    left_alone: dict[str, str] = field(default_factory=dict)
    sharing: dict[str, str] = field(default_factory=dict)

    def add(self, index: int, view: GraphView, place: int, why: str) -> None:
        """Take a node's constant weights as layers, or note why they are none.

        Args:
            index: The node's index in ``view.nodes``.
            view: The graph it stands in.
            place: Index of the node of the main graph that it is, or stands in.
            why: Why their storage alone is chosen.
        """
        node = view.nodes[index]
        sites = list(_weights(node, view))
        reasons = [self._why_not(node, operand, view) for operand, _ in sites]
        if reason := next(filter(None, reasons), ""):
            self.left_alone[node.name] = reason
            return
        weights = [id(view.initializers[_root(node.input[operand], view)]) for operand, _ in sites]
        if first := next((self.claimed[weight] for weight in weights if weight in self.claimed), ""):
            self.sharing[node.name] = f"its weight is stored as that of layer '{first}' is"
            return
        for operand, name in sites:
            root = _root(node.input[operand], view)
            site = layer_at(
                index,
                view,
                self.taken,
                operand,
                weight_name=name,
                transposed_from=root if root != node.input[operand] else "",
            )
            schemes, refused = _stored_offers(self.dialect, site, why)
            layer = replace(site.layer, schemes=schemes, refused=refused, stored_only=True)
            self.claimed[id(view.initializers[layer.weight])] = layer.name
            self.found.setdefault(place, []).append(layer)

    def add_bodies(self, owner: onnx.NodeProto, outer: GraphView, place: int) -> None:
        """Take what the bodies of a node hold, at any depth; arguments as of ``add``."""
        for body in bodies(owner):
            view = GraphView(body, outer.initializers)
            why = f"it stands in a body of {owner.op_type} '{owner.name}': only how its weight is stored is chosen"
            for index, node in enumerate(view.nodes):
                if node.op_type in UNHANDLED:
                    self.left_alone[_name(node)] = f"it stands in a subgraph of {owner.op_type} '{owner.name}'"
                elif QUANTISED.fullmatch(node.op_type):
                    self.left_alone[_name(node)] = QUANTISED_ALREADY
                elif node.domain in ("", "ai.onnx") and (
                    node.op_type in (*WEIGHTED, *RECURRENT) or is_table(node, view)
                ):
                    self.add(index, view, place, why)
                self.add_bodies(node, view, place)

    def _why_not(self, node: onnx.NodeProto, operand: int, view: GraphView) -> str:
        weight = _root(node.input[operand], view)
        tensor = view.initializers.get(weight)
        if tensor is None:
            return QUANTISED_ALREADY if is_quantised(weight, view) else "its weight is computed at run time"
        if not any(support.storage and node.op_type in support.operators for support in self.dialect.schemes):
            return f"dialect '{self.dialect.name}' has no storage for weights of {node.op_type} that others may read"
        if not view.is_float(weight):
            return f"its weight is {onnx.TensorProto.DataType.Name(tensor.data_type).lower()}, only float32 is handled"
        if node.op_type == "MatMul" and len(tensor.dims) != 2:
            return f"its constant operand has {len(tensor.dims)} axes, only 2 are handled"
        if weight in self.outputs:
            return "its weight is an output as well"
        if id(tensor) in self.others:
            return "its weight is also read by a layer that has it for itself"
        value = numpy_helper.to_array(tensor)
        return (
            "" if value.size and np.isfinite(value).all() else "its weight is empty, or has values that are not finite"
        )


def _weights(node: onnx.NodeProto, view: GraphView) -> Iterator[tuple[int, str]]:
    """Positions of a node's weights among its inputs, each with the operator's name for it where it has several."""
    if node.op_type in RECURRENT:
        yield from ((operand, name) for name, operand in RECURRENT_WEIGHTS.items())
    elif node.op_type == "MatMul":
        yield (
            (0 if _root(node.input[1], view) not in view.initializers and node.input[0] in view.initializers else 1),
            "",
        )
    else:
        yield (0 if node.op_type in TABLE_READERS else 1), ""


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or next(filter(None, node.output), node.op_type))


def _root(weight: str, view: GraphView) -> str:
    """The constant matrix that a tensor is the transpose of, where it is one; else the tensor."""
    index = view.producer(weight)
    if index is None or view.nodes[index].op_type != "Transpose":
        return weight
    source = view.nodes[index].input[0]
    rank = len(view.initializers[source].dims) if source in view.initializers else 0
    return source if rank == 2 and list(attribute(view.nodes[index], "perm", [1, 0])) == [1, 0] else weight


def _stored_offers(dialect: Dialect, site: LayerSite, why: str) -> tuple[tuple[Scheme, ...], dict[str, str]]:
    schemes = [support.scheme for support in dialect.schemes if support.storage]
    refused = {
        support.scheme.text: why
        for support in dialect.schemes
        if not support.storage and site.layer.op in support.operators
    }
    return tuple(schemes), refused


def stored_tensor(graph: onnx.GraphProto, layer: Layer) -> tuple[onnx.GraphProto, onnx.TensorProto] | None:
    """The graph that holds the weight of a layer in a body, or is it, and the weight; None where there is none."""
    return _held(graph, layer, ()) or next(((graph, t) for t in graph.initializer if t.name == layer.weight), None)


def stored_array(graph: onnx.GraphProto, layer: Layer) -> NDArray[Any] | None:
    """The weight of a layer that is only stored; None where the graph has no such weight."""
    found = stored_tensor(graph, layer)
    return None if found is None else numpy_helper.to_array(found[1])


def _held(
    graph: onnx.GraphProto, layer: Layer, around: Sequence[onnx.GraphProto]
) -> tuple[onnx.GraphProto, onnx.TensorProto] | None:
    scope = (graph, *around)
    for node in graph.node:
        if node.name == layer.node:
            held = ((each, tensor) for each in scope for tensor in each.initializer if tensor.name == layer.weight)
            return next(held, None)
        for body in bodies(node):
            if found := _held(body, layer, scope):
                return found
    return None


def store_weights(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    schemes: Mapping[str, Scheme],
    weights: Mapping[str, RoundedWeight],
) -> None:
    """Write the weights of layers that are only stored as their schemes say, in place.

    Args:
        model: What a dialect wrote for the other layers.
        layers: All layers.
        schemes: Layer name → scheme.
        weights: Layer name → rounded weight, for integer schemes.

    Raises:
        LoweringError: If a weight does not fit FP16.
    """
    stored = [layer for layer in layers if layer.stored_only and schemes[layer.name] != FP32]
    taken = tensor_names(model.graph) if stored else set()
    for layer in stored:
        scheme = schemes[layer.name]
        found = stored_tensor(model.graph, layer)
        assert found is not None, "a dialect keeps what it does not write"
        graph, tensor = found
        part = GraphWriter(onnx.ModelProto(), sorted(taken))
        if scheme.precision.is_integer:
            result = write_integer(part, weights[layer.name], layer, dequantise=False)
        else:
            result = write_fp16(part, numpy_helper.to_array(tensor), layer)
        written = part.model().graph
        for node in written.node:
            node.output[:] = [layer.weight if name == result else name for name in node.output]
        taken |= {name for node in written.node for name in (*node.input, *node.output)}
        graph.initializer.remove(tensor)
        graph.initializer.extend(written.initializer)
        nodes = [*written.node, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
