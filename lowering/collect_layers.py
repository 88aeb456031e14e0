"""Finding layers, groups and neighbours in a normalised network.

A group is a connected component under three relations: the same weight tensor, the same recurrent operator (one kernel
takes both its weights), and the same input activation when both layers can compute on 8-bit activations with static
scales (one quantiser feeds both, and splitting it costs more than it saves).
Two groups are neighbours when one reads what the other wrote with nothing but glue between.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType

import numpy as np
import onnx

from bitfront.core import FP32
from bitfront.lowering.dialect import Dialect, LayerSite, offers, stores
from bitfront.lowering.graph import MOVING, GraphView, attribute, bodies
from bitfront.lowering.layers import (
    RECURRENT,
    RECURRENT_WEIGHTS,
    TABLE_READERS,
    WEIGHTED,
    Layer,
    PrecisionGroup,
    QuantisableLayers,
)
from bitfront.lowering.module_paths import named_by_module

# Other operators with weights people ask about: named as left alone, with the reason, instead of being passed over.
_UNHANDLED = ("Einsum", "Attention", "DeformConv")
# Operators that compute on quantised weights, of any domain.
_QUANTISED = re.compile(
    r"QLinear(Conv|MatMul)|QGemm|QAttention|QEmbedLayerNormalization|QMoE|(MatMul|Conv)Integer\w*|MatMul(NBits|BnB4|Fp8)"
    r"|QLinearConvTranspose|GatherBlockQuantized|DynamicQuantize(MatMul|LSTM)"
)
_QUANTISED_ALREADY = "it is quantised already"
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)
# Elements of the smallest table that is a layer: below, scales and nodes take what the integers save.
SMALLEST_TABLE = 1024
_NO_PATHS: Mapping[str, str] = MappingProxyType({})
# What joins layers to a group, in words.
_RELATIONS = {"weight": "share the weight", "node": "belong to", "input": "read the same activation"}


def collect_layers(proto: onnx.ModelProto, dialect: Dialect, paths: Mapping[str, str] = _NO_PATHS) -> QuantisableLayers:
    """List a normalised network's layers, groups and neighbours, with what the dialect offers each layer.

    Args:
        proto: The network.
        dialect: Of the runtime.
        paths: Node name → module path, by which layers without a better name are called.
    """
    view = GraphView(proto.graph)
    layers: list[Layer] = []
    left_alone: dict[str, str] = {}
    taken: set[str] = set()
    for index, node in enumerate(view.nodes):
        left_alone.update((name, f"it stands in a subgraph of {node.op_type} '{node.name}'") for name in _inner(node))
        if node.op_type in _UNHANDLED:
            left_alone[node.name] = f"{node.op_type} is not supported as a layer; it stays as it is"
        if _QUANTISED.fullmatch(node.op_type):
            left_alone[node.name] = _QUANTISED_ALREADY
        if node.domain not in ("", "ai.onnx"):
            continue
        if _is_table(node, view):
            reason = _why_no_table(node, view, dialect)
        elif node.op_type in RECURRENT:
            reason = _why_not_recurrent(node, view, dialect)
        elif node.op_type in WEIGHTED:
            reason = _why_no_layer(node, view, dialect)
        else:
            continue
        if reason:
            left_alone[node.name] = reason
            continue
        if node.op_type in RECURRENT:
            layers += [_layer(index, view, dialect, taken, at, name) for name, at in RECURRENT_WEIGHTS.items()]
        else:
            layers.append(_layer(index, view, dialect, taken, operand=0 if node.op_type in TABLE_READERS else 1))
    layers = named_by_module(layers, paths)
    groups = _groups(layers, view)
    return QuantisableLayers(
        layers=tuple(layers), groups=groups, edges=_edges(layers, groups, view), left_alone=left_alone
    )


def _inner(node: onnx.NodeProto) -> Iterator[str]:
    for body in bodies(node):
        for inner in body.node:
            if inner.op_type in (*WEIGHTED, *RECURRENT, *_UNHANDLED) or _QUANTISED.fullmatch(inner.op_type):
                yield inner.name or next(filter(None, inner.output), inner.op_type)
            yield from _inner(inner)


def _why_no_layer(node: onnx.NodeProto, view: GraphView, dialect: Dialect) -> str:
    weight = view.array(node.input[1])
    if weight is None:
        if node.op_type == "MatMul" and view.array(node.input[0]) is not None:
            return "its constant operand is the left one; only a constant right operand is a layer's weight"
        if _is_quantised(node.input[1], view):
            return _QUANTISED_ALREADY
        return "its weight is computed at run time"
    if not view.is_float(node.input[1]):
        return f"its weight is {weight.dtype}, only float32 is handled"
    if node.op_type == "MatMul" and weight.ndim != 2:
        return f"its constant operand has {weight.ndim} axes, only 2 are handled"
    if not weight.size:
        return f"its weight is empty, of shape {weight.shape}"
    if view.array(node.input[0]) is not None:
        return "both operands are constant"
    if len(node.input) > 2 and node.input[2] and view.array(node.input[2]) is None:
        return "its bias is computed at run time"
    readers = [view.nodes[index] for index in view.consumers(node.input[1])]
    if view.is_captured(node.input[1]) or view.is_output(node.input[1]):
        return "its weight is also read by a subgraph, or is an output"
    for reader in readers:
        if _reads_rows(node, node.input[1]) and _is_table(reader, view) and stores(dialect, reader.op_type):
            continue
        if reader.op_type not in WEIGHTED or list(reader.input).index(node.input[1]) != 1:
            return f"its weight is also read by {reader.op_type} '{reader.name}'"
    return ""


def _is_table(node: onnx.NodeProto, view: GraphView) -> bool:
    """Whether a node looks up or cuts out vectors of a constant floating matrix that is worth storing smaller."""
    if node.op_type not in TABLE_READERS or node.input[0] not in view.initializers:
        return False
    table = view.initializers[node.input[0]]
    if table.data_type not in _FLOATS or prod(table.dims) < SMALLEST_TABLE:
        return False
    if node.op_type == "Slice":
        return len(table.dims) == 2 or (len(table.dims) == 3 and table.dims[0] == 1)
    return len(table.dims) == 2 and attribute(node, "axis", 0) in (0, -2)


def _reads_rows(node: onnx.NodeProto, weight: str) -> bool:
    """Whether a Gemm multiplies by a table's entries, each of which is one of its channels."""
    return node.op_type == "Gemm" and bool(attribute(node, "transB", 0)) and list(node.input).index(weight) == 1


def _why_no_table(node: onnx.NodeProto, view: GraphView, dialect: Dialect) -> str:
    table = node.input[0]
    if not stores(dialect, node.op_type):
        return f"dialect '{dialect.name}' keeps tables as they are"
    if not view.is_float(table):
        return "its table is not float32"
    if view.is_captured(table) or view.is_output(table):
        return "its table is also read by a subgraph, or is an output"
    for index in view.consumers(table):
        reader = view.nodes[index]
        if not (_is_table(reader, view) or _reads_rows(reader, table)):
            return f"its table is also read by {reader.op_type} '{reader.name}'"
    value = view.array(table)
    return "" if value is not None and np.isfinite(value).all() else "its table has values that are not finite"


def _why_not_recurrent(node: onnx.NodeProto, view: GraphView, dialect: Dialect) -> str:
    """Reason why W and R of a recurrent operator are no layers; empty where both are."""
    if not stores(dialect, node.op_type):
        return f"dialect '{dialect.name}' keeps weights of {node.op_type} as they are"
    for name, operand in RECURRENT_WEIGHTS.items():
        weight = node.input[operand]
        if weight not in view.initializers:
            return _QUANTISED_ALREADY if _is_quantised(weight, view) else f"its {name} is computed at run time"
        if not view.is_float(weight):
            return f"its {name} is not float32"
        if not prod(view.initializers[weight].dims):
            return f"its {name} is empty"
        if view.is_captured(weight) or view.is_output(weight):
            return f"its {name} is also read by a subgraph, or is an output"
        for index in view.consumers(weight):
            reader = view.nodes[index]
            if reader.op_type != node.op_type or [at for at, read in enumerate(reader.input) if read == weight] != [
                operand
            ]:
                return f"its {name} is also read by {reader.op_type} '{reader.name}'"
    return ""


def _is_quantised(weight: str, view: GraphView) -> bool:
    """Whether a tensor is a quantised constant, moved about at most."""
    while (index := view.producer(weight)) is not None:
        node = view.nodes[index]
        if node.op_type == "DequantizeLinear":
            return node.input[0] in view.initializers
        if node.op_type not in (*MOVING, "Cast"):
            return False
        weight = node.input[0]
    return False


def _layer(
    index: int, view: GraphView, dialect: Dialect, taken: set[str], operand: int, weight_name: str = ""
) -> Layer:
    """The layer of one weight; ``weight_name`` is what the operator calls it where it has several."""
    node = view.nodes[index]
    weight = node.input[operand]
    shape = tuple(view.initializers[weight].dims)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        channel_axis = 1
    else:
        channel_axis = 1 if node.op_type in ("ConvTranspose", *RECURRENT) else 0
    if node.op_type == "Slice":
        channel_axis = len(shape) - 2
    if weight_name:
        base = f"{node.name}.{weight_name}"
    else:
        base = weight.removesuffix(".weight") if weight.endswith(".weight") else node.name
    name, suffix = base, 2
    while name in taken:
        name, suffix = f"{base}#{suffix}", suffix + 1
    taken.add(name)
    bare = Layer(
        name=name,
        node=node.name,
        op=node.op_type,
        weight=weight,
        weight_shape=shape,
        channel_axis=channel_axis,
        conv_groups=int(attribute(node, "group", 1)),
        parameters=prod(shape),
        schemes=(FP32,),
        refused={},
        operand=operand,
    )
    schemes, refused = offers(dialect, LayerSite(layer=bare, node=node, view=view, index=index))
    return replace(bare, schemes=schemes, refused=refused)


def _groups(layers: Sequence[Layer], view: GraphView) -> tuple[PrecisionGroup, ...]:
    parent = list(range(len(layers)))

    def root(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    reasons: dict[int, list[str]] = {}
    nodes = {node.name: node for node in view.nodes}
    seen: dict[tuple[str, str], int] = {}
    for index, layer in enumerate(layers):
        keys = [("weight", layer.weight), ("node", layer.node)]
        if any(scheme.activations.is_static for scheme in layer.schemes):
            keys.append(("input", nodes[layer.node].input[0]))
        for key in keys:
            first = seen.setdefault(key, index)
            if root(first) == root(index):
                continue
            low, high = sorted((root(first), root(index)))
            parent[high] = low
            reasons.setdefault(low, []).extend([*reasons.pop(high, []), f"{_RELATIONS[key[0]]} '{key[1]}'"])
    members: dict[int, list[int]] = {}
    for index in range(len(layers)):
        members.setdefault(root(index), []).append(index)
    groups = []
    for first, indices in members.items():
        own = [layers[index] for index in indices]
        common = tuple(c for c in own[0].schemes if all(c in layer.schemes for layer in own))
        name = own[0].name if len(own) == 1 else f"{own[0].name}+{len(own) - 1}"
        groups.append(
            PrecisionGroup(
                name=name,
                layers=tuple(layer.name for layer in own),
                reason="; ".join(dict.fromkeys(reasons.get(first, []))),
                schemes=common,
            )
        )
    return tuple(groups)


def _edges(layers: Sequence[Layer], groups: Sequence[PrecisionGroup], view: GraphView) -> tuple[tuple[int, int], ...]:
    group_of = {layer: index for index, group in enumerate(groups) for layer in group.layers}
    by_node = {layer.node: group_of[layer.name] for layer in layers}
    # Tensor → (group, joins passed): groups whose output reaches the tensor through glue alone. What has passed one
    # join (Add, Concat) ends at the next, or a residual stream would make every block every other's neighbour.
    reach: dict[str, frozenset[tuple[int, bool]]] = {}
    edges: set[tuple[int, int]] = set()
    for node in view.nodes:
        sources = [reach[name] for name in node.input if reach.get(name)]
        before = frozenset[tuple[int, bool]]().union(*sources)
        own = by_node.get(node.name)
        if own is not None:
            edges.update((source, own) for source, _ in before if source != own)
            before = frozenset(((own, False),))
        elif len(sources) > 1:
            before = frozenset((source, True) for source, joined in before if not joined)
        for name in node.output:
            reach[name] = before
    return tuple(sorted(edges))
