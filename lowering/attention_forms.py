"""Writing the weights that ONNX Runtime's attention operators hold as layers beside them.

    Attention(x, W, b)           MatMul(x, W) + b, split into queries, keys and values → MultiHeadAttention
    EmbedLayerNormalization      Gather of words, positions and segments, their sum → LayerNormalization

Left as they are: Attention with a past, a rotary embedding or a further result.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.graph import GraphView, attribute, free_name, tensor_names

_DOMAIN = "com.microsoft"
_KEPT = ("num_heads", "mask_filter_value", "scale", "unidirectional")


def split_attention(graph: onnx.GraphProto) -> bool:
    """Replace the operators by what they stand for, in place; whether any was."""
    view, writer = GraphView(graph), _Writer(graph)
    found = False
    for node in view.nodes:
        rule = {"Attention": _attention, "EmbedLayerNormalization": _embedding}.get(node.op_type)
        if node.domain == _DOMAIN and rule is not None and rule(node, view, writer):
            found = True
        else:
            writer.nodes.append(node)
    if found:
        nodes = onnx.GraphProto(node=writer.nodes)
        del graph.node[:]
        graph.node.extend(nodes.node)
    return found


class _Writer:
    """New nodes and constants of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._graph = graph
        self._taken = tensor_names(graph)

    def fresh(self, name: str) -> str:
        """A tensor name that is not taken."""
        return free_name(name, self._taken)

    def node(self, op: str, inputs: list[str], output: str, name: str | None = None, **attributes: Any) -> str:
        """Write a node; returns its output."""
        self.nodes.append(helper.make_node(op, inputs, [output], name, **attributes))
        return output

    def constant(self, value: int | list[int], name: str) -> str:
        """A new initialiser of whole numbers."""
        made = self.fresh(name)
        self._graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), made))
        return made


def _attention(node: onnx.NodeProto, view: GraphView, writer: _Writer) -> bool:
    source, weight, bias, mask, past, added, length = [*node.input, *[""] * 7][:7]
    shape = view.shape(weight)
    further = past or length or len([name for name in node.output if name]) > 1
    if weight not in view.initializers or shape is None or further or attribute(node, "do_rotary", 0):
        return False
    width = shape[1] or 0
    sizes = list(attribute(node, "qkv_hidden_sizes", [])) or [width // 3] * 3
    if sum(sizes) != width:
        return False
    result = node.output[0]
    whole = writer.node("MatMul", [source, weight], writer.fresh(f"{result}_product"), node.name)
    if bias:
        whole = writer.node("Add", [whole, bias], writer.fresh(f"{result}_sum"))
    parts = [writer.fresh(f"{result}_{part}") for part in ("queries", "keys", "values")]
    split = [whole, writer.constant(sizes, f"{result}_sizes")]
    writer.nodes.append(helper.make_node("Split", split, parts, axis=-1))
    inputs = [*parts, "", mask, added]
    while not inputs[-1]:
        inputs.pop()
    kept = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute if entry.name in _KEPT}
    writer.node("MultiHeadAttention", inputs, result, f"{node.name}_heads", domain=_DOMAIN, **kept)
    return True


def _embedding(node: onnx.NodeProto, view: GraphView, writer: _Writer) -> bool:
    ids, segment_ids, words, positions, segments, scale, shift, mask, position_ids = [*node.input, *[""] * 9][:9]
    result, lengths, total = [*node.output, "", ""][:3]
    if any(name not in view.initializers for name in (words, positions, segments) if name):
        return False
    if lengths and not mask and (view.consumers(lengths) or view.is_output(lengths)):
        return False
    if not position_ids:
        sizes = writer.node("Shape", [ids], writer.fresh(f"{result}_sizes"), start=1, end=2)
        axis = writer.constant([0], f"{result}_axis")
        count = writer.node("Squeeze", [sizes, axis], writer.fresh(f"{result}_count"))
        ends = [writer.constant(value, f"{result}_{value}") for value in (0, 1)]
        position_ids = writer.node("Range", [ends[0], count, ends[1]], writer.fresh(f"{result}_places"))
    rows = [(words, ids, "words"), (positions, position_ids, "positions")]
    if segments and segment_ids:
        rows.append((segments, segment_ids, "segments"))
    looked = [
        writer.node("Gather", [table, index], writer.fresh(f"{result}_{part}"), f"{node.name}_{part}")
        for table, index, part in rows
    ]
    last = looked[0]
    for other in looked[1:]:
        target = total if total and other is looked[-1] else writer.fresh(f"{result}_total")
        last = writer.node("Add", [last, other], target)
    epsilon = float(attribute(node, "epsilon", 1e-12))
    writer.node("LayerNormalization", [last, scale, shift], result, f"{node.name}_norm", axis=-1, epsilon=epsilon)
    if lengths and mask:
        whole = writer.node("Cast", [mask], writer.fresh(f"{result}_mask"), to=TensorProto.INT32)
        axes = writer.constant([1], f"{result}_axes")
        writer.node("ReduceSum", [whole, axes], lengths, keepdims=0)
    return True
