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
| DequantizeLinear with ``block_size`` → MatMul or Gemm | likewise, a scale per group                             |

So what a Concat joins gets one quantiser where ranges are near enough (``openvino_quantisers``). Channels of zeros,
INT32 biases and dequantisers per channel, which ONNX Runtime wants, are left out.

Floating layers compute in 16 bits (BF16 or FP16) where the processor has such arithmetic, and the plugin knows no
precision per layer: ``INFERENCE_PRECISION_HINT`` is for the whole network. The file says in its metadata
(``PRECISION_KEY``) whether 16 bits are allowed: where floating layers are and all of them are ``fp16``. A single layer
at ``fp32`` keeps the others in FP32, and ``fp16`` is storage then; so it is on processors without 16-bit arithmetic.

Not handled: quantised layers with operators over more than two axes, dynamic quantisation of whole networks, FP8.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from bitfront.core import Precision
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import RECURRENTS, LayerSite, LoweringRequest, SchemeSupport
from bitfront.lowering.dialects.openvino_quantisers import shared_ranges
from bitfront.lowering.dialects.qdq import QdqEmitter
from bitfront.lowering.dialects.qdq_schemes import (
    GROUP_SIZE,
    qdq_schemes,
    why_no_integer_bias,
    why_no_matmul_groups,
    why_no_plain_gemm,
)

PRECISION_KEY = "bitfront.openvino.inference_precision"
FP16_HINT = "half"

# Operators with 8-bit kernels, or fused into one, with quantisers of their own; Concat copies.
_ARITHMETIC = frozenset(("Add", "Mul", "GlobalAveragePool", "AveragePool", "LeakyRelu", "Sigmoid", "HardSwish"))


def why_no_int8(site: LayerSite) -> str:
    """Reason why a layer cannot compute on 8-bit activations; empty where it can."""
    layer, node, view = site.layer, site.node, site.view
    if layer.op == "ConvTranspose":
        return "OpenVINO's CPU plugin runs a quantised ConvTranspose in float32; weight-only storage is offered"
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    if layer.op == "Conv" and len(layer.weight_shape) not in (3, 4):
        return f"integer convolutions over {len(layer.weight_shape) - 2} axes are not offered"
    return why_no_integer_bias(node, view) or why_no_plain_gemm(layer, node, view)


def why_no_groups(site: LayerSite) -> str:
    """Reason why a layer cannot have a scale per group of weights; empty where it can."""
    if reason := why_no_matmul_groups(site):
        return reason
    reduction = site.layer.weight_shape[1 - site.layer.channel_axis]
    return f"its {reduction} inputs are not divisible by the block size {GROUP_SIZE}" if reduction % GROUP_SIZE else ""


class OpenVinoDialect:
    """Writes networks for OpenVINO.

    FP16 computes as on a processor with 16-bit arithmetic; weight-only storage as for convolutions, which unfold it.
    """

    name = "openvino"
    schemes: Sequence[SchemeSupport[Any]] = qdq_schemes(
        why_no_int8=why_no_int8, why_no_groups=why_no_groups, fp16=ComputeType.FP16, stored=RECURRENTS
    )

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """Write the request for OpenVINO.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        model = OpenVinoEmitter(request, self.schemes).run()
        floating = {scheme.precision for scheme in request.schemes.values() if not scheme.precision.is_integer}
        if floating == {Precision.FP16}:
            model.metadata_props.add(key=PRECISION_KEY, value=FP16_HINT)
        return model


class OpenVinoEmitter(QdqEmitter):
    """Builds the graph of one request."""

    def __init__(self, request: LoweringRequest, schemes: Sequence[SchemeSupport[Any]]) -> None:
        super().__init__(request, schemes)
        self._shared = shared_ranges(self.view, self._placement, request.ranges)
        self._ranges = {**request.ranges, **self._shared}

    def _is_arithmetic(self, index: int) -> bool:
        node = self.view.nodes[index]
        if node.op_type not in (*_ARITHMETIC, "Concat") or node.domain not in ("", "ai.onnx"):
            return False
        return all(name and name not in self.view.initializers and self.view.is_float(name) for name in node.input)

    def _may_write_floats(self, index: int) -> bool:
        return self.view.nodes[index].op_type in ("Gemm", "MatMul")

    def _arithmetic_op(self, index: int, node: onnx.NodeProto) -> None:
        """An arithmetic operator; a Concat copies the integers of inputs that have its own quantiser."""
        if node.op_type != "Concat" or node.output[0] not in self._shared:
            super()._arithmetic_op(index, node)
            return
        stored = [self.as_quantised(name) for name in node.input]
        result = self.writer.fresh(f"{node.output[0]}_q")
        self.writer.copy(node, [entry.name for entry in stored], [result])
        self._keep(node.output[0], stored[0], result)

    def _computed(self, index: int, node: onnx.NodeProto, inputs: list[str]) -> None:
        """Write a node as the base does; an activation at which a shared quantiser does not end is written too."""
        fused = next((at for at, source in self._placement.fused_activations.items() if source == index), None)
        if fused is None or self.view.nodes[fused].output[0] not in self._shared:
            super()._computed(index, node, inputs)
            return
        activation = self.view.nodes[fused]
        tensor = activation.output[0]
        self.writer.copy(node, inputs, [str(node.output[0])])
        if node.name in self._layers:
            self.writer.name_last(self._layers[node.name].name)
        raw = self.writer.fresh(f"{tensor}_r")
        self.writer.copy(activation, [node.output[0], *activation.input[1:]], [raw])
        self._quantise(raw, tensor)

    def grouped_layer(self, site: LayerSite) -> None:
        """INT4 integers behind a DequantizeLinear with a scale per group of the reduction axis."""
        layer, rounded = site.layer, self.rounded(site.layer)
        groups = rounded.scales.reshape(layer.weight_shape[layer.channel_axis], -1)
        scales = groups if layer.channel_axis == 0 else np.ascontiguousarray(groups.T)
        integers = self.writer.int4_constant(rounded.integers, f"{layer.weight}_4")
        scale = self.writer.constant(scales.astype(np.float32), f"{layer.weight}_s")
        weight = self.writer.fresh(f"{layer.weight}_f")
        attributes = {"axis": 1 - layer.channel_axis, "block_size": self._schemes[layer.name].weights.group_size}
        self.writer.node("DequantizeLinear", [integers, scale], [weight], attributes=attributes)
        inputs = [self.as_float(site.node.input[0]), weight, *site.node.input[2:]]
        bias = self.corrected_bias(site)
        if bias:
            inputs = [*inputs[:2], bias]
        self.finish_floating(site, inputs)
