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

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx

from lowering.dialect import Arithmetic
from lowering.dialects.ort_cpu_rules import (
    Shortcut,
    is_bounding,
    is_computing,
    is_moving,
    may_write_floats,
    missing_channels,
    offers,
    shortcut_at,
    with_groups,
    write_block,
    write_moved,
    write_shortcut,
)
from lowering.dialects.widening import widened_channels
from lowering.graph import GraphView, captured_names
from lowering.inventory import Layer
from lowering.placement import Placement, place
from lowering.quantiser import Quantiser, quantiser_u8
from lowering.rounding.weight import RoundedWeight
from lowering.storage import stored_bytes, write_fp16, write_integer
from lowering.writer import GraphWriter
from precision import LayerChoice, LoweringError, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    """The 8-bit form of a tensor: names of it, of its scale and of its zero point."""

    name: str
    scale: str
    zero: str
    quantiser: Quantiser


class OrtCpuDialect:
    """Writes candidates for ONNX Runtime's CPU provider."""

    name = "ort-cpu"

    def offers(
        self, layer: Layer, node: onnx.NodeProto, view: GraphView
    ) -> tuple[tuple[LayerChoice, ...], dict[str, str]]:
        """See ``Dialect.offers``."""
        return offers(layer, node, view)

    def arithmetic(self, choice: LayerChoice) -> Arithmetic:
        """FP16 and weight-only storage are unfolded when the model is loaded and run at FP32's speed."""
        if choice.block_size is not None:
            return Arithmetic.BLOCK
        return Arithmetic.INTEGER if choice.quantises_activations else Arithmetic.FLOAT

    def weight_bytes(self, layer: Layer, choice: LayerChoice) -> int:
        """See ``Dialect.weight_bytes``; a quantised Gemm's scales have zero points of a byte."""
        return stored_bytes(layer, choice, scale_bytes=5 if layer.op == "Gemm" and choice.quantises_activations else 4)

    def write(
        self,
        reference: onnx.ModelProto,
        layers: tuple[Layer, ...],
        choices: Mapping[str, LayerChoice],
        ranges: Mapping[str, tuple[float, float]],
        weights: Mapping[str, RoundedWeight],
    ) -> onnx.ModelProto:
        """See ``Dialect.write``.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        return _Writing(reference, layers, choices, ranges, weights).run()


class _Writing:
    """One candidate being written."""

    def __init__(
        self,
        reference: onnx.ModelProto,
        layers: tuple[Layer, ...],
        choices: Mapping[str, LayerChoice],
        ranges: Mapping[str, tuple[float, float]],
        weights: Mapping[str, RoundedWeight],
    ) -> None:
        self._reference = reference
        self._view = view = GraphView(reference.graph)
        self._layers = {layer.node: layer for layer in layers}
        self._choices = choices
        self._ranges = ranges
        self._weights = weights
        names = [*view.inputs, *view.initializers, *(name for node in view.nodes for name in node.output)]
        self._writer = GraphWriter(reference, names)
        self._placement = self._place()
        convs = {
            index: self._layers[node.name]
            for index, node in enumerate(view.nodes)
            if index in self._placement.quantised and self._is_plane_conv(node)
        }
        self._widened = widened_channels(view, convs, self._result)
        self._stored: dict[str, _Stored] = {}
        self._dequantised: dict[str, str] = {}
        self._wider: dict[tuple[str, int], str] = {}
        self._shortcuts: dict[int, tuple[Shortcut, str]] = {}
        self._floats: set[str] = {*view.inputs, *view.initializers}
        for tensor in view.initializers.values():
            self._writer.keep(tensor)

    def run(self) -> onnx.ModelProto:
        view, placement = self._view, self._placement
        for index, node in enumerate(view.nodes):
            layer = self._layers.get(node.name)
            if index in placement.folded:
                continue
            if layer is not None:
                self._layer(index, node, layer)
            elif index not in placement.quantised:
                self._plain(node)
            elif is_moving(view, index):
                self._moved(index, node)
            else:
                self._computed(index, node, [self._dequantise(name) for name in node.input])
        for name in view.outputs:
            self._float(name)
        return self._writer.model()

    def _is_plane_conv(self, node: onnx.NodeProto) -> bool:
        return node.op_type == "Conv" and node.name in self._layers and len(self._layers[node.name].weight_shape) == 4

    def _place(self) -> Placement:
        view = self._view
        integer = {
            index
            for index, node in enumerate(view.nodes)
            if node.name in self._layers and self._choices[self._layers[node.name].name].quantises_activations
        }
        return place(
            view,
            integer,
            moving=lambda index: is_moving(view, index),
            computing=lambda index: is_computing(view, index),
            bounding=lambda index: is_bounding(view, index),
            floats_out=lambda index: may_write_floats(view, index),
        )

    # --- tensors ---------------------------------------------------------------------------------------------

    def _result(self, index: int) -> str:
        """The tensor a quantised node's quantiser writes: that of the activation folded into it, else its own."""
        for activation, source in self._placement.folded.items():
            if source == index:
                return str(self._view.nodes[activation].output[0])
        return str(self._view.nodes[index].output[0])

    def _quantise(self, raw: str, tensor: str) -> None:
        """Write ``raw`` → QuantizeLinear, the 8-bit form of ``tensor`` from now on."""
        if tensor not in self._ranges:
            raise LoweringError(
                f"tensor '{tensor}' has no calibrated range, but a layer beside it is to be quantised",
                "calibrate the network anew, or leave the layers around it at fp32",
            )
        quantiser = quantiser_u8(*self._ranges[tensor])
        stored = _Stored(
            name=self._writer.fresh(f"{tensor}_q"),
            scale=self._writer.constant(np.array(quantiser.scale, np.float32), f"{tensor}_s"),
            zero=self._writer.constant(np.array(quantiser.zero_point, np.uint8), f"{tensor}_z"),
            quantiser=quantiser,
        )
        self._writer.node("QuantizeLinear", [raw, stored.scale, stored.zero], [stored.name])
        self._stored[tensor] = stored

    def _float(self, tensor: str) -> str:
        """The floating form of ``tensor`` under its own name, dequantised when first asked for."""
        if tensor and tensor not in self._floats:
            self._dequantise_as(tensor, tensor)
            self._floats.add(tensor)
        return tensor

    def _dequantise(self, tensor: str) -> str:
        """What a quantised operator reads: the 8-bit form of ``tensor`` behind a DequantizeLinear."""
        if tensor not in self._stored:
            self._quantise(self._float(tensor), tensor)
        if tensor not in self._dequantised:
            if tensor not in self._floats:
                return self._float(tensor)
            self._dequantise_as(tensor, self._writer.fresh(f"{tensor}_d"))
        return self._dequantised[tensor]

    def _padded(self, tensor: str, missing: int, rank: int) -> str:
        """The 8-bit form of ``tensor`` with ``missing`` more channels of zeros, under a name of its own."""
        key = (tensor, missing)
        if key not in self._wider:
            if tensor not in self._stored:
                self._quantise(self._float(tensor), tensor)
            stored, name = self._stored[tensor], self._writer.fresh(f"{tensor}_p")
            pads = np.zeros(2 * rank, np.int64)
            pads[rank + 1] = missing
            result = self._writer.fresh(f"{name}_q")
            self._writer.node("Pad", [stored.name, self._writer.constant(pads, f"{name}_n"), stored.zero], [result])
            self._stored[name] = replace(stored, name=result)
            self._wider[key] = name
        return self._wider[key]

    def _dequantise_as(self, tensor: str, name: str) -> None:
        stored = self._stored[tensor]
        self._writer.node("DequantizeLinear", [stored.name, stored.scale, stored.zero], [name])
        self._dequantised[tensor] = name

    # --- nodes -----------------------------------------------------------------------------------------------

    def _plain(self, node: onnx.NodeProto) -> None:
        """A floating node."""
        if node.op_type in ("Shape", "Size") and node.input[0] in self._stored:
            self._writer.copy(node, [self._stored[node.input[0]].name], list(node.output))
        else:
            for name in captured_names(node):
                if name in self._stored:
                    self._float(name)
            self._writer.copy(node, [self._float(name) for name in node.input], list(node.output))
        self._floats.update(node.output)

    def _moved(self, index: int, node: onnx.NodeProto) -> None:
        """Moving glue on the 8-bit tensor."""
        found = shortcut_at(self._view, index)
        if found is not None and found.pad in self._placement.quantised:
            self._shortcuts[found.pad] = (found, node.input[0])
            return
        if index in self._shortcuts:
            shortcut, tensor = self._shortcuts[index]
            source = self._dequantise(tensor)
            stored = self._stored[tensor]
            name = write_shortcut(self._writer, shortcut, node.output[0], source, stored.scale, stored.zero)
            self._stored[node.output[0]] = replace(stored, name=name)
            return
        stored = self._stored[node.input[0]]
        results = write_moved(self._writer, self._view, index, stored.name, stored.quantiser, stored.zero)
        for tensor, name in zip(node.output, results, strict=True):
            self._stored[tensor] = replace(stored, name=name)

    def _computed(self, index: int, node: onnx.NodeProto, inputs: list[str]) -> None:
        """A node whose result is quantised, with the activation folded into it, if any."""
        tensor = self._result(index)
        raw = self._writer.fresh(f"{tensor}_r")
        self._writer.copy(node, inputs, [raw])
        if node.name in self._layers:
            self._writer.name_last(self._layers[node.name].name)
        self._quantise(raw, tensor)

    def _layer(self, index: int, node: onnx.NodeProto, layer: Layer) -> None:
        choice = self._choices[layer.name]
        rounded = self._weights.get(layer.name)
        if choice.block_size is not None:
            assert rounded is not None
            write_block(self._writer, self._view, node, layer, rounded, self._float(node.input[0]), choice.block_size)
            self._floats.update(node.output)
            return
        integer = choice.quantises_activations
        if integer and layer.op == "Conv":
            assert rounded is not None
            self._convolution(index, node, layer, rounded)
            return
        if integer:
            source = self._dequantise(node.input[0])
        elif node.input[0] not in self._floats and self._ends_quantised(node.output[0]):
            source = self._shielded(node.input[0], layer)
        else:
            source = self._float(node.input[0])
        inputs = [source, self._weight(layer, choice, rounded), *node.input[2:]]
        bias = self._bias(node, layer, rounded, integer=integer)
        if bias:
            inputs = [*inputs[:2], bias]
        if not integer or (may_write_floats(self._view, index) and node.output[0] not in self._placement.demanded):
            self._writer.copy(node, inputs, list(node.output))
            self._writer.name_last(layer.name)
            self._floats.update(node.output)
            return
        self._computed(index, node, inputs)

    def _convolution(self, index: int, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight) -> None:
        """A quantised Conv, with channels of zeros where the fast kernels want them (``widening``)."""
        before, behind = self._widened.get(node.input[0], 0), self._widened.get(self._result(index), 0)
        source = node.input[0]
        if not before and (before := missing_channels(layer, layer.weight_shape[0] + behind)):
            source = self._padded(source, before, len(layer.weight_shape))
        inputs = [self._dequantise(source), "", *node.input[2:]]
        bias = self._bias(node, layer, rounded, integer=True)
        if bias:
            inputs = [*inputs[:2], bias]
        depthwise = layer.conv_groups > 1
        if before or behind:
            widths = [(0, behind), (0, 0 if depthwise else before), *[(0, 0)] * (rounded.codes.ndim - 2)]
            scales = np.concatenate([rounded.scales, np.ones(behind, np.float32)])
            rounded = replace(rounded, codes=np.pad(rounded.codes, widths), scales=scales)
            if behind and len(inputs) > 2 and inputs[2]:
                inputs[2] = self._writer.constant(
                    np.pad(self._writer.value(inputs[2]), (0, behind)), f"{layer.weight}_b"
                )
        inputs[1] = write_integer(self._writer, rounded, layer, dequantise=True)
        if depthwise and behind:
            node = with_groups(node, layer.conv_groups + behind)
        self._computed(index, node, inputs)

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

    def _weight(self, layer: Layer, choice: LayerChoice, rounded: RoundedWeight | None) -> str:
        if choice.precision is Precision.FP32:
            return layer.weight
        if choice.precision is Precision.FP16:
            weight = self._view.array(layer.weight)
            assert weight is not None
            return write_fp16(self._writer, weight, layer)
        assert rounded is not None
        return write_integer(self._writer, rounded, layer, dequantise=choice.quantises_activations)

    def _bias(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight | None, *, integer: bool) -> str:
        """Name of the bias to use; empty where the node's own stays (MatMul has none to correct)."""
        if rounded is None or node.op_type == "MatMul":
            return ""
        bias = self._view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if rounded.bias_correction is not None:
            bias = rounded.bias_correction + (0 if bias is None else bias)
            bias = bias.astype(np.float32)
        if bias is None:
            return ""
        if not (integer and node.op_type == "Gemm"):
            return "" if rounded.bias_correction is None else self._writer.constant(bias, f"{layer.weight}_b")
        # QGemm takes an INT32 bias of scale s_x·s_w; unlike for Conv, the runtime does not make it from a float one.
        scales = (rounded.scales.reshape(-1) * np.float32(self._stored[node.input[0]].quantiser.scale)).astype(
            np.float32
        )
        limits = np.iinfo(np.int32)
        codes = np.clip(np.rint(bias / scales.astype(np.float64)), limits.min, limits.max).astype(np.int32)
        stored = self._writer.constant(codes, f"{layer.weight}_i")
        scale = self._writer.constant(scales, f"{layer.weight}_t")
        result = self._writer.fresh(f"{layer.weight}_b")
        self._writer.node("DequantizeLinear", [stored, scale], [result], attributes={"axis": 0})
        return result
