"""The reusable per-layer precision config: what was decided, and nothing that was measured.

It holds the network's fingerprints, how activations were calibrated and the ranges found, and one scheme a
layer; for a pruned or trained network also the recipe that made it from the given one. With the network (and, for
data-driven rounding, the calibration inputs or the run's cache) it rebuilds the same artifact byte for byte.
Measurements and the machine they were taken on are in ``measurement.json`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from bitfront.core.document import Digest, DigestOrNone, Float32, Form, JsonValue, PositiveFloat32
from bitfront.core.errors import UsageError
from bitfront.core.recipe import Recipe
from bitfront.core.scheme import Scheme, SchemeFile

SCHEMA_VERSION = 1
SMALLEST_RANGE = 1e-35  # between the bounds of a tensor's values: an 8-bit scale of 4e-38, a normal float32


class RangeMethod(StrEnum):
    """Method by which a tensor's quantisation range is read off its calibration values."""

    MINMAX = "minmax"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    MSE = "mse"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSettings(JsonValue):
    """Settings by which activations are calibrated.

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


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionConfig:
    """Decisions of one point: a scheme for each layer, ranges, and what they belong to.

    Attributes:
        model: Fingerprint of the given network with its weights.
        architecture: Fingerprint of the given network without its weights' values.
        dialect: Name of the dialect the config was searched in.
        calibration: How ``ranges`` were found.
        calibration_data: Digest of the calibration inputs used.
        ranges: Tensor name → (low, high) of the FP32 network's activation.
        layers: Layer name → scheme, every layer of the network, in the network's order.
        scales: Layer name → scales of its weight, one a channel, where training found them; empty for a network as
            it was given.
        recipe: How the network that ``ranges``, ``layers`` and ``scales`` speak of was made from the given one; None
            where it is the given one.
        skipped_steps: Steps of normalising that the network was made without (``lowering.normalise``).
        applied_steps: Steps that changed the network, of those that ``lowering.normalise`` records.
        fixed_inputs: Input → the one number for which a branch of the given network was taken.
    """

    model: str
    architecture: str
    dialect: str
    calibration: CalibrationSettings
    calibration_data: str
    ranges: Mapping[str, tuple[float, float]]
    layers: Mapping[str, Scheme]
    scales: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    recipe: Recipe | None = None
    skipped_steps: tuple[str, ...] = ()
    applied_steps: tuple[str, ...] = ()
    fixed_inputs: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranges", MappingProxyType(dict(self.ranges)))
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
        object.__setattr__(self, "scales", MappingProxyType(dict(self.scales)))
        object.__setattr__(self, "fixed_inputs", MappingProxyType(dict(self.fixed_inputs)))

    def to_json(self) -> str:
        """The file's text: the same config always gives the same bytes."""
        data: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "model": self.model,
            "architecture": self.architecture,
            "dialect": self.dialect,
            "calibration": {**self.calibration.to_json(), "data": self.calibration_data},
            "layers": {name: scheme.to_json() for name, scheme in self.layers.items()},
            "ranges": {name: list(bounds) for name, bounds in self.ranges.items()},
        }
        if self.scales:
            data["scales"] = {name: list(values) for name, values in self.scales.items()}
        if self.recipe is not None:
            data["recipe"] = self.recipe.to_json()
        if self.skipped_steps:
            data["skipped_steps"] = list(self.skipped_steps)
        if self.applied_steps:
            data["applied_steps"] = list(self.applied_steps)
        if self.fixed_inputs:
            data["fixed_inputs"] = dict(self.fixed_inputs)
        return json.dumps(data, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> PrecisionConfig:
        """Read ``to_json``'s form; ``source`` names the file in errors.

        Raises:
            ConfigError: If the text is no config of this schema version.
        """
        return _config(CONFIG_FORM.decode(text, source))

    @classmethod
    def load(cls, path: Path) -> PrecisionConfig:
        """Read a config file.

        Raises:
            ConfigError: If the file is missing, unreadable or no config.
        """
        return _config(CONFIG_FORM.load(path))


def _range(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not (low <= 0 <= high and high - low >= SMALLEST_RANGE):
        raise ValueError(f"expected low ≤ 0 ≤ high, at least {SMALLEST_RANGE:g} apart, got {low:g} and {high:g}")
    return bounds


Range = Annotated[tuple[Float32, Float32], AfterValidator(_range)]
Scales = Annotated[tuple[PositiveFloat32, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFile(JsonValue):
    """A config file's ``calibration``: the settings, and the digest of the inputs (empty where there were none)."""

    method: RangeMethod
    percentile: Annotated[float, Field(gt=50, le=100)]
    samples: Annotated[int, Field(ge=1, le=2**63 - 1)]
    data: DigestOrNone


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile(JsonValue):
    """A precision config: what was decided for each layer, and nothing that was measured."""

    schema_version: Literal[1]
    model: Digest
    architecture: Digest
    dialect: str
    calibration: CalibrationFile
    layers: dict[str, SchemeFile]
    ranges: dict[str, Range]
    scales: dict[str, Scales] = field(default_factory=dict)
    recipe: Recipe | None = None
    skipped_steps: tuple[str, ...] = ()
    applied_steps: tuple[str, ...] = ()
    fixed_inputs: dict[str, float] = field(default_factory=dict)


CONFIG_FORM = Form(
    kind=ConfigFile,
    name="config",
    version=SCHEMA_VERSION,
    problem="is no valid precision config",
    hint="give a file from a run's configs/ folder, unedited",
    version_hint="give a precision config from a run's configs/ folder, written by this version",
)


def _config(file: ConfigFile) -> PrecisionConfig:
    calibration = file.calibration
    return PrecisionConfig(
        model=file.model,
        architecture=file.architecture,
        dialect=file.dialect,
        calibration=CalibrationSettings(
            method=calibration.method, percentile=calibration.percentile, samples=calibration.samples
        ),
        calibration_data=calibration.data,
        ranges=file.ranges,
        layers={name: entry.scheme for name, entry in file.layers.items()},
        scales=file.scales,
        recipe=file.recipe,
        skipped_steps=file.skipped_steps,
        applied_steps=file.applied_steps,
        fixed_inputs=file.fixed_inputs,
    )
