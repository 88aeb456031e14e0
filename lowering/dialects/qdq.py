"""Writing a request with Q/DQ: what runtimes that read QuantizeLinear and DequantizeLinear on a processor share.

U8 activations with a zero point, S8 weights with a scale per channel, Q/DQ on the inputs and outputs of integer layers
and of arithmetic operators; layout operators on the 8-bit tensor itself; a Relu or Clip fused into the quantiser behind
it. A runtime's dialect subclasses ``QdqEmitter``, says what its kernels can do and changes what it wants otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from bitfront.core import LoweringError, Precision
from bitfront.lowering.dialect import LayerSite, LoweringRequest, SchemeSupport
from bitfront.lowering.dialects.layout_ops import (
    Shortcut,
    is_clamp,
    is_layout_op,
    shortcut_at,
    write_layout_op,
    write_shortcut,
)
from bitfront.lowering.graph import GraphView, captured_names
from bitfront.lowering.layers import WEIGHTED, Layer
from bitfront.lowering.placement import Placement, place
from bitfront.lowering.quantiser import Quantiser, quantiser_u8
from bitfront.lowering.ranges import has_range, require_range
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.storage import write_fp16, write_integer
from bitfront.lowering.writer import GraphWriter


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedTensor:
    """The 8-bit form of a tensor: names of it, of its scale and of its zero point."""

    name: str
    scale: str
    zero: str
    quantiser: Quantiser


class QdqEmitter(ABC):
    """Builds the graph of one request.

    Args:
        request: The network with a scheme for each layer.
        schemes: The dialect's table: how a layer of each scheme is written.

    Attributes:
        view: The network.
        writer: The graph that is being built.
    """

    def __init__(self, request: LoweringRequest, schemes: Sequence[SchemeSupport[Any]]) -> None:
        self.view = view = GraphView(request.reference.graph)
        self._supports = {support.scheme: support for support in schemes}
        self._layers: dict[str, Layer] = {}
        self._at: dict[str, list[Layer]] = {}
        for layer in request.layers:
            self._layers.setdefault(layer.node, layer)
            self._at.setdefault(layer.node, []).append(layer)
        self._schemes = request.schemes
        self._ranges = request.ranges
        self._weights = request.weights
        names = [*view.inputs, *view.initializers, *(name for node in view.nodes for name in node.output)]
        self.writer = GraphWriter(request.reference, names)
        self._placement = self._place()
        self._quantised: dict[str, QuantisedTensor] = {}
        self._dequantised: dict[str, str] = {}
        self._shortcuts: dict[int, tuple[Shortcut, str]] = {}
        self._floats: set[str] = {*view.inputs, *view.initializers}
        for tensor in view.initializers.values():
            self.writer.keep(tensor)

    def run(self) -> onnx.ModelProto:
        """Write every node in its order.

        Raises:
            LoweringError: If a tensor that must be quantised has no range.
        """
        view, placement = self.view, self._placement
        for index, node in enumerate(view.nodes):
            layer = self._layers.get(node.name)
            if index in placement.fused_activations:
                continue
            if layer is not None:
                self._layer(LayerSite(layer=layer, node=node, view=view, index=index))
            elif index not in placement.quantised:
                self._plain(node)
            elif is_layout_op(view, index):
                self._layout_op(index, node)
            else:
                self._arithmetic_op(index, node)
        for name in view.outputs:
            self.as_float(name)
        return self.writer.model()

    # --- what a runtime says ---------------------------------------------------------------------------------

    @abstractmethod
    def _is_arithmetic(self, index: int) -> bool:
        """Whether a node has a kernel that computes on 8-bit tensors with quantisers of their own."""

    @abstractmethod
    def _may_write_floats(self, index: int) -> bool:
        """Whether an integer layer can leave its result floating when no reader requires 8 bits."""

    @abstractmethod
    def grouped_layer(self, site: LayerSite) -> None:
        """Write a layer whose weights have a scale per group."""

    def integer_layer(self, site: LayerSite) -> None:
        """Write a layer that computes on 8-bit activations with calibrated scales."""
        rounded = self.rounded(site.layer)
        source = self.dequantise(site.node.input[0])
        weight = write_integer(self.writer, rounded, site.layer, dequantise=True)
        inputs = [source, weight, *site.node.input[2:]]
        bias = self.corrected_bias(site)
        if bias:
            inputs = [*inputs[:2], bias]
        self._finish_integer(site, inputs)

    def floating_layer(self, site: LayerSite) -> None:
        """Write a layer that computes on floating activations, whatever its weights are stored as."""
        node, layer = site.node, site.layer
        if layer.op not in WEIGHTED:
            weights = {each.operand: each for each in self.layers_at(node)}
            inputs = [
                self._floating_weight(weights[at]) if at in weights else self.as_float(name)
                for at, name in enumerate(node.input)
            ]
            self.finish_floating(site, inputs)
            return
        inputs = [self._floating_source(node, layer), self._floating_weight(layer), *node.input[2:]]
        bias = self.corrected_bias(site)
        if bias:
            inputs = [*inputs[:2], bias]
        self.finish_floating(site, inputs)

    def _floating_source(self, node: onnx.NodeProto, layer: Layer) -> str:  # noqa: ARG002 (for subclasses)
        """Tensor that a floating layer reads."""
        return self.as_float(node.input[0])

    # --- placement -------------------------------------------------------------------------------------------

    def _place(self) -> Placement:
        view = self.view
        integer = {
            index
            for index, node in enumerate(view.nodes)
            if node.name in self._layers and self._schemes[self._layers[node.name].name].activations.is_static
        }
        return place(
            view,
            integer,
            is_layout_op=lambda index: is_layout_op(view, index) and self._is_bounded(index),
            is_arithmetic=lambda index: self._is_arithmetic(index) and self._is_bounded(index),
            is_clamp=lambda index: is_clamp(view, index),
            may_write_floats=self._may_write_floats,
        )

    def _is_bounded(self, index: int) -> bool:
        """Whether every floating activation a node reads or writes has a range, so that it can be quantised."""
        view, node = self.view, self.view.nodes[index]
        names = [name for name in (*node.input, *node.output) if name and name not in view.initializers]
        return all(has_range(name, self._ranges) for name in names if view.is_float(name))

    def _result(self, index: int) -> str:
        """The tensor a quantised node's quantiser writes: that of the activation fused into it, else its own."""
        for activation, source in self._placement.fused_activations.items():
            if source == index:
                return str(self.view.nodes[activation].output[0])
        return str(self.view.nodes[index].output[0])

    # --- tensors ---------------------------------------------------------------------------------------------

    def _quantise(self, raw: str, tensor: str) -> None:
        """Write ``raw`` → QuantizeLinear, the 8-bit form of ``tensor`` from now on."""
        require_range(tensor, self._ranges)
        quantiser = quantiser_u8(*self._ranges[tensor])
        stored = QuantisedTensor(
            name=self.writer.fresh(f"{tensor}_q"),
            scale=self.writer.constant(np.array(quantiser.scale, np.float32), f"{tensor}_s"),
            zero=self.writer.constant(np.array(quantiser.zero_point, np.uint8), f"{tensor}_z"),
            quantiser=quantiser,
        )
        self.writer.node("QuantizeLinear", [raw, stored.scale, stored.zero], [stored.name])
        self._quantised[tensor] = stored

    def as_float(self, tensor: str) -> str:
        """The floating form of ``tensor`` under its own name, dequantised when first asked for."""
        if tensor and tensor not in self._floats:
            self._dequantise_as(tensor, tensor)
            self._floats.add(tensor)
        return tensor

    def as_quantised(self, tensor: str) -> QuantisedTensor:
        """The 8-bit form of ``tensor``, quantised when first asked for."""
        if tensor not in self._quantised:
            self._quantise(self.as_float(tensor), tensor)
        return self._quantised[tensor]

    def dequantise(self, tensor: str) -> str:
        """Tensor that a quantised operator reads: the 8-bit form of ``tensor`` behind a DequantizeLinear."""
        self.as_quantised(tensor)
        if tensor not in self._dequantised:
            if tensor not in self._floats:
                return self.as_float(tensor)
            self._dequantise_as(tensor, self.writer.fresh(f"{tensor}_d"))
        return self._dequantised[tensor]

    def _dequantise_as(self, tensor: str, name: str) -> None:
        stored = self._quantised[tensor]
        self.writer.node("DequantizeLinear", [stored.name, stored.scale, stored.zero], [name])
        self._dequantised[tensor] = name

    def _keep(self, tensor: str, stored: QuantisedTensor, name: str) -> None:
        """``name`` is the 8-bit form of ``tensor``, with the quantiser of ``stored``."""
        self._quantised[tensor] = replace(stored, name=name)

    # --- nodes -----------------------------------------------------------------------------------------------

    def _plain(self, node: onnx.NodeProto) -> None:
        """A floating node."""
        if node.op_type in ("Shape", "Size") and node.input[0] in self._quantised:
            self.writer.copy(node, [self._quantised[node.input[0]].name], list(node.output))
        else:
            for name in captured_names(node):
                if name in self._quantised:
                    self.as_float(name)
            self.writer.copy(node, [self.as_float(name) for name in node.input], list(node.output))
        self._floats.update(node.output)

    def _layout_op(self, index: int, node: onnx.NodeProto) -> None:
        """A layout operator on the 8-bit tensor."""
        found = shortcut_at(self.view, index)
        if found is not None and found.pad in self._placement.quantised:
            self._shortcuts[found.pad] = (found, node.input[0])
            return
        if index in self._shortcuts:
            shortcut, tensor = self._shortcuts[index]
            source = self.dequantise(tensor)
            stored = self._quantised[tensor]
            name = write_shortcut(self.writer, shortcut, node.output[0], source, stored.scale, stored.zero)
            self._keep(node.output[0], stored, name)
            return
        stored = self._quantised[node.input[0]]
        results = write_layout_op(self.writer, self.view, index, stored.name, stored.quantiser, stored.zero)
        for tensor, name in zip(node.output, results, strict=True):
            self._keep(tensor, stored, name)

    def _arithmetic_op(self, index: int, node: onnx.NodeProto) -> None:
        """An arithmetic operator with quantisers of its own."""
        self._computed(index, node, [self.dequantise(name) for name in node.input])

    def _computed(self, index: int, node: onnx.NodeProto, inputs: list[str]) -> None:
        """A node whose result is quantised, with the activation fused into it, if any."""
        tensor = self._result(index)
        raw = self.writer.fresh(f"{tensor}_r")
        self.writer.copy(node, inputs, [raw])
        if node.name in self._layers:
            self.writer.name_last(self._layers[node.name].name)
        self._quantise(raw, tensor)

    def layers_at(self, node: onnx.NodeProto) -> list[Layer]:
        """The layers of one node: two of a recurrent operator, else one."""
        return self._at[node.name]

    def _layer(self, site: LayerSite) -> None:
        together = {layer.name: self._schemes[layer.name] for layer in self.layers_at(site.node)}
        if len({scheme.activations for scheme in together.values()}) > 1:
            named = " and ".join(f"'{name}' {scheme.text}" for name, scheme in together.items())
            raise LoweringError(
                f"one operator cannot quantise its input in two ways: layer {named}",
                "give both the same scheme",
            )
        self._supports[self._schemes[site.layer.name]].write(self, site)

    def _finish_integer(self, site: LayerSite, inputs: list[str]) -> None:
        """Write an integer layer whose inputs are; its result is quantised unless it may float and nobody minds."""
        if self._may_write_floats(site.index) and site.node.output[0] not in self._placement.required_int8:
            self.finish_floating(site, inputs)
        else:
            self._computed(site.index, site.node, inputs)

    def finish_floating(self, site: LayerSite, inputs: list[str]) -> None:
        """Write a layer's node, its floating results under their own names.

        Args:
            site: The layer.
            inputs: Names of what the node reads.
        """
        self.writer.copy(site.node, inputs, list(site.node.output))
        self.keep_floating(site)

    def keep_floating(self, site: LayerSite) -> None:
        """Note that the node last written is the layer's, and that its results are floating.

        It takes the layer's name, unless several layers share it.
        """
        if len(self.layers_at(site.node)) == 1:
            self.writer.name_last(site.layer.name)
        self._floats.update(site.node.output)

    def rounded(self, layer: Layer) -> RoundedWeight:
        """The rounded weight of a layer with an integer precision."""
        return self._weights[layer.name]

    def _floating_weight(self, layer: Layer) -> str:
        precision = self._schemes[layer.name].precision
        if precision is Precision.FP32:
            return layer.weight
        if precision is Precision.FP16:
            weight = self.view.array(layer.weight)
            assert weight is not None
            return write_fp16(self.writer, weight, layer)
        return write_integer(self.writer, self.rounded(layer), layer, dequantise=False)

    def corrected_bias(self, site: LayerSite) -> str:
        """Name of the corrected floating bias; empty where the node's own stays (MatMul has none to correct)."""
        rounded = self._weights.get(site.layer.name)
        if rounded is None or rounded.bias_correction is None or site.node.op_type == "MatMul":
            return ""
        bias = self.view.array(site.node.input[2]) if len(site.node.input) > 2 and site.node.input[2] else None
        corrected = rounded.bias_correction + (0 if bias is None else bias)
        return self.writer.constant(corrected.astype(np.float32), f"{site.layer.weight}_b")
