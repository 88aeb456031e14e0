"""ONNX Runtime's CPU provider: U8 activations, S8 per-channel weights, Q/DQ on inputs, outputs and glue.

What the provider does with each form is in ``lowering/storage.py`` and in the operator lists that the tests pin.
Beyond those:

- A quantised Conv needs Q/DQ on its output to become QLinearConv; Gemm and MatMul do not, so their results stay
  floating unless somebody wants 8 bits (a classifier's logits are not rounded).
- The fast kernels for dense convolutions take input channels by fours: an image's three get a fourth of zeros (half
  the time of a stem of 64 outputs), for one small Pad. More zeros make narrow ones wide enough (``widening``).
- Moving glue is written on the 8-bit tensor itself instead of being left to the runtime's clean-up; a strided Slice
  with a Pad of channels (a shortcut without parameters) becomes a 1×1 convolution that copies.
- A Relu or Clip in front of a quantiser is left out: the quantiser's range ends where it would.
- Block-wise INT4 is written as MatMulNBits with 8-bit arithmetic (``accuracy_level`` 4) set in the node, so the
  file runs the same in a session with default options.

Not handled: quantised ConvTranspose (the provider has no kernel: weight-only storage is offered instead), dynamic
quantisation, LSTM and GRU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from bitfront.core import Scheme
from bitfront.lowering.dialect import ComputeType, LoweringRequest
from bitfront.lowering.dialects.channel_padding import padded_channels
from bitfront.lowering.dialects.offers import offered_table
from bitfront.lowering.dialects.ort_cpu_rules import (
    is_arithmetic,
    may_write_floats,
    missing_channels,
    offers,
    with_conv_groups,
    write_block,
)
from bitfront.lowering.dialects.qdq import QdqWriting
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import stored_bytes, write_integer


class OrtCpuDialect:
    """Writes candidates for ONNX Runtime's CPU provider."""

    name = "ort-cpu"

    def offers(self, layer: Layer, node: onnx.NodeProto, view: GraphView) -> tuple[tuple[Scheme, ...], dict[str, str]]:
        """See ``Dialect.offers``."""
        return offers(layer, node, view)

    def table_schemes(self, layer: Layer) -> tuple[tuple[Scheme, ...], dict[str, str]]:  # noqa: ARG002
        """See ``StoresTables.table_schemes``."""
        return offered_table()

    def arithmetic(self, scheme: Scheme) -> ComputeType:
        """FP16 and weight-only storage are unfolded when the model is loaded and run at FP32's speed."""
        if scheme.group_size is not None:
            return ComputeType.BLOCK
        return ComputeType.INTEGER if scheme.quantises_activations else ComputeType.FLOAT

    def weight_bytes(self, layer: Layer, scheme: Scheme) -> int:
        """See ``Dialect.weight_bytes``; a quantised Gemm's scales have zero points of a byte."""
        return stored_bytes(layer, scheme, scale_bytes=5 if layer.op == "Gemm" and scheme.quantises_activations else 4)

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """See ``Dialect.write``.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        return _Writing(request).run()


class _Writing(QdqWriting):
    """One request being written."""

    def __init__(self, request: LoweringRequest) -> None:
        super().__init__(request)
        convs = {
            index: self._layers[node.name]
            for index, node in enumerate(self._view.nodes)
            if index in self._placement.quantised and self._is_plane_conv(node)
        }
        self._widened = padded_channels(self._view, convs, self._result)
        self._wider: dict[tuple[str, int], str] = {}

    def _is_plane_conv(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Conv" and node.name in self._layers and len(self._layers[node.name].weight_shape) == 4

    def _is_computing(self, index: int) -> bool:
        return is_arithmetic(self._view, index)

    def _may_write_floats(self, index: int) -> bool:
        return may_write_floats(self._view, index)

    def _write_block(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight, group_size: int) -> None:
        write_block(self._writer, self._view, node, layer, rounded, self._float(node.input[0]), group_size)

    def _padded(self, tensor: str, missing: int, rank: int) -> str:
        """The 8-bit form of ``tensor`` with ``missing`` more channels of zeros, under a name of its own."""
        key = (tensor, missing)
        if key not in self._wider:
            stored, name = self._eight_bit(tensor), self._writer.fresh(f"{tensor}_p")
            pads = np.zeros(2 * rank, np.int64)
            pads[rank + 1] = missing
            result = self._writer.fresh(f"{name}_q")
            self._writer.node("Pad", [stored.name, self._writer.constant(pads, f"{name}_n"), stored.zero], [result])
            self._stored[name] = replace(stored, name=result)
            self._wider[key] = name
        return self._wider[key]

    def _integer_layer(self, index: int, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight) -> None:
        if layer.op == "Conv":
            self._convolution(index, node, layer, rounded)
            return
        source = self._dequantise(node.input[0])
        inputs = [source, write_integer(self._writer, rounded, layer, dequantise=True), *node.input[2:]]
        bias = self._integer_bias(node, layer, rounded) if layer.op == "Gemm" else ""
        if bias:
            inputs = [*inputs[:2], bias]
        self._finish_integer(index, node, layer, inputs)

    def _convolution(self, index: int, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight) -> None:
        """A quantised Conv, with channels of zeros where the fast kernels want them (``widening``)."""
        before, behind = self._widened.get(node.input[0], 0), self._widened.get(self._result(index), 0)
        source = node.input[0]
        if not before and (before := missing_channels(layer, layer.weight_shape[0] + behind)):
            source = self._padded(source, before, len(layer.weight_shape))
        inputs = [self._dequantise(source), "", *node.input[2:]]
        bias = self._bias(node, layer, rounded)
        if bias:
            inputs = [*inputs[:2], bias]
        depthwise = layer.conv_groups > 1
        if before or behind:
            widths = [(0, behind), (0, 0 if depthwise else before), *[(0, 0)] * (rounded.integers.ndim - 2)]
            scales = np.concatenate([rounded.scales, np.ones(behind, np.float32)])
            rounded = replace(rounded, integers=np.pad(rounded.integers, widths), scales=scales)
            if behind and len(inputs) > 2 and inputs[2]:
                inputs[2] = self._writer.constant(
                    np.pad(self._writer.value(inputs[2]), (0, behind)), f"{layer.weight}_b"
                )
        inputs[1] = write_integer(self._writer, rounded, layer, dequantise=True)
        if depthwise and behind:
            node = with_conv_groups(node, layer.conv_groups + behind)
        self._computed(index, node, inputs)

    def _floating_source(self, node: onnx.NodeProto, layer: Layer) -> str:
        if node.input[0] not in self._floats and self._ends_quantised(node.output[0]):
            return self._shielded(node.input[0], layer)
        return self._float(node.input[0])

    def _ends_quantised(self, tensor: str) -> bool:
        """Whether a floating result will meet nothing but a quantiser, a Relu or Clip before it at most."""
        readers = self._view.consumers(tensor)
        if not readers or self._view.is_output(tensor) or self._view.is_captured(tensor):
            return False
        if all(reader in self._placement.quantised for reader in readers):
            return True
        reader = self._view.nodes[readers[0]]
        return len(readers) == 1 and reader.op_type in ("Relu", "Clip") and self._ends_quantised(reader.output[0])

    def _shielded(self, tensor: str, layer: Layer) -> str:
        """The floating form of a stored tensor with its scale written once per channel.

        The runtime takes DequantizeLinear → Conv, ConvTranspose or Gemm → QuantizeLinear for a quantised layer whose
        weights were forgotten, and rounds them to 8 bits itself (``WeightBiasQuantization``), one scale for the whole
        weight: a layer kept in FP32 between INT8 ones would not be FP32 at all. It lets alone what does not have
        one scale. A tensor of a single channel cannot be told from that and is not shielded.
        """
        stored = self._stored[tensor]
        channels = layer.weight_shape[1 - layer.channel_axis]
        if layer.op == "Conv":
            channels *= layer.conv_groups
        scales = np.full(channels, stored.quantiser.scale, np.float32)
        zeros = np.full(channels, stored.quantiser.zero_point, np.uint8)
        result = self._writer.fresh(f"{tensor}_d")
        inputs = [
            stored.name,
            self._writer.constant(scales, f"{tensor}_s"),
            self._writer.constant(zeros, f"{tensor}_z"),
        ]
        self._writer.node("DequantizeLinear", inputs, [result], attributes={"axis": 1})
        return result

    def _integer_bias(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight) -> str:
        """Name of a Gemm's bias, corrected; empty where it has none.

        QGemm takes an INT32 bias of scale s_x·s_w; unlike for Conv, the runtime does not make it from a float one.
        """
        bias = self._view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if rounded.bias_correction is not None:
            bias = rounded.bias_correction + (0 if bias is None else bias)
            bias = bias.astype(np.float32)
        if bias is None:
            return ""
        scales = (rounded.scales.reshape(-1) * np.float32(self._stored[node.input[0]].quantiser.scale)).astype(
            np.float32
        )
        limits = np.iinfo(np.int32)
        integers = np.clip(np.rint(bias / scales.astype(np.float64)), limits.min, limits.max).astype(np.int32)
        stored = self._writer.constant(integers, f"{layer.weight}_i")
        scale = self._writer.constant(scales, f"{layer.weight}_t")
        result = self._writer.fresh(f"{layer.weight}_b")
        self._writer.node("DequantizeLinear", [stored, scale], [result], attributes={"axis": 0})
        return result
