"""Writing products with constants in the forms that layers have: an activation times a constant matrix, with a bias.

    Einsum(x, W), a projection     Transpose, Reshape → MatMul → Reshape, Transpose
    MatMul(W, x)                   Transpose → MatMul → Transpose
    MatMul(x, W) of W (1, in, out)        MatMul of a matrix
    MatMul(x, W) of W (e, in, out)        where x is one for all: one MatMul of e · out columns; where it has e parts, a
                                          MatMul for each (up to ``_MOST_PARTS``: experts, heads)
    Gemm with alpha, beta, transA, a bias that is no vector    Gemm of scaled constants, Transpose before, Add behind
    Conv → Add of a constant for each channel                  Conv with a bias

What weights become is written as nodes, which folding computes (``lowering.folding``).

Left as they are: constants of fewer than ``_LEAST`` elements, activations of unknown rank, Einsum of other than two
operands, with repeated indices or with sums over indices of one operand alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitfront.lowering.graph import GraphView, attribute, free_name, tensor_names
from bitfront.lowering.shapes import infer_shapes

# Elements of the smallest constant that is worth moving its other operand about.
_LEAST = 1024
_MOST_PARTS = 16
# A product that Einsum or a left operand becomes may take a second form.
_ROUNDS = 3


def with_layer_forms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with products in the forms of layers; the same object where all are.

    Args:
        proto: Sorted, its constants initialisers, with the shapes of its tensors; not modified.
    """
    made = proto
    for _ in range(_ROUNDS):
        changed = _round(made)
        if changed is made:
            break
        made = changed
    return made


def _round(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    writer = _Writer(made.graph)
    gone: set[int] = set()
    for index, node in enumerate(writer.view.nodes):
        rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        if index in gone:
            continue
        if rule is None or not rule(node, writer):
            writer.nodes.append(node)
        else:
            gone.update(writer.dropped)
    if not writer.written:
        return proto
    nodes = onnx.GraphProto(node=[node for node in writer.nodes])
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(nodes.node)
    try:
        return infer_shapes(made, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError):
        return made


class _Writer:
    """New nodes and constants of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.view = GraphView(graph)
        self.nodes: list[onnx.NodeProto] = []
        self.dropped: set[int] = set()
        self.written = False
        self._graph = graph
        self._taken = tensor_names(graph)

    def node(
        self, op: str, inputs: Sequence[str], output: str = "", *, name: str | None = None, **attributes: Any
    ) -> str:
        """Write a node; returns its output, a new tensor where none is named."""
        self.written = True
        result = output or free_name(f"{inputs[0]}_{op.lower()}", self._taken)
        self.nodes.append(helper.make_node(op, inputs, [result], name, **attributes))
        return result

    def constant(self, value: NDArray[Any] | Sequence[int], name: str) -> str:
        """A new initialiser; whole numbers are 64 bits."""
        array = np.asarray(value) if isinstance(value, np.ndarray) else np.array(value, np.int64)
        made = free_name(name, self._taken)
        self._graph.initializer.append(numpy_helper.from_array(array, made))
        return made

    def reshape(self, tensor: str, shape: Sequence[int], output: str = "") -> str:
        """A Reshape, in which 0 copies a size."""
        return self.node("Reshape", [tensor, self.constant(shape, f"{tensor}_shape")], output)

    def transpose(self, tensor: str, order: Sequence[int], output: str = "") -> str:
        """A Transpose; none where the order stays and no output is named."""
        if list(order) == sorted(order):
            return self.node("Identity", [tensor], output) if output else tensor
        return self.node("Transpose", [tensor], output, perm=list(order))

    def dims(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of a floating constant that is worth being a layer; None for anything else."""
        held = self.view.initializers.get(tensor)
        worth = held is not None and self.view.is_float(tensor) and prod(held.dims) >= _LEAST
        return tuple(held.dims) if held is not None and worth else None


def _matmul(node: onnx.NodeProto, writer: _Writer) -> bool:
    left, right = node.input
    if (dims := writer.dims(right)) is not None and len(dims) > 2 and left not in writer.view.initializers:
        return _stacked(node, left, right, dims, writer)
    dims, shape = writer.dims(left), writer.view.shape(right)
    if dims is None or len(dims) != 2 or shape is None or len(shape) < 2 or right in writer.view.initializers:
        return False
    swap = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned, weight = writer.transpose(right, swap), writer.transpose(left, [1, 0])
    writer.transpose(writer.node("MatMul", [turned, weight], name=node.name), swap, node.output[0])
    return True


def _stacked(node: onnx.NodeProto, source: str, weight: str, dims: tuple[int, ...], writer: _Writer) -> bool:
    """MatMul with several matrices."""
    shape, (*lead, inner, outer) = writer.view.shape(source), dims
    if shape is None or len(shape) < 2:
        return False
    result, rank = node.output[0], len(shape)
    if prod(lead) == 1:
        flat = writer.reshape(weight, (inner, outer))
        missing = list(range(len(dims) - rank))
        product = writer.node("MatMul", [source, flat], "" if missing else result, name=node.name)
        if missing:
            writer.node("Unsqueeze", [product, writer.constant(missing, f"{product}_axes")], result)
        return True
    if len(lead) != 1:
        return False
    parts, place = lead[0], rank - 3
    if rank == 2 or shape[place] == 1:
        wide = writer.reshape(writer.transpose(weight, [1, 0, 2]), (inner, parts * outer))
        if rank > 2:
            source = writer.node("Squeeze", [source, writer.constant([place], f"{source}_axis")])
        before = max(rank - 3, 0)
        product = writer.node("MatMul", [source, wide], name=node.name)
        split = writer.reshape(product, (*[0] * (before + 1), parts, outer))
        writer.transpose(split, [*range(before), before + 1, before, before + 2], result)
        return True
    if shape[place] != parts or parts > _MOST_PARTS:
        return False
    names = [free_name(f"{source}_part{part}", writer._taken) for part in range(parts)]
    writer.nodes.append(helper.make_node("Split", [source], names, axis=place, num_outputs=parts))
    products = []
    for part, name in enumerate(names):
        ends = [writer.constant([value], f"{weight}_end") for value in (part, part + 1, 0)]
        matrix = writer.reshape(writer.node("Slice", [weight, *ends]), (inner, outer))
        products.append(writer.node("MatMul", [name, matrix], name=f"{node.name}#{part}"))
    writer.node("Concat", products, result, axis=place)
    return True


def _einsum(node: onnx.NodeProto, writer: _Writer) -> bool:
    """An Einsum of an activation and a constant that sums over what both have and the result has not."""
    terms = bytes(attribute(node, "equation", b"")).decode().replace(" ", "")
    if len(node.input) not in (2, 3) or "->" not in terms:
        return False
    operands, result = terms.split("->")
    texts, names = operands.split(","), list(node.input)
    gate = None
    if len(names) == 3:
        *pair, gate = sorted(zip(texts, names, strict=True), key=lambda term: _role(term, texts, writer))
        texts, names = [text for text, _ in pair], [name for _, name in pair]
    if writer.dims(names[1]) is None:
        texts, names = texts[::-1], names[::-1]
    dims, shape = writer.dims(names[1]), writer.view.shape(names[0])
    if dims is None or shape is None or names[0] in writer.view.initializers or "." in texts[1]:
        return False
    hidden = _hidden(len(shape) - len(texts[0].replace("...", "")), terms)
    source, weight, wanted = (text.replace("...", hidden) for text in (*texts, result))
    if any(len(set(text)) != len(text) for text in (source, weight, wanted)) or len(weight) != len(dims):
        return False
    size = dict(zip(weight, dims, strict=True))
    summed = [i for i in weight if i in source and i not in wanted]
    added = [i for i in weight if i in wanted and i not in source]
    joint = [i for i in weight if i in wanted and i in source]
    kept = [i for i in source if i in wanted and i not in weight]
    if not summed or not added or not kept or len(joint) > 1 or "." in source:
        return False
    if {*summed, *added, *joint} != set(weight) or {*summed, *kept, *joint} != set(source):
        return False
    order = [*kept[:-1], *joint, kept[-1]] if joint else kept
    operand = names[0]
    if gate is not None:
        if gate[1] in writer.view.initializers or not set(gate[0]) <= set(source) or len(set(gate[0])) != len(gate[0]):
            return False
        operand = _gated(names[0], source, gate, writer)
    moved = writer.transpose(operand, [source.index(i) for i in (*order, *summed)])
    if len(summed) > 1:
        moved = writer.reshape(moved, (*[0] * len(order), prod(size[i] for i in summed)))
    matrix = writer.transpose(names[1], [weight.index(i) for i in (*joint, *summed, *added)])
    if len(summed) > 1 or len(added) > 1:
        sizes = [prod(size[i] for i in part) for part in (summed, added)]
        matrix = writer.reshape(matrix, (*(size[i] for i in joint), *sizes))
    product = writer.node("MatMul", [moved, matrix], name=node.name)
    if len(added) > 1:
        product = writer.reshape(product, (*[0] * len(order), *(size[i] for i in added)))
    writer.transpose(product, [[*order, *added].index(i) for i in wanted], node.output[0])
    return True


def _role(term: tuple[str, str], texts: Sequence[str], writer: _Writer) -> int:
    """Place of one of three operands: the activation of most indices, the constant, what scales the activation."""
    text, name = term
    if writer.dims(name) is not None:
        return 1
    return 0 if len(text) == max(map(len, texts)) else 2


def _gated(source: str, indices: str, gate: tuple[str, str], writer: _Writer) -> str:
    """An activation times another one of fewer indices."""
    text, name = gate
    held = [i for i in indices if i in text]
    factor = writer.transpose(name, [text.index(i) for i in held])
    missing = [place for place, i in enumerate(indices) if i not in text]
    if missing:
        factor = writer.node("Unsqueeze", [factor, writer.constant(missing, f"{name}_axes")])
    return writer.node("Mul", [source, factor])


def _hidden(count: int, terms: str) -> str:
    """Letters for the axes that an ellipsis stands for."""
    return "".join([letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in terms][: max(count, 0)])


def _gemm(node: onnx.NodeProto, writer: _Writer) -> bool:
    view = writer.view
    source, weight, bias = (*node.input, "")[:3]
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    turned, held = bool(attribute(node, "transA", 0)), view.initializers.get(weight)
    if held is None or source in view.initializers or not view.is_float(weight):
        return False
    outer = held.dims[0 if attribute(node, "transB", 0) else 1]
    form = view.shape(bias) if bias else (outer,)
    plain = bias == "" or (bias in view.initializers and form == (outer,))
    if alpha == 1 and beta == 1 and not turned and plain:
        return False
    if turned:
        source = writer.transpose(source, [1, 0])
    if alpha != 1:
        weight = writer.node("Mul", [weight, writer.constant(np.array(alpha, np.float32), f"{weight}_alpha")])
    if bias and beta != 1:
        bias = writer.node("Mul", [bias, writer.constant(np.array(beta, np.float32), f"{bias}_beta")])
    constant = bias == "" or node.input[2] in view.initializers
    fits = (
        constant and form is not None and (form[-1:] in ((outer,), (1,), ())) and prod(f or 0 for f in form[:-1]) == 1
    )
    if bias and fits and form != (outer,):
        size = writer.constant([outer], f"{bias}_size")
        one = writer.reshape(bias, (-1,))
        bias = writer.node("Expand", [one, size]) if prod(f or 0 for f in form or ()) == 1 != outer else one
    inputs = [source, weight, *([bias] if bias and fits else [])]
    late = bool(bias) and not fits
    kept = {"transB": 1} if attribute(node, "transB", 0) else {}
    product = writer.node("Gemm", inputs, "" if late else node.output[0], name=node.name, **kept)
    if late:
        writer.node("Add", [product, bias], node.output[0])
    return True


def _conv(node: onnx.NodeProto, writer: _Writer) -> bool:
    """A convolution without a bias whose only reader adds a constant for each channel."""
    view, result = writer.view, node.output[0]
    readers = view.consumers(result)
    if (
        (len(node.input) > 2 and node.input[2])
        or len(readers) != 1
        or view.is_output(result)
        or view.is_captured(result)
    ):
        return False
    reader, held = view.nodes[readers[0]], view.initializers.get(node.input[1])
    if (
        reader.op_type != "Add"
        or reader.domain not in ("", "ai.onnx")
        or held is None
        or not view.is_float(node.input[1])
    ):
        return False
    (other,) = [name for name in reader.input if name != result] or [""]
    value = view.array(other) if view.is_float(other) else None
    channels = held.dims[0] if node.op_type == "Conv" else held.dims[1] * int(attribute(node, "group", 1))
    axes = len(held.dims)
    if value is None or value.ndim > axes or value.size != channels:
        return False
    if value.size > 1 and (value.ndim < axes - 1 or value.shape[value.ndim - axes + 1] != channels):
        return False
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
    bias = writer.reshape(other, (channels,))
    writer.node(node.op_type, [*node.input[:2], bias], reader.output[0], name=node.name, **attributes)
    writer.dropped = {readers[0]}
    return True


_RULES: Mapping[str, Callable[[onnx.NodeProto, _Writer], bool]] = {
    "MatMul": _matmul,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvTranspose": _conv,
}
