"""Coverage of a network: every weight, the operator that holds it, and the layer that covers it or why none does.

Weights are constants of two axes or more of floating or quantised numbers, those in bodies of If, Loop and Scan too;
biases and initial states are none (``layers.may_be_weight``). A weight that several operators read, some of them
transposed maybe, counts once: for the first layer that reads it, else for the first operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx
from onnx import TensorProto

from bitfront.lowering.graph import FLOATS, bodies
from bitfront.lowering.layer_sites import SMALLEST_TABLE
from bitfront.lowering.layers import RECURRENT, TABLE_READERS, WEIGHTED, Layer, QuantisableLayers, may_be_weight
from bitfront.lowering.reference import ReferenceModel

_LEAST_AXES = 2
_MOST_NAMES = 12  # of operators that one reason is given for
_QUANTISED = (
    *(TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4),
    *(TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E4M3FNUZ, TensorProto.FLOAT8E5M2, TensorProto.FLOAT8E5M2FNUZ),
    TensorProto.FLOAT4E2M1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightHolder:
    """Operator that holds weights.

    Attributes:
        name: The layer's name, or the node's of an operator that is no layer.
        node: The node's name; several layers may be one node.
        op: Operator type.
        shape: Shape of its weight, of the largest where it has several.
        weights: Number of weights that count for it.
        share: ``weights`` over all weights of the network, 0 to 1.
        layer: The quantisable layer that it is; None for another operator.
        reason: Why it is no layer; empty for a layer.
    """

    name: str
    node: str
    op: str
    shape: tuple[int, ...]
    weights: int
    share: float
    layer: Layer | None
    reason: str

    @property
    def is_fixed(self) -> bool:
        """Whether it can take no other scheme than the one it has."""
        return self.layer is None or len(self.layer.schemes) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unquantised:
    """Operators that are no quantisable layers, though they hold weights or might have been layers, for one reason.

    Attributes:
        reason: Why they are none.
        names: Theirs, those with most weights first.
        share: Their weights over all weights of the network, 0 to 1.
    """

    reason: str
    names: tuple[str, ...]
    share: float

    def line(self, *further: str) -> str:
        """The operators with the reason and, in brackets, their share of the weights and what else is to be said."""
        more = f" and {len(self.names) - _MOST_NAMES} more" if len(self.names) > _MOST_NAMES else ""
        told = ", ".join((f"{self.share:.1%} of the weights", *further))
        return f"{', '.join(self.names[:_MOST_NAMES])}{more}: {self.reason} ({told})"


def weight_holders(reference: ReferenceModel, quantisable: QuantisableLayers) -> tuple[WeightHolder, ...]:
    """List the operators that hold weights, in the network's order.

    Args:
        reference: The network.
        quantisable: Its quantisable layers.
    """
    readings = list(_readings(reference, quantisable))
    total = sum({key: prod(tensor.dims) for each in readings for key, tensor in each.weights.items()}.values())
    counted: dict[_Key, _Reading] = {}
    for reading in sorted(readings, key=lambda each: each.layer is None):
        for key in reading.weights:
            counted.setdefault(key, reading)
    found = []
    for reading in readings:
        node, layer, tensors = reading.node, reading.layer, reading.weights
        weights = sum(prod(tensor.dims) for key, tensor in tensors.items() if counted[key] is reading)
        reason = quantisable.left_alone.get(node.name) or reading.subgraph or _why_unquantised(node, tensors.values())
        found.append(
            WeightHolder(
                name=layer.name if layer else node.name,
                node=node.name,
                op=node.op_type,
                shape=max((tuple(tensor.dims) for tensor in tensors.values()), key=prod),
                weights=weights,
                share=weights / total if total else 0.0,
                layer=layer,
                reason="" if layer else reason,
            )
        )
    return tuple(found)


def unquantised(holders: Sequence[WeightHolder], quantisable: QuantisableLayers) -> tuple[Unquantised, ...]:
    """Operators that are no quantisable layers by the reason that they share, those with most weights first.

    Args:
        holders: ``weight_holders`` of the network.
        quantisable: Its quantisable layers; what it left alone is listed even where it holds no weight.
    """
    shares = {holder.name: holder.share for holder in holders}
    reasons = dict(quantisable.left_alone) | {holder.name: holder.reason for holder in holders if holder.reason}
    names: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items(), key=lambda item: -shares.get(item[0], 0.0)):
        names.setdefault(reason, []).append(name)
    found = [
        Unquantised(reason=reason, names=tuple(those), share=sum(shares.get(name, 0.0) for name in those))
        for reason, those in names.items()
    ]
    return tuple(sorted(found, key=lambda each: -each.share))


# Nodes whose body a weight stands in, and its name.
_Key = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Reading:
    """Weights that an operator reads, of one layer or of none."""

    node: onnx.NodeProto
    layer: Layer | None
    weights: Mapping[_Key, TensorProto]
    subgraph: str  # that it stands in, in words; empty where it stands in the network itself


def _readings(reference: ReferenceModel, quantisable: QuantisableLayers) -> Iterator[_Reading]:
    """Readings of each operator, one for each layer that it is, in the network's order."""
    layers = {(layer.node, layer.weight): layer for layer in quantisable.layers}
    sources = {tensor.name: _source(tensor, reference) for tensor in reference.proto.graph.initializer}
    for node, read, subgraph in _nodes(reference.proto.graph, {}, (), ""):
        parts: dict[str, tuple[Layer | None, dict[_Key, TensorProto]]] = {}
        for key, tensor in read.items():
            layer = layers.get((node.name, tensor.name))
            known = (sources[tensor.name],) if len(key) == 1 else key
            parts.setdefault(layer.name if layer else "", (layer, {}))[1][known] = tensor
        for layer, weights in parts.values():
            yield _Reading(node=node, layer=layer, weights=weights, subgraph=subgraph)


def _nodes(
    graph: onnx.GraphProto, outer: Mapping[str, tuple[_Key, TensorProto]], scope: _Key, subgraph: str
) -> Iterator[tuple[onnx.NodeProto, dict[_Key, TensorProto], str]]:
    """Each node, bodies' included, with the weights it reads and the subgraph it stands in."""
    own = {tensor.name: ((*scope, tensor.name), tensor) for tensor in graph.initializer if _is_weight(tensor)}
    held = {**outer, **own}
    for node in graph.node:
        yield (
            node,
            dict(held[name] for at, name in enumerate(node.input) if name in held and may_be_weight(node.op_type, at)),
            subgraph,
        )
        for place, body in enumerate(bodies(node)):
            yield from _nodes(body, held, (*scope, f"{node.name}/{place}"), subgraph or _in_subgraph(node))


def _in_subgraph(node: onnx.NodeProto) -> str:
    return f"it stands in a subgraph of {node.op_type} '{node.name}'"


def _is_weight(tensor: TensorProto) -> bool:
    return len(tensor.dims) >= _LEAST_AXES and tensor.data_type in FLOATS.union(_QUANTISED)


def _source(tensor: TensorProto, reference: ReferenceModel) -> str:
    """The constant of as many elements that a constant was computed from, else its own name."""
    source = reference.sources.get(tensor.name)
    same = [each.name for each in source.constants if prod(each.dims) == prod(tensor.dims)] if source else []
    return same[0] if len(same) == 1 else tensor.name


def _why_unquantised(node: onnx.NodeProto, weights: Iterable[TensorProto]) -> str:
    """Reason why an operator that reads weights is no quantisable layer, where no better one is known."""
    weight = max(weights, key=lambda tensor: prod(tensor.dims))
    held = f"{node.op_type} with weights of {'×'.join(map(str, weight.dims))}"
    if weight.data_type in _QUANTISED:
        return f"{held}: they are quantised already"
    *most, last = (*WEIGHTED, *RECURRENT)
    return (
        f"{held}: only weights of {', '.join(most)} and {last} are layers, and matrices of {SMALLEST_TABLE:,} elements "
        f"or more whose rows {' or '.join(TABLE_READERS)} takes"
    )
