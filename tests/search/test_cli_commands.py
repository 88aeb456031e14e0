"""Commands end to end, on a small network and a runtime with simulated time: what they print, write and return."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitfront.report.results import RunResults
from bitfront.search.console.tables import plain_table
from bitfront.search.results.summary import conditions
from tests.search.command_line import Files, enter, network, outcome, write_files

SMALL = ("--backend", "fake", "--trials", "5", "--sensitivity-samples", "8", "--precisions", "fp16,int8,int4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A finished search."""

    files: Files
    folder: Path
    code: int
    out: str
    err: str

    def results(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "measurement.json").read_text()))


def search(files: Files, folder: Path, *more: str) -> Ran:
    """The main job, its output caught."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = outcome(files.argv(*SMALL, "--out", str(folder), *more))
    return Ran(files=files, folder=folder, code=code, out=out.getvalue(), err=err.getvalue())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("search")
    return search(write_files(folder), folder / "run", "--budget-mb", "0.0025")


def test_main_job(ran: Ran) -> None:
    """A point within budget: exit 0, the whole front in a table, the gain over the given file, and the files."""
    assert ran.code == 0, ran.err
    results = ran.results()
    chosen = results["points"][results["recommended"]]
    for point in results["front"]:
        assert f" {point} " in ran.out
    assert f"★  {chosen['id']} " in ran.out
    assert f"{chosen['id']} meets every limit: " in ran.out
    for words in ("× given", " points", "1 thread, batch 1", "held-out samples", "inference", str(ran.folder)):
        assert words in ran.out
    for name in (chosen["model"], chosen["config"], "report.html"):
        assert str(ran.folder / name) in ran.out
        assert (ran.folder / name).is_file()
    assert results["settings"]["command"].startswith("search --model ")


def test_samples_are_named_for_what_they_are(ran: Ran) -> None:
    """Accuracies that an interrupted run took from the search are not called held back."""
    results = RunResults.load(ran.folder)
    assert conditions(results).endswith("20 held-out samples")
    cut = {id_: replace(point, accuracy=None) for id_, point in results.points.items()}
    assert conditions(replace(results, points=cut)).endswith("20 of the search's samples")


def test_progress_goes_to_standard_error(ran: Ran) -> None:
    """Standard output holds the result alone; progress is on standard error, in lines."""
    for phase in ("load", "calibrate", "sensitivity", "search", "finalists", "report"):
        assert f"\n{phase} · " in "\n" + ran.err
    assert "best so far: " in ran.err
    assert "elapsed" not in ran.out


def test_every_file_of_the_run(ran: Ran) -> None:
    """The run folder is complete, and nothing half-written is left in it."""
    for name in ("pareto.csv", "trials.csv", "sensitivity.csv", "measurement.json", "report.html", "study.db"):
        assert (ran.folder / name).is_file()
    assert not [path for path in ran.folder.rglob(".*") if path.is_file()]


def test_resume_under_a_budget_out_of_reach(ran: Ran) -> None:
    """Resumed with a budget nothing meets: exit 3 with the nearest points; ``--quiet`` prints nothing else."""
    again = search(ran.files, ran.folder, "--resume", "--quiet", "--budget-mb", "0.0001")
    assert again.code == 3, again.err
    assert again.err == ""
    lines = again.out.splitlines()
    assert lines[0].startswith("No point meets every limit")
    assert "Nearest by size: " in again.out
    assert "misses size" in again.out
    assert lines[-1] == str(ran.folder)


def test_apply_is_byte_for_byte(ran: Ran, tmp_path: Path) -> None:
    """Every saved config rebuilds its saved model exactly, from the network alone and its run's cache."""
    configs = sorted((ran.folder / "configs").glob("*.json"))
    assert len(configs) >= 4
    for config in configs:
        out = tmp_path / f"{config.stem}.onnx"
        assert outcome(["apply", str(config), "--model", str(ran.files.net), "-o", str(out)]) == 0
        assert out.read_bytes() == (ran.folder / "models" / f"{config.stem}.onnx").read_bytes()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (network(classes=5), "another network"),
        (network(seed=1), "--allow-new-weights"),
    ],
    ids=["another architecture", "other weights"],
)
def test_apply_to_another_model(
    other: onnx.ModelProto, words: str, ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A config for another model is refused, and no file is written."""
    model, out = tmp_path / "other.onnx", tmp_path / "out.onnx"
    onnx.save(other, model)
    config = str(ran.folder / "configs" / "int8.json")
    assert outcome(["apply", config, "--model", str(model), "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "other.onnx" in said
    assert not out.exists()


def test_apply_to_new_weights(ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A config carries over to a fine-tuned checkpoint where that is asked for."""
    model, out = tmp_path / "tuned.onnx", tmp_path / "out.onnx"
    onnx.save(network(seed=1), model)
    config = str(ran.folder / "configs" / "int8.json")
    argv = ["apply", config, "--model", str(model), "--calib", str(ran.files.calib), "-o", str(out)]
    assert outcome([*argv, "--allow-new-weights"]) == 0
    assert str(out) in capsys.readouterr().out
    assert out.read_bytes() != (ran.folder / "models" / "int8.onnx").read_bytes()


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 99}', '{"schema_version": 1, "model": "x"}'])
def test_apply_of_a_damaged_config(text: str, ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no config is refused by name."""
    config = tmp_path / "config.json"
    config.write_text(text)
    assert outcome(["apply", str(config), "--model", str(ran.files.net), "-o", str(tmp_path / "x")]) == 2
    assert "config.json" in capsys.readouterr().err


def test_full_disk_leaves_nothing_half_written(
    ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up while a file is written is an error that says so; the old file stays, whole."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / "out.onnx"
    out.write_bytes(b"before")
    monkeypatch.setattr(os, "fsync", full)
    argv = ["apply", str(ran.folder / "configs" / "fp16.json"), "--model", str(ran.files.net), "-o", str(out)]
    assert outcome(argv) == 2
    assert f"cannot write '{out}': No space left on device" in capsys.readouterr().err
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]


def test_report_again(ran: Ran, capsys: pytest.CaptureFixture[str]) -> None:
    """``report`` writes the page anew from saved results and prints the same summary."""
    page = ran.folder / "report.html"
    page.unlink()
    assert outcome(["report", str(ran.folder)]) == 0
    assert page.stat().st_size > 10_000
    assert "held-out samples" in capsys.readouterr().out


def test_interrupted_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C while the network is loaded ends with 130 and no traceback."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    files = write_files(tmp_path)
    monkeypatch.setattr("bitfront.search.inputs.loading.load", interrupt)
    assert outcome(files.argv("--out", str(tmp_path / "run"))) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are numbered by name; ``--resume`` takes the latest."""
    from bitfront.search.run_folder import folder as run_folder

    enter(tmp_path, monkeypatch)
    assert run_folder.choose_run_folder(None, "my net", resume=False) == Path("runs/my-net-1")
    for name in ("my-net-1", "my-net-9", "my-net-10", "my-net-x-77", "other-99"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert run_folder.choose_run_folder(None, "my net", resume=False) == Path("runs/my-net-11")
    assert run_folder.choose_run_folder(None, "my net", resume=True) == Path("runs/my-net-10")


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``inspect`` lists layers with their shapes and schemes, and what is refused with its reason."""
    files = write_files(tmp_path)
    assert outcome(["inspect", str(files.net)]) == 0
    said = capsys.readouterr().out
    assert "2 layers in 2 groups, 248 weights" in said
    assert "8×3×3×3" in said
    assert "int8:mse" in said
    assert "Refused:" in said
    assert "int8:mse: W8A8, a scale per channel of least squared error" in said
    assert "block32" in said
    assert "Weights that stay as they are: 0.0% of 248." in said
    assert "Time" not in said


def test_inspect_tells_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--profile`` runs the network, on random inputs if need be; the shares of time sum to 1."""
    files = write_files(tmp_path)
    for calib in ([], ["--calib", str(files.calib)]):
        assert outcome(["inspect", str(files.net), "--profile", *calib]) == 0
        said = capsys.readouterr().out
        assert "  time  " in said
        line = said[said.index("Time in layers that may take another precision: ") :].partition("(")[0]
        assert sum(map(float, re.findall(r"([\d.]+)%", line))) == pytest.approx(100, abs=0.16)
    assert outcome(["inspect", str(files.net), "--profile", "--backend", "fake"]) == 0
    assert "fake does not tell what its operators take" in capsys.readouterr().out
    assert outcome(["inspect", str(files.net), "--calib", str(files.calib)]) == 2
    assert "--calib has no effect without --profile" in capsys.readouterr().err


def test_sensitivity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``sensitivity`` prints every scored scheme and writes the table where asked."""
    files = write_files(tmp_path)
    argv = ["sensitivity", "--model", str(files.net), "--calib", str(files.calib), "--precisions", "int8"]
    assert outcome([*argv, "--quiet", "--out", str(tmp_path / "scores")]) == 0
    said = capsys.readouterr().out
    assert "conv" in said
    assert "int8:mse" in said
    assert "int4" not in said
    assert "noise-to-signal power ratio of the output, on 16 calibration samples" in said
    assert "--measure kl suits them better" in said
    assert outcome([*argv, "--quiet", "--measure", "kl"]) == 0
    assert "in nats, on 16 calibration samples; loss is the cleaned score\n" in capsys.readouterr().out
    assert (tmp_path / "scores" / "sensitivity.csv").read_text().startswith("group,choice,alone")
    chart = (tmp_path / "scores" / "sensitivity.html").read_text(encoding="utf-8")
    assert "int8:mse" in chart
    assert "<script src=" not in chart


def test_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``measure`` times models against the first, and states device, threads, batch and inputs."""
    files = write_files(tmp_path)
    argv = ["measure", str(files.net), str(files.net), "--backend", "fake", "--inputs", str(files.eval)]
    assert outcome([*argv, "--batch-size", "2", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert f"{files.net} (2)" in said
    assert "1.00 ×" in said
    for words in ("median", "p90", "fake", "1 thread, batch 2", "eval.npz", "rounds"):
        assert words in said


def test_measure_with_random_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without inputs, ``measure`` makes them up for the model's fixed batch, and says so."""
    model = tmp_path / "fixed.onnx"
    onnx.save(network(batch=3), model)
    assert outcome(["measure", str(model), "--backend", "fake"]) == 0
    assert "batch 3, random inputs" in capsys.readouterr().out


def test_measure_with_external_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A model whose weights lie in a file beside it is measured too."""
    model = tmp_path / "split.onnx"
    onnx.save(network(), model, save_as_external_data=True, location="split.data", size_threshold=0)
    assert outcome(["measure", str(model), "--backend", "fake"]) == 0
    assert "split.onnx" in capsys.readouterr().out


def test_fixed_batch_end_to_end(tmp_path: Path) -> None:
    """A network with a fixed batch is timed in that batch, whatever the number of samples."""
    files = write_files(tmp_path)
    onnx.save(network(batch=3), files.net)
    done = search(files, tmp_path / "run", "--trials", "2", "--precisions", "int8")
    assert done.code == 0, done.err
    assert "1 thread, batch 3" in done.out


def test_plain_tables_cut_nothing() -> None:
    """Every cell is there in full, columns are aligned, and no line ends in blanks."""
    long = "layer" * 60
    text = plain_table(("a", "b"), [(long, "1"), ("x", "")])
    lines = text.splitlines()
    assert lines[0] == "a" + " " * (len(long) + 1) + "b"
    assert lines[1] == f"{long}  1"
    assert lines[2] == "x"
    assert np.all([line == line.rstrip() for line in lines])
