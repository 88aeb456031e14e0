"""A reference model with a dialect and calibration data, from which artifacts of any schemes are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfront.core import (
    FP32,
    ActivationMode,
    Artifact,
    CalibrationSettings,
    ContentStore,
    DataError,
    Inputs,
    LoweringError,
    PrecisionConfig,
    Scheme,
    digest,
)
from bitfront.lowering.calibration import calibrate
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.compact import write_compactly
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import Dialect, HasSessionSettings, LoweringRequest, support_of
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer, QuantisableLayers
from bitfront.lowering.parts import NetworkPart, network_parts
from bitfront.lowering.ranges import UNBOUNDED, is_bounded, why_unbounded
from bitfront.lowering.reference import ReferenceModel
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.methods import uses_calibration
from bitfront.lowering.rounding.network import round_network
from bitfront.lowering.rounding.scales import INTEGER_RANGES, nearest_integers
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.serialise import artifact_of
from bitfront.lowering.stored_layers import store_weights
from bitfront.lowering.zero_ranges import replace_zero_ranges


class Lowerer:
    """Writes artifacts of one network, with a scheme for each layer.

    Calibration ranges and rounded weights are computed when first needed and kept in ``store``.

    Args:
        reference: The network.
        dialect: How the runtime wants schemes written.
        calibration: Unlabelled inputs, (n, …) each; None where only stored ranges and weights are to be used.
        settings: How activations are calibrated.
        store: Where ranges and rounded weights are kept.
        calibration_digest: Digest of the calibration inputs, for when they are not at hand themselves.
        ranges: Ranges to use instead of calibrating: those of a config.
        scales: Layer name → the weight's scales, (channels,), which training found: the layer's weights lie on their
            grid already, and take its integers under any scheme without groups that can hold them.
    """

    def __init__(
        self,
        reference: ReferenceModel,
        dialect: Dialect,
        calibration: Inputs | None,
        settings: CalibrationSettings,
        store: ContentStore,
        *,
        calibration_digest: str | None = None,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        scales: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> None:
        self.reference = reference
        self.dialect = dialect
        self.settings = settings
        self._store = store
        self._given_ranges = ranges
        self._scales = dict(scales or {})
        self._calibration: Inputs | None = None
        if calibration is not None:
            self._calibration = {name: array[: settings.samples] for name, array in calibration.items()}
            calibration_digest = digest(dict(self._calibration))
        self.calibration_digest = calibration_digest or ""
        self._weights: dict[tuple[Scheme, str], RoundedWeight] = {}

    @property
    def calibration(self) -> Inputs | None:
        """The calibration inputs that are used, the first ``settings.samples``; None where none are at hand."""
        return self._calibration

    @cached_property
    def quantisable(self) -> QuantisableLayers:
        """The network's quantisable layers and groups, with the schemes that each may take."""
        return collect_layers(self.reference.proto, self.dialect, self.reference.module_paths)

    @cached_property
    def parts(self) -> Mapping[str, NetworkPart]:
        """Group name → the group's layers as a network of their own, for every group that has one."""
        return network_parts(self.reference.proto, self.quantisable)

    @cached_property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Tensor name → (low, high) of every floating activation of the network; ``UNBOUNDED`` for what has none.

        Raises:
            DataError: If there are no calibration inputs, or the network does not answer them with numbers.
        """
        if self._given_ranges:
            # A config names tensors that have a range alone.
            return dict.fromkeys(self._activations(), UNBOUNDED) | dict(self._given_ranges)
        if self._given_ranges is not None:
            return {}
        found = calibrate(
            self.reference.proto,
            self._inputs("activation ranges"),
            self.settings,
            self._activations(),
            interpreter=self.reference.interpreter,
            store=self._store,
            key=self._key,
            batching=self.reference.batching,
        )
        return replace_zero_ranges(GraphView(self.reference.proto.graph), found)

    def prepare(self, schemes: Iterable[Scheme]) -> None:
        """Calibrate, and round the weights for these schemes, now instead of when first needed."""
        for scheme in schemes:
            if scheme.precision.is_integer:
                self._round(scheme)

    def rounded(self, scheme: Scheme, *, bits: int | None = None) -> Mapping[str, RoundedWeight]:
        """Layer name → rounded weight, for every layer that offers the integer ``scheme``.

        Args:
            scheme: How to round.
            bits: Bits of an integer where they are fewer than those of its storage; None for as many.
        """
        offering = [layer for layer in self.quantisable.layers if scheme in layer.schemes]
        layers = [layer for layer in offering if not self._why_unbounded(layer, scheme)]
        if not layers:
            return {}
        return round_network(
            self.reference.proto,
            layers,
            self._calibration or {},
            weights=scheme.weights,
            bits=bits,
            activations=self.ranges if scheme.weights.group_size is None else None,
            interpreter=self.reference.interpreter,
            batching=self.reference.batching,
            store=self._store,
            key=self._key if uses_calibration(scheme.weights) else self.reference.fingerprint,
        )

    def lower(self, schemes: Mapping[str, Scheme]) -> Artifact:
        """The artifact for layer name → scheme (every layer); the same schemes give the same bytes.

        Layers that are only stored stay FP32 where they are not named: older configs do not.

        Raises:
            LoweringError: If a layer is missing or may not take its scheme.
        """
        layers = self.quantisable.layers
        schemes = {layer.name: FP32 for layer in layers if layer.stored_only} | dict(schemes)
        self._check(schemes, layers)
        return self._written(self.reference.proto, layers, schemes, correct_bias=True)

    def lower_part(self, part: NetworkPart, scheme: Scheme) -> Artifact:
        """The artifact of a part whose layers all take one scheme, with the ranges and weights of the whole network.

        Biases are not corrected: the corrections that come with weights rounded on data make up for rounded layers
        before them, too, which a part does not have.

        Raises:
            LoweringError: If a layer may not take the scheme.
        """
        schemes = {layer.name: scheme for layer in part.layers}
        self._check(schemes, part.layers)
        return self._written(part.model, part.layers, schemes, correct_bias=False)

    def _written(
        self, network: onnx.ModelProto, layers: tuple[Layer, ...], schemes: Mapping[str, Scheme], *, correct_bias: bool
    ) -> Artifact:
        weights = {
            layer.name: self._rounded(layer, schemes[layer.name])
            for layer in layers
            if schemes[layer.name].precision.is_integer
        }
        if not correct_bias:
            weights = {name: replace(rounded, bias_correction=None) for name, rounded in weights.items()}
        request = LoweringRequest(
            reference=network,
            layers=tuple(layer for layer in layers if not layer.stored_only),
            schemes=schemes,
            ranges=self._needed_ranges(schemes),
            weights=weights,
        )
        written = self.dialect.write(request)
        store_weights(written, layers, schemes, weights)
        model = write_compactly(written, self.reference.sources)
        settings = self.dialect.session_settings(request) if isinstance(self.dialect, HasSessionSettings) else None
        return artifact_of(model, settings)

    def config(self, schemes: Mapping[str, Scheme]) -> PrecisionConfig:
        """The reusable config of layer name → scheme; layers that are only stored may be left out."""
        schemes = {layer.name: FP32 for layer in self.quantisable.layers if layer.stored_only} | dict(schemes)
        self._check(schemes, self.quantisable.layers)
        return PrecisionConfig(
            model=self.reference.fingerprint,
            architecture=self.reference.architecture,
            dialect=self.dialect.name,
            calibration=self.settings,
            calibration_data=self.calibration_digest,
            ranges={name: ends for name, ends in self._needed_ranges(schemes).items() if is_bounded(ends)},
            layers={layer.name: schemes[layer.name] for layer in self.quantisable.layers},
            scales={
                layer.name: tuple(float(scale) for scale in self._scales[layer.name])
                for layer in self.quantisable.layers
                if self._on_grid(layer, schemes[layer.name]) is not None
            },
            skipped_steps=self.reference.skipped_steps,
            applied_steps=self.reference.applied_steps,
            fixed_inputs=self.reference.fixed_inputs,
        )

    def weight_bytes(self, layer: str, scheme: Scheme) -> int:
        """Bytes that the layer's weights, scales and zero points take in the file under ``scheme``."""
        found = next(each for each in self.quantisable.layers if each.name == layer)
        return support_of(self.dialect, scheme).weight_bytes(found, scheme)

    def compute_type(self, scheme: Scheme) -> ComputeType:
        """Type of arithmetic that a layer of ``scheme`` computes in."""
        return support_of(self.dialect, scheme).compute_type

    @property
    def _key(self) -> str:
        return digest(self.reference.fingerprint, self.calibration_digest)

    def _inputs(self, purpose: str) -> Inputs:
        if self._calibration is None:
            raise DataError(
                f"{purpose} of '{self.reference.source}' need calibration inputs, and none were given",
                "give --calib, or keep the config in its run folder beside cache/",
            )
        return self._calibration

    def _activations(self) -> list[str]:
        view = GraphView(self.reference.proto.graph)
        names = [*view.inputs, *(name for node in view.nodes for name in node.output)]
        return [name for name in names if name and view.is_float(name)]

    def _check(self, schemes: Mapping[str, Scheme], layers: Iterable[Layer]) -> None:
        for layer in layers:
            scheme = schemes.get(layer.name)
            if scheme is None:
                raise LoweringError(f"layer '{layer.name}' has no scheme", "give every layer of the network one")
            if scheme != FP32 and scheme.text in layer.refused:
                raise LoweringError(
                    f"layer '{layer.name}' cannot be {scheme.text}: {layer.refused[scheme.text]}",
                    f"use one of {', '.join(offer.text for offer in layer.schemes)}",
                )
            if reason := self._why_unbounded(layer, scheme):
                raise LoweringError(f"layer '{layer.name}' cannot be {scheme.text}: {reason}", "leave it at fp32")

    def _why_unbounded(self, layer: Layer, scheme: Scheme) -> str:
        """Reason why the values that a layer reads rule a scheme out; empty where they do not.

        They must have a range to be quantised, and be finite for their second moments (GPTQ).
        """
        if scheme.activations.mode is ActivationMode.NONE and not uses_calibration(scheme.weights):
            return ""
        source = self._sources[layer.node]
        return "" if is_bounded(self.ranges.get(source, (0.0, 0.0))) else why_unbounded(source)

    @cached_property
    def _sources(self) -> Mapping[str, str]:
        """Name of each layer's node → the tensor it reads."""
        nodes = {node.name: node for node in self.reference.proto.graph.node}
        return {
            layer.node: str(nodes[layer.node].input[0]) for layer in self.quantisable.layers if not layer.stored_only
        }

    def _needed_ranges(self, schemes: Mapping[str, Scheme]) -> Mapping[str, tuple[float, float]]:
        """All ranges, or none where no layer has integers; weight scales heed them too (``rounding/bias_overflow.py``).

        FP16 arithmetic heeds them where they are at hand: values beyond FP16 are kept out of it.
        """
        if any(scheme.precision.is_integer for scheme in schemes.values()):
            return self.ranges
        fp16 = any(self.compute_type(scheme) is ComputeType.FP16 for scheme in schemes.values())
        at_hand = self._given_ranges is not None or self._calibration is not None
        return self.ranges if fp16 and at_hand else {}

    def _rounded(self, layer: Layer, scheme: Scheme) -> RoundedWeight:
        trained = self._on_grid(layer, scheme)
        if trained is not None:
            return trained
        if (scheme, layer.name) not in self._weights:
            self._round(scheme)
        if (scheme, layer.name) not in self._weights:
            raise LoweringError(
                f"layer '{layer.name}' cannot be {scheme.text} in dialect '{self.dialect.name}'",
                f"use one of {', '.join(offer.text for offer in layer.schemes)}",
            )
        return self._weights[scheme, layer.name]

    def _on_grid(self, layer: Layer, scheme: Scheme) -> RoundedWeight | None:
        """The weight's integers under the scales that training found; None where there are none, or they do not fit."""
        scales = self._scales.get(layer.name)
        if scales is None or not scheme.precision.is_integer or scheme.weights.group_size is not None:
            return None
        weight = GraphView(self.reference.proto.graph).array(layer.weight)
        assert weight is not None, "a layer's weight is constant"
        view, bits = MatrixView.of(layer), scheme.precision.bits
        rows, steps = view.rows(weight.astype(np.float32)), view.element_scales(scales, None)
        low, high = INTEGER_RANGES[bits]
        largest = np.rint(rows / steps)
        if largest.min() < low or largest.max() > high:
            return None
        integers = view.weight(nearest_integers(rows, steps, bits))
        return RoundedWeight(integers=integers, scales=scales, bias_correction=None, bits=bits)

    def _round(self, scheme: Scheme) -> None:
        """Round every layer that offers ``scheme``, once: GPTQ's inputs come from a prefix rounded alike."""
        if not any(made == scheme for made, _ in self._weights):
            self._weights.update({(scheme, name): weight for name, weight in self.rounded(scheme).items()})
