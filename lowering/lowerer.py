"""One network in one dialect, ready to be written under any config: what the search holds in its hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from lowering.calibration import calibrate
from lowering.dialect import Dialect
from lowering.graph import GraphView
from lowering.inventory import Inventory, Layer
from lowering.layers import take_inventory
from lowering.reference import Reference
from lowering.rounding.network import round_network
from lowering.rounding.weight import RoundedWeight
from precision import (
    FP32,
    CalibrationSettings,
    ContentStore,
    DataError,
    Inputs,
    LayerChoice,
    LoweringError,
    PrecisionConfig,
    Rounding,
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
    ) -> None:
        self.reference = reference
        self.dialect = dialect
        self.settings = settings
        self._store = store
        self._given_ranges = ranges
        self._calibration: Inputs | None = None
        if calibration is not None:
            self._calibration = {name: array[: settings.samples] for name, array in calibration.items()}
            calibration_digest = digest(dict(self._calibration))
        self.calibration_digest = calibration_digest or ""
        self._weights: dict[tuple[LayerChoice, str], RoundedWeight] = {}

    @cached_property
    def inventory(self) -> Inventory:
        """Layers, groups and what each may become."""
        return take_inventory(self.reference.proto, self.dialect)

    @cached_property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Tensor name → (low, high) of every floating activation of the network.

        Raises:
            DataError: If there are no calibration inputs, or they give values that are not finite.
        """
        if self._given_ranges is not None:
            return self._given_ranges
        return calibrate(
            self.reference.proto,
            self._inputs("activation ranges"),
            self.settings,
            self._activations(),
            store=self._store,
            key=self._key,
        )

    def prepare(self, choices: Iterable[LayerChoice]) -> None:
        """Find the ranges and round the weights for these choices now, instead of when first needed."""
        for choice in choices:
            if choice.precision.is_integer:
                self._round(choice)

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
        model = self.dialect.write(self.reference.proto, layers, choices, self._needed_ranges(choices), weights)
        return bytes(model.SerializeToString(deterministic=True))

    def config(self, choices: Mapping[str, LayerChoice]) -> PrecisionConfig:
        """The reusable config of layer name → choice."""
        self._check(choices)
        return PrecisionConfig(
            model=self.reference.fingerprint,
            architecture=self.reference.architecture,
            dialect=self.dialect.name,
            calibration=self.settings,
            calibration_data=self.calibration_digest,
            ranges=self._needed_ranges(choices),
            layers={layer.name: choices[layer.name] for layer in self.inventory.layers},
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

    def _needed_ranges(self, choices: Mapping[str, LayerChoice]) -> Mapping[str, tuple[float, float]]:
        """All ranges, or none where no layer has integers; weight scales heed them too (``rounding/guard.py``)."""
        return self.ranges if any(choice.precision.is_integer for choice in choices.values()) else {}

    def _rounded(self, layer: Layer, choice: LayerChoice) -> RoundedWeight:
        if (choice, layer.name) not in self._weights:
            self._round(choice)
        if (choice, layer.name) not in self._weights:
            raise LoweringError(
                f"layer '{layer.name}' cannot be {choice.text} in dialect '{self.dialect.name}'",
                f"use one of {', '.join(offer.text for offer in layer.choices)}",
            )
        return self._weights[choice, layer.name]

    def _round(self, choice: LayerChoice) -> None:
        """Round every layer that offers ``choice``, once: GPTQ's inputs come from a prefix rounded alike."""
        layers = [layer for layer in self.inventory.layers if choice in layer.choices]
        if not layers or (choice, layers[0].name) in self._weights:
            return
        rounded = round_network(
            self.reference.proto,
            layers,
            self._calibration or {},
            bits=choice.precision.bits,
            rounding=choice.rounding,
            block_size=choice.block_size,
            activations=self.ranges if choice.block_size is None else None,
            store=self._store,
            key=self._key if choice.rounding is Rounding.GPTQ else self.reference.fingerprint,
        )
        self._weights.update({(choice, layer.name): rounded[layer.name] for layer in layers})
