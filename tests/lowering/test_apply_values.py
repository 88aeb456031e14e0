"""A config's values against the network: tensors and layers that exist, scales that fit, a dialect agreed to."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitfront.core import CalibrationSettings, ConfigError, ContentStore, PrecisionConfig, Scheme, UsageError
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import dialect_of_config, get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.candidates import uniform
from tests.lowering.topologies import inputs_of, reference_of

MODULE = """
from pathlib import Path

from bitfront.lowering.dialects.ort_cpu import OrtCpuDialect

Path("ran.txt").write_text("x")


class Mine(OrtCpuDialect):
    name = "somebody:Mine"


def broken():
    raise ValueError("not today")


def nothing():
    return 3
"""


@pytest.fixture
def reference() -> ReferenceModel:
    return reference_of("chain")


@pytest.fixture
def config(reference: ReferenceModel) -> PrecisionConfig:
    lowerer = Lowerer(
        reference, get_dialect("ort-cpu"), inputs_of(reference), CalibrationSettings(samples=32), ContentStore(None)
    )
    return lowerer.config(uniform(lowerer, "int8:mse"))


def applied(config: PrecisionConfig, reference: ReferenceModel, dialect: str | None = None) -> bytes:
    artifact = apply_config(
        config, reference, calibration=None, store=ContentStore(None), allow_new_weights=False, dialect=dialect
    )
    return artifact.data


def channels(reference: ReferenceModel, layer: str) -> int:
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), None, CalibrationSettings(), ContentStore(None))
    found = next(own for own in lowerer.quantisable.layers if own.name == layer)
    return found.weight_shape[found.channel_axis]


def test_ranges_of_unknown_tensors(config: PrecisionConfig, reference: ReferenceModel) -> None:
    """A range that nothing would read is a typing error, or of another network."""
    changed = replace(config, ranges={**config.ranges, "../nowhere": (0.0, 1.0)})
    with pytest.raises(ConfigError, match=re.escape("a range for tensor '../nowhere', which 'chain' does not have")):
        applied(changed, reference)


@pytest.mark.parametrize("more", [-1, 1])
def test_scales_are_one_a_channel(config: PrecisionConfig, reference: ReferenceModel, more: int) -> None:
    """Layer, expected count and the one that came."""
    count = channels(reference, "b")
    changed = replace(config, scales={"b": (0.5,) * (count + more)})
    with pytest.raises(ConfigError, match=f"layer 'b': expected {count} scales, one a channel, got {count + more}"):
        applied(changed, reference)


def test_scales_of_unknown_layers(config: PrecisionConfig, reference: ReferenceModel) -> None:
    """The layer is named."""
    with pytest.raises(ConfigError, match="scales for layer 'nowhere', which 'chain' does not have"):
        applied(replace(config, scales={"nowhere": (1.0,)}), reference)


def test_scales_of_layers_without(config: PrecisionConfig, reference: ReferenceModel) -> None:
    """A layer that stays floating has no use for scales, which would be ignored in silence."""
    layers = {**config.layers, "b": Scheme.parse("fp32")}
    with pytest.raises(ConfigError, match="scales for layer 'b', whose scheme fp32 has none of its own"):
        applied(replace(config, layers=layers, scales={"b": (1.0,)}), reference)


def test_scales_too_small_for_the_weights(config: PrecisionConfig, reference: ReferenceModel) -> None:
    """Scales under which the weights do not fit their bits are not those that training found."""
    changed = replace(config, scales={"b": (1e-9,) * channels(reference, "b")})
    with pytest.raises(ConfigError, match="scales of layer 'b' are too small for its weights"):
        applied(changed, reference)


def test_scales_that_fit_are_used(config: PrecisionConfig, reference: ReferenceModel) -> None:
    """The weights are written with the config's own scales."""
    scale = float(np.float32(0.123))
    changed = replace(config, scales={"b": (scale,) * channels(reference, "b")})
    assert np.float32(scale).tobytes() * channels(reference, "b") in applied(changed, reference)


@pytest.fixture
def somebody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with somebody's module, which leaves a file where it is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "somebody.py").write_text(MODULE)
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("somebody", None)


def test_a_config_names_no_code(config: PrecisionConfig, reference: ReferenceModel, somebody: Path) -> None:
    """A dialect of another package is run where the person named it too, and never on the file's word."""
    changed = replace(config, dialect="somebody:Mine")
    with pytest.raises(ConfigError, match=r'written for dialect "somebody:Mine".*') as caught:
        applied(changed, reference)
    assert "add --dialect somebody:Mine" in caught.value.hint
    assert not (somebody / "ran.txt").exists()
    assert applied(changed, reference, "somebody:Mine") == applied(config, reference)
    assert (somebody / "ran.txt").exists()


@pytest.mark.parametrize("name", ["tpu", "", "os:system; rm -rf ~", "../x:y", "ORT-CPU"])
def test_names_that_are_none(name: str) -> None:
    """What could be no dialect's name is not proposed to be typed."""
    with pytest.raises(ConfigError, match="none of this program's") as caught:
        dialect_of_config(name, None)
    assert "--dialect" not in caught.value.hint


def test_another_dialect_than_the_configs(somebody: Path) -> None:
    """Naming another one does not change what the config was made for."""
    assert somebody
    with pytest.raises(ConfigError, match=r'dialect "openvino", and --dialect names \'ort-cpu\''):
        dialect_of_config("openvino", "ort-cpu")
    with pytest.raises(ConfigError, match=r'dialect "other:Mine", and --dialect names \'somebody:Mine\''):
        dialect_of_config("other:Mine", "somebody:Mine")
    assert dialect_of_config("openvino", "openvino").name == "openvino"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("somebody:broken", "dialect 'somebody:broken' failed at .*ValueError: not today"),
        ("somebody:nothing", "expected a class or function that makes one, got a int without name, schemes, write"),
        ("somebody:MODULE", "module 'somebody' has no attribute 'MODULE'"),
        ("os:name", "dialect 'os:name' failed"),
    ],
)
def test_what_makes_no_dialect(somebody: Path, name: str, words: str) -> None:
    """A person's own object that fails, or is something else, is said to be so."""
    assert somebody
    with pytest.raises(UsageError, match=words):
        get_dialect(name)
