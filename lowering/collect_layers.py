"""Finding layers, groups and neighbours in a normalised network.

A group is a connected component under three relations: the same weight tensor, the same recurrent operator (one kernel
takes both its weights), and the same input activation when both layers can compute on 8-bit activations with static
scales (one quantiser feeds both, and splitting it costs more than it saves).
Two groups are neighbours when one reads what the other wrote with nothing but glue between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType

import numpy as np
import onnx

from bitfront.lowering.dialect import Dialect, LayerSite, offers, stores
from bitfront.lowering.graph import GraphView, attribute
from bitfront.lowering.layer_sites import QUANTISED, QUANTISED_ALREADY, UNHANDLED, is_quantised, is_table, layer_at
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
from bitfront.lowering.stored_layers import StoredLayers

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
    found: dict[int, list[Layer]] = {}
    left_alone: dict[str, str] = {}
    taken: set[str] = set()
    refused: dict[int, str] = {}
    for index, node in enumerate(view.nodes):
        if node.op_type in UNHANDLED:
            left_alone[node.name] = f"{node.op_type} is not supported as a layer; it stays as it is"
        if QUANTISED.fullmatch(node.op_type):
            left_alone[node.name] = QUANTISED_ALREADY
        if node.domain not in ("", "ai.onnx"):
            continue
        if is_table(node, view):
            reason = _why_no_table(node, view, dialect)
        elif node.op_type in RECURRENT:
            reason = _why_not_recurrent(node, view, dialect)
        elif node.op_type in WEIGHTED:
            reason = _why_no_layer(node, view, dialect)
        else:
            continue
        if reason:
            left_alone[node.name] = refused[index] = reason
        elif node.op_type in RECURRENT:
            sites = [layer_at(index, view, taken, at, weight_name=name) for name, at in RECURRENT_WEIGHTS.items()]
            found[index] = [_with_offers(site, dialect) for site in sites]
        else:
            site = layer_at(index, view, taken, 0 if node.op_type in TABLE_READERS else 1)
            found[index] = [_with_offers(site, dialect)]
    stored = _stored_layers(view, dialect, found, refused, taken)
    held = {layer.node for own in stored.found.values() for layer in own}
    left_alone = {
        name: why for name, why in (stored.left_alone | left_alone | stored.sharing).items() if name not in held
    }
    found |= {index: [*found.get(index, ()), *own] for index, own in stored.found.items()}
    layers = named_by_module([layer for index in sorted(found) for layer in found[index]], paths)
    groups = _groups(layers, view)
    return QuantisableLayers(
        layers=tuple(layers), groups=groups, edges=_edges(layers, groups, view), left_alone=left_alone
    )


def _with_offers(site: LayerSite, dialect: Dialect) -> Layer:
    schemes, refused = offers(dialect, site)
    return replace(site.layer, schemes=schemes, refused=refused)


def _stored_layers(
    view: GraphView, dialect: Dialect, found: Mapping[int, list[Layer]], refused: Mapping[int, str], taken: set[str]
) -> StoredLayers:
    """Layers of which only the storage is chosen: in bodies, and of operators that were refused as others."""
    others = frozenset(id(view.initializers[layer.weight]) for own in found.values() for layer in own)
    stored = StoredLayers(dialect=dialect, taken=taken, outputs=frozenset(view.outputs), others=others)
    for index, node in enumerate(view.nodes):
        if index in refused:
            stored.add(index, view, index, refused[index])
        stored.add_bodies(node, view, index)
    return stored


def _why_no_layer(node: onnx.NodeProto, view: GraphView, dialect: Dialect) -> str:
    weight = view.array(node.input[1])
    if weight is None:
        if node.op_type == "MatMul" and view.array(node.input[0]) is not None:
            return "its constant operand is the left one; only a constant right operand is a layer's weight"
        if is_quantised(node.input[1], view):
            return QUANTISED_ALREADY
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
        if _reads_rows(node, node.input[1]) and is_table(reader, view) and stores(dialect, reader.op_type):
            continue
        if reader.op_type not in WEIGHTED or list(reader.input).index(node.input[1]) != 1:
            return f"its weight is also read by {reader.op_type} '{reader.name}'"
    return ""


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
        if not (is_table(reader, view) or _reads_rows(reader, table)):
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
            return QUANTISED_ALREADY if is_quantised(weight, view) else f"its {name} is computed at run time"
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
        # A weight that is only stored is one layer, and others in other bodies may be called alike.
        keys = [("node", layer.node)] if layer.stored_only else [("weight", layer.weight), ("node", layer.node)]
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
