"""Coverage of a network: every operator that holds weights, its share of them, and what it may become.

A weight that several operators read, some of them transposed maybe, counts once, at the first of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx

from bitfront.lowering.layers import Layer, QuantisableLayers
from bitfront.lowering.reference import ReferenceModel
from bitfront.lowering.unquantised import weight_readers, why_unquantised


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightHolder:
    """Operator that holds weights.

    Attributes:
        name: The layer's name, or the node's of an operator that is no layer.
        node: The node's name; several layers may be one node.
        op: Operator type.
        shape: Shape of its weight, of the largest where it has several.
        weights: Number of weights that no operator before it holds.
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


def weight_holders(reference: ReferenceModel, quantisable: QuantisableLayers) -> tuple[WeightHolder, ...]:
    """List the operators that hold weights, in the network's order.

    Args:
        reference: The network.
        quantisable: Its quantisable layers.
    """
    layers: dict[str, list[Layer]] = {}
    for each in quantisable.layers:
        layers.setdefault(each.node, []).append(each)
    readers = list(weight_readers(reference.proto.graph))
    total = sum(_sizes([tensor for _, tensors in readers for tensor in tensors], reference).values())
    counted: set[str] = set()
    found = []
    for node, tensors in readers:
        name = node.name or node.output[0]
        for layer, held in _parts(tensors, layers.get(node.name, [])):
            sizes = _sizes(held, reference)
            weights = sum(size for weight, size in sizes.items() if weight not in counted)
            counted |= sizes.keys()
            found.append(
                WeightHolder(
                    name=layer.name if layer else name,
                    node=name,
                    op=node.op_type,
                    shape=max((tuple(tensor.dims) for tensor in held), key=prod),
                    weights=weights,
                    share=weights / total if total else 0.0,
                    layer=layer,
                    reason="" if layer else quantisable.left_alone.get(name) or why_unquantised(node, held[0]),
                )
            )
    return tuple(found)


def _parts(
    tensors: Sequence[onnx.TensorProto], layers: Sequence[Layer]
) -> list[tuple[Layer | None, list[onnx.TensorProto]]]:
    """Each layer of a node with its weight, the first one with what is no layer's as well."""
    if not layers:
        return [(None, list(tensors))]
    own = {layer.weight for layer in layers}
    rest = [tensor for tensor in tensors if tensor.name not in own]
    return [
        (layer, [tensor for tensor in tensors if tensor.name == layer.weight] + (rest if index == 0 else []))
        for index, layer in enumerate(layers)
    ]


def _sizes(tensors: Sequence[onnx.TensorProto], reference: ReferenceModel) -> dict[str, int]:
    """Weights → their number, a weight that was computed from another of as many elements by that one's name."""
    sizes = {}
    for tensor in tensors:
        size, source = prod(tensor.dims), reference.sources.get(tensor.name)
        same = [constant.name for constant in source.constants if prod(constant.dims) == size] if source else []
        sizes[same[0] if len(same) == 1 else tensor.name] = size
    return sizes
