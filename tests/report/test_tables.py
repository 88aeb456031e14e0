from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bitfront.core import Constraints, PairedDifference, Prefer, formatting, top1
from bitfront.core.preference import Choice
from bitfront.report.results import RunResults
from bitfront.report.summary import RunStatus, limit_texts, point_text, summarise_run
from bitfront.report.tables import COLUMNS, front_rows, pareto_frame, table
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
    assert found.details == ()
    assert point_text(results, results.points["fp32"]).endswith("(±0.00 points), 372 kB (1.00 ×)")


CHANGE = PairedDifference(
    value=0.002, ci_low=-0.001, ci_high=0.005, error=0.0015, better=3, worse=1, samples=898, hits=True
)


def with_change(results: RunResults, change: PairedDifference, **changes: Any) -> RunResults:
    """The results with this difference of the recommended point, and other changes to it."""
    assert results.recommended is not None
    point = dataclasses.replace(results.points[results.recommended], change=change, **changes)
    return dataclasses.replace(results, points={**results.points, point.id: point})


def test_a_difference_has_its_interval_and_what_it_comes_to(results: RunResults) -> None:
    """No measurable difference in the headline and by a sign in the table; a measurable one by its interval alone."""
    text = "(+0.20 points [−0.10, +0.50]) with no measurable difference (2 of 898 samples), "
    close = with_change(results, CHANGE)
    assert text in summarise_run(close).headline
    (row,) = (row for row in front_rows(close) if row[0])
    assert row[3] == "≈ +0.20 points [−0.10, +0.50]"
    clear = with_change(results, dataclasses.replace(CHANGE, ci_low=0.001))
    assert "(+0.20 points [+0.10, +0.50]), " in summarise_run(clear).headline
    (row,) = (row for row in front_rows(clear) if row[0])
    assert row[3] == "+0.20 points [+0.10, +0.50]"
    frame = pareto_frame(close).set_index("id").loc[str(results.recommended)]
    assert (frame["accuracy_change_ci_low"], frame["samples_better"], frame["samples"]) == (-0.001, 3, 898)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({"better": 0, "worse": 0}, "the same accuracy on each of 898 samples"),
        ({"better": 4, "worse": 4}, "no measurable difference (4 better, 4 worse of 898 samples)"),
        ({"hits": False}, "no measurable difference (898 samples)"),
        ({"ci_high": -0.0001, "ci_low": -0.01}, ""),
    ],
)
def test_a_verdict_counts_what_can_be_counted(changes: dict[str, Any], verdict: str) -> None:
    assert formatting.verdict(dataclasses.replace(CHANGE, **changes), top1) == verdict


def test_summary_reports_what_the_choice_does_not_flatter(results: RunResults) -> None:
    """The figure free of luck is in the headline, the point's own beside it; what leads by chance is named."""
    stats = results.points[str(results.recommended)].accuracy
    assert stats is not None
    fair = dataclasses.replace(stats, value=stats.value - 0.001)
    choice = Choice(prefer=Prefer.ACCURACY, significance=0.1, accuracy=fair, change=CHANGE)
    found = summarise_run(dataclasses.replace(results, choice=choice))
    assert f"{100 * fair.value:.2f} % (+0.20 points" in found.headline
    assert f"whose accuracy on them is {100 * stats.value:.2f} %" in " ".join(found.details)
    same = dataclasses.replace(choice, accuracy=stats, rival="fp32", rival_change=CHANGE)
    (detail,) = summarise_run(dataclasses.replace(results, choice=same)).details
    assert detail.startswith(
        "fp32 scores best of what is within the limits, by no more than chance explains (+0.20 poi"
    )
    assert "2 of 898 samples" in detail


def test_nothing_gained_does_not_look_like_success(results: RunResults) -> None:
    """The reference, or a point that is neither faster, smaller nor measurably better: another status and sentence."""
    own = dataclasses.replace(results, recommended="fp32")
    found = summarise_run(own)
    assert found.status is RunStatus.NOTHING_GAINED
    assert found.headline.startswith("Nothing gained: the network as it was given meets every limit: fp32, ")
    assert "takes such a point" in found.details[0]
    alone = dataclasses.replace(own, front=("fp32",), points={"fp32": own.points["fp32"]}, baselines=("fp32",))
    assert summarise_run(alone).details[0].startswith("Nothing that was tried is faster, smaller or more accurate")
    fp32 = results.points["fp32"]
    idle = with_change(results, CHANGE, latency=fp32.latency, size_bytes=fp32.size_bytes)
    assert summarise_run(idle).status is RunStatus.NOTHING_GAINED
    better = with_change(
        results, dataclasses.replace(CHANGE, ci_low=0.001), latency=fp32.latency, size_bytes=fp32.size_bytes
    )
    assert summarise_run(better).status is RunStatus.MET


def test_recommended_point_off_the_front_is_in_the_table(results: RunResults) -> None:
    """Its latency may be in doubt where nobody limited it; the headline says so."""
    doubtful = with_change(results, CHANGE, latency_reproduced=False)
    doubtful = dataclasses.replace(doubtful, front=tuple(i for i in results.front if i != results.recommended))
    assert [row[1] for row in front_rows(doubtful) if row[0]] == [results.recommended]
    assert summarise_run(doubtful).headline.endswith("latency not reproduced")
    assert results.recommended in set(pareto_frame(doubtful)["id"])


def test_limits_of_accuracy_name_their_confidence_and_what_has_none(results: RunResults) -> None:
    """Not those of size and latency; without an interval it is said that the number itself was taken."""
    budget = Constraints(latency_ms=5.0, size_bytes=1e6, min_accuracy=0.9, confidence=0.95)
    sure = dataclasses.replace(results, budget=budget)
    assert limit_texts(sure) == ("latency ≤ 5.00 ms", "accuracy ≥ 90.00 % at 95 % confidence", "size ≤ 1.00 MB")
    assert "of which no interval is known" in " ".join(summarise_run(sure).details)
    assert "no interval" not in " ".join(summarise_run(with_change(sure, CHANGE)).details)


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
