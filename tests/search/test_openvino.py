"""A short search on OpenVINO, with the same command and nothing said of it but the backend's name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from bitfront.backends import get_backend
from bitfront.core import Artifact, Constraints, PrecisionConfig
from bitfront.search.events import SilentListener
from bitfront.search.options import RunOptions
from bitfront.search.results import finalists
from bitfront.search.run import run
from tests.search.nets import few_samples, tiny_lowerer, tiny_workload

if find_spec("openvino") is None:  # imported, it would report so before anybody can stop it
    pytest.skip("OpenVINO is not installed", allow_module_level=True)


def test_search_recommends_a_small_model_that_its_config_rebuilds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole job runs: a point within the budget, its file as large as told, rebuilt from its config.

    How fast it is has no say: a process that ran many tests before is no measure for a fresh one.
    """
    monkeypatch.setattr(finalists, "TOLERANCE", 99.0)
    workload = tiny_workload(tmp_path, samples=200)
    options = RunOptions(
        budget=Constraints(max_drop=0.4, size_bytes=5000),
        out=tmp_path / "run",
        trials=6,
        calibration=few_samples(),
        sensitivity_samples=16,
    )
    backend = get_backend("openvino")
    outcome = run(workload, tiny_lowerer(workload, backend, options), backend, options, SilentListener())
    assert outcome.exit_code == 0
    point = outcome.points[str(outcome.recommended)]
    artifact = outcome.folder / str(point.model)
    assert artifact.stat().st_size == point.size_bytes <= 5000
    config = PrecisionConfig.load(outcome.folder / str(point.config))
    assert config.dialect == "openvino"
    assert tiny_lowerer(workload, backend, options).lower(config.layers).data == artifact.read_bytes()
    operators = backend.compile(Artifact.onnx(artifact.read_bytes()), threads=1, batch_size=1).operators()
    assert any("Convolution" in operator for operator in operators)
