"""Bringing a network that is quantised already to floating point, so that its layers can be searched.

Two steps. The first is exact; the second changes answers by as much as the network's own quantisation does, so
``lowering.equivalence`` measures that on the network as given, and leaves the step out where answers change by more.

    stored weights       DequantizeLinear of a constant, MatMulNBits, GatherBlockQuantized  →  a floating constant
    quantised arithmetic
      Q → DQ             nothing, or a Clip where the quantiser cut off what lies below zero, as a Relu does
      QLinear…, QGemm    the floating operator, over floating constants
      …Integer           DynamicQuantizeLinear, MatMulInteger, Cast, Mul with both scales  →  MatMul (Conv alike)
      DynamicQuantize…   MatMul, LSTM (hidden states are quantised in each step, too)
      QAttention         Attention

Weights become Cast, Sub and Mul over the integers given, which folding makes constants of; written files keep the
integers where they are smaller (``lowering.compact``).

Left as they are: quantised tensors that operators not listed here read, those with a scale a channel that are no
constants, and what stands in bodies.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx

from bitfront.lowering.dequantised_forms import Forms, as_floats, domain_of, is_stored
from bitfront.lowering.dequantised_operators import RULES
from bitfront.lowering.folding import Folding
from bitfront.lowering.graph import GraphView, attribute, captured_names

_WEIGHTS = ("DequantizeLinear", "MatMulNBits", "GatherBlockQuantized")


def with_floating_arithmetic(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    """The model with quantised arithmetic in floating point; the same object where it has none.

    Args:
        proto: Sorted, its constants initialisers, with the types of its tensors; not modified.
    """
    return _rewritten(proto, lambda node, forms: (rule := RULES.get(domain_of(node))) is not None and rule(node, forms))


def with_floating_weights(proto: onnx.ModelProto, _: Folding) -> onnx.ModelProto:
    """The model with constants that are stored as integers in floating point; the same object where it has none.

    Weights of a layer whose activations are quantised stay: runtimes look for both together.

    Args:
        proto: Sorted, its constants initialisers; not modified.
    """

    def rule(node: onnx.NodeProto, forms: Forms) -> bool:
        return node.op_type in _WEIGHTS and not _is_of_quantised_layer(node, forms.view) and as_floats(node, forms)

    return _rewritten(proto, rule)


def _rewritten(proto: onnx.ModelProto, rule: Callable[[onnx.NodeProto, Forms], bool]) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    forms = Forms(made.graph)
    replaced = False
    for node in forms.view.nodes:
        if rule(node, forms):
            replaced = True
        else:
            forms.nodes.append(node)
    if not replaced:
        return proto
    nodes = _alive(forms)
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _alive(forms: Forms) -> list[onnx.NodeProto]:
    """Nodes that an output depends on: both forms of a quantised tensor were written."""
    used, kept = set(forms.view.outputs), []
    for node in reversed(forms.nodes):
        if any(name in used for name in node.output):
            kept.append(node)
            used.update(node.input)
            used.update(captured_names(node))
    return [_copy(node) for node in reversed(kept)]


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copied = onnx.NodeProto()
    copied.CopyFrom(node)
    return copied


def _is_of_quantised_layer(node: onnx.NodeProto, view: GraphView) -> bool:
    """Whether what reads a constant through DequantizeLinear also reads an activation through one."""
    if node.op_type == "MatMulNBits":
        return int(attribute(node, "accuracy_level", 0)) == 4
    readers = (view.nodes[index] for index in view.consumers(node.output[0]))
    sources = (view.producer(name) for reader in readers for name in reader.input)
    return any(
        view.nodes[index].op_type == "DequantizeLinear" and not is_stored(view.nodes[index].input[0], view)
        for index in sources
        if index is not None
    )
