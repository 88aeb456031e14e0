"""TensorRT, 10.16 and 11: explicit Q/DQ for strongly typed networks, opset 21, standard operators alone.

| scheme       | written as                                                                       |
| ------------ | -------------------------------------------------------------------------------- |
| fp32         | as in the network                                                                |
| fp16         | FLOAT16 weight and bias; activations FLOAT16, Cast where regions meet            |
| int8         | Q/DQ on the input; INT8 weight → DequantizeLinear(axis); floating bias           |
| int4, groups | INT4 weight (K, N) → DequantizeLinear(axis 0, block_size) → MatMul (→ Add bias)  |

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

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from bitfront.core import SCHEMES
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import LayerSite, LoweringRequest, SchemeSupport, never
from bitfront.lowering.dialects.tensorrt_placement import fp16_nodes, quantised_reads
from bitfront.lowering.dialects.tensorrt_rules import why_no_fp16, why_no_groups, why_no_int8
from bitfront.lowering.fp16 import FP16_MAX, fp16_constant, require_fp16, stays_fp32
from bitfront.lowering.graph import GraphView, captured_names
from bitfront.lowering.layers import Layer
from bitfront.lowering.ranges import has_range, require_range
from bitfront.lowering.rounding.scales import INTEGER_RANGES
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import stored_bytes
from bitfront.lowering.writer import GraphWriter

SMALLEST_FP16_SCALE = float(np.finfo(np.float16).tiny)


def symmetric_scale(low: float, high: float) -> float:
    """Scale of a symmetric INT8 tensor whose range is (low, high)."""
    return float(np.float32(max(abs(low), abs(high)) / 127)) or 1.0


def fp16_scale(scale: float) -> float:
    """The smallest safe FP16 number that is not below ``scale``, so that nothing more is clipped."""
    rounded = np.float16(max(scale, SMALLEST_FP16_SCALE))
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
    scales = np.maximum(rounded.scales, SMALLEST_FP16_SCALE).astype(np.float16)
    if not np.any(rounded.scales < SMALLEST_FP16_SCALE):
        return rounded, scales
    low, high = INTEGER_RANGES[rounded.bits]
    shrink = np.minimum(code_scales.astype(np.float64) / SMALLEST_FP16_SCALE, 1.0)
    integers = np.clip(np.rint(rounded.integers * shrink), low, high).astype(np.int8)
    return replace(rounded, integers=integers), scales


class TensorRtEmitter:
    """Builds the graph of one request."""

    def __init__(self, request: LoweringRequest, schemes: Sequence[SchemeSupport[Any]]) -> None:
        self._supports = {support.scheme: support for support in schemes}
        self._view = view = GraphView(request.reference.graph)
        by_node = {layer.node: layer for layer in request.layers}
        self._layers = {index: by_node[node.name] for index, node in enumerate(view.nodes) if node.name in by_node}
        ranges, weights = request.ranges, request.weights
        self._schemes, self._ranges, self._weights = request.schemes, ranges, weights
        names = [*view.inputs, *view.initializers, *(name for node in view.nodes for name in node.output)]
        self._writer = GraphWriter(request.reference, names)
        integer = {index for index, layer in self._layers.items() if self._schemes[layer.name].activations.is_static}
        self._reads = quantised_reads(view, integer, lambda tensor: has_range(tensor, ranges))
        self._fp16_nodes = fp16_nodes(view, self._layers, self._schemes, ranges, weights, self._reads)
        self._scales = self._quantiser_scales()
        # FP32 forms have the tensor's own name, FP16 forms another.
        self._fp32_tensors: set[str] = {*view.inputs, *view.initializers}
        self._written_as_fp16: set[str] = set()
        self._fp16_names: dict[str, str] = {}
        self._codes: dict[str, str] = {}
        self._dequantised: dict[tuple[str, bool], str] = {}
        for tensor in view.initializers.values():
            self._writer.keep(tensor)

    def run(self) -> onnx.ModelProto:
        """Write every node in its order.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or does not fit FP16 where it must.
        """
        for index, node in enumerate(self._view.nodes):
            layer = self._layers.get(index)
            if layer is None:
                self._glue(index, node)
                continue
            site = LayerSite(layer=layer, node=node, view=self._view, index=index)
            self._supports[self._schemes[layer.name]].write(self, site)
        for name in self._view.outputs:
            self._as_fp32(name)
        return self._writer.model()

    # --- tensors ---------------------------------------------------------------------------------------------

    def _quantiser_scales(self) -> dict[str, float]:
        """Tensor → scale, one for all that share it, representable in every type it is written in."""
        view, shares = self._view, self._reads.shares
        scales: dict[str, float] = {}
        meeting_fp16: set[str] = set()
        for index, tensor in sorted(self._reads.pairs):
            require_range(tensor, self._ranges)
            scales[shares[tensor]] = max(scales.get(shares[tensor], 0.0), symmetric_scale(*self._ranges[tensor]))
            if index in self._fp16_nodes or view.producer(tensor) in self._fp16_nodes:
                meeting_fp16.add(shares[tensor])
        shared = {name: fp16_scale(scale) if name in meeting_fp16 else scale for name, scale in scales.items()}
        return {tensor: shared[name] for tensor, name in shares.items()}

    def _as_fp32(self, tensor: str) -> str:
        """The FP32 form of a tensor, under its own name; tensors of other types are as they are."""
        if tensor in self._fp16_names and tensor not in self._fp32_tensors:
            self._writer.node("Cast", [self._fp16_names[tensor]], [tensor], attributes={"to": TensorProto.FLOAT})
        self._fp32_tensors.add(tensor)
        return tensor

    def _as_fp16(self, tensor: str) -> str:
        """The FP16 form of a floating tensor or initialiser."""
        value = self._view.array(tensor)
        if value is not None:
            return self._writer.constant(fp16_constant(value), f"{tensor}_h")
        if tensor not in self._fp16_names:
            self._fp16_names[tensor] = self._writer.fresh(f"{tensor}_h")
            self._writer.node("Cast", [tensor], [self._fp16_names[tensor]], attributes={"to": TensorProto.FLOAT16})
        return self._fp16_names[tensor]

    def _scale(self, tensor: str, fp16: bool) -> str:
        kind = np.float16 if fp16 else np.float32
        return self._writer.constant(np.array(self._scales[tensor], kind), f"{tensor}_s")

    def _as_dequantised(self, tensor: str, fp16: bool) -> str:
        """The tensor behind its Q/DQ pair, of the type its reader computes in."""
        zero = self._writer.constant(np.array(0, np.int8), f"{tensor}_z")
        if tensor not in self._codes:
            written_as_fp16 = tensor in self._written_as_fp16
            source = self._fp16_names[tensor] if written_as_fp16 else tensor
            self._codes[tensor] = self._writer.fresh(f"{tensor}_q")
            self._writer.node(
                "QuantizeLinear", [source, self._scale(tensor, written_as_fp16), zero], [self._codes[tensor]]
            )
        if (tensor, fp16) not in self._dequantised:
            result = self._dequantised[tensor, fp16] = self._writer.fresh(f"{tensor}_d")
            inputs = [self._codes[tensor], self._scale(tensor, fp16), zero]
            self._writer.node("DequantizeLinear", inputs, [result])
        return self._dequantised[tensor, fp16]

    def _read(self, index: int, position: int) -> str:
        """Tensor that the node is to read as its operand at ``position``."""
        node, fp16 = self._view.nodes[index], index in self._fp16_nodes
        tensor = node.input[position]
        if not tensor:
            return ""
        if (index, tensor) in self._reads.pairs:
            return self._as_dequantised(tensor, fp16)
        if fp16 and self._view.is_float(tensor) and not stays_fp32(node.op_type, position):
            return self._as_fp16(tensor)
        if node.op_type in ("Shape", "Size") and tensor in self._fp16_names:
            return self._fp16_names[tensor]
        return self._as_fp32(tensor)

    def _results(self, index: int) -> list[str]:
        """Names for what the node writes, FP16 where it runs so."""
        results = []
        for tensor in self._view.nodes[index].output:
            if index in self._fp16_nodes and tensor and self._view.is_float(tensor):
                self._fp16_names[tensor] = self._writer.fresh(f"{tensor}_h")
                self._written_as_fp16.add(tensor)
                results.append(self._fp16_names[tensor])
            else:
                self._fp32_tensors.add(tensor)
                results.append(tensor)
        return results

    # --- nodes -----------------------------------------------------------------------------------------------

    def _glue(self, index: int, node: onnx.NodeProto) -> None:
        inputs = [self._read(index, position) for position in range(len(node.input))]
        for name in captured_names(node):
            if self._view.producer(name) is not None:
                self._as_fp32(name)
        self._writer.copy(node, inputs, self._results(index))

    def layer(self, site: LayerSite) -> None:
        """Write a layer as it stands, its weight and bias as its scheme says."""
        integer = self._schemes[site.layer.name].precision.is_integer
        inputs = [
            self._read(site.index, 0),
            self._integer_weight(site.index, site.layer) if integer else self._read(site.index, 1),
        ]
        bias = self._bias(site.index, site.node, site.layer)
        self._writer.copy(site.node, [*inputs, bias] if bias else inputs, self._results(site.index))
        self._writer.name_last(site.layer.name)

    def fp16_layer(self, site: LayerSite) -> None:
        """Write a layer that computes in FP16.

        Raises:
            LoweringError: If what it reads or writes does not fit FP16.
        """
        require_fp16(site.layer.name, (site.node.input[0], site.node.output[0]), self._ranges)
        self.layer(site)

    def _integer_weight(self, index: int, layer: Layer) -> str:
        """INT8 integers → DequantizeLinear with a scale per output channel."""
        rounded = self._weights[layer.name]
        scales: NDArray[np.floating] = rounded.scales
        if index in self._fp16_nodes:
            shape = [1] * len(layer.weight_shape)
            shape[layer.channel_axis] = -1
            rounded, scales = with_fp16_scales(rounded, rounded.scales.reshape(shape))
        integers = self._writer.constant(rounded.integers, f"{layer.weight}_8")
        result = self._writer.fresh(f"{layer.weight}_f")
        inputs = [integers, self._writer.constant(scales.reshape(-1), f"{layer.weight}_s")]
        self._writer.node("DequantizeLinear", inputs, [result], attributes={"axis": layer.channel_axis})
        return result

    def grouped_layer(self, site: LayerSite) -> None:
        """INT4 integers → DequantizeLinear with a scale per group → MatMul, and Add where there is a bias.

        A Gemm becomes MatMul and Add, its weight stored as (K, N): the form TensorRT fuses is a DequantizeLinear right
        in front of a matrix product, with nothing transposed between.
        """
        index, node, layer = site.index, site.node, site.layer
        group_size = self._schemes[layer.name].weights.group_size
        assert group_size is not None
        rounded = self._weights[layer.name]
        if layer.channel_axis == 0:
            rounded = replace(rounded, integers=np.ascontiguousarray(rounded.integers.T))
        rounded = replace(rounded, scales=np.ascontiguousarray(rounded.scales.T))
        scales: NDArray[np.floating] = rounded.scales
        if index in self._fp16_nodes:
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
        kept = np.clip(total, -FP16_MAX, FP16_MAX).astype(np.float16) if index in self._fp16_nodes else total
        return self._writer.constant(kept, f"{layer.weight}_b")


def _support(
    text: str,
    compute_type: ComputeType,
    write: Callable[[TensorRtEmitter, LayerSite], None] = TensorRtEmitter.layer,
    why_not: Callable[[LayerSite], str] = lambda _: "",
) -> SchemeSupport[TensorRtEmitter]:
    """Entry of the table of schemes; scales count as on the FP16 side, where they have two bytes."""
    return SchemeSupport(
        scheme=SCHEMES[text],
        compute_type=compute_type,
        write=write,
        why_not=why_not,
        weight_bytes=partial(stored_bytes, scale_bytes=2),
    )


def _grouped(method: str, group_size: int) -> SchemeSupport[TensorRtEmitter]:
    return _support(
        f"int4:{method}:block{group_size}",
        ComputeType.WEIGHT_ONLY,
        TensorRtEmitter.grouped_layer,
        partial(why_no_groups, group_size=group_size),
    )


class TensorRtDialect:
    """Writes networks for TensorRT, natively or behind ONNX Runtime's TensorRT provider.

    Tensor Cores compute in what the graph says.
    """

    name = "tensorrt"
    schemes: Sequence[SchemeSupport[Any]] = (
        _support("fp32", ComputeType.FP32),
        never(SCHEMES["int4:mse"], "TensorRT's INT4 is for weights alone"),
        never(SCHEMES["int4:gptq"], "TensorRT's INT4 is for weights alone"),
        never(SCHEMES["int8:mse:weight-only"], "TensorRT has no INT8 weights with floating activations"),
        never(SCHEMES["int4:gptq:weight-only"], "TensorRT's INT4 wants blocks of 64 or 128 weights"),
        never(SCHEMES["int4:mse:block32"], "TensorRT's INT4 wants blocks of 64 or 128 weights"),
        _support("fp16", ComputeType.FP16, TensorRtEmitter.fp16_layer, why_no_fp16),
        _support("int8:nearest", ComputeType.INT8, why_not=why_no_int8),
        _support("int8:mse", ComputeType.INT8, why_not=why_no_int8),
        _grouped("mse", 64),
        _grouped("gptq", 64),
        _grouped("mse", 128),
        _grouped("gptq", 128),
    )

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """Write the request for TensorRT.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or does not fit FP16 where it must.
        """
        return TensorRtEmitter(request, self.schemes).run()
