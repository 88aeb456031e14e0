"""Holds a graph to the rules NVIDIA publishes for explicitly quantised, strongly typed TensorRT networks.

One function a rule; sources in their docstrings are sections of NVIDIA's TensorRT documentation ("Quantized Types" for
"Working with Quantized Types", with its parts "Explicit Quantization" and "Q/DQ Layer-Placement Recommendations"), the
API reference, and onnx-tensorrt's importer. A rule that only costs speed when broken is a rule here as well.

Not handled: bodies of If, Loop and Scan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitfront.lowering.fp16 import stays_fp32
from bitfront.lowering.graph import FLOATS, GraphView, attribute
from bitfront.lowering.layers import WEIGHTED
from bitfront.lowering.shapes import infer_shapes

_SINGLE_TYPED_EXCEPT = frozenset(("Cast", "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan"))
_BLOCK_SIZES = (64, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that a graph breaks.

    Attributes:
        rule: The rule's name in ``RULES``.
        node: Name of the node at fault, else its first output; empty where the model as a whole is at fault.
        message: What was expected and what is there.
    """

    rule: str
    node: str
    message: str


Found = Iterator[tuple[onnx.NodeProto | None, str]]


class _Graph:
    """A graph with what the rules ask of it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        inferred = infer_shapes(model)
        self.view = GraphView(inferred.graph)
        self._types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        }

    def type_of(self, tensor: str) -> int:
        """Element type of a tensor; 0 where it is not known."""
        if tensor in self.view.initializers:
            return int(self.view.initializers[tensor].data_type)
        return int(self._types.get(tensor, 0))

    def writer(self, tensor: str, op: str = "") -> onnx.NodeProto | None:
        """The node that writes a tensor, if it is an ``op``."""
        index = self.view.producer(tensor)
        node = None if index is None else self.view.nodes[index]
        return node if node is not None and op in ("", node.op_type) else None

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        return [self.view.nodes[index] for index in self.view.consumers(tensor)]

    def of(self, *ops: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.view.nodes if node.op_type in ops)

    def quantised_from(self, tensor: str) -> str:
        """The tensor whose Q/DQ pair ends in ``tensor``; empty where none does."""
        dequantise = self.writer(tensor, "DequantizeLinear")
        quantise = None if dequantise is None else self.writer(dequantise.input[0], "QuantizeLinear")
        return "" if quantise is None else str(quantise.input[0])

    def scale(self, node: onnx.NodeProto) -> NDArray[np.floating] | None:
        return self.view.array(node.input[1])

    def weights(self, kind: int) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
        """(DequantizeLinear of a stored weight of ``kind``, a node that reads it)."""
        for node in self.of("DequantizeLinear"):
            if self.writer(node.input[0]) is None and self.type_of(node.input[0]) == kind:
                yield from ((node, reader) for reader in self.readers(node.output[0]))


def _versions(graph: _Graph) -> Found:
    """Quantized Types, "ONNX Support": FP16 scales need opset 19; INT4 and block_size opset 21, which is IR 10."""
    opset = max((entry.version for entry in graph.model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if opset < 21 or graph.model.ir_version < 10:
        yield None, f"expected opset 21 and IR 10 or newer, got opset {opset} and IR {graph.model.ir_version}"


def _standard_operators(graph: _Graph) -> Found:
    """ONNX operator support: operators of other domains are looked up as plugins."""
    for node in graph.view.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield node, f"expected a standard operator, got {node.op_type} of domain '{node.domain}'"


def _symmetric(graph: _Graph) -> Found:
    """Quantized Types, "Quantization Schemes": zero points are constant and 0 (onnx-tensorrt: shiftIsAllZeros)."""
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        if len(node.input) > 2 and node.input[2]:
            zero = graph.view.array(node.input[2])
            if zero is None or np.any(zero.astype(np.int32) != 0):
                yield node, "expected a constant zero point of 0"


def _codes(graph: _Graph) -> Found:
    """Quantized Types, "Supported Data Types": activations are INT8; UINT8 is for DLA alone."""
    for node in graph.of("QuantizeLinear"):
        if graph.type_of(node.output[0]) not in (TensorProto.INT8, TensorProto.UNDEFINED):
            yield node, "expected INT8 integers: an INT8 zero point"
    for node in graph.of("DequantizeLinear"):
        if graph.writer(node.input[0]) is None and graph.type_of(node.input[0]) not in (
            TensorProto.INT8,
            TensorProto.INT4,
        ):
            yield node, "expected INT8 or INT4 integers"


def _constants(graph: _Graph) -> Found:
    """Explicit Quantization, "Quantized Weights": scales, and integers no quantiser writes, are stored constants."""
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        if graph.scale(node) is None:
            yield node, f"expected a constant scale, '{node.input[1]}' is computed"
        if node.op_type == "DequantizeLinear" and node.input[0] not in graph.view.initializers:
            writer = graph.writer(node.input[0])
            if writer is None or writer.op_type != "QuantizeLinear":
                yield node, f"expected stored integers or those of a QuantizeLinear, '{node.input[0]}' is neither"


def _positive_scales(graph: _Graph) -> Found:
    """Quantized Types: x ≈ scale · code; a scale that underflows its type makes every value 0."""
    for node in graph.of("QuantizeLinear", "DequantizeLinear"):
        scale = graph.scale(node)
        if scale is None or scale.dtype not in (np.float16, np.float32):
            continue
        if not np.all(np.isfinite(scale)) or float(scale.min(initial=1.0)) < float(np.finfo(scale.dtype).tiny):
            yield node, f"expected normal positive scales, got {float(scale.min()):g} to {float(scale.max()):g}"


def _per_tensor(graph: _Graph) -> Found:
    """Explicit Quantization: activations have one scale, the same in Q and DQ."""
    for node in graph.of("QuantizeLinear"):
        scale = graph.scale(node)
        if scale is not None and scale.size != 1:
            yield node, f"expected one scale for an activation, got {scale.size}"
        for reader in graph.readers(node.output[0]):
            other = graph.scale(reader) if reader.op_type == "DequantizeLinear" else None
            if scale is None or other is None or scale.size != 1:
                continue
            if other.size != 1 or float(other.reshape(-1)[0]) != float(scale.reshape(-1)[0]):
                yield reader, "expected the scale of the QuantizeLinear before it"


def _pairs(graph: _Graph) -> Found:
    """Explicit Quantization, "Q/DQ Interaction with ONNX": Q and DQ come as pairs; nothing reads what is between."""
    for node in graph.of("QuantizeLinear"):
        for reader in graph.readers(node.output[0]):
            if reader.op_type != "DequantizeLinear":
                yield node, f"expected a DequantizeLinear behind it, got {reader.op_type}"
        if graph.view.is_output(node.output[0]):
            yield node, "expected a DequantizeLinear behind it, its integers are an output of the network"


def _one_quantiser(graph: _Graph) -> Found:
    """Placement recommendations: Q is moved backward over a tensor's readers only where the scales are equal."""
    seen: set[str] = set()
    for node in graph.of("QuantizeLinear"):
        if node.input[0] in seen:
            yield node, f"expected one QuantizeLinear for all readers of '{node.input[0]}', this is another"
        seen.add(node.input[0])


def _weight_axis(graph: _Graph) -> Found:
    """Quantized Types, "Per-channel": output channels are axis 0 of Conv, 1 of ConvTranspose, N of Gemm and MatMul."""
    for node, reader in graph.weights(TensorProto.INT8):
        scale, shape = graph.scale(node), graph.view.shape(node.input[0])
        if scale is None or shape is None or reader.op_type not in WEIGHTED:
            continue
        transposed = reader.op_type == "Gemm" and attribute(reader, "transB", 0)
        axis = 0 if reader.op_type == "Conv" or transposed else 1
        found = attribute(node, "axis", None)
        if found != axis or scale.shape != (shape[axis],):
            yield (
                node,
                f"expected axis {axis} and {shape[axis]} scales for {reader.op_type}, got {found} and {scale.shape}",
            )


def _floating_bias(graph: _Graph) -> Found:
    """Placement recommendations: biases are not quantised."""
    for node in graph.of("Conv", "ConvTranspose", "Gemm"):
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and graph.writer(bias, "DequantizeLinear") is not None:
            yield node, f"expected a floating bias, '{bias}' is dequantised"


def _both_operands(graph: _Graph) -> Found:
    """Placement recommendations: all inputs of a weighted operation are quantised, or none (INT4 weights apart)."""
    for node in graph.of(*WEIGHTED):
        dequantise = graph.writer(node.input[1], "DequantizeLinear")
        integer = dequantise is not None and graph.type_of(dequantise.input[0]) == TensorProto.INT8
        if integer != bool(graph.quantised_from(node.input[0])):
            kinds = ("INT8", "floating") if integer else ("floating", "quantised")
            yield node, f"expected both operands quantised or neither, got {kinds[0]} weights and {kinds[1]} input"


def _grouped(graph: _Graph) -> Found:
    """``IConvolutionLayer::setNbGroups``: channels of an INT8 group come by fours; depthwise kernels are apart."""
    for node, reader in graph.weights(TensorProto.INT8):
        shape, groups = graph.view.shape(node.input[0]), int(attribute(reader, "group", 1))
        if reader.op_type not in ("Conv", "ConvTranspose") or groups == 1 or shape is None:
            continue
        sides = [shape[1] or 0, (shape[0] or 0) // groups]
        if sides[0] != 1 and any(side % 4 for side in sides):
            yield reader, f"expected channels per group by fours, got {sides[0]} and {sides[1]}"


def _no_quantiser_before_activation(graph: _Graph) -> Found:
    """Placement recommendations: Conv, BatchNormalization and Relu fuse; Q/DQ between them tears them apart."""
    for node in graph.of("Relu", "Clip"):
        source = graph.quantised_from(node.input[0])
        writer = graph.writer(source) if source else None
        if writer is not None and writer.op_type in WEIGHTED:
            yield node, f"expected no Q/DQ between {writer.op_type} and {node.op_type}"


def _shortcut_only(graph: _Graph) -> Found:
    """Placement recommendations, "residual connections": of a sum, only what does not come from the convolution."""
    for node in graph.of("Add"):
        sources = {name: graph.quantised_from(name) for name in node.input}
        fused = [name for name, source in sources.items() if not source and graph.writer(name, "Conv") is not None]
        for source in sources.values():
            alone = bool(source) and len(graph.readers(source)) == 1
            if alone and not fused and graph.writer(source, "Conv") is not None:
                yield node, f"expected Q/DQ on the shortcut only, '{source}' comes from the convolution to fuse with"


def _joined_scales(graph: _Graph) -> Found:
    """Placement recommendations: inputs of a concatenation share one scale, so that it is no operation at all."""
    for node in graph.of("Concat"):
        scales = set()
        for name in node.input:
            dequantise = graph.writer(name, "DequantizeLinear")
            scale = None if dequantise is None else graph.scale(dequantise)
            if scale is not None and graph.quantised_from(name):
                scales.add(float(scale.reshape(-1)[0]))
        if len(scales) > 1:
            yield node, f"expected one scale for all inputs, got {', '.join(f'{scale:g}' for scale in sorted(scales))}"


def _four_bits(graph: _Graph) -> Found:
    """Quantized Types: INT4 is for weights of matrix products, in blocks of 64 or 128 along K, an even number."""
    for node, reader in graph.weights(TensorProto.INT4):
        if reader.op_type != "MatMul" or reader.input[1] != node.output[0]:
            yield reader, f"expected INT4 as a MatMul's weight alone, got {reader.op_type}"
            continue
        size, axis = attribute(node, "block_size", 0), attribute(node, "axis", None)
        scale, shape = graph.scale(node), graph.view.shape(node.input[0])
        if scale is None or shape is None or len(shape) != 2:
            continue
        whole = size in _BLOCK_SIZES and axis == 0 and scale.shape == ((shape[0] or 0) // size, shape[1])
        if not whole or (shape[0] or 0) % size:
            yield node, f"expected blocks of 64 or 128 along axis 0, got {size} along {axis}, scales {scale.shape}"


def _one_type(graph: _Graph) -> Found:
    """Strongly Typed Networks: nothing is cast behind the graph's back, so floating operands are of one type."""
    for node in graph.view.nodes:
        if node.op_type in _SINGLE_TYPED_EXCEPT:
            continue
        kinds = {
            graph.type_of(name)
            for position, name in enumerate(node.input)
            if name and not stays_fp32(node.op_type, position)
        } & FLOATS
        if len(kinds) > 1:
            names = ", ".join(TensorProto.DataType.Name(kind) for kind in sorted(kinds))
            yield node, f"expected floating operands of one type, got {names}"


def _scale_types(graph: _Graph) -> Found:
    """Explicit Quantization (opset 19 on): the scale of a QuantizeLinear is of the type it reads."""
    for node in graph.of("QuantizeLinear"):
        kinds = [graph.type_of(name) for name in node.input[:2]]
        if kinds[0] != kinds[1] and all(kinds):
            names = [TensorProto.DataType.Name(kind) for kind in kinds]
            yield node, f"expected a scale of the input's type {names[0]}, got {names[1]}"


RULES: Mapping[str, Callable[[_Graph], Found]] = MappingProxyType(
    {
        "versions": _versions,
        "standard-operators": _standard_operators,
        "symmetric": _symmetric,
        "codes": _codes,
        "constants": _constants,
        "positive-scales": _positive_scales,
        "per-tensor": _per_tensor,
        "pairs": _pairs,
        "one-quantiser": _one_quantiser,
        "weight-axis": _weight_axis,
        "floating-bias": _floating_bias,
        "both-operands": _both_operands,
        "grouped": _grouped,
        "no-quantiser-before-activation": _no_quantiser_before_activation,
        "shortcut-only": _shortcut_only,
        "joined-scales": _joined_scales,
        "four-bits": _four_bits,
        "one-type": _one_type,
        "scale-types": _scale_types,
    }
)


def check_tensorrt_graph(model: onnx.ModelProto) -> tuple[Violation, ...]:
    """Every published rule that a model breaks, and where; empty where it keeps them all."""
    graph = _Graph(model)
    return tuple(
        Violation(rule=rule, node="" if node is None else node.name or node.output[0], message=message)
        for rule, check in RULES.items()
        for node, message in check(graph)
    )
