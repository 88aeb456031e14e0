"""What is kept of a network's rounding holds for whatever the method read, and for nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitfront.backends.ort.interpreter import OrtInterpreter
from bitfront.core import CalibrationSettings, ContentStore, Scheme
from bitfront.lowering import lowerer as lowerer_module
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.rounding.methods import SCALE_METHODS
from bitfront.lowering.rounding.weight import RoundedWeight
from tests.lowering.topologies import inputs_of, reference_of


def keys(monkeypatch: pytest.MonkeyPatch, method: str) -> set[str]:
    """Keys under which a network's weights are rounded by one method on two sets of calibration inputs."""
    reference, found = reference_of("residual"), set()

    def note(*_: object, key: str, **__: object) -> dict[str, RoundedWeight]:
        found.add(key)
        return {}

    inputs = inputs_of(reference)
    with monkeypatch.context() as patch:
        patch.setattr(lowerer_module, "round_network", note)
        for calibration in (inputs, {name: array[::-1].copy() for name, array in inputs.items()}):
            settings = CalibrationSettings(samples=8)
            lowerer = Lowerer(reference, get_dialect("ort-cpu"), calibration, settings, ContentStore(None))
            lowerer.rounded(Scheme.parse(f"int8:{method}"))
    return found


def test_a_method_s_own_word_decides_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any method that says that it reads calibration inputs has them in its key, GPTQ or another."""
    assert len(keys(monkeypatch, "mse")) == 1
    weighted = replace(SCALE_METHODS["mse"], uses_calibration=True)
    monkeypatch.setitem(SCALE_METHODS, "mse", weighted)
    assert len(keys(monkeypatch, "mse")) == 2


def test_ranges_are_those_of_one_version_of_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which computes them."""
    reference = reference_of("residual")
    inputs, settings = inputs_of(reference), CalibrationSettings(samples=8)

    def found() -> int:
        lowerer = Lowerer(reference, get_dialect("ort-cpu"), inputs, settings, ContentStore(tmp_path))
        assert lowerer.ranges
        return len(list(tmp_path.glob("ranges-*")))

    assert (found(), found()) == (1, 1)
    monkeypatch.setattr(OrtInterpreter, "version", "another")
    assert found() == 2
