"""Rebuilding an artifact from its config: byte for byte on the same network, anew on a fine-tuned one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Artifact, ConfigError, ContentStore, DataError, Inputs, PrecisionConfig
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialect import Dialect
from bitfront.lowering.dialects.registry import dialect_of_config
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel


def apply_config(
    config: PrecisionConfig,
    reference: ReferenceModel,
    *,
    calibration: Inputs | None,
    store: ContentStore,
    allow_new_weights: bool,
    dialect: str | None = None,
) -> Artifact:
    """The artifact that ``config`` describes.

    On the network the config was made for, its own ranges are used; weights rounded with calibration inputs come
    from ``store`` (a run's ``cache/``), else are rounded again from the same inputs. On other weights of the same
    architecture everything data-driven is done anew.

    Args:
        config: The config.
        reference: The network that its layers are of: with a recipe, the one that was made by it.
        calibration: Unlabelled inputs, (n, …) each, or None.
        store: Where rounded weights may lie.
        allow_new_weights: Accept other weights of the same architecture.
        dialect: The dialect that the person named; None takes the config's, if it is one of this program's.

    Raises:
        ConfigError: If the network's layers or weights are not the config's, its ranges or scales do not fit them, or
            its dialect is unknown.
        DataError: If calibration inputs are needed and missing.
    """
    writer = dialect_of_config(config.dialect, dialect)
    reference = _as_named(config, reference, writer)
    model = config.model if config.recipe is None else config.recipe.network
    same_weights = reference.fingerprint == model
    lowerer = Lowerer(
        reference,
        writer,
        calibration,
        config.calibration,
        store,
        calibration_digest=config.calibration_data,
        ranges=config.ranges if same_weights else None,
        scales=_scales(config) if same_weights else None,
    )
    _check_layers(config, lowerer)
    _check_values(config, lowerer)
    if same_weights:
        _check_data(config, lowerer)
    else:
        _check_new_weights(reference.source, calibration, allow_new_weights=allow_new_weights)
    return lowerer.lower(config.layers)


def _as_named(config: PrecisionConfig, reference: ReferenceModel, dialect: Dialect) -> ReferenceModel:
    """The network with its layers called as in the config, which may be older than names by modules."""
    layers = collect_layers(reference.proto, dialect, reference.module_paths).layers
    return (
        reference if {layer.name for layer in layers} >= config.layers.keys() else replace(reference, module_paths={})
    )


def _check_new_weights(source: str, calibration: Inputs | None, *, allow_new_weights: bool) -> None:
    """Refuse weights other than the config's, unless allowed and with inputs to find ranges and rounding anew."""
    if not allow_new_weights:
        raise ConfigError(
            f"the config was made for other weights than those of '{source}'; the layers are the same",
            "add --allow-new-weights (with --calib) to carry it over to this checkpoint",
        )
    if calibration is None:
        raise DataError(
            f"'{source}' has other weights than the config's: ranges and rounding must be found anew",
            "give --calib with calibration inputs",
        )


def _check_data(config: PrecisionConfig, lowerer: Lowerer) -> None:
    """Calibration inputs are those that the config was made with, and its scales those of the weights."""
    if lowerer.calibration_digest != config.calibration_data:
        raise ConfigError(
            "the calibration inputs given are not those the config was made with, so the artifact would differ",
            f"give the same file (its first {config.calibration.samples} samples), or none, beside the run's cache/",
        )
    if config.scales:
        used = lowerer.config(config.layers).scales
        if unused := [name for name in config.scales if name not in used]:
            raise ConfigError(
                f"the config's scales of layer '{unused[0]}' are too small for its weights, so they are not those of "
                "its training",
                _RESTORE,
            )


_RESTORE = "give an unedited file from a run's configs/ folder"


def _scales(config: PrecisionConfig) -> dict[str, NDArray[np.float32]]:
    return {name: np.array(values, np.float32) for name, values in config.scales.items()}


def _check_layers(config: PrecisionConfig, lowerer: Lowerer) -> None:
    own = {layer.name for layer in lowerer.quantisable.layers}
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


def _check_values(config: PrecisionConfig, lowerer: Lowerer) -> None:
    """Ranges are of the network's tensors, and scales are as many as the layer's channels."""
    source = lowerer.reference.source
    graph = lowerer.reference.proto.graph
    tensors = {value.name for value in graph.input} | {name for node in graph.node for name in node.output}
    unknown = [name for name in config.ranges if name not in tensors]
    if unknown:
        raise ConfigError(f"the config has a range for tensor '{unknown[0]}', which '{source}' does not have", _RESTORE)
    layers = {layer.name: layer for layer in lowerer.quantisable.layers}
    for name, scales in config.scales.items():
        layer, scheme = layers.get(name), config.layers.get(name)
        if layer is None or scheme is None:
            raise ConfigError(f"the config has scales for layer '{name}', which '{source}' does not have", _RESTORE)
        if not scheme.precision.is_integer or scheme.weights.group_size is not None:
            raise ConfigError(
                f"the config has scales for layer '{name}', whose scheme {scheme.text} has none of its own", _RESTORE
            )
        if len(scales) != layer.channels:
            raise ConfigError(
                f"layer '{name}': expected {layer.channels} scales, one a channel, got {len(scales)} in the config",
                _RESTORE,
            )
