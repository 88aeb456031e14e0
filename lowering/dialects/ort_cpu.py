"""ONNX Runtime's CPU provider: U8 activations, S8 per-channel weights, Q/DQ on inputs, outputs and arithmetic.

What the provider does with each form is in ``lowering/storage.py`` and in the operator lists that the tests pin.
Beyond those:

- A quantised Conv needs Q/DQ on its output to become QLinearConv; Gemm and MatMul do not, so their results stay
  floating unless somebody wants 8 bits (a classifier's logits are not rounded).
- The fast kernels for dense convolutions take input channels by fours: an image's three get a fourth of zeros, for one
  small Pad, where the zeros are few (``ort_cpu_rules.missing_channels``). More zeros make narrow ones wide enough
  (``channel_padding``). Zeros of weights are added on load and take no place in the file.
- Layout operators are written on the 8-bit tensor itself instead of being left to the runtime's clean-up; a strided
  Slice with a Pad of channels (a shortcut without parameters) becomes a 1×1 convolution that copies.
- A Relu or Clip in front of a quantiser is left out: the quantiser's range ends where it would.
- INT4 with a scale per group is written as MatMulNBits with 8-bit arithmetic (``accuracy_level`` 4) set in the node, so
  the file runs the same in a session with default options.

- An LSTM has W and R in one kernel, ``DynamicQuantizeLSTM``, that quantises its input itself; Gemm and MatMul may, too
  (``ort_cpu_dynamic``).

Not handled: quantised ConvTranspose, GRU and RNN (the provider has no kernels: weight-only storage is offered instead).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from bitfront.core import SCHEMES
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import RECURRENTS, TABLES, LayerSite, LoweringRequest, SchemeSupport
from bitfront.lowering.dialects.channel_padding import padded_channels
from bitfront.lowering.dialects.ort_cpu_dynamic import (
    OPERATORS,
    dynamic_bytes,
    why_not_dynamic,
    write_dynamic_lstm,
    write_dynamic_product,
)
from bitfront.lowering.dialects.ort_cpu_rules import (
    is_arithmetic,
    may_write_floats,
    missing_channels,
    why_no_int8,
    with_conv_groups,
    write_matmul_nbits,
)
from bitfront.lowering.dialects.qdq import QdqEmitter
from bitfront.lowering.dialects.qdq_schemes import qdq_schemes, why_no_matmul_groups
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import write_integer


def _write_dynamic(emitter: OrtCpuEmitter, site: LayerSite) -> None:
    emitter.dynamic_layer(site)


class OrtCpuDialect:
    """Writes networks for ONNX Runtime's CPU provider.

    FP16 and weight-only storage are unfolded when the model is loaded and run at FP32's speed.
    """

    name = "ort-cpu"
    schemes: Sequence[SchemeSupport[Any]] = (
        *qdq_schemes(
            why_no_int8=why_no_int8,
            why_no_groups=why_no_matmul_groups,
            fp16=ComputeType.FP32,
            stored=TABLES | RECURRENTS,
        ),
        SchemeSupport(
            scheme=SCHEMES["int8:mse:dynamic"],
            compute_type=ComputeType.DYNAMIC_INT8,
            write=_write_dynamic,
            why_not=why_not_dynamic,
            operators=OPERATORS,
            weight_bytes=dynamic_bytes,
        ),
    )

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """Write the request for ONNX Runtime's processor provider.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        return OrtCpuEmitter(request, self.schemes).run()


class OrtCpuEmitter(QdqEmitter):
    """Builds the graph of one request."""

    def __init__(self, request: LoweringRequest, schemes: Sequence[SchemeSupport[Any]]) -> None:
        super().__init__(request, schemes)
        convs = {
            index: self._layers[node.name]
            for index, node in enumerate(self.view.nodes)
            if index in self._placement.quantised and self._is_conv2d(node)
        }
        self._padded_channels = padded_channels(self.view, convs, self._result)
        self._padded_tensors: dict[tuple[str, int], str] = {}
        self._quantised_at_run_time: dict[str, tuple[str, str, str]] = {}

    def _is_conv2d(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Conv" and node.name in self._layers and len(self._layers[node.name].weight_shape) == 4

    def _is_arithmetic(self, index: int) -> bool:
        return is_arithmetic(self.view, index)

    def _may_write_floats(self, index: int) -> bool:
        return may_write_floats(self.view, index)

    def grouped_layer(self, site: LayerSite) -> None:
        """Write a layer as MatMulNBits."""
        group_size = self._schemes[site.layer.name].weights.group_size
        assert group_size is not None
        source = self.as_float(site.node.input[0])
        write_matmul_nbits(self.writer, site, self.rounded(site.layer), source, group_size)
        self.keep_floating(site)

    def dynamic_layer(self, site: LayerSite) -> None:
        """Write a layer whose input is quantised at run time."""
        if site.layer.op == "LSTM":
            write_dynamic_lstm(self, site)
            return
        tensor = site.node.input[0]
        if tensor not in self._quantised_at_run_time:
            names = tuple(self.writer.fresh(f"{tensor}_{part}") for part in ("dynamic", "dynamic_s", "dynamic_z"))
            self.writer.node("DynamicQuantizeLinear", [self.as_float(tensor)], names)
            self._quantised_at_run_time[tensor] = (names[0], names[1], names[2])
        write_dynamic_product(self, site, self._quantised_at_run_time[tensor])

    def _padded(self, tensor: str, missing: int, rank: int) -> str:
        """The 8-bit form of ``tensor`` with ``missing`` more channels of zeros, under a name of its own."""
        key = (tensor, missing)
        if key not in self._padded_tensors:
            stored, name = self.as_quantised(tensor), self.writer.fresh(f"{tensor}_p")
            pads = np.zeros(2 * rank, np.int64)
            pads[rank + 1] = missing
            result = self.writer.fresh(f"{name}_q")
            self.writer.node("Pad", [stored.name, self.writer.constant(pads, f"{name}_n"), stored.zero], [result])
            self._quantised[name] = replace(stored, name=result)
            self._padded_tensors[key] = name
        return self._padded_tensors[key]

    def integer_layer(self, site: LayerSite) -> None:
        """Write a layer that computes on 8-bit activations."""
        layer, node, rounded = site.layer, site.node, self.rounded(site.layer)
        if layer.op == "Conv":
            self._convolution(site)
            return
        source = self.dequantise(node.input[0])
        inputs = [source, write_integer(self.writer, rounded, layer, dequantise=True), *node.input[2:]]
        bias = self._integer_bias(node, layer, rounded) if layer.op == "Gemm" else ""
        if bias:
            inputs = [*inputs[:2], bias]
        self._finish_integer(site, inputs)

    def _convolution(self, site: LayerSite) -> None:
        """A quantised Conv, with channels of zeros where the fast kernels want them (``channel_padding``)."""
        index, node, layer, rounded = site.index, site.node, site.layer, self.rounded(site.layer)
        before = self._padded_channels.get(node.input[0], 0)
        behind = self._padded_channels.get(self._result(index), 0)
        source = node.input[0]
        if not before and (before := missing_channels(layer, layer.weight_shape[0] + behind)):
            source = self._padded(source, before, len(layer.weight_shape))
        inputs = [self.dequantise(source), "", *node.input[2:]]
        bias = self.corrected_bias(site)
        if bias:
            inputs = [*inputs[:2], bias]
        depthwise = layer.conv_groups > 1
        zeros: list[int] = []
        if before or behind:
            zeros = [behind, 0 if depthwise else before, *[0] * (rounded.integers.ndim - 2)]
            if behind and len(inputs) > 2 and inputs[2]:
                inputs[2] = self.writer.constant(np.pad(self.writer.value(inputs[2]), (0, behind)), f"{layer.weight}_b")
        inputs[1] = write_integer(self.writer, rounded, layer, dequantise=True, zeros=zeros)
        if depthwise and behind:
            node = with_conv_groups(node, layer.conv_groups + behind)
        self._computed(index, node, inputs)

    def _floating_source(self, node: onnx.NodeProto, layer: Layer) -> str:
        if node.input[0] not in self._floats and self._ends_quantised(node.output[0]):
            return self._dequantised_per_channel(node.input[0], layer)
        return self.as_float(node.input[0])

    def _ends_quantised(self, tensor: str) -> bool:
        """Whether a floating result will meet nothing but a quantiser, a Relu or Clip before it at most."""
        readers = self.view.consumers(tensor)
        if not readers or self.view.is_output(tensor) or self.view.is_captured(tensor):
            return False
        if all(reader in self._placement.quantised for reader in readers):
            return True
        reader = self.view.nodes[readers[0]]
        return len(readers) == 1 and reader.op_type in ("Relu", "Clip") and self._ends_quantised(reader.output[0])

    def _dequantised_per_channel(self, tensor: str, layer: Layer) -> str:
        """The floating form of a stored tensor with its scale written once per channel.

        The runtime takes DequantizeLinear → Conv, ConvTranspose or Gemm → QuantizeLinear for a quantised layer whose
        weights were forgotten, and rounds them to 8 bits itself (``WeightBiasQuantization``), one scale for the whole
        weight: a layer kept in FP32 between INT8 ones would not be FP32 at all. It lets alone what does not have
        one scale. A tensor of a single channel cannot be told from that and stays as it is.
        """
        stored = self._quantised[tensor]
        channels = layer.weight_shape[1 - layer.channel_axis]
        if layer.op == "Conv":
            channels *= layer.conv_groups
        scales = np.full(channels, stored.quantiser.scale, np.float32)
        zeros = np.full(channels, stored.quantiser.zero_point, np.uint8)
        result = self.writer.fresh(f"{tensor}_d")
        inputs = [
            stored.name,
            self.writer.constant(scales, f"{tensor}_s"),
            self.writer.constant(zeros, f"{tensor}_z"),
        ]
        self.writer.node("DequantizeLinear", inputs, [result], attributes={"axis": 1})
        return result

    def _integer_bias(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight) -> str:
        """Name of a Gemm's bias, corrected; empty where it has none.

        QGemm takes an INT32 bias of scale s_x·s_w; unlike for Conv, the runtime does not make it from a float one.
        """
        bias = self.view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if rounded.bias_correction is not None:
            bias = rounded.bias_correction + (0 if bias is None else bias)
            bias = bias.astype(np.float32)
        if bias is None:
            return ""
        scales = (rounded.scales.reshape(-1) * np.float32(self._quantised[node.input[0]].quantiser.scale)).astype(
            np.float32
        )
        limits = np.iinfo(np.int32)
        integers = np.clip(np.rint(bias / scales.astype(np.float64)), limits.min, limits.max).astype(np.int32)
        stored = self.writer.constant(integers, f"{layer.weight}_i")
        scale = self.writer.constant(scales, f"{layer.weight}_t")
        result = self.writer.fresh(f"{layer.weight}_b")
        self.writer.node("DequantizeLinear", [stored, scale], [result], attributes={"axis": 0})
        return result
