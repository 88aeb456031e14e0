"""Whatever a person gets wrong ends with exit code 2 and words that name it; never with a traceback."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.search.command_line import SHAPE, Files, enter, labels, network, outcome, samples, write_files, write_npz

Change = Callable[[Files], object]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    enter(tmp_path, monkeypatch)
    return write_files(tmp_path)


def refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said when ``argv`` is refused."""
    code = outcome(argv)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert "error: " in captured.err
    return captured.err


def with_nan(
    array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], value: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    spoilt = array.copy()
    spoilt[3, 0, 1, 2] = value
    return spoilt


def write_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, samples())


def become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def external(files: Files, location: str) -> None:
    model = network()
    onnx.save(model, files.net, save_as_external_data=True, location="net.data", size_threshold=0)
    model = onnx.load(files.net, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    files.net.write_bytes(model.SerializeToString())


MODELS: dict[str, tuple[Change, tuple[str, ...]]] = {
    "missing": (lambda f: f.net.unlink(), ("net.onnx",)),
    "truncated": (lambda f: f.net.write_bytes(f.net.read_bytes()[:300]), ("net.onnx",)),
    "empty": (lambda f: f.net.write_bytes(b""), ("net.onnx",)),
    "not ONNX": (lambda f: f.net.write_text("hello, this is no network"), ("net.onnx",)),
    "external data outside": (lambda f: external(f, "../secret.data"), ("net.onnx", "../secret.data", "outside")),
    "external data absolute": (lambda f: external(f, "/etc/hostname"), ("net.onnx", "/etc/hostname", "outside")),
    "external data missing": (lambda f: external(f, "gone.data"), ("net.onnx", "gone.data", "missing")),
    "not a classifier": (
        lambda f: onnx.save(network(pooled=False), f.net),
        ("net.onnx", "'active'", "(n, 8, 8, 8)", "top1", "--metric"),
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_bad_model(case: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A model that cannot be used is named, with what is wrong with it."""
    change, words = MODELS[case]
    change(files)
    said = refused(files.argv(), capsys)
    for word in words:
        assert word in said


DATA: dict[str, tuple[Change, tuple[str, ...]]] = {
    "calibration missing": (lambda f: f.calib.unlink(), ("calib.npz", "does not exist")),
    "calibration truncated": (lambda f: f.calib.write_bytes(f.calib.read_bytes()[:-60]), ("calib.npz", "complete")),
    "calibration no npz": (lambda f: f.calib.write_text("hello"), ("calib.npz", "no complete .npz")),
    "calibration is npy": (lambda f: write_npy(f.calib), ("calib.npz", "no complete .npz")),
    "calibration is a folder": (lambda f: become_folder(f.calib), ("calib.npz", "is a folder")),
    "wrong name": (lambda f: f.write_calib(x=samples()), ("calib.npz", "'input'", "got 'x'")),
    "extra name": (lambda f: f.write_calib(input=samples(), mask=labels()), ("calib.npz", "'mask'")),
    "wrong shape": (
        lambda f: f.write_calib(input=samples()[:, :, :5]),
        ("calib.npz", "'input'", "(n, 3, 8, 8)", "(40, 3, 5, 8)"),
    ),
    "no sample axis": (lambda f: f.write_calib(input=samples()[0]), ("calib.npz", "(n, 3, 8, 8)", "(3, 8, 8)")),
    "wrong dtype": (
        lambda f: f.write_calib(input=np.zeros((4, *SHAPE), np.uint8)),
        ("calib.npz", "'input'", "float32", "uint8"),
    ),
    "text": (lambda f: f.write_calib(input=np.full((4, *SHAPE), "a")), ("calib.npz", "'input'", "holds text")),
    "objects": (
        lambda f: f.write_calib(input=np.array([samples(), None], dtype=object)),
        ("calib.npz", "'input'", "Python objects"),
    ),
    "NaN": (lambda f: f.write_calib(input=with_nan(samples(), np.nan)), ("calib.npz", "'input'", "(3, 0, 1, 2)")),
    "infinite": (lambda f: f.write_eval(input=with_nan(samples(), np.inf), labels=labels()), ("eval.npz", "infinite")),
    "beyond float32": (
        lambda f: f.write_calib(input=np.full((4, *SHAPE), 1e300)),
        ("calib.npz", "'input'", "range of float32"),
    ),
    "zero samples": (lambda f: f.write_calib(input=samples(0)), ("calib.npz", "'input'", "zero samples")),
    "zero labelled": (lambda f: f.write_eval(input=samples(0), labels=labels(0)), ("eval.npz", "zero samples")),
    "one labelled": (lambda f: f.write_eval(input=samples(1), labels=labels(1)), ("eval.npz", "2 or more")),
    "evaluation missing": (lambda f: f.eval.unlink(), ("eval.npz", "does not exist")),
    "label for labels": (
        lambda f: f.write_eval(input=samples(), label=labels()),
        ("eval.npz", "an array named 'labels'", "got 'input', 'label'", "name 'label' so"),
    ),
    "fewer labels": (
        lambda f: f.write_eval(input=samples(), labels=labels(30)),
        ("eval.npz", "fewer labels", "expected 40, got 30"),
    ),
    "more labels": (lambda f: f.write_eval(input=samples(), labels=labels(50)), ("eval.npz", "more labels")),
    "labels too high": (
        lambda f: f.write_eval(input=samples(), labels=labels() + 1),
        ("eval.npz", "out of range", "expected 0 to 3, got 1 to 4"),
    ),
    "labels negative": (lambda f: f.write_eval(input=samples(), labels=labels() - 1), ("eval.npz", "got -1 to 2")),
    "labels one-hot": (
        lambda f: f.write_eval(input=samples(), labels=np.eye(4, dtype=np.int64)[labels().astype(int)]),
        ("eval.npz", "(40,)", "argmax"),
    ),
    "labels floating": (
        lambda f: f.write_eval(input=samples(), labels=labels().astype(np.float32)),
        ("eval.npz", "'labels'", "float32"),
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_bad_data(case: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Data that does not fit is named by file and array, with what was expected and what came."""
    change, words = DATA[case]
    change(files)
    said = refused(files.argv(), capsys)
    for word in words:
        assert word in said


def test_labels_beyond_the_classes_a_run_shows(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the file does not say how many classes there are, the first run does."""
    model = network()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, files.net)
    files.write_eval(input=samples(), labels=labels() + 9)
    assert "out of range: expected 0 to 3, got 9 to 12" in refused(files.argv(), capsys)


OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown precision": (("--precisions", "fp32,int7"), ("--precisions", "'int7'", "fp32,fp16,int8,int4")),
    "no precision": (("--precisions", ","), ("--precisions", "got nothing")),
    "unknown backend": (("--backend", "ort-cpx"), ("'ort-cpx'", "ort-cpu")),
    "unknown metric": (("--metric", "top9"), ("'top9'", "top1", "module:function")),
    "metric without module": (("--metric", "no_such_module:score"), ("--metric", "'no_such_module'")),
    "metric without attribute": (("--metric", "json:score"), ("--metric", "'json'", "'score'")),
    "metric no function": (("--metric", "string:digits"), ("--metric", "'string:digits'", "str")),
    "negative latency": (("--budget-ms", "-1"), ("--budget-ms", "-1")),
    "zero latency": (("--budget-ms", "0"), ("--budget-ms", "got 0")),
    "no number": (("--budget-ms", "fast"), ("--budget-ms", "'fast'")),
    "NaN latency": (("--budget-ms", "nan"), ("--budget-ms", "'nan'")),
    "infinite latency": (("--budget-ms", "inf"), ("--budget-ms", "inf")),
    "negative size": (("--budget-mb", "-2"), ("--budget-mb", "positive")),
    "zero size": (("--budget-mb", "0"), ("--budget-mb", "got 0")),
    "accuracy in percent": (("--min-acc", "75"), ("--min-acc", "fraction", "--min-acc 0.75")),
    "negative drop": (("--max-drop", "-0.1"), ("--max-drop", "-0.1")),
    "drop in points": (("--max-drop", "2"), ("--max-drop", "fraction", "--max-drop 0.02")),
    "zero threads": (("--threads", "0"), ("--threads", "got 0")),
    "zero batch": (("--batch-size", "0"), ("--batch-size", "got 0")),
    "zero trials": (("--trials", "0"), ("--trials", "got 0")),
    "half a trial": (("--trials", "1.5"), ("--trials", "'1.5'")),
    "time without unit": (("--time-limit", "5 parsecs"), ("--time-limit", "5 parsecs", "90s")),
    "zero time": (("--time-limit", "0"), ("--time-limit", "got 0")),
    "everything held back": (("--holdout", "1"), ("--holdout", "got 1")),
    "no sensitivity sample": (("--sensitivity-samples", "0"), ("--sensitivity-samples", "got 0")),
    "no calibration sample": (("--calib-samples", "0"), ("--calib-samples", "got 0")),
    "unknown calibration": (("--calibration", "magic"), ("--calibration", "'magic'", "minmax")),
    "percentile unused": (("--percentile", "99"), ("--percentile", "minmax", "--calibration percentile")),
    "percentile too low": (("--calibration", "percentile", "--percentile", "3"), ("--percentile", "got 3")),
    "workload beside model": (("--workload", "a:b"), ("--workload", "--model")),
    "data beside model": (("--data", "."), ("--data", "--model")),
    "empty value": (("--out", ""), ("--out", "empty")),
    "missing value": (("--out",), ("--out", "expected one argument")),
    "unknown option": (("--buget-ms", "1"), ("--buget-ms", "did you mean --budget-ms?")),
    "nothing to resume": (("--resume",), ("--resume", "net-<n>")),
    "nothing to resume there": (("--resume", "--out", "there"), ("--resume", "'there'")),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_option(case: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that makes no sense is named with its value, and nothing is left behind."""
    more, words = OPTIONS[case]
    before = sorted(files.folder.iterdir())
    said = refused(files.argv(*more), capsys)
    for word in words:
        assert word in said
    assert sorted(files.folder.iterdir()) == before


def test_model_without_data(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A model without calibration data is refused, saying which option is missing and how to give it."""
    said = refused(["--model", str(files.net), "--eval", str(files.eval)], capsys)
    assert "--calib is missing" in said
    assert "--calib calib.npz" in said


def test_data_without_model(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Data files without a model are refused rather than ignored."""
    assert "--calib needs --model" in refused(["--calib", str(files.calib)], capsys)


def test_batch_against_a_fixed_one(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A batch size that a fixed-batch model cannot have is refused, naming both."""
    onnx.save(network(batch=4), files.net)
    said = refused(files.argv("--batch-size", "8"), capsys)
    assert "--batch-size: got 8" in said
    assert "fixed batch of 4" in said


def test_out_not_empty(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder that holds something is not written into unless it is resumed."""
    (files.folder / "there").mkdir()
    (files.folder / "there" / "thesis.txt").touch()
    said = refused(files.argv("--out", "there"), capsys)
    assert "'there' is not empty" in said
    assert "--resume" in said


def test_out_cannot_be_written(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """An output folder that cannot be written is refused before anything is loaded."""
    files.net.unlink()
    (files.folder / "file").touch()
    said = refused(files.argv("--out", "file/run"), capsys)
    assert "--out: cannot write to folder 'file/run'" in said


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_out_without_permission(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without permission to write is refused."""
    (files.folder / "locked").mkdir(mode=0o500)
    assert "cannot write to folder" in refused(files.argv("--out", "locked/run"), capsys)


WORKLOADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no_such_module:workload": ("", ("no module 'no_such_module'",)),
    "folder/mine.py:workload": ("workload = 1", ("a module's name, got the path 'folder/mine.py'",)),
    "..mine:workload": ("workload = 1", ("a module's name, got the path '..mine'",)),
    "mine": ("workload = 1", ("module:attribute", "'mine'")),
    "mine:missing": ("workload = 1", ("'mine'", "'missing'", "workload")),
    "mine:workload": ("workload = 1", ("'mine:workload' gave an int", "calibration")),
    "mine:broken": ("import no_such_thing", ("'mine' needs 'no_such_thing'",)),
    "mine:syntax": ("def (", ("'mine'", "mine.py", "SyntaxError")),
    "mine:raises": ("raise RuntimeError('not today')", ("mine.py:1", "RuntimeError: not today")),
    "mine:make": ("def make(data):\n    return data['x']", ("mine.py:2", "TypeError")),
    "mine:nothing": ("def nothing(data):\n    return None", ("gave None",)),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_bad_workload(name: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A workload that is no workload is named, with the reason and the line of the person's own code."""
    code, words = WORKLOADS[name]
    (files.folder / "mine.py").write_text(code)
    said = refused(["--workload", name], capsys)
    for word in words:
        assert word in said


def test_data_that_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """A data folder that does not exist is refused before the workload is asked."""
    assert "--data: 'nowhere' is no folder" in refused(["--workload", "a:b", "--data", "nowhere"], capsys)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command is refused with the nearest one."""
    said = refused(["mesure", "net.onnx"], capsys)
    assert "unknown command 'mesure'" in said
    assert "did you mean 'measure'?" in said


def test_measure_of_different_networks(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Models with different inputs are not timed against each other."""
    model = network()
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    onnx.save(model, files.folder / "other.onnx")
    said = refused(["measure", str(files.net), "other.onnx"], capsys)
    assert "other.onnx" in said
    assert "image" in said


def test_measure_without_file(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A model file that is missing or damaged is named."""
    assert "gone.onnx" in refused(["measure", "gone.onnx"], capsys)
    files.net.write_bytes(struct.pack("<q", 77))
    assert "net.onnx" in refused(["measure", str(files.net)], capsys)


def test_measure_on_wrong_inputs(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs with other names than the model's are refused."""
    write_npz(files.calib, {"image": samples()})
    said = refused(["measure", str(files.net), "--inputs", str(files.calib)], capsys)
    assert "expected arrays named input, got image" in said


def test_inspect_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """``inspect`` and ``apply`` need to be told the network: the demo is no sensible default there."""
    assert "MODEL or --workload" in refused(["inspect"], capsys)
    assert "--model or --workload" in refused(["apply", "config.json", "-o", "out.onnx"], capsys)


def test_sensitivity_without_inputs(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Sensitivities of a model need inputs."""
    assert "--calib is missing" in refused(["sensitivity", "--quiet", "--model", str(files.net)], capsys)


def test_report_of_no_run(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without results is no run."""
    assert "measurement.json" in refused(["report", str(files.folder)], capsys)
