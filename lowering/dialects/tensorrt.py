"""TensorRT, 10.16 and 11: explicit Q/DQ for strongly typed networks, opset 21, standard operators alone.

| scheme       | written as                                                                       |
| ------------ | -------------------------------------------------------------------------------- |
| fp32         | as in the network                                                                |
| fp16         | FLOAT16 weight and bias; activations FLOAT16, Cast where regions meet            |
| int8         | Q/DQ on the input; INT8 weight → DequantizeLinear(axis); floating bias           |
| int4, blocks | INT4 weight (K, N) → DequantizeLinear(axis 0, group_size) → MatMul (→ Add bias)  |

In a strongly typed network precision is what the graph says, and a scale's type is the type that its DequantizeLinear
writes ("Strongly Typed Networks", "Explicit Quantization" in NVIDIA's documentation; ``QuantDequantLinearHelper`` of
onnx-tensorrt). Quantisers are symmetric with zero point 0:

    scale = max(|low|, |high|) / 127

Where a quantiser meets FP16 its scale is rounded up to FP16, and no FP16 scale is below the smallest normal number;
integers of weights are those of the scale that is written. What is quantised and what runs in FP16 is decided in
``tensorrt_placement``, what is refused in ``tensorrt_rules``; ``tensorrt_check`` holds a graph to the published rules.

ONNX Runtime (1.31) runs these graphs on any provider, but its optimiser ``WeightBiasQuantization`` must be off where
INT8 layers have an FP16 bias: it divides the bias by s_x·s_w in FP16, which overflows, and TensorRT takes no integer
bias anyway (MobileNetV1: 13.1 dB against FP32 without it, −2.7 dB with it).

Not handled: FP8 and FP4, plugins, INT4 behind an activation quantiser.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitfront.core import Precision, Scheme
from bitfront.lowering.dialect import ComputeType, LoweringRequest
from bitfront.lowering.dialects.tensorrt_placement import fp16_nodes, quantised_reads
from bitfront.lowering.dialects.tensorrt_rules import offers
from bitfront.lowering.fp16 import HALF_MAX, floats_full, fp16_constant, require_fp16
from bitfront.lowering.graph import GraphView, captured_names
from bitfront.lowering.layers import Layer
from bitfront.lowering.ranges import has_range, require_range
from bitfront.lowering.rounding.scales import CODE_RANGES
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import stored_bytes
from bitfront.lowering.writer import GraphWriter

SMALLEST_HALF_SCALE = float(np.finfo(np.float16).tiny)


class TensorRtDialect:
    """Writes candidates for TensorRT, natively or behind ONNX Runtime's TensorRT provider."""

    name = "tensorrt"

    def offers(self, layer: Layer, node: onnx.NodeProto, view: GraphView) -> tuple[tuple[Scheme, ...], dict[str, str]]:
        """See ``Dialect.offers``."""
        return offers(layer, node, view)

    def arithmetic(self, scheme: Scheme) -> ComputeType:
        """Tensor Cores compute in what the graph says."""
        if scheme.group_size is not None:
            return ComputeType.BLOCK
        if scheme.quantises_activations:
            return ComputeType.INTEGER
        return ComputeType.HALF if scheme.precision is Precision.FP16 else ComputeType.FLOAT

    def weight_bytes(self, layer: Layer, scheme: Scheme) -> int:
        """See ``Dialect.weight_bytes``; scales as on the FP16 side, where they have two bytes."""
        return stored_bytes(layer, scheme, scale_bytes=2)

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """See ``Dialect.write``.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or does not fit FP16 where it must.
        """
        return _Writing(request).run()


def symmetric_scale(low: float, high: float) -> float:
    """Scale of a symmetric INT8 tensor whose range is (low, high)."""
    return float(np.float32(max(abs(low), abs(high)) / 127)) or 1.0


def fp16_scale(scale: float) -> float:
    """The smallest safe FP16 number that is not below ``scale``, so that nothing more is clipped."""
    rounded = np.float16(max(scale, SMALLEST_HALF_SCALE))
    return float(rounded if float(rounded) >= scale else np.nextafter(rounded, np.float16(np.inf)))


def with_fp16_scales(
    rounded: RoundedWeight, code_scales: NDArray[np.float32]
) -> tuple[RoundedWeight, NDArray[np.float16]]:
    """A weight whose scales fit FP16: clamped ones get integers of their own.

    Args:
        rounded: The weight.
        code_scales: Each code's scale, broadcastable to the integers.

    Returns:
        The weight with its integers, and its scales as FP16, of ``rounded.scales``'s shape.
    """
    scales = np.maximum(rounded.scales, SMALLEST_HALF_SCALE).astype(np.float16)
    if not np.any(rounded.scales < SMALLEST_HALF_SCALE):
        return rounded, scales
    low, high = CODE_RANGES[rounded.bits]
    shrink = np.minimum(code_scales.astype(np.float64) / SMALLEST_HALF_SCALE, 1.0)
    integers = np.clip(np.rint(rounded.integers * shrink), low, high).astype(np.int8)
    return replace(rounded, integers=integers), scales


class _Writing:
    """One request being written."""

    def __init__(self, request: LoweringRequest) -> None:
        self._view = view = GraphView(request.reference.graph)
        by_node = {layer.node: layer for layer in request.layers}
        self._layers = {index: by_node[node.name] for index, node in enumerate(view.nodes) if node.name in by_node}
        schemes, ranges, weights = request.schemes, request.ranges, request.weights
        self._schemes, self._ranges, self._weights = schemes, ranges, weights
        names = [*view.inputs, *view.initializers, *(name for node in view.nodes for name in node.output)]
        self._writer = GraphWriter(request.reference, names)
        integer = {index for index, layer in self._layers.items() if schemes[layer.name].quantises_activations}
        self._reads = quantised_reads(view, integer, lambda tensor: has_range(tensor, ranges))
        self._half = fp16_nodes(view, self._layers, schemes, ranges, weights, self._reads)
        self._scales = self._quantiser_scales()
        # FP32 forms have the tensor's own name, FP16 forms another.
        self._full: set[str] = {*view.inputs, *view.initializers}
        self._written_half: set[str] = set()
        self._halves: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._dequantised: dict[tuple[str, bool], str] = {}
        for tensor in view.initializers.values():
            self._writer.keep(tensor)

    def run(self) -> onnx.ModelProto:
        for index, node in enumerate(self._view.nodes):
            layer = self._layers.get(index)
            if layer is None:
                self._glue(index, node)
                continue
            scheme = self._schemes[layer.name]
            if scheme.precision is Precision.FP16:
                require_fp16(layer.name, (node.input[0], node.output[0]), self._ranges)
            if scheme.group_size is not None:
                self._block(index, node, layer, scheme.group_size)
            else:
                self._weighted(index, node, layer, scheme)
        for name in self._view.outputs:
            self._as_full(name)
        return self._writer.model()

    # --- tensors ---------------------------------------------------------------------------------------------

    def _quantiser_scales(self) -> dict[str, float]:
        """Tensor → scale, one for all that share it, representable in every type it is written in."""
        view, shares = self._view, self._reads.shares
        scales: dict[str, float] = {}
        meeting_half: set[str] = set()
        for index, tensor in sorted(self._reads.pairs):
            require_range(tensor, self._ranges)
            scales[shares[tensor]] = max(scales.get(shares[tensor], 0.0), symmetric_scale(*self._ranges[tensor]))
            if index in self._half or view.producer(tensor) in self._half:
                meeting_half.add(shares[tensor])
        shared = {name: fp16_scale(scale) if name in meeting_half else scale for name, scale in scales.items()}
        return {tensor: shared[name] for tensor, name in shares.items()}

    def _as_full(self, tensor: str) -> str:
        """The FP32 form of a tensor, under its own name; tensors of other types are as they are."""
        if tensor in self._halves and tensor not in self._full:
            self._writer.node("Cast", [self._halves[tensor]], [tensor], attributes={"to": TensorProto.FLOAT})
        self._full.add(tensor)
        return tensor

    def _as_half(self, tensor: str) -> str:
        """The FP16 form of a floating tensor or initialiser."""
        value = self._view.array(tensor)
        if value is not None:
            return self._writer.constant(fp16_constant(value), f"{tensor}_h")
        if tensor not in self._halves:
            self._halves[tensor] = self._writer.fresh(f"{tensor}_h")
            self._writer.node("Cast", [tensor], [self._halves[tensor]], attributes={"to": TensorProto.FLOAT16})
        return self._halves[tensor]

    def _scale(self, tensor: str, half: bool) -> str:
        kind = np.float16 if half else np.float32
        return self._writer.constant(np.array(self._scales[tensor], kind), f"{tensor}_s")

    def _as_dequantised(self, tensor: str, half: bool) -> str:
        """The tensor behind its Q/DQ pair, of the type its reader computes in."""
        zero = self._writer.constant(np.array(0, np.int8), f"{tensor}_z")
        if tensor not in self._codes:
            written_half = tensor in self._written_half
            source = self._halves[tensor] if written_half else tensor
            self._codes[tensor] = self._writer.fresh(f"{tensor}_q")
            self._writer.node(
                "QuantizeLinear", [source, self._scale(tensor, written_half), zero], [self._codes[tensor]]
            )
        if (tensor, half) not in self._dequantised:
            result = self._dequantised[tensor, half] = self._writer.fresh(f"{tensor}_d")
            inputs = [self._codes[tensor], self._scale(tensor, half), zero]
            self._writer.node("DequantizeLinear", inputs, [result])
        return self._dequantised[tensor, half]

    def _read(self, index: int, position: int) -> str:
        """What the node is to read as its operand at ``position``."""
        node, half = self._view.nodes[index], index in self._half
        tensor = node.input[position]
        if not tensor:
            return ""
        if (index, tensor) in self._reads.pairs:
            return self._as_dequantised(tensor, half)
        if half and self._view.is_float(tensor) and not floats_full(node.op_type, position):
            return self._as_half(tensor)
        if node.op_type in ("Shape", "Size") and tensor in self._halves:
            return self._halves[tensor]
        return self._as_full(tensor)

    def _results(self, index: int) -> list[str]:
        """Names for what the node writes, FP16 where it runs so."""
        results = []
        for tensor in self._view.nodes[index].output:
            if index in self._half and tensor and self._view.is_float(tensor):
                self._halves[tensor] = self._writer.fresh(f"{tensor}_h")
                self._written_half.add(tensor)
                results.append(self._halves[tensor])
            else:
                self._full.add(tensor)
                results.append(tensor)
        return results

    # --- nodes -----------------------------------------------------------------------------------------------

    def _glue(self, index: int, node: onnx.NodeProto) -> None:
        inputs = [self._read(index, position) for position in range(len(node.input))]
        for name in captured_names(node):
            if self._view.producer(name) is not None:
                self._as_full(name)
        self._writer.copy(node, inputs, self._results(index))

    def _weighted(self, index: int, node: onnx.NodeProto, layer: Layer, scheme: Scheme) -> None:
        inputs = [self._read(index, 0), ""]
        if scheme.precision.is_integer:
            inputs[1] = self._integer_weight(index, layer)
        else:
            inputs[1] = self._read(index, 1)
        bias = self._bias(index, node, layer)
        self._writer.copy(node, [*inputs, bias] if bias else inputs, self._results(index))
        self._writer.name_last(layer.name)

    def _integer_weight(self, index: int, layer: Layer) -> str:
        """INT8 integers → DequantizeLinear with a scale per output channel."""
        rounded = self._weights[layer.name]
        scales: NDArray[np.floating] = rounded.scales
        if index in self._half:
            shape = [1] * len(layer.weight_shape)
            shape[layer.channel_axis] = -1
            rounded, scales = with_fp16_scales(rounded, rounded.scales.reshape(shape))
        integers = self._writer.constant(rounded.integers, f"{layer.weight}_8")
        result = self._writer.fresh(f"{layer.weight}_f")
        inputs = [integers, self._writer.constant(scales.reshape(-1), f"{layer.weight}_s")]
        self._writer.node("DequantizeLinear", inputs, [result], attributes={"axis": layer.channel_axis})
        return result

    def _block(self, index: int, node: onnx.NodeProto, layer: Layer, group_size: int) -> None:
        """INT4 integers → DequantizeLinear with a scale per block → MatMul, and Add where there is a bias.

        A Gemm becomes MatMul and Add, its weight stored as (K, N): the form TensorRT fuses is a DequantizeLinear right
        in front of a matrix product, with nothing transposed between.
        """
        rounded, half = self._weights[layer.name], index in self._half
        if layer.channel_axis == 0:
            rounded = replace(rounded, integers=np.ascontiguousarray(rounded.integers.T))
        rounded = replace(rounded, scales=np.ascontiguousarray(rounded.scales.T))
        scales: NDArray[np.floating] = rounded.scales
        if half:
            rounded, scales = with_fp16_scales(rounded, np.repeat(rounded.scales, group_size, axis=0))
        integers = self._writer.int4_constant(rounded.integers, f"{layer.weight}_4")
        weight = self._writer.fresh(f"{layer.weight}_f")
        self._writer.node(
            "DequantizeLinear",
            [integers, self._writer.constant(scales, f"{layer.weight}_s")],
            [weight],
            attributes={"axis": 0, "block_size": group_size},
        )
        source, bias = self._read(index, 0), self._bias(index, node, layer)
        (result,) = self._results(index)
        product = self._writer.fresh(f"{node.output[0]}_m") if bias else result
        self._writer.node("MatMul", [source, weight], [product], name=layer.name)
        if bias:
            self._writer.node("Add", [product, bias], [result])

    def _bias(self, index: int, node: onnx.NodeProto, layer: Layer) -> str:
        """The floating bias, with the correction of the layer's rounding; empty where there is none.

        A MatMul has no bias to correct.
        """
        rounded = self._weights.get(layer.name)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        if node.op_type == "MatMul" or rounded is None or rounded.bias_correction is None:
            return self._read(index, 2) if has_bias else ""
        value = self._view.array(node.input[2]) if has_bias else None
        total = (rounded.bias_correction if value is None else value + rounded.bias_correction).astype(np.float32)
        kept = np.clip(total, -HALF_MAX, HALF_MAX).astype(np.float16) if index in self._half else total
        return self._writer.constant(kept, f"{layer.weight}_b")
