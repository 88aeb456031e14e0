"""A layer where it stands: which operators hold one, and the layer of one weight of an operator."""

from __future__ import annotations

import re
from math import prod

import onnx

from bitfront.core import FP32
from bitfront.lowering.dialect import LayerSite
from bitfront.lowering.graph import FLOATS, MOVING, GraphView, attribute
from bitfront.lowering.layers import RECURRENT, TABLE_READERS, Layer

# Other operators with weights people ask about: named as left alone, with the reason, instead of being passed over.
UNHANDLED = ("Einsum", "Attention", "DeformConv")
# Operators that compute on quantised weights, of any domain.
QUANTISED = re.compile(
    r"QLinear(Conv|MatMul)|QGemm|QAttention|QEmbedLayerNormalization|QMoE|(MatMul|Conv)Integer\w*|MatMul(NBits|BnB4|Fp8)"
    r"|QLinearConvTranspose|GatherBlockQuantized|DynamicQuantize(MatMul|LSTM)"
)
QUANTISED_ALREADY = "it is quantised already"
# Elements of the smallest table that is a layer: below, scales and nodes take what the integers save.
SMALLEST_TABLE = 1024


def is_table(node: onnx.NodeProto, view: GraphView) -> bool:
    """Whether a node looks up or cuts out vectors of a constant floating matrix that is worth storing smaller."""
    if node.op_type not in TABLE_READERS or node.input[0] not in view.initializers:
        return False
    table = view.initializers[node.input[0]]
    if table.data_type not in FLOATS or prod(table.dims) < SMALLEST_TABLE:
        return False
    if node.op_type == "Slice":
        return len(table.dims) == 2 or (len(table.dims) == 3 and table.dims[0] == 1)
    return len(table.dims) == 2 and attribute(node, "axis", 0) in (0, -2)


def is_quantised(weight: str, view: GraphView) -> bool:
    """Whether a tensor is a quantised constant, moved about at most."""
    while (index := view.producer(weight)) is not None:
        node = view.nodes[index]
        if node.op_type == "DequantizeLinear":
            return node.input[0] in view.initializers
        if node.op_type not in (*MOVING, "Cast"):
            return False
        weight = node.input[0]
    return False


def layer_at(
    index: int, view: GraphView, taken: set[str], operand: int, *, weight_name: str = "", transposed_from: str = ""
) -> LayerSite:
    """The layer of one weight of a node, its schemes not filled in.

    Args:
        index: The node's index in ``view.nodes``.
        view: The graph it stands in.
        taken: Names that layers have; the layer's is added.
        operand: Position of the weight among the node's inputs.
        weight_name: What the operator calls the weight where it has several.
        transposed_from: The constant matrix that the weight is the transpose of, where that is the layer's weight.
    """
    node = view.nodes[index]
    weight = transposed_from or node.input[operand]
    shape = tuple(view.initializers[weight].dims)
    if (node.op_type == "MatMul" and operand) or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        channel_axis = 1
    else:
        channel_axis = 1 if node.op_type in ("ConvTranspose", *RECURRENT) else 0
    if transposed_from:
        channel_axis = 1 - channel_axis
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
    layer = Layer(
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
    return LayerSite(layer=layer, node=node, view=view, index=index)
