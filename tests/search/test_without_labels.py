"""A search on data without labels, or without evaluation data: by agreement with the given network, and it says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.search.command_line import SHAPE, Files, outcome, write_files

QUICK = ("--max-drop", "0.01", "--trials", "4", "--sensitivity-samples", "4")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A person's folder whose evaluation data has no labels."""
    files = write_files(tmp_path)
    files.write_eval(input=np.random.default_rng(1).standard_normal((40, *SHAPE)).astype(np.float32))
    return files


def settings(folder: Path) -> dict[str, object]:
    """Those of ``measurement.json``."""
    found: dict[str, object] = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))["settings"]
    return found


def test_data_without_labels(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Progress, summary, results and report name the metric and what it is compared with; the run can be resumed."""
    run = files.folder / "run"
    argv = files.argv(*QUICK, "--out", str(run))
    assert outcome(argv) == 0
    said = capsys.readouterr()
    assert "eval.npz' has no labels: candidates are compared with the network as given" in said.err
    assert "the metric is agreement (top class of 'logits') with the network as given, no labels" in said.err
    assert "agreement (top class of 'logits') with the network as given, no labels on 20 held-out samples" in said.out
    assert "Δ agreement" in said.out
    assert settings(run)["metric"] == "agreement"
    assert settings(run)["metric_compared_with"] == "given"
    points = json.loads((run / "measurement.json").read_text(encoding="utf-8"))["points"]
    assert next(point for point in points.values() if point["id"] in ("given", "fp32"))["accuracy"]["value"] == 1.0
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Agreement against latency" in report
    assert "with the network as given, no labels" in report
    assert outcome([*argv, "--resume", "--quiet"]) == 0


def test_no_evaluation_data(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of the calibration samples is kept out of calibration and scored on."""
    run = files.folder / "run"
    argv = ["--model", str(files.net), "--calib", str(files.calib), *QUICK, "--out", str(run)]
    count = len(np.load(files.calib)["input"])
    assert outcome(argv) == 0
    text = f"{count // 2} of the {count} calibration samples, kept out of calibration"
    assert text in capsys.readouterr().err
    found = settings(run)
    assert isinstance(found["data"], dict)
    assert found["data"]["evaluation"]["text"] == text
    assert isinstance(found["holdout_samples"], int)
    assert isinstance(found["search_samples"], int)
    assert found["holdout_samples"] + found["search_samples"] == count // 2


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--eval", "eval.npz", "--metric", "top1"], "got 'input', and metric 'top1' reads them"),
        (["--metric", "top1"], "--eval is missing: metric 'top1' needs labelled inputs"),
        (["--eval", "eval.npz", "--metric", "agreement:nothing"], "the network has no output 'nothing'"),
        (["--eval", "eval.npz", "--metric", "f1:mean=1"], "'f1' has no setting 'mean'"),
        (["--eval", "eval.npz", "--max-rise", "0.1"], "--max-rise: metric"),
    ],
)
def test_what_is_refused(
    files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, argv: list[str], said: str
) -> None:
    """Before anything is measured, with what to do."""
    monkeypatch.chdir(files.folder)
    assert outcome(["--model", "net.onnx", "--calib", "calib.npz", *argv, "--out", "run"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_random_or_few_inputs_tell_nothing(
    files: Files, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random inputs are no evaluation data, nor are three samples halved."""
    monkeypatch.chdir(files.folder)
    assert outcome(["--model", "net.onnx", "--calib", "random", "--out", "run"]) == 2
    assert "random ones tell nothing" in " ".join(capsys.readouterr().err.split())
    files.write_calib(input=np.ones((3, *SHAPE), np.float32))
    assert outcome(["--model", "net.onnx", "--calib", "calib.npz", "--out", "run"]) == 2
    assert "3 calibration samples are too few" in " ".join(capsys.readouterr().err.split())
