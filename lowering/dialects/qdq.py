"""Writing a request with Q/DQ: what runtimes that read QuantizeLinear and DequantizeLinear on a processor share.

U8 activations with a zero point, S8 weights with a scale per channel, Q/DQ on the inputs and outputs of integer layers
and of computing glue; moving glue on the 8-bit tensor itself; a Relu or Clip folded into the quantiser behind it. A
runtime's dialect subclasses ``QdqWriting``, says what its kernels can do and changes what it wants otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import numpy as np
import onnx

from bitfront.core import Precision, Scheme
from bitfront.lowering.dialect import LoweringRequest
from bitfront.lowering.dialects.glue import (
    Shortcut,
    is_clamp,
    is_layout_op,
    shortcut_at,
    write_layout_op,
    write_shortcut,
)
from bitfront.lowering.graph import GraphView, captured_names
from bitfront.lowering.layers import TABLE, Layer
from bitfront.lowering.placement import Placement, place
from bitfront.lowering.quantiser import Quantiser, quantiser_u8
from bitfront.lowering.ranges import has_range, require_range
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import write_fp16, write_integer
from bitfront.lowering.writer import GraphWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The 8-bit form of a tensor: names of it, of its scale and of its zero point."""

    name: str
    scale: str
    zero: str
    quantiser: Quantiser


class QdqWriting(ABC):
    """One request being written."""

    def __init__(self, request: LoweringRequest) -> None:
        self._view = view = GraphView(request.reference.graph)
        self._layers = {layer.node: layer for layer in request.layers}
        self._schemes = request.schemes
        self._ranges = request.ranges
        self._weights = request.weights
        names = [*view.inputs, *view.initializers, *(name for node in view.nodes for name in node.output)]
        self._writer = GraphWriter(request.reference, names)
        self._placement = self._place()
        self._stored: dict[str, Stored] = {}
        self._dequantised: dict[str, str] = {}
        self._shortcuts: dict[int, tuple[Shortcut, str]] = {}
        self._floats: set[str] = {*view.inputs, *view.initializers}
        for tensor in view.initializers.values():
            self._writer.keep(tensor)

    def run(self) -> onnx.ModelProto:
        """Write every node in its order.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        view, placement = self._view, self._placement
        for index, node in enumerate(view.nodes):
            layer = self._layers.get(node.name)
            if index in placement.folded:
                continue
            if layer is not None:
                self._layer(index, node, layer)
            elif index not in placement.quantised:
                self._plain(node)
            elif is_layout_op(view, index):
                self._moved(index, node)
            else:
                self._glue(index, node)
        for name in view.outputs:
            self._float(name)
        return self._writer.model()

    # --- what a runtime says ---------------------------------------------------------------------------------

    @abstractmethod
    def _is_computing(self, index: int) -> bool:
        """Whether a node has a kernel that computes on 8-bit tensors with quantisers of their own."""

    @abstractmethod
    def _may_write_floats(self, index: int) -> bool:
        """Whether an integer layer can leave its result floating when nobody demands 8 bits."""

    @abstractmethod
    def _write_block(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight, group_size: int) -> None:
        """Write a layer whose weights have a scale per block."""

    def _integer_layer(self, index: int, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight) -> None:
        """Write a layer that computes in integers."""
        source = self._dequantise(node.input[0])
        weight = write_integer(self._writer, rounded, layer, dequantise=True)
        inputs = [source, weight, *node.input[2:]]
        bias = self._bias(node, layer, rounded)
        if bias:
            inputs = [*inputs[:2], bias]
        self._finish_integer(index, node, layer, inputs)

    def _floating_source(self, node: onnx.NodeProto, layer: Layer) -> str:  # noqa: ARG002 (for subclasses)
        """What a floating layer reads."""
        return self._float(node.input[0])

    # --- placement -------------------------------------------------------------------------------------------

    def _place(self) -> Placement:
        view = self._view
        integer = {
            index
            for index, node in enumerate(view.nodes)
            if node.name in self._layers and self._schemes[self._layers[node.name].name].quantises_activations
        }
        return place(
            view,
            integer,
            moving=lambda index: is_layout_op(view, index) and self._is_bounded(index),
            computing=lambda index: self._is_computing(index) and self._is_bounded(index),
            bounding=lambda index: is_clamp(view, index),
            floats_out=self._may_write_floats,
        )

    def _is_bounded(self, index: int) -> bool:
        """Whether every floating activation a node reads or writes has a range, so that it can be quantised."""
        view, node = self._view, self._view.nodes[index]
        names = [name for name in (*node.input, *node.output) if name and name not in view.initializers]
        return all(has_range(name, self._ranges) for name in names if view.is_float(name))

    def _result(self, index: int) -> str:
        """The tensor a quantised node's quantiser writes: that of the activation folded into it, else its own."""
        for activation, source in self._placement.folded.items():
            if source == index:
                return str(self._view.nodes[activation].output[0])
        return str(self._view.nodes[index].output[0])

    # --- tensors ---------------------------------------------------------------------------------------------

    def _quantise(self, raw: str, tensor: str) -> None:
        """Write ``raw`` → QuantizeLinear, the 8-bit form of ``tensor`` from now on."""
        require_range(tensor, self._ranges)
        quantiser = quantiser_u8(*self._ranges[tensor])
        stored = Stored(
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

    def _eight_bit(self, tensor: str) -> Stored:
        """The 8-bit form of ``tensor``, quantised when first asked for."""
        if tensor not in self._stored:
            self._quantise(self._float(tensor), tensor)
        return self._stored[tensor]

    def _dequantise(self, tensor: str) -> str:
        """What a quantised operator reads: the 8-bit form of ``tensor`` behind a DequantizeLinear."""
        self._eight_bit(tensor)
        if tensor not in self._dequantised:
            if tensor not in self._floats:
                return self._float(tensor)
            self._dequantise_as(tensor, self._writer.fresh(f"{tensor}_d"))
        return self._dequantised[tensor]

    def _dequantise_as(self, tensor: str, name: str) -> None:
        stored = self._stored[tensor]
        self._writer.node("DequantizeLinear", [stored.name, stored.scale, stored.zero], [name])
        self._dequantised[tensor] = name

    def _keep(self, tensor: str, stored: Stored, name: str) -> None:
        """``name`` is the 8-bit form of ``tensor``, with the quantiser of ``stored``."""
        self._stored[tensor] = replace(stored, name=name)

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
            self._keep(node.output[0], stored, name)
            return
        stored = self._stored[node.input[0]]
        results = write_layout_op(self._writer, self._view, index, stored.name, stored.quantiser, stored.zero)
        for tensor, name in zip(node.output, results, strict=True):
            self._keep(tensor, stored, name)

    def _glue(self, index: int, node: onnx.NodeProto) -> None:
        """Computing glue."""
        self._computed(index, node, [self._dequantise(name) for name in node.input])

    def _computed(self, index: int, node: onnx.NodeProto, inputs: list[str]) -> None:
        """A node whose result is quantised, with the activation folded into it, if any."""
        tensor = self._result(index)
        raw = self._writer.fresh(f"{tensor}_r")
        self._writer.copy(node, inputs, [raw])
        if node.name in self._layers:
            self._writer.name_last(self._layers[node.name].name)
        self._quantise(raw, tensor)

    def _layer(self, index: int, node: onnx.NodeProto, layer: Layer) -> None:
        scheme = self._schemes[layer.name]
        rounded = self._weights.get(layer.name)
        if scheme.group_size is not None:
            assert rounded is not None
            self._write_block(node, layer, rounded, scheme.group_size)
            self._floats.update(node.output)
            return
        if scheme.quantises_activations:
            assert rounded is not None
            self._integer_layer(index, node, layer, rounded)
            return
        if layer.op == TABLE:
            table = self._floating_weight(layer, scheme, rounded)
            self._write_floats(node, layer, [table, self._float(node.input[1])])
            return
        inputs = [self._floating_source(node, layer), self._floating_weight(layer, scheme, rounded), *node.input[2:]]
        bias = self._bias(node, layer, rounded)
        if bias:
            inputs = [*inputs[:2], bias]
        self._write_floats(node, layer, inputs)

    def _finish_integer(self, index: int, node: onnx.NodeProto, layer: Layer, inputs: list[str]) -> None:
        """Write an integer layer whose inputs are; its result is quantised unless it may float and nobody minds."""
        if self._may_write_floats(index) and node.output[0] not in self._placement.demanded:
            self._write_floats(node, layer, inputs)
        else:
            self._computed(index, node, inputs)

    def _write_floats(self, node: onnx.NodeProto, layer: Layer, inputs: list[str]) -> None:
        self._writer.copy(node, inputs, list(node.output))
        self._writer.name_last(layer.name)
        self._floats.update(node.output)

    def _floating_weight(self, layer: Layer, scheme: Scheme, rounded: RoundedWeight | None) -> str:
        if scheme.precision is Precision.FP32:
            return layer.weight
        if scheme.precision is Precision.FP16:
            weight = self._view.array(layer.weight)
            assert weight is not None
            return write_fp16(self._writer, weight, layer)
        assert rounded is not None
        return write_integer(self._writer, rounded, layer, dequantise=False)

    def _bias(self, node: onnx.NodeProto, layer: Layer, rounded: RoundedWeight | None) -> str:
        """Name of the corrected floating bias; empty where the node's own stays (MatMul has none to correct)."""
        if rounded is None or rounded.bias_correction is None or node.op_type == "MatMul":
            return ""
        bias = self._view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        corrected = rounded.bias_correction + (0 if bias is None else bias)
        return self._writer.constant(corrected.astype(np.float32), f"{layer.weight}_b")
