"""Runs on several backends at once, on the toy network: fronts, cross-evaluation, limits, resuming, exit codes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from bitfront.core import Constraints
from bitfront.report.comparison import Comparison
from bitfront.report.comparison_tables import cell_columns, comparison_frame, missing
from bitfront.report.results import RunResults
from bitfront.search.multi_backend import cross_evaluation
from bitfront.search.multi_backend.runs import MultiBackendResult, folder_names
from bitfront.search.multi_backend.summary import write_comparison
from tests.search import toy
from tests.search.toy_backends import (
    FAKE,
    NAMES,
    NARROW,
    QUICK,
    REFUSAL,
    Quick,
    apart,
    search_on_toy_backends,
    searches,
)
from tests.search.toy_runs import Heard, elsewhere

# Fixtures are found by name in the module.
__all__ = ["apart", "elsewhere"]


def gaps(outcome: MultiBackendResult) -> list[str]:
    """Front configs that some other backend neither measured nor gave a reason for."""
    found = []
    for source, own in outcome.results.items():
        for target, other in outcome.results.items():
            entries = {
                entry.id: entry
                for entry in outcome.cross_evaluations
                if (entry.source, entry.target) == (source, target)
            }
            for id_ in own.front:
                if target == source or own.points[id_].origin == "exchange":
                    continue
                entry = entries.get(id_)
                if entry is None or (entry.point not in other.points and not entry.reason):
                    found.append(f"{source} {id_} on {target}")
    return found


def test_each_backend_has_its_front_and_measures_the_others(tmp_path: Path) -> None:
    """Each folder is a whole run with its own optimum, and every front config is measured everywhere."""
    heard = Heard()
    # What is over the first one's limit it does not score by itself; as the other's finding it does.
    outcome = search_on_toy_backends(tmp_path, searches(tmp_path, budgets={FAKE: Constraints(latency_ms=2.4)}), heard)
    assert outcome.exit_code == 0
    assert gaps(outcome) == []
    folders = folder_names(NAMES[:2])
    results = {name: RunResults.load(tmp_path / folders[name]) for name in NAMES[:2]}
    assert [results[name].backend for name in results] == [FAKE, QUICK]
    assert all(
        run.complete and run.front and run.baselines == ("fp32", "fp16", "int8", "int4") for run in results.values()
    )
    medians = [run.points["int4"].latency.median_ms for run in results.values() if run.points["int4"].latency]
    assert medians == pytest.approx([2.0, 0.5])
    imported_trials = [point for run in results.values() for point in run.points.values() if point.origin == "exchange"]
    assert imported_trials
    assert all(point.latency and point.accuracy and point.config and point.model for point in imported_trials)
    for name in results:
        assert [phase for phase in heard.phases if phase.startswith(f"{name}: ")] == [
            f"{name}: {phase}"
            for phase in (
                "given network",
                "calibrate",
                "sensitivity",
                "search",
                "cross-evaluation",
                "finalists",
                "report",
            )
        ]


def test_the_check_sees_a_config_that_was_not_cross_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: without cross-evaluation there are gaps."""
    monkeypatch.setattr("bitfront.search.multi_backend.runs.cross_evaluate", lambda *_: None)
    assert gaps(search_on_toy_backends(tmp_path, searches(tmp_path)))


def test_same_config_measures_the_same_under_either_name(tmp_path: Path) -> None:
    """An imported trial is what its source says: the same layers, the same size and accuracy, another latency."""
    outcome = search_on_toy_backends(tmp_path, searches(tmp_path))
    checked = 0
    for entry in outcome.cross_evaluations:
        mine, theirs = outcome.results[entry.source].points, outcome.results[entry.target].points
        if entry.point is not None and entry.id in mine:
            there, here = theirs[entry.point], mine[entry.id]
            assert there.layers == here.layers
            assert there.size_bytes == here.size_bytes
            assert there.accuracy == here.accuracy
            checked += 1
    assert checked


def test_what_a_backend_cannot_express_is_told(tmp_path: Path) -> None:
    """A refused scheme and a split group are reasons that name layer, scheme and backend."""
    names = (FAKE, NARROW)
    outcome = search_on_toy_backends(tmp_path, searches(tmp_path, names, trials=14))
    assert gaps(outcome) == []
    reasons = {entry.reason for entry in outcome.cross_evaluations if entry.target == NARROW and entry.point is None}
    assert f"b: int4:nearest is not offered on {NARROW}: {REFUSAL}" in reasons
    comparison = Comparison.load(tmp_path)
    absent = missing(comparison)
    assert absent
    assert all(backend == NARROW and reason in reasons for _, backend, reason in absent)
    split = [reason for reason in reasons if "share one scheme" in reason]
    assert all("d+1" in reason and "(added up)" in reason for reason in split)


def test_budgets_are_each_backends_own(tmp_path: Path) -> None:
    """A limit that one backend can meet and the other cannot: exit code 3, and only that one has nearest points."""
    budgets = {FAKE: Constraints(latency_ms=1.0), QUICK: Constraints(latency_ms=1.0)}
    outcome = search_on_toy_backends(tmp_path, searches(tmp_path, budgets=budgets))
    assert outcome.exit_code == 3
    assert outcome.results[FAKE].exit_code == 3
    assert outcome.results[FAKE].nearest
    assert outcome.results[QUICK].exit_code == 0
    assert outcome.results[QUICK].recommended is not None
    assert Comparison.load(tmp_path).for_all is None


def test_config_for_all_backends_follows_its_rule(tmp_path: Path) -> None:
    """It meets every limit everywhere, and no other such config has a better worst accuracy."""
    budgets = {FAKE: Constraints(latency_ms=3.5), QUICK: Constraints(latency_ms=2.6)}
    search_on_toy_backends(tmp_path, searches(tmp_path, budgets=budgets))
    comparison = Comparison.load(tmp_path)
    assert comparison.for_all is not None

    def worst(id_: str) -> float:
        points = [cell.point for cell in comparison.row(id_).cells.values()]
        return min(point.accuracy.value for point in points if point and point.accuracy)

    sound = [row.id for row in comparison.rows if all(cell.sound for cell in row.cells.values())]
    assert comparison.for_all in sound
    assert worst(comparison.for_all) == max(worst(id_) for id_ in sound)


def test_later_searches_start_from_earlier_ones(tmp_path: Path) -> None:
    """The second backend tries what the first found, before its own seeds."""
    search_on_toy_backends(tmp_path, searches(tmp_path))
    first, second = (RunResults.load(tmp_path / label) for label in folder_names(NAMES[:2]).values())
    assert all(trial.origin != "other backend" for trial in first.trials)
    origins = [trial.origin for trial in second.trials]
    assert origins[:4] == ["baseline"] * 4
    assert origins[4] == "other backend"


def test_resume_repeats_no_measurement(tmp_path: Path) -> None:
    """A finished run is read back whole: nothing runs, cross-evaluation included, and all results are equal."""
    search_on_toy_backends(tmp_path, searches(tmp_path))
    before = {label: RunResults.load(tmp_path / label).points for label in folder_names(NAMES[:2]).values()}
    rows = Comparison.load(tmp_path).rows
    again = {FAKE: toy.ToyBackend(), QUICK: Quick()}
    search_on_toy_backends(tmp_path, searches(tmp_path, backends=again, resume=True))
    assert [backend.runs for backend in again.values()] == [0, 0]
    assert {label: RunResults.load(tmp_path / label).points for label in before} == before
    assert Comparison.load(tmp_path).rows == rows


def test_interruption_leaves_what_is_known(tmp_path: Path) -> None:
    """Interrupted in the second search: the first one's points are there, unfinished, and the run can be resumed."""

    def interrupt(run: int) -> None:
        if run > 400:
            raise KeyboardInterrupt

    given = searches(tmp_path, backends={QUICK: Quick(on_run=interrupt)})
    outcome = search_on_toy_backends(tmp_path, given)
    assert outcome.exit_code == 130
    comparison = Comparison.load(tmp_path)
    first = comparison.runs[0].results
    assert first is not None
    assert not first.complete
    assert first.stopped == "interrupted"
    assert comparison.rows
    resumed = search_on_toy_backends(tmp_path, searches(tmp_path, resume=True))
    assert resumed.exit_code == 0
    assert gaps(resumed) == []


def test_interruption_of_cross_evaluation_reports_the_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results hold what was measured until then; the rest is marked as not measured."""
    real = cross_evaluation._measure
    calls = []

    def measure(*given: object) -> object:
        calls.append(given)
        if len(calls) > 6:
            raise KeyboardInterrupt
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(cross_evaluation, "_measure", measure)
    outcome = search_on_toy_backends(tmp_path, searches(tmp_path))
    assert outcome.exit_code == 130
    assert len(outcome.cross_evaluations) == 6
    assert {reason for _, _, reason in missing(Comparison.load(tmp_path))} == {"not measured"}


def test_time_limit_is_split_and_what_is_left_passes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half for the first of two; the second may have all that the first did not use."""
    limits = []
    monkeypatch.setattr(
        "bitfront.search.multi_backend.runs.explore", lambda session, _: limits.append(session.options.time_limit_s)
    )
    monkeypatch.setattr("bitfront.search.multi_backend.runs._conclude", lambda *_: {})
    search_on_toy_backends(tmp_path, searches(tmp_path), time_limit_s=100.0)
    assert 50 <= limits[0] < 60
    assert 95 < limits[1] < 110


def test_files_of_the_comparison(tmp_path: Path) -> None:
    """Table, numbers, page and summary name every config and backend; they are written from the folder alone."""
    budgets = {FAKE: Constraints(latency_ms=3.5), QUICK: Constraints(latency_ms=2.6)}
    search_on_toy_backends(tmp_path, searches(tmp_path, budgets=budgets))
    with (tmp_path / "shown.txt").open("w", encoding="utf-8") as stream:
        write_comparison(tmp_path, stream, quiet=False)
    comparison = Comparison.load(tmp_path)
    frame = comparison_frame(comparison)
    ids = [row.id for row in comparison.rows]
    assert list(frame["config"]) == ids
    assert len(set(ids)) == len(ids)
    assert {f"{name}:latency_ms" for name in NAMES[:2]} <= set(frame.columns)
    data = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert list(data["configs"]) == ids
    assert data["everywhere"] == comparison.for_all
    shown = (tmp_path / "shown.txt").read_text(encoding="utf-8")
    page = (tmp_path / "comparison.html").read_text(encoding="utf-8")
    assert shown.strip() == (tmp_path / "summary.txt").read_text(encoding="utf-8").strip()
    for id_ in ids:
        assert id_ in shown
        assert id_ in page
    assert "fp32" in shown
    assert str(tmp_path / "comparison.html") in shown


def test_labels_are_file_names_and_differ() -> None:
    """A backend of another package has a folder too, and two never share one."""
    assert folder_names(["ort-cpu", "m.x:Y", "m-x-Y"]) == {"ort-cpu": "ort-cpu", "m.x:Y": "m-x-Y", "m-x-Y": "m-x-Y-2"}


def test_file_as_given_is_a_row_of_its_own_for_all(tmp_path: Path) -> None:
    """It is nobody's config: listed where it differs from FP32; where it does not, FP32 stands for it."""
    asked = searches(tmp_path)
    file = toy.file()
    given = [replace(one, lowerer=toy.ToyLowerer(given=file)) for one in asked[:1]]
    outcome = search_on_toy_backends(tmp_path, [*given, *asked[1:]])
    first, second = (outcome.results[name].points for name in NAMES[:2])
    assert "given" in first
    assert "given" not in second
    comparison = Comparison.load(tmp_path)
    row = next(row for row in comparison.rows if row.id.endswith("given"))
    cells = [row.cells[name].point for name in NAMES[:2]]
    assert [point and point.id for point in cells] == ["given", "fp32"]
    fp32 = comparison.row("fp32")
    assert [cell.point and cell.point.id for cell in fp32.cells.values()] == ["fp32", "fp32"]
    assert row.layers == {}
    assert not any(entry.id == "given" for entry in outcome.cross_evaluations)


def test_backend_that_refuses_the_file_has_a_reason_and_its_own_headings(tmp_path: Path) -> None:
    """Its ratios are to FP32, its columns say so, and no other number stands for the file there."""

    def refuse(schemes: Mapping[str, str]) -> str:
        return "too old" if "given" in schemes.values() else ""

    file, asked = toy.file(), searches(tmp_path, backends={QUICK: Quick(refuse)})
    outcome = search_on_toy_backends(tmp_path, [replace(one, lowerer=toy.ToyLowerer(given=file)) for one in asked])
    assert "given" not in outcome.results[QUICK].points
    stream = StringIO()
    write_comparison(tmp_path, stream, quiet=False)
    comparison = Comparison.load(tmp_path)
    row = next(row for row in comparison.rows if row.id.endswith("given"))
    assert (row.cells[QUICK].point, row.cells[QUICK].reason) == (None, "too old")
    assert [cell_columns(results)[2] for _, results in comparison.measured] == ["lat. ratio"] * 2
    assert comparison.for_all != row.id
