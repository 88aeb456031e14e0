"""One network in one dialect, ready to be written under any config: what the search holds in its hand."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from lowering.dialect import Dialect
from lowering.inventory import Inventory
from lowering.reference import Reference
from precision import CalibrationSettings, ContentStore, Inputs, LayerChoice, PrecisionConfig


class Lowerer:
    """Lowers candidates of one network.

    Calibration ranges and rounded weights are computed when first needed and kept in ``store``.

    Args:
        reference: The normalised FP32 network.
        dialect: How the runtime wants choices written.
        calibration: Unlabelled inputs, (n, …) each.
        settings: How activations are calibrated.
        store: Where ranges and rounded weights are kept.
    """

    def __init__(
        self,
        reference: Reference,
        dialect: Dialect,
        calibration: Inputs,
        settings: CalibrationSettings,
        store: ContentStore,
    ) -> None:
        self.reference = reference
        self.dialect = dialect
        self.settings = settings

    @cached_property
    def inventory(self) -> Inventory:
        """Layers, groups and what each may become."""
        raise NotImplementedError

    def lower(self, choices: Mapping[str, LayerChoice]) -> bytes:
        """The artifact's bytes for layer name → choice (every layer); the same choices give the same bytes.

        Raises:
            LoweringError: If a layer may not take its choice.
        """
        raise NotImplementedError

    def config(self, choices: Mapping[str, LayerChoice]) -> PrecisionConfig:
        """The reusable config of layer name → choice."""
        raise NotImplementedError

    def weight_bytes(self, layer: str, choice: LayerChoice) -> int:
        """Bytes that the layer's weights, scales and zero points take in the file under ``choice``."""
        raise NotImplementedError
