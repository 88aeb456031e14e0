"""Runs that are resumed or interrupted, on the toy network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from bitfront.core import (
    Constraints,
    LatencyStats,
    Prefer,
    Preference,
    UsageError,
)
from bitfront.report.results import RunResults
from bitfront.search import prepare
from bitfront.search.results import finalists
from bitfront.search.run_folder import sources, study
from tests.search import toy
from tests.search.toy_runs import elsewhere, options, real_storage, search

# Fixtures are found by name in the module.
__all__ = ["elsewhere"]


def test_resume_of_a_finished_run_repeats_nothing(tmp_path: Path) -> None:
    """Nothing is compiled for timing or scoring, and nothing is timed elsewhere, when all of it was done before."""
    asked = options(tmp_path / "run", Constraints(latency_ms=2.5))
    search(asked)
    before = RunResults.load(asked.out)
    backend, lowerer = toy.ToyBackend(), toy.ToyLowerer()
    search(replace(asked, resume=True), backend, lowerer)
    after = RunResults.load(asked.out)
    assert backend.runs == 0
    assert after.trials == before.trials
    assert after.points == before.points


def test_resume_after_a_kill_continues_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that were finished are not tried again; the rest is."""
    monkeypatch.setattr(study, "open_storage", real_storage)
    asked = options(tmp_path / "run", trials=12)

    def kill(_: Mapping[str, str]) -> str:
        if killer.compiled > 41:
            raise SystemExit("killed")
        return ""

    killer = toy.ToyBackend(refuse=kill)
    with pytest.raises(SystemExit, match="killed"):
        search(asked, killer)
    assert not RunResults.load(asked.out).complete
    url = f"sqlite:///{asked.out / 'study.db'}"
    (name,) = optuna.get_all_study_names(url)
    done = optuna.load_study(study_name=name, storage=url).get_trials()
    assert 4 <= len(done) < 12
    outcome = search(replace(asked, resume=True))
    trials = RunResults.load(asked.out).trials
    assert [trial.number for trial in trials] == list(range(12))
    assert [trial.params for trial in optuna.load_study(study_name=name, storage=url).get_trials()][: len(done)] == [
        trial.params for trial in done
    ]
    assert outcome.exit_code == 0


def test_resume_with_another_budget_measures_only_what_it_lacks(tmp_path: Path) -> None:
    """A new budget judges the old trials anew; their latencies are not measured again."""
    asked = options(tmp_path / "run", Constraints(latency_ms=2.2), trials=10)
    search(asked)
    before = {json.dumps({g: c.text for g, c in t.schemes.items()}): t for t in RunResults.load(asked.out).trials}
    outcome = search(replace(asked, resume=True, budget=Constraints(latency_ms=4.9), trials=10))
    after = {json.dumps({g: c.text for g, c in t.schemes.items()}): t for t in RunResults.load(asked.out).trials}
    assert set(after) == set(before)
    assert all(after[key].ratio == before[key].ratio for key in before)
    assert sum(trial.state == "complete" for trial in after.values()) > sum(
        trial.state == "complete" for trial in before.values()
    )
    assert outcome.exit_code == 0


def test_resume_refuses_another_network_and_says_what_differs(tmp_path: Path) -> None:
    """A folder is resumed only with what it began with."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    with pytest.raises(
        UsageError, match=r"different: the calibration data, the evaluation data, --seed \(was 0, is 1\)"
    ):
        search(replace(asked, resume=True, seed=1), workload=toy.workload(seed=4))


def test_fresh_start_refuses_a_folder_in_use(tmp_path: Path) -> None:
    """Another run's results are never mixed in."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    with pytest.raises(UsageError, match="already holds files"):
        search(asked)


@pytest.mark.parametrize("runs", [0, 250, 600], ids=["at once", "in the search", "later"])
def test_interruption_leaves_a_readable_folder(tmp_path: Path, runs: int) -> None:
    """Ctrl-C at any time: exit code 130, a record marked as interrupted, points as the search measured them."""

    def interrupt(number: int) -> None:
        if number == runs + 1:
            raise KeyboardInterrupt

    backend = toy.ToyBackend(on_run=interrupt)
    outcome = search(options(tmp_path / "run", trials=12), backend)
    results = RunResults.load(outcome.folder)
    assert outcome.exit_code == 130
    assert outcome.stopped == results.stopped == "interrupted"
    assert not results.complete
    assert all(point.latency_reproduced is None and point.latency is None for point in results.points.values())
    if runs:
        assert results.recommended is not None
        assert all((outcome.folder / str(point.model)).is_file() for point in results.points.values())


def test_interruption_of_the_finalists_falls_back_to_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while finalists are timed loses nothing of the search; resuming then finishes them."""

    def interrupt(*_: object, **__: object) -> dict[str, LatencyStats]:
        raise KeyboardInterrupt

    asked = options(tmp_path / "run", trials=8)
    with monkeypatch.context() as patch:
        patch.setattr(finalists, "time_in_subprocess", interrupt)
        assert search(asked).exit_code == 130
    assert search(replace(asked, resume=True)).exit_code == 0


@pytest.mark.parametrize("room", ["lowering", "backends"])
def test_another_version_of_the_engine_does_again_what_it_may_do_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    """Our code that writes networks is in the key of what was written, that which measures in those of measurements."""
    asked = options(tmp_path / "run", trials=4)
    search(asked)
    kinds = ("lowered", "timed", "scored", "elsewhere")

    def count() -> dict[str, int]:
        return {kind: len(list((asked.out / "cache").glob(f"{kind}-*"))) for kind in kinds}

    before, real = count(), sources.engine_code
    monkeypatch.setattr(prepare, "engine_code", lambda *rooms: "new" if room in rooms else real(*rooms))
    (asked.out / "measurement.json").unlink()
    search(replace(asked, resume=True, budget=Constraints(latency_ms=4.0)))
    grown = {kind for kind, number in count().items() if number >= 2 * before[kind]}
    assert grown == ({"lowered"} if room == "lowering" else {"timed", "scored", "elsewhere"})


def test_preference_and_confidence_may_change_on_resume(tmp_path: Path) -> None:
    """Nothing is measured again for a preference; what was chosen by is written down each time."""
    asked = options(tmp_path / "run", Constraints(max_drop=0.5))
    search(asked)
    first = RunResults.load(asked.out)
    assert first.choice is not None
    assert (first.choice.prefer, first.budget.confidence) == (Prefer.LATENCY, 0.5)
    backend = toy.ToyBackend()
    search(replace(asked, resume=True, preference=Preference(prefer=Prefer.ACCURACY, significance=1.0)), backend)
    second = RunResults.load(asked.out)
    assert second.choice is not None
    assert (second.choice.prefer, second.choice.significance) == (Prefer.ACCURACY, 1.0)
    assert second.trials == first.trials
    assert first.recommended is not None
    assert second.recommended is not None
    fast, accurate = (results.points[str(results.recommended)] for results in (first, second))
    assert fast.shown_latency is not None
    assert accurate.shown_latency is not None
    assert fast.shown_accuracy is not None
    assert accurate.shown_accuracy is not None
    assert fast.shown_latency.median_ms < accurate.shown_latency.median_ms
    assert fast.shown_accuracy.value < accurate.shown_accuracy.value
    sure = replace(asked, resume=True, budget=Constraints(max_drop=0.5, confidence=0.95))
    search(sure)
    assert RunResults.load(asked.out).budget.confidence == 0.95
