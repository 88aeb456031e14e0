"""Canonical form of operators without weights that can be written in several: slices, means over all positions."""

from __future__ import annotations

import numpy as np
import onnx

from bitfront.lowering.graph import GraphView, attribute


def merge_slices(graph: onnx.GraphProto) -> None:
    """Merge chains of Slices over different axes, in place."""
    while _merge_one_slice(graph):
        pass


def pool_globally(graph: onnx.GraphProto, view: GraphView) -> None:
    """Write means over all positions as GlobalAveragePool, in place.

    Args:
        graph: The graph.
        view: A view of the same graph with the shapes of its tensors.
    """
    for index in range(len(view.nodes) - 1, -1, -1):
        seen = view.nodes[index]
        if _is_global_mean(seen, view):
            _pool_globally(graph, index, flat=seen.op_type == "ReduceMean" and not attribute(seen, "keepdims", 1))


def _merge_one_slice(graph: onnx.GraphProto) -> bool:
    """Merge the first pair Slice → Slice over different axes; False when there is none."""
    view = GraphView(graph)
    for index, node in enumerate(view.nodes):
        before = view.producer(node.input[0]) if node.op_type == "Slice" else None
        if before is None or view.nodes[before].op_type != "Slice":
            continue
        first = view.nodes[before]
        if view.consumers(first.output[0]) != [index] or view.is_output(first.output[0]):
            continue
        parts = [_slice_parts(first, view), _slice_parts(node, view)]
        if parts[0] is None or parts[1] is None or set(parts[0][2]) & set(parts[1][2]):
            continue
        names = []
        for kind, (left, right) in zip(("starts", "ends", "axes", "steps"), zip(*parts, strict=True), strict=True):
            name = f"{node.output[0]}_{kind}"
            graph.initializer.append(onnx.numpy_helper.from_array(np.array([*left, *right], np.int64), name))
            names.append(name)
        del node.input[:]
        node.input.extend([first.input[0], *names])
        graph.node.remove(first)
        used = {name for other in graph.node for name in other.input}
        for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
            if not view.is_output(tensor.name) and not view.is_captured(tensor.name):
                graph.initializer.remove(tensor)
        return True
    return False


def _slice_parts(node: onnx.NodeProto, view: GraphView) -> tuple[list[int], ...] | None:
    constants = view.constant_inputs(node)
    # Without explicit non-negative axes two slices cannot be told apart.
    if 3 not in constants or any(position not in constants for position in range(1, len(node.input))):
        return None
    axes = [int(axis) for axis in constants[3]]
    steps = [int(step) for step in constants[4]] if 4 in constants else [1] * len(axes)
    if min(axes) < 0:
        return None
    return [int(v) for v in constants[1]], [int(v) for v in constants[2]], axes, steps


def _is_global_mean(node: onnx.NodeProto, view: GraphView) -> bool:
    shape = view.shape(node.input[0]) if node.input else None
    if shape is None or len(shape) < 3:
        return False
    spatial = list(range(2, len(shape)))
    if node.op_type == "ReduceMean":
        axes = view.array(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and sorted(int(a) % len(shape) for a in axes) == spatial
    if node.op_type == "AveragePool":
        unpadded = not any(attribute(node, "pads", [0])) and attribute(node, "auto_pad", b"NOTSET") == b"NOTSET"
        return unpadded and list(attribute(node, "kernel_shape", [])) == list(shape[2:])
    return False


def _pool_globally(graph: onnx.GraphProto, index: int, *, flat: bool) -> None:
    """Turn a mean over all positions into GlobalAveragePool, with a Flatten behind it where no axes were kept."""
    node = graph.node[index]
    node.op_type = "GlobalAveragePool"
    del node.input[1:]
    del node.attribute[:]
    if flat:
        pooled, result = f"{node.output[0]}_pooled", node.output[0]
        node.output[0] = pooled
        graph.node.insert(index + 1, onnx.helper.make_node("Flatten", [pooled], [result], axis=1))
