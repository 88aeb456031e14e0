"""Settings that a dialect asks for travel with the model: into every session, onto disk, and from there into others."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import Artifact, Constraints, ContentStore, Precision
from bitfront.core.artifact import description_file, load_artifact
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.events import SilentListener
from bitfront.search.options import RunOptions
from bitfront.search.run import RunResult, run
from tests.references import load_reference
from tests.search.command_line import outcome
from tests.search.nets import few_samples, tiny_workload
from tests.search.session_settings import NAME, SETTINGS


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """One short search over FP32 and INT8."""
    folder = tmp_path_factory.mktemp("settings")
    workload = tiny_workload(folder, samples=100)
    options = RunOptions(
        budget=Constraints(max_drop=0.5),
        out=folder / "run",
        trials=3,
        precisions=(Precision.FP32, Precision.INT8),
        calibration=few_samples(),
        sensitivity_samples=8,
    )
    store = ContentStore(options.out / "cache")
    reference = load_reference(workload.model)
    lowerer = Lowerer(reference, get_dialect(NAME), workload.calibration, options.calibration, store)
    return run(workload, lowerer, OrtCpuBackend(), options, SilentListener())


def test_settings_are_saved_beside_the_models_that_need_them(found: RunResult) -> None:
    """INT8 has them, what is floating has no description at all."""
    int8, fp32 = (found.folder / str(found.points[name].model) for name in ("int8", "fp32"))
    assert dict(load_artifact(int8).settings) == SETTINGS
    assert description_file(int8).name == "int8.onnx.json"
    assert load_artifact(fp32).is_plain
    assert not description_file(fp32).exists()


def test_saved_models_run_with_their_settings(found: RunResult) -> None:
    """The finalist as it is read back is not the model that its file alone would be."""
    saved = load_artifact(found.folder / str(found.points["int8"].model))
    backend = OrtCpuBackend()
    assert "QLinearConv" not in backend.compile(saved, threads=1).operators()
    assert "QLinearConv" in backend.compile(Artifact.onnx(saved.data), threads=1).operators()


def test_measure_reads_the_settings(found: RunResult, capsys: pytest.CaptureFixture[str]) -> None:
    """The profile shows what was timed."""
    fp32, int8 = (str(found.folder / str(found.points[name].model)) for name in ("fp32", "int8"))
    assert outcome(["measure", fp32, int8, "--profile"]) == 0
    told = capsys.readouterr().out
    assert "QuantizeLinear" in told
    assert "QLinearConv" not in told


def test_apply_writes_the_settings(found: RunResult, tmp_path: Path) -> None:
    """A config rebuilds the whole artifact."""
    point, model = found.points["int8"], str(found.folder.parent / "tiny.onnx")
    config, out = str(found.folder / str(point.config)), tmp_path / "deploy.onnx"
    assert outcome(["apply", config, "--model", model, "--dialect", NAME, "-o", str(out)]) == 0
    assert load_artifact(out).digest == load_artifact(found.folder / str(point.model)).digest
