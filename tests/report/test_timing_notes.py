"""How far latencies can be relied on is said where it matters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bitfront.report.html import facts
from bitfront.report.results import RunResults
from bitfront.report.summary import summarise_run
from bitfront.report.timing_notes import busy_machine
from tests.report import synthetic


def _with_error(results: RunResults, error: float) -> RunResults:
    """The results with one point's ratio known to that."""
    name, point = next((name, p) for name, p in results.points.items() if p.shown_latency)
    latency = point.shown_latency
    assert latency is not None
    wide = replace(latency, ratio_low=latency.ratio * (1 - error), ratio_high=latency.ratio * (1 + error))
    return replace(results, points={name: replace(point, latency=wide)})


@pytest.fixture(name="results")
def _results(tmp_path: Path) -> RunResults:
    return RunResults.load(synthetic.feasible_run(tmp_path / "run"))


def test_a_busy_machine_is_named(results: RunResults) -> None:
    """With the worst half width and the points; in what the report and the console begin with."""
    name = next(iter(_with_error(results, 0.08).points))
    whole = replace(results, points={**results.points, **_with_error(results, 0.08).points})
    said = (
        f"This machine is too busy: latency is known to ± 8% only ({name}); run the search again with less beside it."
    )
    assert busy_machine(whole) == [said]
    assert said in summarise_run(whole).details


def test_a_quiet_machine_is_not(results: RunResults) -> None:
    """Nothing is said where every ratio is known to ± 1 %."""
    assert busy_machine(results) == []
    assert not any("busy" in text for text in summarise_run(results).details)


def test_the_report_says_what_reproduced_means(results: RunResults) -> None:
    """Among the facts to which the numbers are tied."""
    told = dict(facts(results))
    assert "same ratio to the given network within 5 %" in told["Latency reproduced"]
    assert "nobody is in the way" in told["Latency"]
