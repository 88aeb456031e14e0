"""The reusable per-layer precision config: what was decided, and nothing that was measured.

It holds the network's fingerprints, how activations were calibrated and the ranges found, and one choice a
layer; for a pruned or trained network also the recipe that made it from the given one. With the network (and, for
data-driven rounding, the calibration inputs or the run's cache) it rebuilds the same artifact byte for byte.
Measurements and the machine they were taken on are in ``measurement.json`` instead.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from precision.choice import LayerChoice
from precision.errors import ConfigError, UsageError
from precision.recipe import Recipe

SCHEMA_VERSION = 1


class RangeMethod(StrEnum):
    """How a tensor's quantisation range is read off its calibration values."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings:
    """How activations are calibrated.

    Attributes:
        method: Which range method.
        percentile: For ``percentile``: share of values kept inside the range, in percent.
        samples: How many calibration samples are used, from the first on.
    """

    method: RangeMethod = RangeMethod.MINMAX
    percentile: float = 99.99
    samples: int = 512

    def __post_init__(self) -> None:
        if not 50 < self.percentile <= 100:
            raise UsageError(
                f"--percentile: expected a number above 50 and at most 100, got {self.percentile:g}", "as in 99.99"
            )
        if self.samples < 1:
            raise UsageError(
                f"--calib-samples: expected a positive whole number, got {self.samples}", "leave it out for the default"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return {"method": self.method.value, "percentile": self.percentile, "samples": self.samples}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionConfig:
    """One point's decisions.

    Attributes:
        model: Fingerprint of the given network with its weights.
        architecture: Fingerprint of the given network without its weights' values.
        dialect: Name of the dialect the config was searched in.
        calibration: How ``ranges`` were found.
        calibration_data: Digest of the calibration inputs used.
        ranges: Tensor name → (low, high) of the FP32 network's activation.
        layers: Layer name → choice, every layer of the network, in the network's order.
        scales: Layer name → scales of its weight, one a channel, where training found them; empty for a network as
            it was given.
        recipe: How the network that ``ranges``, ``layers`` and ``scales`` speak of was made from the given one; None
            where it is the given one.
    """

    model: str
    architecture: str
    dialect: str
    calibration: CalibrationSettings
    calibration_data: str
    ranges: Mapping[str, tuple[float, float]]
    layers: Mapping[str, LayerChoice]
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", MappingProxyType(dict(self.ranges)))
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        object.__setattr__(self, "scales", MappingProxyType(dict(self.scales)))

    def to_json(self) -> str:
        """The file's text: the same config always gives the same bytes."""
        data = {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "architecture": self.architecture,
            "dialect": self.dialect,
            "calibration": {**self.calibration.to_json(), "data": self.calibration_data},
            "layers": {name: choice.to_json() for name, choice in self.layers.items()},
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
        }
        if self.scales:
            data["scales"] = {name: list(values) for name, values in self.scales.items()}
        if self.recipe is not None:
            data["recipe"] = self.recipe.to_json()
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> PrecisionConfig:
        """Read ``to_json``'s form; ``source`` names the file in errors.

        Raises:
            ConfigError: If the text is no config of this schema version.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"'{source}' is no JSON: {error}", "give a config written by 'search'") from error
        if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
            found = data.get("schema_version") if isinstance(data, dict) else None
            raise ConfigError(
                f"'{source}': expected a precision config of schema version {SCHEMA_VERSION}, got {found}",
                "give a file from a run's configs/ folder, written by this version",
            )
        try:
            calibration = data["calibration"]
            return cls(
                model=str(data["model"]),
                architecture=str(data["architecture"]),
                dialect=str(data["dialect"]),
                calibration=CalibrationSettings(
                    method=RangeMethod(calibration["method"]),
                    percentile=float(calibration["percentile"]),
                    samples=int(calibration["samples"]),
                ),
                calibration_data=str(calibration["data"]),
                ranges={name: _bounds(name, value) for name, value in data["ranges"].items()},
                layers={name: LayerChoice.from_json(entry, name) for name, entry in data["layers"].items()},
                scales={name: _scales(name, values) for name, values in data.get("scales", {}).items()},
                recipe=Recipe.from_json(data["recipe"]) if "recipe" in data else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"'{source}': malformed precision config ({type(error).__name__}: {error})",
                "give an unedited file, or compare its keys with one written by 'search'",
            ) from error

    @classmethod
    def load(cls, path: Path) -> PrecisionConfig:
        """Read a config file.

        Raises:
            ConfigError: If the file is missing, unreadable or no config.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read config '{path}': {error}", "check the path") from error
        return cls.from_json(text, str(path))


def _bounds(name: str, value: Any) -> tuple[float, float]:
    low, high = (float(bound) for bound in value)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"range of tensor '{name}' is {value}")
    return low, high


def _scales(name: str, values: Any) -> tuple[float, ...]:
    scales = tuple(float(value) for value in values)
    if not all(math.isfinite(scale) and scale > 0 for scale in scales):
        raise ValueError(f"scales of layer '{name}' are not all positive")
    return scales
