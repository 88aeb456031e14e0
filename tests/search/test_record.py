"""What a run writes and reads again is number for number what was measured."""

from __future__ import annotations

import csv
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from bitfront.core import AccuracyStats, LatencyStats, PairedDifference, Prefer, top1
from bitfront.core.given_network import GivenNetwork
from bitfront.core.point import Point
from bitfront.core.preference import Choice
from bitfront.search.results.recommend import Selection
from bitfront.search.results.record import Record
from bitfront.search.run_folder import study as study_module
from bitfront.search.run_folder.study import Study
from bitfront.search.space.space import Space
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus
from tests.search import toy
from tests.search.proposals.spaces import chain
from tests.search.test_recommend import point

# Every number differs from every other.
LATENCY = LatencyStats(
    median_ms=2.5, p90_ms=3.75, ci_low_ms=2.25, ci_high_ms=2.875, ratio=0.5, ratio_low=0.4375, ratio_high=0.625,
    rounds=24, threads=1, batch_size=1, rounds_left_out=5,
)  # fmt: skip
SEARCHED = replace(LATENCY, median_ms=4.5, p90_ms=5.75, ratio=0.875)
ACCURACY = AccuracyStats(value=0.75, ci_low=0.6875, ci_high=0.8125, samples=480)
CHANGE = PairedDifference(
    value=-0.25, ci_low=-0.5, ci_high=0.125, error=0.0625, better=3, worse=5, samples=320, hits=True
)
FIRST = AccuracyStats(value=0.25, ci_low=0.125, ci_high=0.375, samples=64)


def trial(candidate: Candidate) -> Trial:
    return Trial(
        number=0, candidate=candidate, status=TrialStatus.COMPLETE, artifact="artifact", size_bytes=1234,
        latency=LATENCY,
        latency_ms=2.625, accuracy=ACCURACY, change=CHANGE, misses={"latency": -0.25, "size": 0.125}, seconds=1.5,
        reason="a reason",
    )  # fmt: skip


def test_trials_csv_has_each_number_in_its_column(tmp_path: Path) -> None:
    """The trial's own median, its p90 beside it."""
    candidate = Candidate(origin=Origin.SOLVER, schemes={"fc": toy.INT8}, variant="key", pruning={"conv": 0.5})
    Record(tmp_path, {}, top1).write_trials([trial(candidate)])
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "number": "0", "origin": "solver", "state": "complete", "size_bytes": "1234", "latency_ms": "2.5",
        "latency_p90_ms": "3.75", "ratio": "0.5", "accuracy": "0.75", "accuracy_samples": "480", "seconds": "1.5",
        "reason": "a reason", "choices": '{"fc": "int8:nearest"}', "network": "key", "pruning": '{"conv": 0.5}',
        "accuracy_change": "-0.25", "accuracy_change_ci_low": "-0.5", "accuracy_change_ci_high": "0.125",
        "samples_better": "3", "samples_worse": "5",
    }  # fmt: skip


def test_measurement_json_keeps_both_measurements_apart(tmp_path: Path) -> None:
    """What was measured again under its name, what the search saw under another, whether it held beside them."""
    shown = replace(
        point("p01", 0.5, 1.0, 77), latency=LATENCY, search_latency=SEARCHED, accuracy=ACCURACY, search_accuracy=FIRST,
        latency_reproduced=False, feasible=True, violations=("one",), config="c", model="m",
        engine="e", compressed_bytes=55, origin="solver", text="words", change=CHANGE,
    )  # fmt: skip
    given = GivenNetwork(size_bytes=99, latency=SEARCHED, search_latency=LATENCY, accuracy=FIRST)
    selection = Selection(
        points={"p01": shown}, given=given, baselines=("fp32",), front=("p01",), recommended="p01",
        nearest={"size": "p01"}, choice=Choice(prefer=Prefer.SIZE, significance=0.25, change=CHANGE),
    )  # fmt: skip
    record = Record(tmp_path, {"name": "net"}, top1)
    record.write_results(selection, complete=True, stopped="why", time_split_s={"total": 3.0})
    data = json.loads((tmp_path / "measurement.json").read_text(encoding="utf-8"))
    assert data["given"] == {
        "size_bytes": 99, "latency": SEARCHED.to_json(), "search_latency": LATENCY.to_json(),
        "accuracy": FIRST.to_json(), "search_accuracy": None, "refused": "",
    }  # fmt: skip
    written: dict[str, Any] = data["points"]["p01"]
    assert written.pop("layers") == {"fc": "fp32"}
    assert written == {
        "id": "p01", "origin": "solver", "text": "words", "config": "c", "model": "m", "engine": "e", "size_bytes": 77,
        "latency": LATENCY.to_json(), "search_latency": SEARCHED.to_json(), "accuracy": ACCURACY.to_json(),
        "search_accuracy": FIRST.to_json(), "feasible": True, "violations": ["one"], "held": False, "footprint": None,
        "network": None, "compressed_bytes": 55, "change": CHANGE.to_json(), "search_change": None,
    }  # fmt: skip
    names = {"held" if field.name == "latency_reproduced" else field.name for field in fields(Point)}
    assert names == {*written, "layers"}, "a field of a point is not written"
    kept = ("front", "recommended", "nearest", "baselines", "complete", "stopped", "time_split_s", "name")
    assert {name: data[name] for name in kept} == {
        "front": ["p01"], "recommended": "p01", "nearest": {"size": "p01"}, "baselines": ["fp32"], "complete": True,
        "stopped": "why", "time_split_s": {"total": 3.0}, "name": "net",
    }  # fmt: skip


@pytest.mark.parametrize("outcome", [TrialStatus.COMPLETE, TrialStatus.STOPPED, TrialStatus.OVER_BUDGET])
def test_a_trial_comes_back_from_the_study_as_it_was_told(tmp_path: Path, outcome: TrialStatus) -> None:
    """Field by field, from a database that another process reads."""
    space: Space = chain(3)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = Study(url, "s", space, optuna.samplers.RandomSampler(seed=0))
    schemes = {group.name: group.schemes[-1] for group in space.groups}
    number, asked = study.ask(Candidate(origin=Origin.SOLVER, schemes=schemes))
    told = replace(trial(asked), number=number, status=outcome)
    if outcome is TrialStatus.OVER_BUDGET:
        told = replace(told, accuracy=None, change=None)
    study.tell(told)
    study.close()
    again = Study(url, "s", space, optuna.samplers.RandomSampler(seed=0))
    (read,) = again.trials()
    again.close()
    for field in fields(Trial):
        assert getattr(read, field.name) == getattr(told, field.name), field.name
    assert study_module.past_trials(url, "s", space) == [read]
