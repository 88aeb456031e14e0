from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitfront.core import Constraints, DataError, EngineError, Scheme, UsageError
from bitfront.report.results import RunResults
from tests.report import synthetic

Damage = Callable[[dict[str, Any]], object]


def test_a_finished_run_is_read_in_full(tmp_path: Path) -> None:
    """Points, trials and scores come back typed, with nothing lost."""
    folder = synthetic.feasible_run(tmp_path / "run")
    data = json.loads((folder / "measurement.json").read_text())
    results = RunResults.load(folder)
    assert results.complete
    assert results.stopped is None
    assert results.budget == Constraints(latency_ms=5.0, min_accuracy=0.75, size_bytes=150_000)
    assert list(results.points) == list(data["points"])
    assert results.front == tuple(data["front"])
    assert results.recommended == data["recommended"]
    int8 = results.points["int8"]
    assert int8.latency is not None
    assert int8.latency.to_json() == data["points"]["int8"]["latency"]
    assert set(int8.layers.values()) == {Scheme.parse("int8:mse")}
    assert len(results.trials) == 60
    assert results.trials[0].schemes["conv1"] == Scheme.parse("fp32")
    assert {trial.accuracy is None for trial in results.trials} == {True, False}
    assert len(results.scores) == 4 * len(results.layers)
    assert sum(bool(score.dropped) for score in results.scores) == 1


def test_an_interrupted_run_is_read_as_far_as_it_came(tmp_path: Path) -> None:
    """Without a front, without finalists, and even without points and tables there is something to show."""
    results = RunResults.load(synthetic.interrupted_run(tmp_path / "late"))
    point = results.points["int8"]
    assert (results.complete, results.stopped, results.front) == (False, "interrupted", ())
    assert point.latency is None
    assert point.shown_latency == point.search_latency
    assert point.shown_accuracy == point.search_accuracy
    assert results.baselines == ("fp32", "int8")
    early = RunResults.load(synthetic.early_run(tmp_path / "early"))
    assert (dict(early.points), early.trials, early.scores) == ({}, (), ())
    assert early.base is not None
    assert early.base.shown_accuracy is None
    assert early.accuracy_limit is None


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """The folder is named, and so is what to give instead."""
    with pytest.raises(UsageError, match=re.escape(f"'{tmp_path}' is no run folder")):
        RunResults.load(tmp_path)


@pytest.mark.parametrize(
    ("version", "shown"), [(None, "none"), (0, "0"), (2, "2"), ("1", '"1"'), (1.0, "1.0"), (True, "true")]
)
def test_another_schema_version_is_refused(tmp_path: Path, version: object, shown: str) -> None:
    """Numbers written by another version are not guessed at."""
    folder = synthetic.feasible_run(tmp_path)
    data = json.loads((folder / "measurement.json").read_text())
    (folder / "measurement.json").write_text(json.dumps({**data, "schema_version": version}))
    with pytest.raises(UsageError, match=f"measurement.json': expected schema version 1, got {shown}"):
        RunResults.load(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d.pop("budget"), "budget: is missing"),
        (lambda d: d["points"]["int8"].pop("size_bytes"), "points.int8.size_bytes: is missing"),
        (
            lambda d: d["points"]["int8"]["latency"].update(median_ms="fast"),
            'points.int8.latency.median_ms: expected a valid number, got "fast"',
        ),
        (
            lambda d: d["points"]["int8"]["accuracy"].update(value=float("nan")),
            "points.int8.accuracy.value: expected a finite number",
        ),
        (lambda d: d["points"]["int8"]["layers"].update(conv1="int7"), "'int7' is no layer scheme"),
        (lambda d: d.update(recommended="p99"), "point .p99. is named but not among the points"),
        (lambda d: d["points"][d["front"][0]].update(latency=None, search_latency=None), "on the front but was not"),
        (lambda d: d["settings"].pop("metric"), r"settings\.metric: is missing"),
        (lambda d: d["budget"].update(latency_ms=-1), "--budget-ms: expected a positive number"),
        (lambda d: d["model"].update(layers=5), "model.layers: expected a list, got 5"),
        (lambda d: d.update(points=[1, 2]), "points: expected an object, got a list of 2"),
        (lambda d: d["time_split_s"].update(total=None), "time_split_s.total: expected a valid number, got null"),
    ],
)
def test_damaged_measurements_are_refused(tmp_path: Path, damage: Damage, message: str) -> None:
    """Each damage is a DataError that names the file and what is wrong."""
    folder = synthetic.feasible_run(tmp_path)
    data = json.loads((folder / "measurement.json").read_text())
    damage(data)
    (folder / "measurement.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=rf"measurement\.json' is damaged: .*{message}"):
        RunResults.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema_version": 1,', b"\xff\xfe"])
def test_truncated_json_is_refused(tmp_path: Path, content: bytes) -> None:
    """A file that is no JSON is named as damaged."""
    folder = synthetic.feasible_run(tmp_path)
    (folder / "measurement.json").write_bytes(content)
    with pytest.raises(DataError, match=r"measurement\.json' is damaged"):
        RunResults.load(folder)


@pytest.mark.parametrize("name", ["trials.csv", "sensitivity.csv"])
def test_a_finished_run_has_its_tables(tmp_path: Path, name: str) -> None:
    """A table may be missing in an interrupted run only."""
    folder = synthetic.feasible_run(tmp_path)
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name}' is damaged: .*No such file"):
        RunResults.load(folder)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("trials.csv", "latency_ms", "speed", "there is no column 'latency_ms'"),
        ("trials.csv", "int8:mse", "int8:mess", r"conv1: 'int8:mess' is no layer scheme \(row \d+\)"),
        (
            "trials.csv",
            "baseline,complete,",
            "baseline,complete,x",
            r"expected a whole number of 0 or more, got \"x.*\(row 2\)",
        ),
        ("sensitivity.csv", "fp16", "bf16", r"'bf16' is no layer scheme \(row 3\)"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    """Each damage is a DataError that names the file and the row."""
    folder = synthetic.feasible_run(tmp_path)
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=rf"{name}' is damaged: {message}"):
        RunResults.load(folder)


def test_every_refusal_has_a_hint(tmp_path: Path) -> None:
    """A reader is told what to do."""
    folder = synthetic.feasible_run(tmp_path)
    (folder / "trials.csv").write_text("number\nx\n")
    with pytest.raises(EngineError, match="restore the file, or move it away and run the search again"):
        RunResults.load(folder)
