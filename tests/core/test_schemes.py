"""Schemes, configs and recipes say everything that a layer or a network becomes, written and read back."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from bitfront.core import (
    FP16,
    FP32,
    CalibrationSettings,
    ConfigError,
    Precision,
    PrecisionConfig,
    RangeMethod,
    Recipe,
    Rounding,
    Scheme,
)
from bitfront.core.recipe import RecipeStep
from bitfront.core.scheme import GROUP_SIZES

INTEGERS = (Precision.INT8, Precision.INT4)
EVERY_SCHEME = (
    FP32,
    FP16,
    *(
        Scheme(precision=precision, rounding=rounding, weight_only=weight_only)
        for precision, rounding, weight_only in itertools.product(INTEGERS, Rounding, (False, True))
    ),
    *(
        Scheme(precision=precision, rounding=rounding, weight_only=True, group_size=size)
        for precision, rounding, size in itertools.product(INTEGERS, Rounding, GROUP_SIZES)
    ),
)
STEPS = (
    RecipeStep(name="prune", options={"sparsity": {"a": 0.5}}),
    RecipeStep(name="distill", options={"steps": 7}, ended_at=3),
)
RECIPE = Recipe(steps=STEPS, data="d" * 64, network="e" * 64, architecture="f" * 64)
CONFIG = PrecisionConfig(
    model="a" * 64,
    architecture="b" * 64,
    dialect="ort-cpu",
    calibration=CalibrationSettings(method=RangeMethod.PERCENTILE, percentile=99.5, samples=17),
    calibration_data="c" * 64,
    ranges={"x": (-1.0, 2.5), "y": (0.0, 4.0)},
    layers={"one": Scheme.parse("int8:mse"), "two": Scheme.parse("int4:mse:block32")},
    scales={"one": (0.5, 0.25)},
    recipe=RECIPE,
)


def test_every_scheme_has_a_text_and_a_file_form_of_its_own() -> None:
    """Both read back as the scheme itself."""
    assert len({scheme.text for scheme in EVERY_SCHEME}) == len(EVERY_SCHEME)
    assert len({json.dumps(scheme.to_json()) for scheme in EVERY_SCHEME}) == len(EVERY_SCHEME)
    for scheme in EVERY_SCHEME:
        assert Scheme.parse(scheme.text) == scheme
        assert Scheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme


def test_bits_and_activations() -> None:
    """What a weight takes in the file, and whether a layer computes on 8-bit activations."""
    assert [precision.bits for precision in Precision] == [32, 16, 8, 4]
    assert [precision.is_integer for precision in Precision] == [False, False, True, True]
    for scheme in EVERY_SCHEME:
        assert scheme.quantises_activations == (scheme.precision in INTEGERS and not scheme.weight_only)


@pytest.mark.parametrize(
    "text", ["int7", "int8:mess", "fp32:mse", "fp16:weight-only", "int4:block48", "int4:blockx", ""]
)
def test_what_is_no_scheme_is_refused(text: str) -> None:
    """By what was typed."""
    with pytest.raises(ConfigError, match=r"scheme|apply to integer|group_size"):
        Scheme.parse(text)


def test_a_config_is_read_back_whole() -> None:
    """Field by field, the recipe and trained scales included; the same config gives the same text."""
    text = CONFIG.to_json()
    read = PrecisionConfig.from_json(text, "config")
    assert read == CONFIG
    assert read.to_json() == text
    assert list(read.layers) == list(CONFIG.layers)


@pytest.mark.parametrize(
    "changed",
    [
        replace(CONFIG, model="1" * 64),
        replace(CONFIG, architecture="2" * 64),
        replace(CONFIG, dialect="openvino"),
        replace(CONFIG, calibration=replace(CONFIG.calibration, method=RangeMethod.MSE)),
        replace(CONFIG, calibration=replace(CONFIG.calibration, percentile=99.0)),
        replace(CONFIG, calibration=replace(CONFIG.calibration, samples=18)),
        replace(CONFIG, calibration_data="3" * 64),
        replace(CONFIG, ranges={**CONFIG.ranges, "y": (0.0, 5.0)}),
        replace(CONFIG, layers={**CONFIG.layers, "two": FP32}),
        replace(CONFIG, scales={"one": (0.5, 0.125)}),
        replace(CONFIG, recipe=None),
        replace(CONFIG, recipe=replace(RECIPE, data="4" * 64)),
        replace(CONFIG, recipe=replace(RECIPE, network="5" * 64)),
        replace(CONFIG, recipe=replace(RECIPE, architecture="6" * 64)),
        replace(CONFIG, recipe=replace(RECIPE, steps=STEPS[:1])),
        replace(CONFIG, recipe=replace(RECIPE, steps=(STEPS[0], STEPS[1].ending_at(None)))),
        replace(CONFIG, recipe=replace(RECIPE, steps=(STEPS[0], replace(STEPS[1], options={"steps": 8})))),
    ],
)
def test_nothing_of_a_config_is_left_unwritten(changed: PrecisionConfig) -> None:
    """A config that differs in anything has another text."""
    assert changed.to_json() != CONFIG.to_json()
    assert PrecisionConfig.from_json(changed.to_json(), "config") == changed


def test_equal_steps_have_equal_keys() -> None:
    """Tuples and lists are one in a file; where a training ended is part of what was done."""
    assert RecipeStep(name="qat", options={"a": (1, 2)}).key == RecipeStep(name="qat", options={"a": [1, 2]}).key
    assert STEPS[1].key != STEPS[1].ending_at(None).key != STEPS[1].ending_at(4).key
