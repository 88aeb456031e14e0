"""Recipes in configs: they read back as they were written, and what is no recipe is refused."""

from __future__ import annotations

from typing import Any

import pytest

from precision import CalibrationSettings, ConfigError, LayerChoice, PrecisionConfig, Recipe, RecipeStep


def recipe() -> Recipe:
    steps = (
        RecipeStep(name="prune", options={"sparsity": {"conv": 0.5}, "round_to": 8}),
        RecipeStep(name="distil", options={"training": {"steps": 20}, "layers": ("a", "b")}, ended_at=7),
    )
    return Recipe(steps=steps, data="d", network="n", architecture="a")


def config(made: Recipe | None) -> PrecisionConfig:
    return PrecisionConfig(
        model="m",
        architecture="g",
        dialect="ort-cpu",
        calibration=CalibrationSettings(),
        calibration_data="c",
        ranges={},
        layers={"conv": LayerChoice.parse("int8:mse")},
        recipe=made,
    )


@pytest.mark.parametrize("made", [None, recipe()], ids=["given", "made"])
def test_round_trip(made: Recipe | None) -> None:
    """A config reads back with its recipe, and without one its file does not mention any."""
    text = config(made).to_json()
    assert PrecisionConfig.from_json(text, "config") == config(made)
    assert ("recipe" in text) == (made is not None)


def test_key_is_the_steps_own() -> None:
    """Equal steps have equal keys, whatever the order and containers of their options; the end is part of them."""
    one = RecipeStep(name="prune", options={"a": (1, 2), "b": {"c": 0.5}})
    assert RecipeStep(name="prune", options={"b": {"c": 0.5}, "a": [1, 2]}).key == one.key
    assert RecipeStep(name="prune", options={"a": [1, 2]}).key != one.key
    assert one.ending_at(3).key != one.key
    assert one.ending_at(3).ending_at(None) == one


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param({"steps": []}, "one step at least", id="no steps"),
        pytest.param({"steps": 3}, "list of steps", id="steps"),
        pytest.param({"network": 3}, "expected network as text", id="fingerprint"),
        pytest.param({"more": 3}, "expected an object with steps, data", id="unknown key"),
        pytest.param({"steps": [{"pass": "grow", "options": {}}]}, "unknown pass 'grow'", id="pass"),
        pytest.param({"steps": [{"pass": "qat"}]}, "expected steps with pass, options", id="step"),
        pytest.param({"steps": [{"pass": "qat", "options": []}]}, "expected options by name", id="options"),
        pytest.param({"steps": [{"pass": "qat", "options": {}, "ended_at": -1}]}, "whole ended_at", id="end"),
        pytest.param({"steps": [{"pass": "qat", "options": {}, "ended_at": "x"}]}, "whole ended_at", id="end's type"),
    ],
)
def test_malformed_recipes(change: dict[str, Any], match: str) -> None:
    """Each kind of damage has its own message."""
    with pytest.raises(ConfigError, match=match):
        Recipe.from_json(recipe().to_json() | change)


def test_options_must_be_json() -> None:
    """Options that no file can hold are refused with the pass's name."""
    with pytest.raises(ConfigError, match=r"pass 'prune': its options are no plain JSON"):
        RecipeStep(name="prune", options={"sparsity": float("nan")})
