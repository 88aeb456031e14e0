"""Weights that a search cannot touch: the operators that hold them, why they are no layers, and their share of all.

Weights are the numbers of floating and of quantised constants, those in bodies of If, Loop and Scan too. Each counts
once, for the first operator that reads it. Operators below ``_LEAST_SHARE`` of the weights are summed up; those that
hold none are listed by reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import onnx
from onnx import TensorProto

from bitfront.lowering.collect_layers import SMALLEST_TABLE
from bitfront.lowering.graph import bodies
from bitfront.lowering.layers import QuantisableLayers

_LEAST_SHARE = 0.01
_LEAST_AXES = 2
_NAMES = 3
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT4, TensorProto.UINT4)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnquantisedOperator:
    """An operator that is no quantisable layer.

    Attributes:
        operator: Its type.
        reason: Why it is none.
        weights: Number of weights that it holds.
    """

    operator: str
    reason: str
    weights: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnquantisedWeights:
    """Weights that a search leaves as they are.

    Attributes:
        operators: Operator name → its description, in the network's order.
        total: Weights of the network, layers' included.
    """

    operators: Mapping[str, UnquantisedOperator]
    total: int

    def lines(self) -> list[str]:
        """Operators with their reasons and shares, the largest first, a line each where they are large."""
        large = {name: each for name, each in self.operators.items() if each.weights >= _LEAST_SHARE * self.total > 0}
        small = [each for name, each in self.operators.items() if each.weights and name not in large]
        ordered = sorted(large.items(), key=lambda entry: -entry[1].weights)
        found = [f"{name}: {each.reason} ({self._percent(each.weights)} of the weights)" for name, each in ordered]
        bare: dict[str, list[str]] = {}
        for name, each in self.operators.items():
            if not each.weights:
                bare.setdefault(each.reason, []).append(name)
        found += [f"{_listed(names)}: {reason}" for reason, names in bare.items()]
        if small:
            kinds = ", ".join(f"{op} ×{count}" for op, count in Counter(each.operator for each in small).most_common())
            held = self._percent(sum(each.weights for each in small))
            found.append(f"{len(small)} more, of {held} of the weights together: {kinds}")
        return found

    def _percent(self, weights: int) -> str:
        percent = 100 * weights / max(self.total, 1)
        return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %" if percent >= 0.1 else "less than 0.1 %"


def unquantised_weights(model: onnx.ModelProto, quantisable: QuantisableLayers) -> UnquantisedWeights:
    """Operators of a network that are no quantisable layers, though they hold weights or might have been layers.

    Args:
        model: The normalised network.
        quantisable: Its quantisable layers.
    """
    layers = {layer.node for layer in quantisable.layers}
    left = quantisable.left_alone
    counted: set[int] = set()
    found: dict[str, UnquantisedOperator] = {}
    readers = list(_readers(model.graph, {}))
    for node, tensors in sorted(readers, key=lambda reader: reader[0].name not in layers):
        name = node.name or next(filter(None, node.output), node.op_type)
        fresh = [tensor for tensor in tensors if id(tensor) not in counted]
        counted.update(id(tensor) for tensor in fresh)
        held = [tensor for tensor in fresh if len(tensor.dims) >= _LEAST_AXES]
        if name in layers or not (held or name in left):
            continue
        reason = left.get(name) or why_unquantised(node, held[0])
        found[name] = UnquantisedOperator(
            operator=node.op_type, reason=reason, weights=sum(prod(tensor.dims) for tensor in fresh)
        )
    kinds = {node.name: node.op_type for node in model.graph.node}
    for name, reason in left.items():
        found.setdefault(name, UnquantisedOperator(operator=kinds.get(name, ""), reason=reason, weights=0))
    total = sum(prod(tensor.dims) for tensor in {id(t): t for _, tensors in readers for t in tensors}.values())
    return UnquantisedWeights(operators=found, total=total)


def why_unquantised(node: onnx.NodeProto, weight: TensorProto) -> str:
    """Reason why an operator that reads a weight is no quantisable layer, where no better one is known."""
    held = f"{node.op_type} with weights of {'×'.join(map(str, weight.dims))}"
    if weight.data_type in _INTEGERS:
        return f"{held}: they are integers already"
    return (
        f"{held}: only Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU and RNN are layers, and Gather from tables of "
        f"{SMALLEST_TABLE:,} elements on"
    )


def _readers(
    graph: onnx.GraphProto, outer: Mapping[str, TensorProto]
) -> Iterator[tuple[onnx.NodeProto, list[TensorProto]]]:
    """Each node, bodies' included, with the weights it reads."""
    kinds = (*_FLOATS, *_INTEGERS)
    held = {**outer, **{tensor.name: tensor for tensor in graph.initializer if tensor.data_type in kinds}}
    for node in graph.node:
        yield node, [held[name] for name in dict.fromkeys(node.input) if name in held]
        for body in bodies(node):
            yield from _readers(body, held)


def weight_readers(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, tuple[TensorProto, ...]]]:
    """Nodes that read weights of two axes or more, each with those it reads, bodies of If, Loop and Scan included."""
    for node, tensors in _readers(graph, {}):
        weights = tuple(tensor for tensor in tensors if len(tensor.dims) >= _LEAST_AXES)
        if weights:
            yield node, weights


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(names[:_NAMES]) + more
