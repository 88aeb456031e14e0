from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bitfront.core import Constraints
from bitfront.report.results import RunResults
from bitfront.report.summary import RunStatus, limit_texts, point_text, summarise_run
from bitfront.report.tables import COLUMNS, front_rows, table
from tests.report import synthetic


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    return RunResults.load(synthetic.feasible_run(tmp_path_factory.mktemp("run")))


def test_table_shows_front_and_baselines_once_each(results: RunResults) -> None:
    """Fastest first; the recommended row carries the star; every row fills every column."""
    rows = table(results)
    assert sorted(row.id for row in rows) == sorted({*results.front, *results.baselines})
    times = [latency.median_ms for row in rows if (latency := results.points[row.id].latency)]
    assert times == sorted(times)
    assert [row.id for row in rows if row.cells[0] == "★"] == [results.recommended]
    assert {len(row.cells) for row in rows} == {len(COLUMNS)}
    assert front_rows(results) == tuple(row.cells for row in rows)


def test_table_cells_are_what_was_measured(results: RunResults) -> None:
    """FP32 is its own reference; a missed budget is said in words."""
    fp32 = next(row for row in table(results) if row.id == "fp32")
    assert fp32.cells[3] == "±0.00 points"
    assert fp32.cells[8] == "1.00 ×"
    assert fp32.cells[9].startswith("latency 7.")
    assert (fp32.baseline, fp32.feasible) == (True, False)


def test_without_a_budget_nothing_is_met(results: RunResults) -> None:
    """The limits column stays empty where none was set, and the summary says so."""
    points = {id_: dataclasses.replace(p, feasible=True, violations=()) for id_, p in results.points.items()}
    free = dataclasses.replace(results, budget=Constraints(), points=points)
    assert {row.cells[9] for row in table(free)} == {"–"}
    assert "is recommended (no limit was set)" in summarise_run(free).headline
    assert limit_texts(free) == ()


def test_summary_of_a_met_budget(results: RunResults) -> None:
    """The recommended point with its numbers and its gain over the given network."""
    assert results.recommended is not None
    found = summarise_run(results)
    assert found.status is RunStatus.MET
    assert found.headline == f"{results.recommended} meets every limit: " + point_text(
        results, results.points[results.recommended]
    )
    assert [detail.split()[0] for detail in found.details] == ["int8"]  # 0.14 points less, on 898 samples
    assert point_text(results, results.points["fp32"]).endswith("(±0.00 points), 372 kB (1.00 ×)")


@pytest.mark.parametrize(
    ("accuracy", "ratio", "named"),
    [(0.955, 0.2, True), (0.930, 0.2, False), (0.955, 0.9, False)],
    ids=["not told apart", "less accurate", "slower"],
)
def test_summary_names_what_a_few_samples_may_have_kept_out(
    results: RunResults, accuracy: float, ratio: float, named: bool
) -> None:
    """A faster and smaller point of the front whose accuracy's interval overlaps; no other."""
    assert results.recommended is not None
    best = results.points[results.recommended]
    assert best.accuracy is not None
    assert best.latency is not None
    scored = dataclasses.replace(best.accuracy, value=0.957, ci_low=0.945, ci_high=0.970)
    timed = dataclasses.replace(best.latency, ratio=0.3, ratio_low=0.295, ratio_high=0.305)
    rival = dataclasses.replace(
        best,
        id="p99",
        size_bytes=best.size_bytes - 1,
        accuracy=dataclasses.replace(scored, value=accuracy, ci_low=accuracy - 0.013, ci_high=accuracy + 0.013),
        latency=dataclasses.replace(timed, ratio=ratio, ratio_low=ratio - 0.005, ratio_high=ratio + 0.005),
    )
    best = dataclasses.replace(best, accuracy=scored, latency=timed)
    two = dataclasses.replace(results, points={best.id: best, "p99": rival}, front=(best.id, "p99"))
    assert [detail.split()[0] for detail in summarise_run(two).details] == ["p99"] * named


def test_summary_of_a_missed_budget(tmp_path: Path) -> None:
    """The nearest points are named, by budget, with what they miss."""
    results = RunResults.load(synthetic.infeasible_run(tmp_path))
    found = summarise_run(results)
    assert (found.status, found.headline) == (RunStatus.MISSED, "No point meets every limit")
    assert [detail.split(":")[0] for detail in found.details] == ["Nearest by latency", "Nearest by accuracy"]
    assert "; misses latency 2." in found.details[0]
    assert limit_texts(results) == ("latency ≤ 1.00 ms", "accuracy within 0.10 points of the given network")


def test_summary_of_a_missed_budget_tells_of_a_busy_machine(tmp_path: Path) -> None:
    """Points that are left out for their latency may be nearer than those that are named."""
    results = RunResults.load(synthetic.infeasible_run(tmp_path))
    unsure = dataclasses.replace(results.points["int8"], latency_reproduced=False)
    detail = summarise_run(dataclasses.replace(results, points={**results.points, "int8": unsure})).details[0]
    assert detail.startswith("Latency not reproduced in a fresh process, so not considered: int8; run again")


def test_one_point_can_be_nearest_by_two_budgets(tmp_path: Path) -> None:
    """It is named once."""
    results = RunResults.load(synthetic.infeasible_run(tmp_path))
    both = dataclasses.replace(results, nearest={"latency": "int8", "size": "int8"})
    (detail,) = summarise_run(both).details
    assert detail.startswith("Nearest by latency and size: int8, ")


@pytest.mark.parametrize("stopped", ["interrupted", "time limit"])
def test_summary_of_a_stopped_run(results: RunResults, tmp_path: Path, stopped: str) -> None:
    """What stopped it is said; a recommendation found before that stands."""
    met = summarise_run(dataclasses.replace(results, stopped=stopped))
    assert met.status is RunStatus.MET
    assert met.details[0] == (
        f"The search was stopped ({stopped}); the results below are complete for what it had tried."
    )
    unknown = summarise_run(dataclasses.replace(RunResults.load(synthetic.early_run(tmp_path)), stopped=stopped))
    assert unknown.status is RunStatus.UNFINISHED
    assert unknown.details == (f"The search was stopped ({stopped}); what it knew is below.",)
