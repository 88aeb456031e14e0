"""Constant folding that remembers what each folded tensor was computed from.

A folded tensor becomes an initialiser, so that weights stored in FP16, scaled, transposed or joined from parts are
found as weights. Where they came from is kept as ``Origins``, from which a written file gets them back in the form that
takes fewer bytes (``lowering.compact``).

Left in the graph: what is drawn at random, nodes with bodies, operators outside the standard, quantised constants
(DequantizeLinear, which runtimes look for), and results of more than ``LARGEST`` elements that lead to no weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.graph import GraphView, bodies
from bitfront.lowering.interpreter import Interpreter, InterpreterError
from bitfront.lowering.layers import RECURRENT, TABLE_READERS, WEIGHTED
from bitfront.lowering.shapes import infer_shapes
from bitfront.lowering.weight_files import WeightFile

LARGEST = 1 << 16
_BYTE_LIMIT = 2**31 - 1
_STANDARD = ("", "ai.onnx")
RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
_LEFT = frozenset(
    (
        *("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"),
        *RANDOM,
        "Dropout",
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Nodes and constants that folded tensors came from.

    Attributes:
        nodes: Folded tensor → the node that computed it.
        constants: Name → initialiser that such nodes read and no node computed.
    """

    nodes: dict[str, onnx.NodeProto] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folding:
    """The state of folding a network's constants.

    Attributes:
        interpreter: Computes them.
        origins: Where folded tensors came from.
        fixed: Input → the one number that it always is, as far as branches are concerned.
        deciding: Those of ``fixed`` that decided a branch (``lowering.branches``).
        weights: Where large results go; None keeps them in the model.
    """

    interpreter: Interpreter
    origins: Origins = field(default_factory=Origins)
    fixed: Mapping[str, float] = field(default_factory=dict)
    deciding: set[str] = field(default_factory=set)
    weights: WeightFile | None = None


def fold_constants(proto: onnx.ModelProto, folding: Folding) -> onnx.ModelProto:
    """The model with constant expressions computed.

    Args:
        proto: Sorted, its constants initialisers; not modified.
        folding: What is folded is added to its origins.
    """
    origins = folding.origins
    view = GraphView(proto.graph)
    constants = dict(view.initializers)
    wanted = _leads_to_weights(view)
    kept: list[onnx.NodeProto] = []
    for node in view.nodes:
        if not _may_fold(node, constants):
            kept.append(node)
            continue
        try:
            large = any(name in wanted for name in node.output)
            results = _compute(node, constants, proto, folding.interpreter, any_size=large)
        except InterpreterError:
            results = []  # the interpreter has no kernel for it, or it fails when it is run
        if not results:
            kept.append(node)
            continue
        for name in filter(None, node.input):
            if name not in origins.nodes:
                origins.constants[name] = constants[name]
        for tensor in results:
            constants[tensor.name] = tensor
            origins.nodes[tensor.name] = node
    if len(kept) == len(view.nodes):
        return proto
    return _without_folded(proto, kept, constants)


def _without_folded(
    proto: onnx.ModelProto, kept: Iterable[onnx.NodeProto], constants: dict[str, TensorProto]
) -> onnx.ModelProto:
    folded = onnx.ModelProto()
    folded.CopyFrom(proto)
    del folded.graph.node[:]
    folded.graph.node.extend(kept)
    del folded.graph.initializer[:]
    view = GraphView(folded.graph)
    read = {name for name in constants if view.consumers(name) or view.is_output(name)}
    folded.graph.initializer.extend(constants[name] for name in constants if name in read)
    return folded


def _leads_to_weights(view: GraphView) -> set[str]:
    """Tensors that weights, biases and tables are computed from, those included."""
    found: set[str] = set()
    fixed = set(view.initializers)
    for node in view.nodes:
        if all(name in fixed for name in node.input if name):
            fixed.update(node.output)
    for node in reversed(view.nodes):
        if node.op_type in ("MatMul", "Einsum"):
            found.update(name for name in node.input if name in fixed)
        if node.op_type in WEIGHTED and node.domain in _STANDARD:
            found.update(node.input[1:])
        if node.op_type in RECURRENT:
            found.update(node.input[1:3])
        if node.op_type in TABLE_READERS and node.input[0] in fixed:
            found.add(node.input[0])
        if any(name in found for name in node.output):
            found.update(node.input)
        found.discard("")  # an input left out
    return found


def _may_fold(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> bool:
    if node.op_type in _LEFT or node.domain not in _STANDARD or any(True for _ in bodies(node)):
        return False
    if not any(node.output) or not all(name in constants for name in node.input if name):
        return False
    return not any(constants[name].data_type == TensorProto.STRING for name in node.input if name)


def _compute(
    node: onnx.NodeProto,
    constants: dict[str, TensorProto],
    proto: onnx.ModelProto,
    interpreter: Interpreter,
    *,
    any_size: bool,
) -> list[TensorProto]:
    """The node's results; none where they are too large, or their sizes cannot be told beforehand."""
    alone = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    alone.graph.name = "constant"
    alone.graph.node.append(node)
    alone.graph.initializer.extend(constants[name] for name in dict.fromkeys(filter(None, node.input)))
    alone.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output if name)
    try:
        inferred = infer_shapes(alone, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return []
    for value in inferred.graph.output:
        kind = value.type.tensor_type
        dims = kind.shape.dim
        if not kind.HasField("shape") or not all(axis.HasField("dim_value") for axis in dims):
            if any_size or sum(prod(constants[name].dims) for name in node.input if name) > LARGEST:
                return []
            continue
        elements = prod(axis.dim_value for axis in dims)
        if not kind.elem_type or kind.elem_type == TensorProto.STRING:
            return []
        width = helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize
        if elements * width > _BYTE_LIMIT or (elements > LARGEST and not any_size):
            return []
    names = [name for name in node.output if name]
    results = interpreter.load(alone, optimised=False).run({}, names)
    return [
        numpy_helper.from_array(array, name) for name, array in zip(names, results, strict=True) if array is not None
    ]
