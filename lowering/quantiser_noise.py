"""Noise of a network's own quantisation in its answers: the network with that much noise added once more.

Rounding to a grid of step s is noise of variance s²/12. Behind every quantiser the quantised tensor is moved to the
next step up or down, each with a probability of 1/12, which adds noise of variance s²/6. Operators that quantise their
input within themselves (DynamicQuantizeMatMul, DynamicQuantizeLSTM, MatMulNBits of accuracy level 4) get the noise on
their input. Quantisers in bodies and an LSTM's hidden states are not disturbed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx import helper

from bitfront.lowering.graph import attribute, free_name, tensor_names

# Uniform noise whose rounding is ±1 in one of six cases.
_REACH = 0.6
# Operator → places of its result's scale and zero point among its inputs.
_RESULTS: Mapping[str, tuple[int, int]] = {
    "QuantizeLinear": (1, 2),
    "QLinearConv": (6, 7),
    "QLinearMatMul": (6, 7),
    "QGemm": (7, 8),
    "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7),
    "QLinearSigmoid": (3, 4),
    "QLinearLeakyRelu": (3, 4),
    "QLinearSoftmax": (3, 4),
    "QLinearGlobalAveragePool": (3, 4),
    "QLinearAveragePool": (3, 4),
    "QLinearConcat": (0, 1),
}
_WITHIN = ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulNBits")


def with_quantiser_noise(proto: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The model with the noise of its own quantisers added to each.

    Args:
        proto: Of opset 13 or newer; not modified.
        seed: Of the noise.
    """
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    constants = {tensor.name for tensor in made.graph.initializer}
    noise = _Noise(made.graph, seed)
    for node in proto.graph.node:
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        places = _RESULTS.get(node.op_type)
        if node.op_type in _WITHIN and not (
            node.op_type == "MatMulNBits" and attribute(node, "accuracy_level", 0) != 4
        ):
            changed.input[0] = noise.added(node.input[0])
            noise.nodes.append(changed)
        elif node.op_type == "DynamicQuantizeLinear":
            noise.moved(changed, node.output[1], node.output[2])
        elif places is not None and len(node.input) > places[0] and _is_activation(node, constants):
            noise.moved(changed, *(node.input[place] if place < len(node.input) else "" for place in places))
        else:
            noise.nodes.append(changed)
    del made.graph.node[:]
    made.graph.node.extend(noise.nodes)
    return made


def _is_activation(node: onnx.NodeProto, constants: set[str]) -> bool:
    return node.op_type != "QuantizeLinear" or node.input[0] not in constants


class _Noise:
    """Nodes that add noise, with what they stand between."""

    def __init__(self, graph: onnx.GraphProto, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._taken = tensor_names(graph)
        self._seed = seed

    def moved(self, node: onnx.NodeProto, scale: str, zero: str) -> None:
        """Append a node whose first result is on a grid, and move that to neighbours on the grid."""
        result, node.output[0] = node.output[0], self._fresh(f"{node.output[0]}_still")
        self.nodes.append(node)
        ends = [scale, *([zero] if zero else [])]
        value = self._node("DequantizeLinear", [node.output[0], *ends])
        self.nodes.append(helper.make_node("QuantizeLinear", [self._disturbed(value, scale), *ends], [result]))

    def added(self, tensor: str) -> str:
        """A floating tensor with the noise of quantising it on a grid between its ends."""
        names = [self._fresh(f"{tensor}_{part}") for part in ("codes", "step", "offset")]
        self.nodes.append(helper.make_node("DynamicQuantizeLinear", [tensor], names))
        return self._disturbed(tensor, names[1])

    def _disturbed(self, value: str, step: str) -> str:
        self._seed += 1
        drawn = self._node("RandomUniformLike", [value], low=-_REACH, high=_REACH, seed=float(self._seed))
        return self._node("Add", [value, self._node("Mul", [drawn, step])])

    def _node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        output = self._fresh(f"{inputs[0]}_{op}")
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def _fresh(self, name: str) -> str:
        return free_name(name, self._taken)
