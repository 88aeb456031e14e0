"""Parts of a network: the layers of one group, with the clamp behind them, as a network of its own.

A part is written by the same dialect with the same ranges and rounded weights as the whole network, so that it runs the
kernels that its layers run there while everything else is floating.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from onnx import helper

from bitfront.lowering.dialects.layout_ops import is_clamp
from bitfront.lowering.graph import GraphView, captured_names
from bitfront.lowering.layers import Layer, PrecisionGroup, QuantisableLayers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkPart:
    """The layers of one group as a network of its own.

    Attributes:
        group: The group's name.
        layers: Its layers.
        model: The part, in FP32.
        inputs: Tensors of the network that it reads.
        outputs: Tensors of the network that it writes and others read, all of float32.
    """

    group: str
    layers: tuple[Layer, ...]
    model: onnx.ModelProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def network_parts(model: onnx.ModelProto, quantisable: QuantisableLayers) -> dict[str, NetworkPart]:
    """Group name → its part, for every group that has one.

    A group has none if other layers stand between its own, or a layer stands in the body of an operator.

    Args:
        model: The normalised network.
        quantisable: Its layers and groups.
    """
    view = GraphView(model.graph)
    index_of = {node.name: index for index, node in enumerate(view.nodes)}
    by_name = {layer.name: layer for layer in quantisable.layers}
    of_layers = {index_of[layer.node] for layer in quantisable.layers if layer.node in index_of}
    found = {}
    for group in quantisable.groups:
        layers = tuple(by_name[name] for name in group.layers)
        if all(layer.node in index_of for layer in layers):
            own = {index_of[layer.node] for layer in layers}
            nodes = _between(view, own)
            if not nodes & (of_layers - own):
                part = _part(model, view, group, layers, _with_clamps(view, nodes))
                if part is not None:
                    found[group.name] = part
    return found


def _between(view: GraphView, own: set[int]) -> set[int]:
    """Nodes of a group and those that stand on a way from one of them to another."""
    if len(own) == 1:
        return set(own)
    last, behind = max(own), set(own)
    for index in range(min(own), last + 1):
        if any(view.producer(name) in behind for name in _reads(view.nodes[index])):
            behind.add(index)
    found = set(own)
    for index in range(last, min(own) - 1, -1):
        written = view.nodes[index].output
        if index in behind and any(reader in found for name in written if name for reader in view.consumers(name)):
            found.add(index)
    return found


def _with_clamps(view: GraphView, nodes: set[int]) -> set[int]:
    found = set(nodes)
    for index in sorted(nodes):
        result = view.nodes[index].output[0]
        readers = view.consumers(result)
        if len(readers) == 1 and is_clamp(view, readers[0]) and not view.is_output(result):
            found.add(readers[0])
    return found


def _part(
    model: onnx.ModelProto, view: GraphView, group: PrecisionGroup, layers: tuple[Layer, ...], nodes: set[int]
) -> NetworkPart | None:
    own = [view.nodes[index] for index in sorted(nodes)]
    written = {name for node in own for name in node.output if name}
    read = list(dict.fromkeys(name for node in own for name in _reads(node)))
    inputs = [name for name in read if name not in written and (name in view.inputs or view.producer(name) is not None)]
    outputs = [
        name
        for name in dict.fromkeys(name for node in own for name in node.output if name)
        if view.is_output(name) or view.is_captured(name) or any(at not in nodes for at in view.consumers(name))
    ]
    values = {value.name: value for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    known = all(name in values for name in (*inputs, *outputs))
    if not outputs or not known or not all(view.is_float(name) for name in outputs):
        return None
    inner = [values[name] for name in sorted(written - set(outputs)) if name in values]
    graph = helper.make_graph(
        own,
        model.graph.name,
        [values[name] for name in inputs],
        [values[name] for name in outputs],
        [view.initializers[name] for name in read if name in view.initializers],
        value_info=inner,
    )
    alone = helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, functions=model.functions
    )
    return NetworkPart(group=group.name, layers=layers, model=alone, inputs=tuple(inputs), outputs=tuple(outputs))


def _reads(node: onnx.NodeProto) -> Iterable[str]:
    return (*(name for name in node.input if name), *captured_names(node))
