"""The floating operators that quantised ones stand for, one rule an operator.

A rule writes the floating form of its node's result. It returns True where that takes the place of the node, whose
result is floating anyway; of a node that writes integers it notes the floating form beside it, since others may read
the integers, and returns False.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from bitfront.lowering.dequantised_forms import MICROSOFT, Forms, Scaled, as_floats
from bitfront.lowering.graph import MOVING, attribute

Rule = Callable[[onnx.NodeProto, Forms], bool]

# Operators that give the same of integers with one scale as of the numbers that these stand for, but for rounding.
_SAME_OF_INTEGERS = MOVING | {"MaxPool", "Expand", "DepthToSpace", "SpaceToDepth", "Resize"}
_WHOLE = (TensorProto.FLOAT, TensorProto.INT32)
_LSTM = ("activations", "activation_alpha", "activation_beta", "clip", "direction", "hidden_size", "input_forget")


def _attributes(node: onnx.NodeProto, *dropped: str) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute if entry.name not in dropped}


def _names(node: onnx.NodeProto, count: int = 12) -> list[str]:
    return [*node.input, *[""] * (count - len(node.input))]


def _quantise(node: onnx.NodeProto, forms: Forms) -> bool:
    source, scale, zero = _names(node)[:3]
    if source not in forms.view.initializers and not attribute(node, "block_size", 0):
        writer = forms.view.producer(source)
        operator = forms.view.nodes[writer].op_type if writer is not None else "Relu"
        forms.result(node.output[0], source, scale, zero, operator)
    return False


def _dequantise(node: onnx.NodeProto, forms: Forms) -> bool:
    if node.input[0] not in forms.floats:
        return False
    value = forms.operand(node.input)
    return value is not None and bool(forms.node("Identity", [value], node.output[0]))


def _quantise_dynamically(node: onnx.NodeProto, forms: Forms) -> bool:
    forms.put(node.output[0], node.input[0], node.output[1], node.output[2])
    return False


def _move(node: onnx.NodeProto, forms: Forms) -> bool:
    source = node.input[0] if node.input else ""
    if source in forms.floats and len([name for name in node.output if name]) == 1:
        value = forms.fresh(f"{node.output[0]}_float")
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[0], copied.output[0] = forms.floats[source], value
        copied.name = ""
        forms.nodes.append(copied)
        forms.put(node.output[0], value, forms.scale_of[source], forms.zeros[source])
    return False


def _whole_product(op: str, channel: int) -> Rule:
    """MatMulInteger, ConvInteger: what they write waits for the scales of its operands."""

    def rule(node: onnx.NodeProto, forms: Forms) -> bool:
        left, right, left_zero, right_zero = _names(node)[:4]
        scales, operands = [], []
        for name, zero, axis in ((left, left_zero, -2), (right, right_zero, channel)):
            if name in forms.floats:
                if zero != forms.zeros[name]:
                    return False
                scales.append(forms.scale_of[name])
                operands.append(forms.floats[name])
                continue
            value = forms.weight(name, None, forms.array(zero), axis)
            if value is None or (zero and forms.array(zero) is None):
                return False
            operands.append(value)
        if not scales:
            return False
        value = forms.node(op, operands, forms.fresh(f"{node.output[0]}_float"), like=node, **_attributes(node))
        product = forms.nodes[-1] if right not in forms.floats else None
        forms.scaled[node.output[0]] = Scaled(value=value, product=product, scales=tuple(scales))
        return False

    return rule


def _same(node: onnx.NodeProto, forms: Forms) -> bool:
    """Cast, Floor, Round: of whole numbers, or rounding a bias to them."""
    if node.input[0] in forms.scaled and attribute(node, "to", TensorProto.FLOAT) in _WHOLE:
        forms.scaled[node.output[0]] = forms.scaled[node.input[0]]
    return False


def _divide(node: onnx.NodeProto, forms: Forms) -> bool:
    """A constant bias, divided by the scales of the product it is added to."""
    writer = forms.view.producer(node.input[1])
    if forms.array(node.input[0]) is not None and writer is not None and forms.view.nodes[writer].op_type == "Mul":
        scales = tuple(forms.view.nodes[writer].input)
        if any(name in forms.scale_of.values() for name in scales):
            forms.scaled[node.output[0]] = Scaled(value=node.input[0], product=None, scales=scales)
    return False


def _reshape(node: onnx.NodeProto, forms: Forms) -> bool:
    if (found := forms.scaled.get(node.input[0])) is not None:
        value = forms.node("Reshape", [found.value, node.input[1]], forms.fresh(f"{node.output[0]}_float"))
        forms.scaled[node.output[0]] = Scaled(value=value, product=None, scales=found.scales)
    return _move(node, forms)


def _add(node: onnx.NodeProto, forms: Forms) -> bool:
    """The sum of whole numbers, each of which first waits for the other's scales, too."""
    one, other = (forms.scaled.get(name) for name in node.input)
    if one is None or other is None:
        return False
    values = []
    for term, beside in ((one, other), (other, one)):
        last, product = term.value, term.product
        for factor in _without(beside.scales, term.scales):
            last, product = _times(last, product, factor, node, forms)
        values.append(last)
    value = forms.node("Add", values, forms.fresh(f"{node.output[0]}_float"))
    scales = (*one.scales, *_without(other.scales, one.scales))
    forms.scaled[node.output[0]] = Scaled(value=value, product=None, scales=scales)
    return False


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """``names`` less ``others``, each as often as it stands there."""
    left = list(names)
    for name in others:
        if name in left:
            left.remove(name)
    return left


def _times(
    value: str, product: onnx.NodeProto | None, factor: str, node: onnx.NodeProto, forms: Forms
) -> tuple[str, onnx.NodeProto | None]:
    """A value times a factor, with the product that writes it where the factor went into its weight."""
    folded = _into_weight(product, factor, forms)
    if folded is not None:
        return folded.output[0], folded
    return forms.node("Mul", [value, factor], forms.fresh(f"{node.output[0]}_float")), None


def _multiply(node: onnx.NodeProto, forms: Forms) -> bool:
    """A Mul with the scales that whole numbers wait for, or with one of them."""
    known = [name for name in node.input if name in forms.scaled]
    if len(known) != 1:
        return False
    found = forms.scaled[known[0]]
    (other,) = (name for name in node.input if name != known[0])
    writer = forms.view.producer(other)
    factors = [other]
    if other not in found.scales and writer is not None and forms.view.nodes[writer].op_type == "Mul":
        factors = list(forms.view.nodes[writer].input)
    left, rest = _without(found.scales, factors), _without(factors, found.scales)
    if len(rest) == len(factors) > 1:
        rest = [other]
    last, product = found.value, found.product
    for factor in rest:
        last, product = _times(last, product, factor, node, forms)
    forms.scaled[node.output[0]] = Scaled(value=last, product=product, scales=tuple(left))
    return not left and bool(forms.node("Identity", [last], node.output[0]))


def _into_weight(product: onnx.NodeProto | None, factor: str, forms: Forms) -> onnx.NodeProto | None:
    """The product with a constant factor, one for all or one an output channel, in its weight; None if it is none."""
    value = forms.array(factor)
    if product is None or value is None:
        return None
    conv = product.op_type == "Conv"
    axes = len(attribute(product, "kernel_shape", [])) + 2 if conv else 2
    channels = value.reshape(-1)
    if channels.size > 1:
        if conv and axes == 2:
            return None
        place = 1 if conv else value.ndim - 1
        if value.ndim <= place or value.shape[place] != channels.size or (conv and axes != value.ndim):
            return None
    shaped = channels.reshape(-1, *[1] * (axes - 1)) if conv and channels.size > 1 else channels
    scale = forms.constant(shaped.reshape(()) if channels.size == 1 else shaped, f"{product.input[1]}_scale")
    base = product.input[1].removesuffix("_whole").removesuffix("_centred")
    weight = forms.node("Mul", [product.input[1], scale], forms.fresh(base))
    made = onnx.NodeProto()
    made.CopyFrom(product)
    made.input[1], made.output[0] = weight, forms.fresh(f"{product.output[0]}_scaled")
    forms.nodes.append(made)
    return made


def _with_bias(value: str, bias: str, node: onnx.NodeProto, forms: Forms) -> bool:
    return bool(forms.node("Add" if bias else "Identity", [value, bias] if bias else [value], node.output[0]))


def _dynamic_product(node: onnx.NodeProto, forms: Forms) -> bool:
    """DynamicQuantizeMatMul."""
    source, weight, scale, zero, bias = _names(node)[:5]
    value = forms.operand((weight, scale, zero))
    if value is None:
        return False
    product = forms.node("MatMul", [source, value], forms.fresh(f"{node.output[0]}_product"), like=node)
    return _with_bias(product, bias, node, forms)


def _product_to_float(node: onnx.NodeProto, forms: Forms) -> bool:
    """MatMulIntegerToFloat."""
    left, right, left_scale, right_scale, left_zero, right_zero, bias = _names(node)[:7]
    operands = forms.operand((left, left_scale, left_zero)), forms.operand((right, right_scale, right_zero))
    if operands[0] is None or operands[1] is None:
        return False
    product = forms.node("MatMul", list(filter(None, operands)), forms.fresh(f"{node.output[0]}_product"), like=node)
    return _with_bias(product, bias, node, forms)


def _lstm(node: onnx.NodeProto, forms: Forms) -> bool:
    """DynamicQuantizeLSTM, whose weights (directions, in, 4 hidden) are the LSTM's transposed."""
    names = _names(node)
    weights = []
    for tensor, scale, zero in ((names[1], names[8], names[9]), (names[2], names[10], names[11])):
        factor, offset = forms.array(scale), forms.array(zero)
        if tensor not in forms.view.initializers or factor is None or offset is None:
            return False
        shapes = [part.reshape(part.shape[0] if part.ndim else 1, 1, -1) for part in (factor, offset)]
        value = forms.computed(tensor, shapes[0], shapes[1].astype(np.float32))
        weights.append(forms.node("Transpose", [value], forms.fresh(f"{value}_turned"), perm=[0, 2, 1]))
    inputs = [names[0], *weights, *names[3:8]]
    while not inputs[-1]:
        inputs.pop()
    kept = {key: value for key, value in _attributes(node).items() if key in _LSTM}
    forms.nodes.append(helper.make_node("LSTM", inputs, list(node.output), node.name, **kept))
    return True


def _attention(node: onnx.NodeProto, forms: Forms) -> bool:
    """QAttention."""
    source, weight, bias, scale, weight_scale, mask, zero, weight_zero, past = _names(node)[:9]
    operands = forms.operand((source, scale, zero)), forms.operand((weight, weight_scale, weight_zero))
    if None in operands or past or len([name for name in node.output if name]) > 1:
        return False
    inputs = [*filter(None, operands), bias, *([mask] if mask else [])]
    made = helper.make_node("Attention", inputs, [node.output[0]], node.name, domain=MICROSOFT, **_attributes(node))
    forms.nodes.append(made)
    return True


def _bias(bias: str, scales: Sequence[str], forms: Forms) -> str | None:
    """The floating form of a bias in steps of both scales; empty where there is none, None where it is not constant."""
    values = [forms.array(name) for name in scales]
    if not bias:
        return ""
    if any(value is None for value in values) or bias not in forms.view.initializers:
        return None
    step = np.prod([np.asarray(value).reshape(-1) for value in values if value is not None and value.size == 1], axis=0)
    wide = next((value.reshape(-1) for value in values if value is not None and value.size > 1), np.ones(1, np.float32))
    return forms.weight(bias, np.asarray(step * wide, np.float32), None, -1)


def _linear_conv(node: onnx.NodeProto, forms: Forms) -> bool:
    names = _names(node)
    source, weight = forms.operand(names[:3]), forms.operand(names[3:6], 0)
    bias = _bias(names[8], (names[1], names[4]), forms)
    if source is None or weight is None or bias is None or attribute(node, "channels_last", 0):
        return False
    inputs = [source, weight, *([bias] if bias else [])]
    attributes = _attributes(node, "channels_last")
    value = forms.node("Conv", inputs, forms.fresh(f"{node.output[0]}_float"), like=node, **attributes)
    forms.result(node.output[0], value, names[6], names[7])
    return False


def _linear_matmul(node: onnx.NodeProto, forms: Forms) -> bool:
    names = _names(node)
    left, right = forms.operand(names[:3], -2), forms.operand(names[3:6])
    if left is None or right is None:
        return False
    value = forms.node("MatMul", [left, right], forms.fresh(f"{node.output[0]}_float"), like=node)
    forms.result(node.output[0], value, names[6], names[7])
    return False


def _linear_gemm(node: onnx.NodeProto, forms: Forms) -> bool:
    names = _names(node)
    transposed = bool(attribute(node, "transB", 0))
    left, right = forms.operand(names[:3]), forms.operand(names[3:6], 0 if transposed else 1)
    bias = _bias(names[6], (names[1], names[4]), forms)
    alpha = float(attribute(node, "alpha", 1.0))
    if left is None or right is None or bias is None or (bias and alpha != 1):
        return False
    inputs, attributes = [left, right, *([bias] if bias else [])], _attributes(node)
    if not names[7]:
        return bool(forms.node("Gemm", inputs, node.output[0], like=node, **attributes))
    value = forms.node("Gemm", inputs, forms.fresh(f"{node.output[0]}_float"), like=node, **attributes)
    forms.result(node.output[0], value, names[7], names[8])
    return False


def _linear(op: str, operands: int, *dropped: str) -> Rule:
    """QLinear… of one or two operands with a scale and a zero point each, and the result's behind them."""

    def rule(node: onnx.NodeProto, forms: Forms) -> bool:
        names = _names(node)
        values = [forms.operand(names[3 * place : 3 * place + 3]) for place in range(operands)]
        if None in values or attribute(node, "channels_last", 0):
            return False
        attributes = _attributes(node, "channels_last", *dropped)
        inputs = [value for value in values if value is not None]
        value = forms.node(op, inputs, forms.fresh(f"{node.output[0]}_float"), **attributes)
        forms.result(node.output[0], value, names[3 * operands], names[3 * operands + 1], op)
        return False

    return rule


def _linear_concat(node: onnx.NodeProto, forms: Forms) -> bool:
    scale, zero, *parts = node.input
    values = [forms.operand(parts[place : place + 3]) for place in range(0, len(parts), 3)]
    if None not in values:
        inputs = [value for value in values if value is not None]
        value = forms.node("Concat", inputs, forms.fresh(f"{node.output[0]}_float"), **_attributes(node))
        forms.result(node.output[0], value, scale, zero, "Concat")
    return False


def _precise_blocks(node: onnx.NodeProto, forms: Forms) -> bool:
    """MatMulNBits that quantises its activations as well."""
    return int(attribute(node, "accuracy_level", 0)) == 4 and as_floats(node, forms)


RULES: Mapping[tuple[str, str], Rule] = {
    **{("", op): _move for op in sorted(_SAME_OF_INTEGERS)},
    **{(domain, "QuantizeLinear"): _quantise for domain in ("", MICROSOFT)},
    **{(domain, "DequantizeLinear"): _dequantise for domain in ("", MICROSOFT)},
    ("", "DynamicQuantizeLinear"): _quantise_dynamically,
    ("", "MatMulInteger"): _whole_product("MatMul", -1),
    ("", "ConvInteger"): _whole_product("Conv", 0),
    **{("", op): _same for op in ("Cast", "Floor", "Round")},
    ("", "Div"): _divide,
    ("", "Add"): _add,
    ("", "Reshape"): _reshape,
    ("", "Mul"): _multiply,
    ("", "QLinearConv"): _linear_conv,
    ("", "QLinearMatMul"): _linear_matmul,
    (MICROSOFT, "QLinearConv"): _linear_conv,
    (MICROSOFT, "QGemm"): _linear_gemm,
    (MICROSOFT, "QAttention"): _attention,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_product,
    (MICROSOFT, "MatMulIntegerToFloat"): _product_to_float,
    (MICROSOFT, "DynamicQuantizeLSTM"): _lstm,
    (MICROSOFT, "MatMulNBits"): _precise_blocks,
    (MICROSOFT, "QLinearAdd"): _linear("Add", 2),
    (MICROSOFT, "QLinearMul"): _linear("Mul", 2),
    (MICROSOFT, "QLinearSigmoid"): _linear("Sigmoid", 1),
    (MICROSOFT, "QLinearLeakyRelu"): _linear("LeakyRelu", 1),
    (MICROSOFT, "QLinearSoftmax"): _linear("Softmax", 1, "opset"),
    (MICROSOFT, "QLinearGlobalAveragePool"): _linear("GlobalAveragePool", 1),
    (MICROSOFT, "QLinearAveragePool"): _linear("AveragePool", 1),
    (MICROSOFT, "QLinearConcat"): _linear_concat,
}
