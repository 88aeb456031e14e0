"""Bringing a network to one opset, with operators whose defaults changed on the way meaning what they meant.

``onnx.version_converter`` does most of it. Mended here, in bodies of If, Loop and Scan alike:

- Upsample and Resize below opset 11 sampled at ``asymmetric`` coordinates, nearest ones rounded down where an axis
  grows and up where it shrinks (as ONNX Runtime has it); from 11 on both are attributes with other defaults.
- Hardmax, Softmax and LogSoftmax below 13 took all axes from ``axis`` on as one.
- GroupNormalization below 21 had one scale and bias a group, from then on one a channel.

Refused: Scan of opset 8, whose batch axis and lengths later ones do not have; a nearest Resize below 11 of which one
axis grows and another shrinks; operators that the converter refuses.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, version_converter

from bitfront.core import ModelError
from bitfront.core.formatting import first_line
from bitfront.lowering.graph import GraphView, attribute, free_name, graphs_of, tensor_names
from bitfront.lowering.shapes import infer_shapes, restored, without_weights
from bitfront.lowering.weight_files import tensor_array

OPSET = 21
_STANDARD = ("", "ai.onnx")
_FLATTENING = ("Hardmax", "Softmax", "LogSoftmax")


def opset_of(model: onnx.ModelProto) -> int:
    """The version of the standard operators a model uses; 0 where it imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)


def with_opset(model: onnx.ModelProto, source: str) -> onnx.ModelProto:
    """The model at ``OPSET``, or as it is where it is newer.

    Args:
        model: A checked model without functions; not modified.
        source: File or module it came from, for messages.

    Raises:
        ModelError: If it cannot be converted.
    """
    version = opset_of(model)
    if version >= OPSET:
        return model
    every = [node for graph in graphs_of(model.graph) for node in graph.node if node.domain in _STANDARD]
    if version < 9 and any(node.op_type == "Scan" for node in every):
        raise ModelError(
            f"'{source}': Scan of opset {version} has a batch axis, which Scan of opset {OPSET} has not",
            "export the network with opset 9 or newer",
        )
    prepared = onnx.ModelProto()
    prepared.CopyFrom(model)
    sampled = {node.output[0] for node in every if node.op_type in ("Upsample", "Resize")} if version < 11 else set()
    grouped = {node.output[0] for node in every if node.op_type == "GroupNormalization"}
    names = {node.output[0]: node.name for node in every if node.output}
    if version < 13:
        view, taken = GraphView(_inferred(prepared).graph), tensor_names(prepared.graph)
        for graph in graphs_of(prepared.graph):
            _flatten_first(graph, view, taken)
    try:
        converted = restored(version_converter.convert_version(without_weights(prepared), OPSET), prepared)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"'{source}': opset {version} could not be converted to {OPSET} ({first_line(error)})",
            f"export the network with opset {OPSET} or newer",
        ) from error
    for graph in graphs_of(converted.graph):
        for node in graph.node:
            if node.output:
                node.name = names.get(node.output[0], node.name)
            if node.op_type == "Resize" and node.output[0] in sampled:
                _sample_as_before_11(node, graph, source)
    if grouped:
        _widen_groups(converted.graph, grouped, source)
    return converted


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return infer_shapes(model)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        return model


def _sample_as_before_11(node: onnx.NodeProto, graph: onnx.GraphProto, source: str) -> None:
    wanted = {"coordinate_transformation_mode": "asymmetric"}
    if attribute(node, "mode", b"nearest") == b"nearest":
        scales = _scales(node, graph)
        if min(scales, default=1) < 1 < max(scales, default=1):
            raise ModelError(
                f"'{source}': Resize '{node.name}' of an opset below 11 makes one axis larger and another smaller, "
                f"which rounds positions in ways that no Resize of opset {OPSET} does at once",
                "export the network with opset 11 or newer, or resize in two steps",
            )
        wanted["nearest_mode"] = "ceil" if min(scales, default=1) < 1 else "floor"
    kept = [entry for entry in node.attribute if entry.name not in wanted]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in wanted.items())])


def _scales(node: onnx.NodeProto, graph: onnx.GraphProto) -> list[float]:
    """The scales of a Resize; none where they are computed at run time."""
    for tensor in graph.initializer:
        if tensor.name == node.input[2]:
            return [float(scale) for scale in tensor_array(tensor).ravel()]
    for other in graph.node:
        if other.op_type == "Constant" and node.input[2] in other.output:
            value = helper.get_attribute_value(other.attribute[0])
            values = tensor_array(value) if isinstance(value, onnx.TensorProto) else value
            return [float(scale) for scale in np.ravel(values)]
    return []


def _flatten_first(graph: onnx.GraphProto, view: GraphView, taken: set[str]) -> None:
    """Write a Softmax and its kin over several axes, as it was below opset 13, as one over the last of two axes."""
    nodes = []
    for node in graph.node:
        if node.op_type not in _FLATTENING or node.domain not in _STANDARD:
            nodes.append(node)
            continue
        source, result, axis = node.input[0], node.output[0], int(attribute(node, "axis", 1))
        shape = view.shape(source)
        if shape is not None and axis in (len(shape) - 1, -1):
            nodes.append(helper.make_node(node.op_type, [source], [result], name=node.name, axis=axis))
            continue
        sizes, flat, rows = (free_name(f"{result}_{part}", taken) for part in ("shape", "flat", "rows"))
        nodes += [
            helper.make_node("Shape", [source], [sizes]),
            helper.make_node("Flatten", [source], [flat], axis=axis),
            helper.make_node(node.op_type, [flat], [rows], axis=1),
            helper.make_node("Reshape", [rows, sizes], [result], name=node.name),
        ]
    _replace_nodes(graph, nodes)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    kept = onnx.GraphProto(node=nodes)  # copies: deleting a graph's nodes clears those that are still held
    del graph.node[:]
    graph.node.extend(kept.node)


def _widen_groups(graph: onnx.GraphProto, outputs: set[str], source: str) -> None:
    """Repeat the scales and biases of GroupNormalization, one a group, to one a channel."""
    view = GraphView(_inferred(helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])).graph)
    nodes, taken, found = [], tensor_names(graph), set()
    for node in graph.node:
        if node.op_type == "GroupNormalization" and node.output[0] in outputs:
            found.add(node.output[0])
            shape, groups = view.shape(node.input[0]), int(attribute(node, "num_groups", 1))
            channels = shape[1] if shape is not None and len(shape) > 1 else None
            if channels is None:
                raise _unknown_channels(node.output[0], source)
            for place in (1, 2):
                last = node.input[place]
                for op, size in (
                    ("Reshape", [groups, 1]),
                    ("Expand", [groups, channels // groups]),
                    ("Reshape", [channels]),
                ):
                    made = free_name(f"{node.input[place]}_{op.lower()}", taken)
                    sizes = free_name(f"{made}_size", taken)
                    graph.initializer.append(helper.make_tensor(sizes, onnx.TensorProto.INT64, [len(size)], size))
                    nodes.append(helper.make_node(op, [last, sizes], [made]))
                    last = made
                node.input[place] = last
        nodes.append(node)
    if outputs - found:  # in a body, whose tensors' shapes are not known here
        raise _unknown_channels(min(outputs - found), source)
    _replace_nodes(graph, nodes)


def _unknown_channels(output: str, source: str) -> ModelError:
    return ModelError(
        f"'{source}': the GroupNormalization that writes '{output}' has one scale a group, as below opset 21, and its "
        "number of channels is not known",
        f"export the network with opset {OPSET} or newer",
    )
