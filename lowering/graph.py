"""A read-only view of a graph: who writes and who reads each tensor, subgraphs' captures included."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitfront.lowering.weight_files import tensor_array

# Types of floating numbers that a network computes in.
FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))
# Operators whose result is elements of their first input, moved about and otherwise as they are.
MOVING = frozenset(("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"))


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The node's subgraphs: branches of If, bodies of Loop and Scan."""
    for entry in node.attribute:
        if entry.HasField("g"):
            yield entry.g
        yield from entry.graphs


def captured_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the node's subgraphs (If, Loop, Scan bodies) may read from the graph around them."""
    for body in bodies(node):
        for inner in body.node:
            yield from (name for name in inner.input if name)
            yield from captured_names(inner)
        yield from (output.name for output in body.output)


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and, at any depth, the subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs_of(body)


def nodes_of(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of a model: of its graph, of its functions and, at any depth, of their nodes' subgraphs."""
    for nodes in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes:
            yield node
            for body in bodies(node):
                yield from (inner for graph in graphs_of(body) for inner in graph.node)


def constants_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every initialiser of a model and every tensor that a node has as an attribute, in functions and bodies too."""
    yield from model.graph.initializer
    for node in nodes_of(model):
        for body in bodies(node):
            yield from body.initializer
        for entry in node.attribute:
            yield from (*([entry.t] if entry.HasField("t") else []), *entry.tensors)


def tensor_names(graph: onnx.GraphProto) -> set[str]:
    """Every name of a tensor in the graph and its subgraphs."""
    found: set[str] = set()
    for inner in graphs_of(graph):
        found.update(value.name for value in (*inner.input, *inner.output, *inner.value_info, *inner.initializer))
        for node in inner.node:
            found.update(node.input)
            found.update(node.output)
    return found


def free_name(name: str, taken: set[str]) -> str:
    """``name``, or the first of name_2, name_3 … that is not taken; taken from now on."""
    free, suffix = name, 2
    while free in taken:
        free, suffix = f"{name}_{suffix}", suffix + 1
    taken.add(free)
    return free


def rename_tensors(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Give tensors that a node reads or writes, or a body of it reads from around it, other names, in place."""
    for found in (node.input, node.output):
        for place, name in enumerate(found):
            found[place] = names.get(name, name)
    for body in bodies(node):
        own = {value.name for value in (*body.input, *body.initializer)}
        own.update(name for inner in body.node for name in inner.output)
        outer = {name: new for name, new in names.items() if name not in own}
        for inner in body.node:
            rename_tensors(inner, outer)
        for value in body.output:
            value.name = outer.get(value.name, value.name)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those that write what it or its bodies read, in place, bodies alike; a cycle stays as it is.

    Some converters append nodes to the end. Nodes that are in order already keep it.
    """
    for inner in graphs_of(graph):
        writer = {name: index for index, node in enumerate(inner.node) for name in node.output if name}
        reads = [
            {writer[name] for name in (*node.input, *captured_names(node)) if name in writer} - {index}
            for index, node in enumerate(inner.node)
        ]
        if all(max(before, default=-1) < index for index, before in enumerate(reads)):
            continue
        readers: dict[int, list[int]] = {}
        for index, before in enumerate(reads):
            for other in before:
                readers.setdefault(other, []).append(index)
        ready = [index for index, before in enumerate(reads) if not before]
        order: list[int] = []
        while ready:
            order.append(index := heapq.heappop(ready))
            for reader in readers.get(index, ()):
                reads[reader].discard(index)
                if not reads[reader]:
                    heapq.heappush(ready, reader)
        if len(order) == len(inner.node):
            kept = onnx.GraphProto(node=[inner.node[index] for index in order])
            del inner.node[:]
            inner.node.extend(kept.node)


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute, or ``default``."""
    for entry in node.attribute:
        if entry.name == name:
            return onnx.helper.get_attribute_value(entry)
    return default


class GraphView:
    """Indices over one graph.

    Args:
        graph: Topologically sorted; must not change while the view is in use.
        outer: Initialisers of the graphs around a body, by name.
    """

    def __init__(self, graph: onnx.GraphProto, outer: Mapping[str, onnx.TensorProto] = MappingProxyType({})) -> None:
        self.graph = graph
        self.nodes: tuple[onnx.NodeProto, ...] = tuple(graph.node)
        self.initializers: dict[str, onnx.TensorProto] = {
            **outer,
            **{tensor.name: tensor for tensor in graph.initializer},
        }
        self.inputs: tuple[str, ...] = tuple(value.name for value in graph.input)
        self.outputs: tuple[str, ...] = tuple(value.name for value in graph.output)
        self._output_set = frozenset(self.outputs)
        self._producer: dict[str, int] = {}
        self._consumers: dict[str, list[int]] = {}
        self._captured: set[str] = set()
        for index, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self._producer[name] = index
            for name in dict.fromkeys(name for name in node.input if name):
                self._consumers.setdefault(name, []).append(index)
            for name in captured_names(node):
                self._captured.add(name)
                self._consumers.setdefault(name, []).append(index)
        values = [*graph.value_info, *graph.input, *graph.output]
        self._types: dict[str, onnx.TypeProto.Tensor] = {value.name: value.type.tensor_type for value in values}

    def producer(self, tensor: str) -> int | None:
        """Index of the node that writes ``tensor``; None for graph inputs and initialisers."""
        return self._producer.get(tensor)

    def consumers(self, tensor: str) -> list[int]:
        """Indices of the nodes that read ``tensor``, in order."""
        return self._consumers.get(tensor, [])

    def is_output(self, tensor: str) -> bool:
        """Whether ``tensor`` is an output of the graph."""
        return tensor in self._output_set

    def is_captured(self, tensor: str) -> bool:
        """Whether a subgraph reads ``tensor``."""
        return tensor in self._captured

    def array(self, tensor: str) -> NDArray[Any] | None:
        """The value of an initialiser; None for anything else."""
        proto = self.initializers.get(tensor)
        return None if proto is None else tensor_array(proto)

    def element_type(self, tensor: str) -> int:
        """The ``TensorProto`` type of the tensor's elements; 0 where it is not known."""
        if tensor in self.initializers:
            return int(self.initializers[tensor].data_type)
        return int(self._types[tensor].elem_type) if tensor in self._types else 0

    def is_float(self, tensor: str) -> bool:
        """Whether ``tensor`` is known to be float32."""
        return self.element_type(tensor) == int(onnx.TensorProto.FLOAT)

    def shape(self, tensor: str) -> tuple[int | None, ...] | None:
        """Known shape, None for a dynamic axis; None where even the rank is unknown."""
        if tensor in self.initializers:
            return tuple(self.initializers[tensor].dims)
        kind = self._types.get(tensor)
        if kind is None or not kind.HasField("shape"):
            return None
        return tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim)

    def constant_inputs(self, node: onnx.NodeProto) -> dict[int, NDArray[np.generic]]:
        """Position → value for the node's inputs that are initialisers."""
        found: dict[int, NDArray[np.generic]] = {}
        for position, name in enumerate(node.input):
            value = self.array(name)
            if value is not None:
                found[position] = value
        return found
