"""The run on a real network, the real lowering and ONNX Runtime, with a process of its own for the finalists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import Constraints, PrecisionConfig
from bitfront.report.results import RunResults
from bitfront.report.tables import accuracy_difference, size_ratio
from bitfront.search.events import SilentListener
from bitfront.search.options import RunOptions
from bitfront.search.run import RunResult, run
from tests.search.nets import TinyWorkload, few_samples, tiny_lowerer, tiny_workload

Found = tuple[RunResult, TinyWorkload, RunOptions]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """One short search."""
    folder = tmp_path_factory.mktemp("end-to-end")
    workload = tiny_workload(folder, samples=200)
    options = RunOptions(
        budget=Constraints(max_drop=0.2, size_bytes=5000),
        out=folder / "run",
        trials=6,
        calibration=few_samples(),
        sensitivity_samples=16,
    )
    backend = OrtCpuBackend()
    return (
        run(workload, tiny_lowerer(workload, backend, options), backend, options, SilentListener()),
        workload,
        options,
    )


def test_recommended_model_is_what_was_measured(found: Found) -> None:
    """The file's size and its accuracy on the held-out samples are those reported."""
    outcome, workload, _ = found
    assert outcome.exit_code == 0
    point = outcome.points[str(outcome.recommended)]
    file = outcome.folder / str(point.model)
    assert file.stat().st_size == point.size_bytes <= 5000
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, dict(workload.evaluation.inputs))
    right = np.asarray(logits).argmax(axis=1) == workload.evaluation.labels
    assert point.accuracy is not None
    assert point.search_accuracy is not None
    assert point.accuracy.samples == point.search_accuracy.samples == 100
    # Both parts together are all samples: the two reported accuracies have to average to the file's.
    assert (point.accuracy.value + point.search_accuracy.value) / 2 == pytest.approx(right.mean())


def test_config_rebuilds_the_model_byte_for_byte(found: Found) -> None:
    """A saved config and a fresh lowerer give the saved file; the file as given alone has no config."""
    outcome, workload, options = found
    assert [id_ for id_, point in outcome.points.items() if point.config is None] in ([], ["given"])
    for point in (point for point in outcome.points.values() if point.config is not None):
        config = PrecisionConfig.load(outcome.folder / str(point.config))
        rebuilt = tiny_lowerer(workload, OrtCpuBackend(), options).lower(config.layers).data
        assert rebuilt == (outcome.folder / str(point.model)).read_bytes()


def test_folder_is_complete_and_readable(found: Found) -> None:
    """Every file of the format is there, and reads back as what the run returned."""
    outcome, _, _ = found
    results = RunResults.load(outcome.folder)
    assert results.complete
    assert dict(results.points) == dict(outcome.points)
    assert results.front == outcome.front
    for name in ("report.html", "pareto.csv", "trials.csv", "sensitivity.csv", "measurement.json", "study.db"):
        assert (outcome.folder / name).stat().st_size > 0
    assert not (outcome.folder / "study.db-wal").exists()


def test_file_that_normalising_shrinks_is_what_sizes_are_compared_with(tmp_path: Path) -> None:
    """A file far larger than its FP32 form, by a text that no runtime reads, is a point and timed like one."""
    workload = tiny_workload(tmp_path, samples=200)
    heavy = onnx.load(workload.model)
    heavy.doc_string = "." * 80_000
    onnx.save(heavy, workload.model)
    options = RunOptions(
        budget=Constraints(size_bytes=50_000), out=tmp_path / "run", trials=4, calibration=few_samples(),
        sensitivity_samples=16,
    )  # fmt: skip
    backend = OrtCpuBackend()
    outcome = run(workload, tiny_lowerer(workload, backend, options), backend, options, SilentListener())
    results = RunResults.load(outcome.folder)
    size = workload.model.stat().st_size
    assert (results.reference, results.baselines[0]) == ("given", "given")
    assert results.points["given"].size_bytes == pytest.approx(size, rel=0.001)
    assert not results.points["given"].feasible
    for point in results.points.values():
        assert size_ratio(results, point) == pytest.approx((outcome.folder / str(point.model)).stat().st_size / size)
        assert point.latency is not None
    assert results.points["fp32"].size_bytes < 0.2 * size
    assert accuracy_difference(results, results.points["fp32"]) == pytest.approx(0, abs=1 / 100)
    assert outcome.recommended not in (None, "given")
