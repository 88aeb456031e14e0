"""Each number of a run stands where its heading says, in the table, in ``pareto.csv``, in plots and in what is read.

The run's numbers all differ from one another, so that none can stand in another's place unseen.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bitfront.report.render import render
from bitfront.report.results import RunResults
from bitfront.report.tables import accuracy_difference, columns, front_rows, size_ratio
from bitfront.report.tooltips import point_tooltip, trial_tooltip
from tests.report import synthetic, synthetic_passes

Data = dict[str, Any]


def latency(median_ms: float, ratio: float) -> Data:
    return {
        "median_ms": median_ms, "p90_ms": 1.25 * median_ms, "ci_low_ms": 0.75 * median_ms,
        "ci_high_ms": 1.125 * median_ms, "ratio": ratio, "ratio_low": 0.5 * ratio, "ratio_high": 1.5 * ratio,
        "rounds": 24, "threads": 1, "batch_size": 1, "rounds_left_out": 3,
    }  # fmt: skip


def accuracy(value: float, samples: int) -> Data:
    return {"value": value, "ci_low": value - 0.0625, "ci_high": value + 0.03125, "samples": samples}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of FP32 and one point, ``int8``, both measured by the search and again."""
    made = synthetic.feasible_run(tmp_path / "run")
    path = made / "measurement.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    points = {id_: data["points"][id_] for id_ in ("fp32", "int8")}
    points["fp32"] |= {
        "size_bytes": 400_000, "latency": latency(8.0, 1.0), "search_latency": latency(9.0, 1.0),
        "accuracy": accuracy(0.875, 400), "search_accuracy": accuracy(0.5, 300), "feasible": False,
        "violations": ["latency 8 ms > 5 ms"],
    }  # fmt: skip
    points["int8"] |= {
        "size_bytes": 100_000, "latency": latency(2.0, 0.375), "search_latency": latency(3.0, 0.625),
        "accuracy": accuracy(0.75, 400), "search_accuracy": accuracy(0.625, 300), "feasible": True, "violations": [],
    }  # fmt: skip
    front = ["int8", "fp32"]
    data["given"] = synthetic.given_json(points["fp32"])
    data |= {"points": points, "front": front, "baselines": ["fp32", "int8"], "recommended": "int8", "nearest": {}}
    path.write_text(json.dumps(data), encoding="utf-8")
    return made


@pytest.fixture
def results(folder: Path) -> RunResults:
    return RunResults.load(folder)


def test_table_shows_each_number_under_its_heading(results: RunResults) -> None:
    """Median and p90, ratios of latency and size, points gained or lost: as measured again."""
    rows = [dict(zip(columns(results), row, strict=True)) for row in front_rows(results)]
    found = {row["id"]: row for row in rows}
    int8 = found["int8"]
    assert (int8["accuracy"], int8["Δ accuracy"]) == ("75.00 %", "−12.50 points")
    assert (int8["latency"], int8["p90"], int8["lat. ratio"]) == ("2.00 ms", "2.50 ms", "0.38 ×")
    assert (int8["size"], int8["size ratio"]) == ("100 kB", "0.25 ×")
    assert (int8[""], int8["limits"]) == ("★", "met")
    fp32 = found["fp32"]
    assert (fp32["accuracy"], fp32["Δ accuracy"]) == ("87.50 %", "±0.00 points")
    assert (fp32["latency"], fp32["p90"], fp32["lat. ratio"]) == ("8.00 ms", "10.0 ms", "1.00 ×")
    assert (fp32["size"], fp32["size ratio"], fp32["limits"]) == ("400 kB", "1.00 ×", "latency 8 ms > 5 ms")


def test_differences_are_the_points_minus_the_given_networks(results: RunResults) -> None:
    """A gain is positive; what was measured again is compared with what was, the search's with the search's."""
    int8, given = results.points["int8"], results.given
    assert given is not None
    assert accuracy_difference(results, int8) == 0.75 - 0.875
    assert size_ratio(results, int8) == 0.25
    searched = dataclasses.replace(int8, accuracy=None)
    assert accuracy_difference(results, searched) == 0.625 - 0.5
    early = dataclasses.replace(results, given=dataclasses.replace(given, accuracy=None))
    assert accuracy_difference(early, int8) == 0.625 - 0.5
    alone = dataclasses.replace(results, given=dataclasses.replace(given, accuracy=None, search_accuracy=None))
    assert accuracy_difference(alone, searched) is None


def test_pareto_csv_has_each_number_in_its_column(folder: Path) -> None:
    """Exactly as written in ``measurement.json``, intervals included."""
    render(folder)
    with (folder / "pareto.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["int8", "fp32"]
    data = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
    for id_, row in rows.items():
        point = data["points"][id_]
        numbers = {name: float(row[name]) for name in row if name not in WORDS and row[name]}
        assert numbers == {
            "accuracy": point["accuracy"]["value"],
            "accuracy_ci_low": point["accuracy"]["ci_low"],
            "accuracy_ci_high": point["accuracy"]["ci_high"],
            "latency_ms": point["latency"]["median_ms"],
            "latency_p90_ms": point["latency"]["p90_ms"],
            "ratio": point["latency"]["ratio"],
            "size_bytes": point["size_bytes"],
            "size_ratio": point["size_bytes"] / 400_000,
        }
        assert (row["origin"], row["config"], row["model"]) == ("baseline", point["config"], point["model"])
    assert [(row["recommended"], row["feasible"]) for row in rows.values()] == [("True", "True"), ("False", "False")]


WORDS = ("id", "recommended", "origin", "feasible", "config", "model")


def test_pareto_csv_tells_shares_of_a_network_apart(tmp_path: Path) -> None:
    """Multiply-adds, weights, training and what they came to, as the network has them."""
    folder = synthetic_passes.passes_run(tmp_path)
    data = json.loads((folder / "measurement.json").read_text(encoding="utf-8"))
    render(folder)
    with (folder / "pareto.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if data["points"][row["id"]].get("network")]
    assert rows
    for row in rows:
        network = data["points"][row["id"]]["network"]
        for name in ("macs", "macs_share", "parameters", "parameters_share", "untrained_accuracy", "fp32_accuracy"):
            assert row[name] == ("" if network[name] is None else str(network[name])), name
    shares = [data["points"][row["id"]]["network"] for row in rows]
    assert any(share["macs_share"] != share["parameters_share"] for share in shares), "the test says nothing otherwise"


def test_hover_texts_name_each_number(results: RunResults) -> None:
    """The interval from low to high, the median before the p90."""
    text = point_tooltip(results, results.points["int8"])
    assert "accuracy 75.00 % [68.75 %, 78.12 %], 400 samples" in text
    assert "latency 2.00 ms median, 2.50 ms p90, 0.38 × given" in text
    assert "size 100 kB, 0.25 × given" in text


def test_tables_are_read_column_by_column(folder: Path) -> None:
    """Each field of a trial and of a score comes from the column of its name."""
    trial = {
        "number": 0, "origin": "solver", "state": "complete", "size_bytes": 1000, "latency_ms": 2.0,
        "latency_p90_ms": 3.0, "ratio": 0.5, "accuracy": 0.75, "accuracy_samples": 64, "seconds": 0.25,
        "reason": "none", "choices": json.dumps({"conv1": "int8:mse"}), "network": "key",
        "pruning": json.dumps({"conv1": 0.5}),
    }  # fmt: skip
    score = {"group": "conv1", "choice": "int8:mse", "alone": 0.1, "restored": 0.2, "loss": 0.3, "dropped": ""}
    for name, row in (("trials.csv", trial), ("sensitivity.csv", score)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
            writer.writerow(row)
    results = RunResults.load(folder)
    (read,), (scored,) = results.trials, results.scores
    numbers = ("number", "size_bytes", "latency_ms", "latency_p90_ms", "ratio", "accuracy", "accuracy_samples")
    for name in (*numbers, "seconds", "origin", "state", "reason"):
        assert getattr(read, name) == trial[name], name
    assert read.variant == trial["network"]
    assert dict(read.pruning) == {"conv1": 0.5}
    assert [scheme.text for scheme in read.schemes.values()] == ["int8:mse"]
    assert (scored.group, scored.scheme.text, scored.dropped) == ("conv1", "int8:mse", "")
    assert (scored.single_layer, scored.leave_one_out, scored.loss) == (0.1, 0.2, 0.3)
    text = trial_tooltip(results, read)
    assert "latency 2.00 ms median, 3.00 ms p90, 0.50 × given" in text
    assert "accuracy 75.00 % on 64 samples" in text
