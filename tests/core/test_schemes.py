"""Schemes, configs and recipes say everything that a layer or a network becomes, written and read back."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from typing import Any

import pytest

from bitfront.core import (
    FP16,
    FP32,
    SCHEMES,
    ActivationMode,
    ActivationScheme,
    CalibrationSettings,
    ConfigError,
    Granularity,
    MalformedError,
    Precision,
    PrecisionConfig,
    RangeMethod,
    Recipe,
    Scheme,
    UsageError,
    WeightScheme,
)
from bitfront.core.quantisation import GROUP_SIZES
from bitfront.core.recipe import RecipeStep
from bitfront.core.scheme import SchemeRegistry
from bitfront.core.scheme_text import METHODS

INTEGERS = (Precision.INT8, Precision.INT4)
ACTIVATIONS = (
    ActivationScheme(),
    *(
        ActivationScheme(mode=mode, dtype=dtype)
        for mode, dtype in itertools.product((ActivationMode.STATIC, ActivationMode.DYNAMIC), INTEGERS)
    ),
)
PAIRS = (*METHODS.values(), ("absmax", "gptq"), ("mse", "learned"))
EVERY_SCHEME = (
    FP32,
    FP16,
    *(
        Scheme(
            weights=WeightScheme(
                dtype=dtype,
                granularity=granularity,
                group_size=size,
                symmetric=symmetric,
                scale_method=scale,
                rounding_method=rounding,
            ),
            activations=activations,
        )
        for dtype, (scale, rounding), (granularity, size), symmetric, activations in itertools.product(
            INTEGERS,
            PAIRS,
            (
                (Granularity.TENSOR, None),
                (Granularity.CHANNEL, None),
                *((Granularity.GROUP, size) for size in GROUP_SIZES),
            ),
            (True, False),
            ACTIVATIONS,
        )
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


def test_texts_of_today_are_those_of_before() -> None:
    """They are categories of studies, cells of tables and parts of cache keys; files likewise."""
    texts = {
        "fp32": {"precision": "fp32"},
        "fp16": {"precision": "fp16"},
        "int8:nearest": {"precision": "int8", "rounding": "nearest"},
        "int8:mse": {"precision": "int8", "rounding": "mse"},
        "int4:gptq": {"precision": "int4", "rounding": "gptq"},
        "int4:nearest:weight-only": {"precision": "int4", "rounding": "nearest", "weight_only": True},
        "int4:gptq:weight-only": {"precision": "int4", "rounding": "gptq", "weight_only": True},
        "int4:mse:block32": {"precision": "int4", "rounding": "mse", "weight_only": True, "block_size": 32},
    }
    for text, data in texts.items():
        scheme = Scheme.parse(text)
        assert scheme.text == text
        assert scheme.to_json() == data
        assert Scheme.from_json(data) == scheme
    assert sorted(map(Scheme.parse, texts)) == [
        Scheme.parse(text)
        for text in (
            *("fp16", "fp32", "int4:gptq", "int4:gptq:weight-only", "int4:mse:block32", "int4:nearest:weight-only"),
            *("int8:mse", "int8:nearest"),
        )
    ]


def test_scale_method_and_rounding_method_are_two_things() -> None:
    """``mse`` finds scales; ``gptq`` rounds under scales that ``mse`` finds."""
    methods = {
        word: (w.scale_method, w.rounding_method) for word in METHODS for w in [Scheme.parse(f"int4:{word}").weights]
    }
    assert methods == {"nearest": ("absmax", "nearest"), "mse": ("mse", "nearest"), "gptq": ("mse", "gptq")}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("w8a8", "int8:nearest"),
        ("W4A8", "int4:mse"),
        ("w4a16", "int4:gptq:weight-only"),
        ("W4A16-g32", "int4:mse:block32"),
        ("w4a16-g64:gptq", "int4:gptq:block64"),
        ("w8a16", "int8:mse:weight-only"),
        ("w16a16", "fp16"),
        ("w32a32", "fp32"),
        ("w8a8:dynamic", "int8:mse:dynamic"),
        ("w8a8:mse:dynamic", "int8:mse:dynamic"),
        ("w4a4", "int4:nearest:static-int4"),
        ("int8", "int8:nearest"),
        ("int8:weight-only", "int8:mse:weight-only"),
        ("int8:rtn", "int8:nearest"),
        ("int8:absmax:per-tensor", "int8:nearest:tensor"),
        ("int4:mse:group32", "int4:mse:block32"),
        ("int4:weight_only:gptq", "int4:gptq:weight-only"),
        ("int4:mse+nearest", "int4:mse"),
        (" INT4:GPTQ ", "int4:gptq"),
    ],
)
def test_usual_spellings(typed: str, meant: str) -> None:
    """A method left out is that of the first registered scheme which fits the rest."""
    assert Scheme.parse(typed).text == meant


def test_bits_and_activations() -> None:
    """What a weight takes in the file, and what a layer computes on."""
    assert [precision.bits for precision in Precision] == [32, 16, 8, 4]
    assert [precision.is_integer for precision in Precision] == [False, False, True, True]
    for scheme in EVERY_SCHEME:
        floating = scheme.activations.dtype is None
        assert scheme.is_weight_only == (scheme.precision in INTEGERS and floating)
        assert scheme.activations.is_static == (scheme.activations.mode is ActivationMode.STATIC)


@pytest.mark.parametrize(
    ("text", "words", "hint"),
    [
        ("int7", "'int7' is no type of weights", "int8:mse"),
        ("int8:mess", "'mess' is none of its parts", "did you mean int8:mse?"),
        ("int4:gtpq", "'gtpq' is none of its parts", "did you mean int4:gptq?"),
        ("fp32:mse", "'mse' applies to integer weights only", ""),
        ("fp16:weight-only", "'weight-only' applies to integer weights only", ""),
        ("int4:block48", "group_size 48 is none of", "use one of those sizes"),
        ("int4:blockx", "'blockx' is none of its parts", ""),
        ("", "'' is no type of weights", "write for example fp32"),
        ("int8:mse:gptq", "'gptq' contradicts what stands before it", ""),
        ("int4:tensor:block32", "'block32' contradicts", ""),
        ("w3a8", "no weights have 3 bits", ""),
        ("w8a7", "no weights have 7 bits", ""),
        ("w16a8", "fp16 weights go with activations of 16 bits, not 8", ""),
        ("w8a16:dynamic", "activations of 16 bits are not what its other words say", ""),
        ("w8a8:weight-only", "activations of 8 bits are not what its other words say", ""),
    ],
)
def test_what_is_no_scheme_is_refused(text: str, words: str, hint: str) -> None:
    """By the part that is not understood, with the nearest scheme there is."""
    with pytest.raises(ConfigError, match=r"scheme") as caught:
        Scheme.parse(text)
    assert words in str(caught.value)
    assert hint in str(caught.value.hint)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "precision: is missing"),
        ({"precision": "int8", "surprise": 1}, "surprise: unknown field"),
        ({"precision": "int8", "rounding": "round me"}, "rounding: expected nearest, mse, gptq or scale+rounding"),
        ({"precision": "int4", "block_size": 32}, "block_size 32 needs weight_only or activations"),
        ({"precision": "int4", "granularity": "group"}, "granularity: expected 'tensor'"),
        (
            {"precision": "int4", "granularity": "tensor", "block_size": 32, "weight_only": True},
            "granularity contradicts block_size",
        ),
        ({"precision": "fp16", "weight_only": True}, "weight_only applies to integer precisions only"),
        (
            {"precision": "fp16", "activations": {"mode": "static", "dtype": "int8"}},
            "quantised activations need integer",
        ),
        ({"precision": "int8", "activations": {"mode": "static"}}, "activations: activations 'static' of type 'none'"),
        ({"precision": "int8", "weight_only": True, "activations": {}}, "weight_only contradicts activations"),
    ],
)
def test_a_file_s_scheme_is_read_strictly(data: dict[str, Any], words: str) -> None:
    """By field."""
    with pytest.raises(MalformedError, match=re.escape(words)):
        Scheme.from_json(data)


def test_a_scheme_is_registered_by_its_text() -> None:
    """One entry: its short form and a line on it."""
    registry = SchemeRegistry({"fp32": "as it was"})
    assert registry.register("int8:mse:dynamic", "dynamic W8A8").activations.mode is ActivationMode.DYNAMIC
    assert (list(registry), len(registry)) == (["fp32", "int8:mse:dynamic"], 2)
    assert registry.description("int8:mse:dynamic") == "dynamic W8A8"
    assert registry.register("int8:mse:dynamic", "dynamic W8A8") == registry["int8:mse:dynamic"]
    with pytest.raises(UsageError, match="is registered already"):
        registry.register("int8:mse:dynamic", "another")
    with pytest.raises(UsageError, match="has the short form 'int8:nearest'"):
        registry.register("w8a8", "not its short form")
    with pytest.raises(ConfigError, match="is no layer scheme"):
        registry.register("int9", "none")
    assert all(SCHEMES.description(text) for text in SCHEMES)


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
