"""Configs are read strictly: whatever differs from the form is refused with the file's and the field's name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitfront.core import CalibrationSettings, ConfigError, PrecisionConfig, Recipe, RecipeStep, Scheme
from tests.odd_json import mutants

Change = Callable[[dict[str, Any]], object]


def config() -> PrecisionConfig:
    return PrecisionConfig(
        model="0" * 64,
        architecture="1" * 64,
        dialect="ort-cpu",
        calibration=CalibrationSettings(),
        calibration_data="c" * 64,
        ranges={"x": (-1.5, 2.0), "y": (0.0, 1.0)},
        layers={"conv.1": Scheme.parse("int8:mse"), "fc": Scheme.parse("int4:mse:block32")},
        scales={"conv.1": (0.5, 0.25)},
        recipe=Recipe(
            steps=(RecipeStep(name="prune", options={"sparsity": {"conv.1": 0.5}}),),
            data="d" * 64,
            network="e" * 64,
            architecture="f" * 64,
        ),
    )


def put(*place: Any) -> Change:
    """Puts the last of ``place`` where the others lead."""
    *path, key, value = place

    def change(data: dict[str, Any]) -> None:
        holder: Any = data
        for part in path:
            holder = holder[part]
        holder[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put("surprise", 1), "surprise: unknown field"),
        (put("calibration", "surprise", 1), "calibration.surprise: unknown field"),
        (put("layers", "fc", "surprise", 1), "layers.fc.surprise: unknown field"),
        (put("recipe", "steps", 0, "surprise", 1), "recipe.steps[0].surprise: unknown field"),
        (lambda d: d.pop("ranges"), "ranges: is missing"),
        (put("layers", "fc", {}), "layers.fc.precision: is missing"),
        (put("layers", "fc", "precision", "int7"), "layers.fc.precision: expected 'fp32', 'fp16', 'int8' or 'int4'"),
        (put("layers", "fc", "block_size", 32.0), "layers.fc.block_size: expected a valid integer, got 32.0"),
        (
            put("layers", "fc", "block_size", 33),
            "layers.fc: scheme 'int4': group_size 33 is none of (16, 32, 64, 128, 256)",
        ),
        (put("layers", "conv.1", "weight_only", 1), "layers.conv.1.weight_only: expected a valid boolean, got 1"),
        (put("layers", []), "layers: expected an object, got a list of 0"),
        (put("model", "m"), 'model: expected 64 hexadecimal digits, got "m"'),
        (put("architecture", "A" * 64), "architecture: expected 64 hexadecimal digits"),
        (put("dialect", None), "dialect: expected a valid string, got null"),
        (put("calibration", "data", "../x"), "calibration.data: expected 64 hexadecimal digits or nothing"),
        (put("calibration", "method", "guess"), "calibration.method: expected 'minmax', 'percentile'"),
        (put("calibration", "samples", True), "calibration.samples: expected a valid integer, got true"),
        (put("calibration", "samples", 0), "calibration.samples: expected a number ≥ 1, got 0"),
        (put("calibration", "percentile", "99"), 'calibration.percentile: expected a valid number, got "99"'),
        (put("calibration", "percentile", 50), "calibration.percentile: expected a number > 50, got 50"),
        (put("calibration", "percentile", 10**400), "calibration.percentile: expected a finite number, got 1000"),
        (put("ranges", "x", "01"), 'ranges.x: expected a list, got "01"'),
        (put("ranges", "x", [0]), "ranges.x[1]: is missing"),
        (put("ranges", "x", [0, 1, 2]), "ranges.x: expected at most 2 items, got a list of 3"),
        (put("ranges", "x", [True, True]), "ranges.x[0]: expected a valid number, got true"),
        (put("ranges", "x", [1, -1]), "ranges.x: expected low ≤ 0 ≤ high, at least 1e-35 apart, got 1 and -1"),
        (put("ranges", "x", [1, 2]), "ranges.x: expected low ≤ 0 ≤ high"),
        (put("ranges", "x", [0, 0]), "ranges.x: expected low ≤ 0 ≤ high"),
        (put("ranges", "x", [0, 1e308]), "ranges.x[1]: expected a number ≤ 3.40282e+38, got 1e+308"),
        (put("ranges", "x", [float("nan"), 1]), "ranges.x[0]: expected a finite number, got NaN"),
        (put("scales", "conv.1", []), "scales.conv.1: expected at least 1 items"),
        (put("scales", "conv.1", [1, 0]), "scales.conv.1[1]: expected a number ≥ 1.4013e-45, got 0"),
        (put("scales", "conv.1", [-1.0]), "scales.conv.1[0]: expected a number ≥ 1.4013e-45, got -1.0"),
        (put("scales", "conv.1", [1e308]), "scales.conv.1[0]: expected a number ≤ 3.40282e+38"),
        (put("scales", "conv.1", ["1"]), 'scales.conv.1[0]: expected a valid number, got "1"'),
        (put("recipe", "network", "../../outside"), "recipe.network: expected 64 hexadecimal digits, got"),
        (put("layers", "a\x1b[2J\ud83d\ude00", {}), r'layers."a\u001b[2J\ud83d\ude00".precision: is missing'),
    ],
)
def test_what_is_wrong_is_named(change: Change, words: str) -> None:
    """Field, what was expected and what came."""
    data = json.loads(config().to_json())
    change(data)
    with pytest.raises(ConfigError, match=re.escape(f"'p07.json' is no valid precision config: {words}")) as caught:
        PrecisionConfig.from_json(json.dumps(data), "p07.json")
    assert caught.value.hint


@pytest.mark.parametrize(
    ("version", "shown"), [(None, "none"), (2, "2"), (1.0, "1.0"), (True, "true"), ("1", '"1"'), ([1], "a list of 1")]
)
def test_another_schema_version(version: object, shown: str) -> None:
    """Nothing but the whole number is the version."""
    data = {**json.loads(config().to_json()), "schema_version": version}
    with pytest.raises(ConfigError, match=re.escape(f"'c': expected schema version 1, got {shown}")):
        PrecisionConfig.from_json(json.dumps(data), "c")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("{", '{"schema_version": 1, ', "schema_version: the key comes twice"),
        ('"layers": {', '"layers": {"fc": {"precision": "fp32"}, ', "layers.fc: the key comes twice"),
        ('"precision": "int8"', '"precision": "int4", "precision": "int8"', "conv.1.precision: the key comes twice"),
        ('"options": {', '"options": {"sparsity": {}, ', "recipe.steps[0].options.sparsity: the key comes twice"),
    ],
)
def test_a_key_that_comes_twice(old: str, new: str, words: str) -> None:
    """One of the two would win in silence, at whatever depth."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        PrecisionConfig.from_json(config().to_json().replace(old, new, 1), "c")


def test_odd_values() -> None:
    """Hundreds of changes: each is refused by name, or the config that comes out says what the file says."""
    refusals = []
    for mutant in mutants(config().to_json(), 600, seed=3):
        try:
            found = PrecisionConfig.from_json(mutant.text, "c.json")
        except ConfigError as error:
            refusals.append(error.message)
        else:
            assert PrecisionConfig.from_json(found.to_json(), "again") == found, mutant.id
    assert len(refusals) > 450
    assert [message for message in refusals if not message.startswith("'c.json'")] == []


def test_bytes_are_kept() -> None:
    """A config that is read and written is the same file."""
    text = config().to_json()
    assert PrecisionConfig.from_json(text, "c").to_json() == text


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The file is named."""
    with pytest.raises(ConfigError, match=r"none\.json' is no valid precision config: cannot be read \(No such file"):
        PrecisionConfig.load(tmp_path / "none.json")
