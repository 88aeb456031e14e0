"""Recipes in configs: they read back as they were written, and what is no recipe is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bitfront.core import CalibrationSettings, ConfigError, PrecisionConfig, Recipe, RecipeStep, Scheme


def recipe() -> Recipe:
    steps = (
        RecipeStep(name="prune", options={"sparsity": {"conv": 0.5}, "round_to": 8}),
        RecipeStep(name="distill", options={"training": {"steps": 20}, "layers": ("a", "b")}, ended_at=7),
    )
    return Recipe(steps=steps, data="d" * 64, network="e" * 64, architecture="a" * 64)


def config(made: Recipe | None) -> PrecisionConfig:
    return PrecisionConfig(
        model="0" * 64,
        architecture="1" * 64,
        dialect="ort-cpu",
        calibration=CalibrationSettings(),
        calibration_data="c" * 64,
        ranges={},
        layers={"conv": Scheme.parse("int8:mse")},
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


def test_a_pass_that_was_renamed() -> None:
    """Recipes that say ``distil`` read, are written with the name of today, and keep the key that caches go by."""
    old = RecipeStep.from_json({"pass": "distil", "options": {"training": {"steps": 4}}})
    assert old == RecipeStep(name="distill", options={"training": {"steps": 4}})
    assert old.to_json()["pass"] == "distill"
    assert old.key == '{"options":{"training":{"steps":4}},"pass":"distil"}'


@pytest.mark.parametrize(
    ("change", "match"),
    [
        pytest.param({"steps": []}, "one step at least", id="no steps"),
        pytest.param({"steps": 3}, "recipe.steps: expected a list, got 3", id="steps"),
        pytest.param({"network": 3}, "recipe.network: expected a valid string, got 3", id="fingerprint"),
        pytest.param({"network": "../../outside"}, "recipe.network: expected 64 hexadecimal digits", id="path"),
        pytest.param({"data": "D" * 64}, "recipe.data: expected 64 hexadecimal digits", id="upper case"),
        pytest.param({"more": 3}, "recipe.more: unknown field", id="unknown key"),
        pytest.param({"steps": [{"pass": "gr ow", "options": {}}]}, "expected a pass's name, got .gr ow", id="pass"),
        pytest.param({"steps": [{"pass": "qat"}]}, r"recipe.steps\[0\].options: is missing", id="step"),
        pytest.param({"steps": [{"pass": "qat", "options": []}]}, "options: expected an object", id="options"),
        pytest.param({"steps": [{"pass": "qat", "options": {}, "ended_at": -1}]}, "ended_at: expected a n", id="end"),
        pytest.param(
            {"steps": [{"pass": "qat", "options": {}, "ended_at": "x"}]}, 'ended_at: .*got "x"', id="end's type"
        ),
    ],
)
def test_malformed_recipes(change: dict[str, Any], match: str) -> None:
    """Each kind of damage has its own message."""
    file = json.loads(config(recipe()).to_json())
    file["recipe"] |= change
    with pytest.raises(ConfigError, match=f"'config' is no valid precision config: .*{match}"):
        PrecisionConfig.from_json(json.dumps(file), "config")


def test_options_must_be_json() -> None:
    """Options that no file can hold are refused with the pass's name."""
    with pytest.raises(ConfigError, match=r"pass 'prune': its options are no plain JSON"):
        RecipeStep(name="prune", options={"sparsity": float("nan")})
