"""Bringing a network that computes in FP16, BF16 or FP64 to FP32, so that its layers are found and can be rounded.

Inputs and outputs keep the types they were given with, behind Casts; weights become FP32, with the ones given kept as
their origin (``lowering.folding``). Values are those of the given network but for its own type's rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from bitfront.lowering.folding import Folding, Origins
from bitfront.lowering.graph import GraphView, free_name, graphs_of, rename_tensors, tensor_names
from bitfront.lowering.layers import RECURRENT, WEIGHTED
from bitfront.lowering.weight_files import detach_one, tensor_array

HALF_TYPES = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16))
# Attributes that name the type of a result, or the type an operator computes in.
_TYPE_ATTRIBUTES = frozenset(("to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision"))


def compute_types(proto: onnx.ModelProto) -> frozenset[int]:
    """The types other than FP32 that weighted operators compute in, those in bodies of If, Loop and Scan too."""
    views = [GraphView(proto.graph)]
    for graph in graphs_of(proto.graph):
        if graph is not proto.graph:
            views.append(GraphView(graph, views[0].initializers))
    found = {
        view.element_type(node.input[1])
        for view in views
        for node in view.nodes
        if node.op_type in (*WEIGHTED, *RECURRENT) and node.domain in ("", "ai.onnx") and len(node.input) > 1
    }
    return frozenset(found) & (HALF_TYPES | {TensorProto.DOUBLE})


def in_fp32(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    """The model computing in FP32 where its weighted operators compute in FP16, BF16 or FP64.

    Args:
        proto: With the types of its tensors; not modified.
        folding: The given form of weights that become FP32 is added to its origins.
    """
    kinds, origins = compute_types(proto), folding.origins
    if not kinds:
        return proto
    if kinds & HALF_TYPES:
        kinds |= HALF_TYPES
    wide = onnx.ModelProto()
    wide.CopyFrom(proto)
    taken = tensor_names(wide.graph) | set(origins.nodes) | set(origins.constants)
    given = _keep_given(wide.graph, kinds, origins, taken)
    for node in origins.nodes.values():
        rename_tensors(node, given)
    origins.nodes.update(
        (name, helper.make_node("Cast", [kept], [name], to=TensorProto.FLOAT)) for name, kept in given.items()
    )
    for graph in graphs_of(wide.graph):
        for tensor in graph.initializer:
            if tensor.data_type in kinds:
                tensor.CopyFrom(numpy_helper.from_array(tensor_array(tensor).astype("float32"), tensor.name))
                if folding.weights is not None and graph is wide.graph:
                    detach_one(tensor, folding.weights)
        for node in graph.node:
            _widen_attributes(node, kinds)
        ends = () if graph is wide.graph else (*graph.input, *graph.output)
        for value in (*graph.value_info, *ends):
            _widen_type(value.type, kinds)
    _cast_ends(wide.graph, kinds, taken)
    return wide


def _keep_given(graph: onnx.GraphProto, kinds: Iterable[int], origins: Origins, taken: set[str]) -> dict[str, str]:
    """Weight that becomes FP32 → the name under which ``origins`` has it as it was given."""
    given = {}
    for tensor in graph.initializer:
        if tensor.data_type in kinds:
            given[tensor.name] = free_name(f"{tensor.name}_given", taken)
            constant = TensorProto()
            constant.CopyFrom(tensor)
            constant.name = given[tensor.name]
            if tensor.name in origins.nodes:
                origins.nodes[constant.name] = origins.nodes.pop(tensor.name)
            else:
                origins.constants.pop(tensor.name, None)
                origins.constants[constant.name] = constant
    return given


def _widen_attributes(node: onnx.NodeProto, kinds: Iterable[int]) -> None:
    for entry in node.attribute:
        if entry.type == AttributeProto.INT and entry.name in _TYPE_ATTRIBUTES and entry.i in kinds:
            entry.i = TensorProto.FLOAT
        elif entry.type == AttributeProto.TENSOR and entry.t.data_type in kinds:
            value = tensor_array(entry.t).astype("float32")
            entry.t.CopyFrom(numpy_helper.from_array(value, entry.t.name))


def _widen_type(kind: onnx.TypeProto, kinds: Iterable[int]) -> None:
    if kind.HasField("tensor_type"):
        if kind.tensor_type.elem_type in kinds:
            kind.tensor_type.elem_type = TensorProto.FLOAT
    elif kind.HasField("sequence_type"):
        _widen_type(kind.sequence_type.elem_type, kinds)
    elif kind.HasField("optional_type"):
        _widen_type(kind.optional_type.elem_type, kinds)


def _cast_ends(graph: onnx.GraphProto, kinds: Iterable[int], taken: set[str]) -> None:
    """Cast inputs after they are read and outputs before they are written; both keep their names and types."""
    inner: dict[str, str] = {}
    before, behind = [], []
    for value in graph.input:
        if value.type.tensor_type.elem_type in kinds:
            inner[value.name] = free_name(f"{value.name}_wide", taken)
            before.append(helper.make_node("Cast", [value.name], [inner[value.name]], to=TensorProto.FLOAT))
    inputs = set(inner)
    for value in graph.output:
        kind = value.type.tensor_type.elem_type
        if kind in kinds and value.name not in inputs:
            inner[value.name] = free_name(f"{value.name}_wide", taken)
            behind.append(helper.make_node("Cast", [inner[value.name]], [value.name], to=kind))
    for node in graph.node:
        rename_tensors(node, inner)
    for tensor in (*graph.initializer, *graph.value_info):
        tensor.name = inner.get(tensor.name, tensor.name)
    nodes = onnx.GraphProto(node=[*before, *graph.node, *behind])
    del graph.node[:]
    graph.node.extend(nodes.node)
