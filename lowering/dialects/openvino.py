"""OpenVINO's CPU plugin: U8 activations, S8 per-channel weights, Q/DQ in ONNX, which it reads as it stands.

What the plugin (2026.4) does with each form, seen in its runtime model:

| written as                                            | runs as                                                 |
| ----------------------------------------------------- | ------------------------------------------------------- |
| Conv, Gemm, MatMul with Q/DQ on inputs and weight     | u8 × i8; the quantiser behind is a post-operation       |
| INT4 initialiser → Cast to INT8 → DequantizeLinear    | folded when compiled: as INT8                           |
| Conv → Q → DQ → Add ← DQ, then Q                      | one convolution; sum and quantisers are post-operations |
| the same without Q/DQ between Conv and Add            | a separate Add: slower                                  |
| Concat of tensors with one common quantiser           | copies bytes                                            |
| Concat of tensors with different ones                 | requantises each input, and the result                  |
| FP16 initialiser → Cast                               | folded when compiled                                    |
| INT8 or INT4 → Cast → Mul(scale) → Conv               | folded when compiled: float                             |
| the same → MatMul or Gemm (large enough)              | stays compressed; inputs become 8-bit, by blocks of 32  |
| DequantizeLinear with ``group_size`` → MatMul or Gemm | likewise, a scale per block                             |

So what a Concat joins gets one quantiser where ranges are near enough (``openvino_quantisers``). Channels of zeros,
INT32 biases and shields, which ONNX Runtime wants, are left out.

Floating layers compute in 16 bits (BF16 or FP16) where the processor has such arithmetic, and the plugin knows no
precision per layer: ``INFERENCE_PRECISION_HINT`` is for the whole network. The file says in its metadata
(``PRECISION_KEY``) whether 16 bits are allowed: where floating layers are and all of them are ``fp16``. A single layer
at ``fp32`` keeps the others in FP32, and ``fp16`` is storage then; so it is on processors without 16-bit arithmetic.

Not handled: quantised layers with operators over more than two axes, dynamic quantisation of whole networks, FP8.
"""

from __future__ import annotations

import numpy as np
import onnx

from bitfront.core import Precision, Scheme
from bitfront.lowering.dialect import ComputeType, LoweringRequest
from bitfront.lowering.dialects.offers import (
    GROUP_SIZE,
    offered,
    why_no_groups,
    why_no_integer_bias,
    why_no_plain_gemm,
)
from bitfront.lowering.dialects.openvino_quantisers import shared_ranges
from bitfront.lowering.dialects.qdq import QdqWriting
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import stored_bytes

PRECISION_KEY = "bitfront.openvino.inference_precision"
HALF = "half"

# Operators with 8-bit kernels, or fused into one, with quantisers of their own; Concat copies.
_COMPUTING = frozenset(("Add", "Mul", "GlobalAveragePool", "AveragePool", "LeakyRelu", "Sigmoid", "HardSwish"))


class OpenVinoDialect:
    """Writes candidates for OpenVINO."""

    name = "openvino"

    def offers(self, layer: Layer, node: onnx.NodeProto, view: GraphView) -> tuple[tuple[Scheme, ...], dict[str, str]]:
        """See ``Dialect.offers``."""
        return offered(no_integers=_why_no_integers(layer, node, view), no_groups=_why_no_blocks(layer, node, view))

    def arithmetic(self, scheme: Scheme) -> ComputeType:
        """FP16 as on a processor with 16-bit arithmetic; weight-only storage as for convolutions, which unfold it."""
        if scheme.group_size is not None:
            return ComputeType.BLOCK
        if scheme.quantises_activations:
            return ComputeType.INTEGER
        return ComputeType.HALF if scheme.precision is Precision.FP16 else ComputeType.FLOAT

    def weight_bytes(self, layer: Layer, scheme: Scheme) -> int:
        """See ``Dialect.weight_bytes``; a quantised Gemm's scales have zero points of a byte."""
        return stored_bytes(layer, scheme, scale_bytes=5 if layer.op == "Gemm" and scheme.quantises_activations else 4)

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """See ``Dialect.write``.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        model = _Writing(request).run()
        floating = {scheme.precision for scheme in request.schemes.values() if not scheme.precision.is_integer}
        if floating == {Precision.FP16}:
            model.metadata_props.add(key=PRECISION_KEY, value=HALF)
        return model


def _why_no_integers(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    if layer.op == "ConvTranspose":
        return "OpenVINO's CPU plugin runs a quantised ConvTranspose in float32; weight-only storage is offered"
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    if layer.op == "Conv" and len(layer.weight_shape) not in (3, 4):
        return f"integer convolutions over {len(layer.weight_shape) - 2} axes are not offered"
    return why_no_integer_bias(node, view) or why_no_plain_gemm(layer, node, view)


def _why_no_blocks(layer: Layer, node: onnx.NodeProto, view: GraphView) -> str:
    reason = why_no_groups(layer, node, view)
    if reason:
        return reason
    reduction = layer.weight_shape[1 - layer.channel_axis]
    return f"its {reduction} inputs are not divisible by the block size {GROUP_SIZE}" if reduction % GROUP_SIZE else ""


class _Writing(QdqWriting):
    """One request being written."""

    def __init__(self, request: LoweringRequest) -> None:
        super().__init__(request)
        self._shared = shared_ranges(self._view, self._placement, request.ranges)
        self._ranges = {**request.ranges, **self._shared}

    def _is_computing(self, index: int) -> bool:
        node = self._view.nodes[index]
        if node.op_type not in (*_COMPUTING, "Concat") or node.domain not in ("", "ai.onnx"):
            return False
        return all(name and name not in self._view.initializers and self._view.is_float(name) for name in node.input)

    def _may_write_floats(self, index: int) -> bool:
        return self._view.nodes[index].op_type in ("Gemm", "MatMul")

    def _glue(self, index: int, node: onnx.NodeProto) -> None:
        """Computing glue; a Concat copies the integers of inputs that have its own quantiser."""
        if node.op_type != "Concat" or node.output[0] not in self._shared:
            super()._glue(index, node)
            return
        stored = [self._eight_bit(name) for name in node.input]
        result = self._writer.fresh(f"{node.output[0]}_q")
        self._writer.copy(node, [entry.name for entry in stored], [result])
        self._keep(node.output[0], stored[0], result)

    def _computed(self, index: int, node: onnx.NodeProto, inputs: list[str]) -> None:
        """As elsewhere, but a quantiser shared with others does not end where an activation would: that is written."""
        folded = next((at for at, source in self._placement.folded.items() if source == index), None)
        if folded is None or self._view.nodes[folded].output[0] not in self._shared:
            super()._computed(index, node, inputs)
            return
        activation = self._view.nodes[folded]
        tensor = activation.output[0]
        self._writer.copy(node, inputs, [str(node.output[0])])
        if node.name in self._layers:
            self._writer.name_last(self._layers[node.name].name)
        raw = self._writer.fresh(f"{tensor}_r")
        self._writer.copy(activation, [node.output[0], *activation.input[1:]], [raw])
        self._quantise(raw, tensor)

    def _write_block(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight, group_size: int) -> None:
        """INT4 integers behind a DequantizeLinear with a scale per block of the reduction axis."""
        blocks = rounded.scales.reshape(layer.weight_shape[layer.channel_axis], -1)
        scales = blocks if layer.channel_axis == 0 else np.ascontiguousarray(blocks.T)
        integers = self._writer.int4_constant(rounded.integers, f"{layer.weight}_4")
        scale = self._writer.constant(scales.astype(np.float32), f"{layer.weight}_s")
        weight = self._writer.fresh(f"{layer.weight}_f")
        attributes = {"axis": 1 - layer.channel_axis, "block_size": group_size}
        self._writer.node("DequantizeLinear", [integers, scale], [weight], attributes=attributes)
        inputs = [self._float(node.input[0]), weight, *node.input[2:]]
        bias = self._bias(node, layer, rounded)
        if bias:
            inputs = [*inputs[:2], bias]
        self._write_floats(node, layer, inputs)
