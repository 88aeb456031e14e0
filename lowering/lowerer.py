"""One network in one dialect, ready to be written under any config: what the search holds in its hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitfront.lowering.calibration import calibrate
from bitfront.lowering.compact import write_compactly
from bitfront.lowering.dialect import Arithmetic, Candidate, Dialect
from bitfront.lowering.graph import GraphView
from bitfront.lowering.inventory import Inventory, Layer
from bitfront.lowering.layers import take_inventory
from bitfront.lowering.ranges import UNBOUNDED, is_bounded, why_unbounded
from bitfront.lowering.reference import Reference
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.network import METHODS, round_network
from bitfront.lowering.rounding.scales import CODE_RANGES, nearest_codes
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.lowering.zero_inputs import with_stand_ins
from bitfront.precision import (
    FP32,
    CalibrationSettings,
    ContentStore,
    DataError,
    Inputs,
    LayerChoice,
    LoweringError,
    PrecisionConfig,
    digest,
)


class Lowerer:
    """Lowers candidates of one network.

    Calibration ranges and rounded weights are computed when first needed and kept in ``store``.

    Args:
        reference: The normalised FP32 network.
        dialect: How the runtime wants choices written.
        calibration: Unlabelled inputs, (n, …) each; None where only stored ranges and weights are to be used.
        settings: How activations are calibrated.
        store: Where ranges and rounded weights are kept.
        calibration_digest: Digest of the calibration inputs, for when they are not at hand themselves.
        ranges: Ranges to use instead of calibrating: those of a config.
        scales: Layer name → the weight's scales, (channels,), which training found: the layer's weights lie on their
            grid already, and take its codes under any choice without blocks that can hold them.
    """

    def __init__(
        self,
        reference: Reference,
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
        self._weights: dict[tuple[LayerChoice, str], RoundedWeight] = {}

    @property
    def calibration(self) -> Inputs | None:
        """The calibration inputs that are used, the first ``settings.samples``; None where none are at hand."""
        return self._calibration

    @cached_property
    def inventory(self) -> Inventory:
        """Layers, groups and what each may become."""
        return take_inventory(self.reference.proto, self.dialect)

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
            store=self._store,
            key=self._key,
        )
        return with_stand_ins(GraphView(self.reference.proto.graph), found)

    def prepare(self, choices: Iterable[LayerChoice]) -> None:
        """Find the ranges and round the weights for these choices now, instead of when first needed."""
        for choice in choices:
            if choice.precision.is_integer:
                self._round(choice)

    def rounded(self, choice: LayerChoice, *, bits: int | None = None) -> Mapping[str, RoundedWeight]:
        """Layer name → rounded weight, for every layer that offers the integer ``choice``.

        Args:
            choice: How to round.
            bits: Bits of a code where they are fewer than those of its storage; None for as many.
        """
        offering = [layer for layer in self.inventory.layers if choice in layer.choices]
        layers = [layer for layer in offering if not self._why_unbounded(layer, choice)]
        if not layers:
            return {}
        return round_network(
            self.reference.proto,
            layers,
            self._calibration or {},
            bits=bits or choice.precision.bits,
            rounding=choice.rounding,
            block_size=choice.block_size,
            activations=self.ranges if choice.block_size is None else None,
            store=self._store,
            key=self._key if METHODS[choice.rounding].uses_calibration else self.reference.fingerprint,
        )

    def lower(self, choices: Mapping[str, LayerChoice]) -> bytes:
        """The artifact's bytes for layer name → choice (every layer); the same choices give the same bytes.

        Raises:
            LoweringError: If a layer is missing or may not take its choice.
        """
        layers = self.inventory.layers
        self._check(choices)
        weights = {
            layer.name: self._rounded(layer, choices[layer.name])
            for layer in layers
            if choices[layer.name].precision.is_integer
        }
        model = self.dialect.write(
            Candidate(
                reference=self.reference.proto,
                layers=layers,
                choices=choices,
                ranges=self._needed_ranges(choices),
                weights=weights,
            )
        )
        return bytes(write_compactly(model, self.reference.sources).SerializeToString(deterministic=True))

    def config(self, choices: Mapping[str, LayerChoice]) -> PrecisionConfig:
        """The reusable config of layer name → choice."""
        self._check(choices)
        return PrecisionConfig(
            model=self.reference.fingerprint,
            architecture=self.reference.architecture,
            dialect=self.dialect.name,
            calibration=self.settings,
            calibration_data=self.calibration_digest,
            ranges={name: ends for name, ends in self._needed_ranges(choices).items() if is_bounded(ends)},
            layers={layer.name: choices[layer.name] for layer in self.inventory.layers},
            scales={
                layer.name: tuple(float(scale) for scale in self._scales[layer.name])
                for layer in self.inventory.layers
                if self._on_grid(layer, choices[layer.name]) is not None
            },
            skipped_steps=self.reference.skipped_steps,
        )

    def weight_bytes(self, layer: str, choice: LayerChoice) -> int:
        """Bytes that the layer's weights, scales and zero points take in the file under ``choice``."""
        found = next(candidate for candidate in self.inventory.layers if candidate.name == layer)
        return self.dialect.weight_bytes(found, choice)

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

    def _check(self, choices: Mapping[str, LayerChoice]) -> None:
        for layer in self.inventory.layers:
            choice = choices.get(layer.name)
            if choice is None:
                raise LoweringError(f"layer '{layer.name}' has no choice", "give every layer of the network one")
            if choice != FP32 and choice.text in layer.refused:
                raise LoweringError(
                    f"layer '{layer.name}' cannot be {choice.text}: {layer.refused[choice.text]}",
                    f"use one of {', '.join(offer.text for offer in layer.choices)}",
                )
            if reason := self._why_unbounded(layer, choice):
                raise LoweringError(f"layer '{layer.name}' cannot be {choice.text}: {reason}", "leave it at fp32")

    def _why_unbounded(self, layer: Layer, choice: LayerChoice) -> str:
        """Why the values a layer reads rule a choice out; empty where they do not.

        They must have a range to be quantised, and be finite for their second moments (GPTQ).
        """
        if not choice.quantises_activations and not METHODS[choice.rounding].uses_calibration:
            return ""
        source = self._sources[layer.node]
        return "" if is_bounded(self.ranges.get(source, (0.0, 0.0))) else why_unbounded(source)

    @cached_property
    def _sources(self) -> Mapping[str, str]:
        """Name of each layer's node → the tensor it reads."""
        nodes = {node.name: node for node in self.reference.proto.graph.node}
        return {layer.node: str(nodes[layer.node].input[0]) for layer in self.inventory.layers}

    def _needed_ranges(self, choices: Mapping[str, LayerChoice]) -> Mapping[str, tuple[float, float]]:
        """All ranges, or none where no layer has integers; weight scales heed them too (``rounding/guard.py``).

        Half arithmetic heeds them where they are at hand: values beyond FP16 are kept out of it.
        """
        if any(choice.precision.is_integer for choice in choices.values()):
            return self.ranges
        half = any(self.dialect.arithmetic(choice) is Arithmetic.HALF for choice in choices.values())
        at_hand = self._given_ranges is not None or self._calibration is not None
        return self.ranges if half and at_hand else {}

    def _rounded(self, layer: Layer, choice: LayerChoice) -> RoundedWeight:
        trained = self._on_grid(layer, choice)
        if trained is not None:
            return trained
        if (choice, layer.name) not in self._weights:
            self._round(choice)
        if (choice, layer.name) not in self._weights:
            raise LoweringError(
                f"layer '{layer.name}' cannot be {choice.text} in dialect '{self.dialect.name}'",
                f"use one of {', '.join(offer.text for offer in layer.choices)}",
            )
        return self._weights[choice, layer.name]

    def _on_grid(self, layer: Layer, choice: LayerChoice) -> RoundedWeight | None:
        """The weight's codes under the scales that training found; None where there are none, or they do not fit."""
        scales = self._scales.get(layer.name)
        if scales is None or not choice.precision.is_integer or choice.block_size is not None:
            return None
        weight = GraphView(self.reference.proto.graph).array(layer.weight)
        assert weight is not None, "a layer's weight is constant"
        view, bits = MatrixView.of(layer), choice.precision.bits
        rows, steps = view.rows(weight.astype(np.float32)), view.element_scales(scales, None)
        low, high = CODE_RANGES[bits]
        largest = np.rint(rows / steps)
        if largest.min() < low or largest.max() > high:
            return None
        codes = view.weight(nearest_codes(rows, steps, bits))
        return RoundedWeight(codes=codes, scales=scales, bias_correction=None, bits=bits)

    def _round(self, choice: LayerChoice) -> None:
        """Round every layer that offers ``choice``, once: GPTQ's inputs come from a prefix rounded alike."""
        if not any(made == choice for made, _ in self._weights):
            self._weights.update({(choice, name): weight for name, weight in self.rounded(choice).items()})
