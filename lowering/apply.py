"""Rebuilding an artifact from its config: byte for byte on the same network, anew on a fine-tuned one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lowering.dialects.registry import get_dialect
from lowering.lowerer import Lowerer
from lowering.reference import Reference
from precision import ConfigError, ContentStore, DataError, Inputs, PrecisionConfig


def apply_config(
    config: PrecisionConfig,
    reference: Reference,
    *,
    calibration: Inputs | None,
    store: ContentStore,
    allow_new_weights: bool,
) -> bytes:
    """Write the artifact that ``config`` describes.

    On the network the config was made for, its own ranges are used; weights rounded with calibration inputs come
    from ``store`` (a run's ``cache/``), else are rounded again from the same inputs. On other weights of the same
    architecture everything data-driven is done anew.

    Args:
        config: The config.
        reference: The network that its layers are of: with a recipe, the one that was made by it.
        calibration: Unlabelled inputs, (n, …) each, or None.
        store: Where rounded weights may lie.
        allow_new_weights: Accept other weights of the same architecture.

    Raises:
        ConfigError: If the network's layers or weights are not the config's.
        DataError: If calibration inputs are needed and missing.
    """
    dialect = get_dialect(config.dialect)
    model = config.model if config.recipe is None else config.recipe.network
    same_weights = reference.fingerprint == model
    lowerer = Lowerer(
        reference,
        dialect,
        calibration,
        config.calibration,
        store,
        calibration_digest=config.calibration_data,
        ranges=config.ranges if same_weights else None,
        scales=_scales(config) if same_weights else None,
    )
    _check_layers(config, lowerer)
    if not same_weights and not allow_new_weights:
        raise ConfigError(
            f"the config was made for other weights than those of '{reference.source}'; the layers are the same",
            "add --allow-new-weights (with --calib) to carry it over to this checkpoint",
        )
    if not same_weights and calibration is None:
        raise DataError(
            f"'{reference.source}' has other weights than the config's: ranges and rounding must be found anew",
            "give --calib with calibration inputs",
        )
    if same_weights and lowerer.calibration_digest != config.calibration_data:
        raise ConfigError(
            "the calibration inputs given are not those the config was made with, so the artifact would differ",
            f"give the same file (its first {config.calibration.samples} samples), or none, beside the run's cache/",
        )
    return lowerer.lower(config.layers)


def _scales(config: PrecisionConfig) -> dict[str, NDArray[np.float32]]:
    return {name: np.array(values, np.float32) for name, values in config.scales.items()}


def _check_layers(config: PrecisionConfig, lowerer: Lowerer) -> None:
    own = {layer.name for layer in lowerer.inventory.layers}
    missing = [name for name in config.layers if name not in own]
    extra = sorted(own - set(config.layers))
    if missing or extra:
        parts = [f"not in the network: {', '.join(missing)}"] if missing else []
        parts += [f"not in the config: {', '.join(extra)}"] if extra else []
        raise ConfigError(
            f"the config is for another network than '{lowerer.reference.source}' (layers {'; '.join(parts)})",
            "give the model the config was made for",
        )
    architecture = config.architecture if config.recipe is None else config.recipe.architecture
    if lowerer.reference.architecture != architecture:
        raise ConfigError(
            f"the config is for another network than '{lowerer.reference.source}': the layers have the same names, "
            "but shapes or operators differ",
            "give the model the config was made for",
        )
