"""An incumbent is timed again before it stops anything, and what stays uncertain stops nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bitfront.core import Constraints, LatencyStats
from bitfront.core.given_network import GIVEN_ID
from bitfront.search.measuring.paired_latency import pooled
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus
from tests.search.measuring.test_evaluate import ALL_INT4, ALL_INT8, Trials, latency


class Again:
    """Stands in for the second timing: ratio by artifact, and how well it is known."""

    def __init__(self, ratios: Mapping[str, float], error: float = 0.01) -> None:
        self.ratios, self.error = ratios, error
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, runner: ModelRunner, models: Mapping[str, Any], *_: object) -> dict[str, LatencyStats]:
        """As ``ModelRunner.time``."""
        del runner
        self.calls.append(tuple(models))
        return {name: around(self.ratios.get(name, 1.0), self.error) for name in models}


def around(ratio: float, error: float = 0.01) -> LatencyStats:
    """A timing whose interval is symmetric."""
    return latency(ratio, ratio * (1 - error), ratio * (1 + error))


def challenged(
    monkeypatch: pytest.MonkeyPatch, incumbent: LatencyStats, truth: float, error: float = 0.01
) -> tuple[Trials, Trial, Again]:
    """INT8 was found as ``incumbent`` says; an INT4 of 0.3 that is less accurate, and larger, comes after it."""
    trials = Trials(Constraints())
    again = Again({trials.artifact(ALL_INT8): truth, trials.artifact(ALL_INT4): 0.3}, error)
    monkeypatch.setattr(ModelRunner, "time", lambda runner, models, *more: again(runner, models, *more))
    trials.knows(ALL_INT8, incumbent)
    first = trials.evaluator.run(1, Candidate(origin=Origin.BASELINE, schemes=ALL_INT8, name="int8"))
    assert first.status is TrialStatus.COMPLETE
    trials.evaluator.trials[-1] = replace(trials.evaluator.trials[-1], size_bytes=1)
    again.calls.clear()
    trials.knows(ALL_INT4, around(0.3))
    trials.scores(ALL_INT4, 10)
    return trials, trials.evaluator.run(2, Candidate(origin=Origin.SAMPLER, schemes=ALL_INT4)), again


def test_a_lucky_incumbent_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """INT8 was filed as 0.2145 ± 1 %, and takes 0.386: timed again beside the candidate, it does not stop it."""
    trials, found, again = challenged(monkeypatch, around(0.2145), 0.386)
    assert found.status is TrialStatus.COMPLETE
    assert [set(names) for names in again.calls] == [
        {GIVEN_ID, trials.artifact(ALL_INT4), trials.artifact(ALL_INT8)},
    ]
    renewed = trials.evaluator.trials[1].latency
    assert renewed is not None
    assert renewed.ratio_low < 0.2145 < 0.386 < renewed.ratio_high  # one of them was wrong, and which is not known
    assert found.retimed == {1: renewed}


def test_a_confirmed_incumbent_stops_what_it_surpasses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second timing agrees, the candidate is hopeless; the next one needs no further timing."""
    trials, found, again = challenged(monkeypatch, around(0.25), 0.252)
    assert found.status is TrialStatus.STOPPED
    assert "no more accurate than int8" in found.reason
    assert len(again.calls) == 1
    renewed = trials.evaluator.trials[1].latency
    assert renewed is not None
    assert renewed.timings == 2
    mixed = {**ALL_INT4, "a": ALL_INT8["a"]}
    trials.knows(mixed, around(0.3))
    trials.scores(mixed, 10)
    later = trials.evaluator.run(3, Candidate(origin=Origin.SAMPLER, schemes=mixed))
    assert later.status is TrialStatus.STOPPED
    assert len(again.calls) == 1


def test_what_stays_uncertain_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """± 8 % on a busy machine, timed again to ± 8 %: its upper end is below the candidate's lower one all the same."""
    _, found, again = challenged(monkeypatch, around(0.2, 0.08), 0.2, error=0.08)
    assert again.calls
    assert found.status is TrialStatus.COMPLETE


def test_points_alone_do_not_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.29 ± 5 % is less than 0.3, and yet no reason to give the candidate up: it may well be the faster."""
    _, found, again = challenged(monkeypatch, around(0.29, 0.05), 0.29, error=0.05)
    assert found.status is TrialStatus.COMPLETE
    assert not again.calls


def test_an_uncertain_latency_is_timed_again_before_it_is_over_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.6 ± 5 % of 10 ms is over 5 ms; timed again it is 0.48."""
    trials = Trials(Constraints(latency_ms=5.0))
    again = Again({trials.artifact(ALL_INT8): 0.48}, 0.02)
    monkeypatch.setattr(ModelRunner, "time", lambda runner, models, *more: again(runner, models, *more))
    trials.knows(ALL_INT4, latency(0.2))
    trials.evaluator.run(1, Candidate(origin=Origin.PRUNED, schemes=ALL_INT4))
    trials.knows(ALL_INT8, around(0.6, 0.05))
    found = trials.evaluator.run(2, Candidate(origin=Origin.PRUNED, schemes=ALL_INT8))
    assert again.calls
    assert found.status is not TrialStatus.OVER_BUDGET


def test_agreeing_timings_are_averaged() -> None:
    """By precision, in the narrower interval; latencies are those beside the faster given network."""
    found = pooled(replace(around(0.5, 0.02), median_ms=6.0), around(0.505, 0.01))
    assert found.ratio == pytest.approx((0.5**1 * 0.505**4) ** 0.2, rel=1e-4)
    assert found.ratio_error == pytest.approx(0.01, rel=1e-6)
    assert found.median_ms == pytest.approx(10.0 * found.ratio)
    assert (found.timings, found.rounds) == (2, 18)


def test_timings_that_disagree_leave_both_possible() -> None:
    """The interval holds both, whichever was the narrower."""
    for earlier, later in ((around(0.2145), around(0.386, 0.05)), (around(0.386, 0.05), around(0.2145))):
        found = pooled(earlier, later)
        assert found.ratio_low == pytest.approx(0.2145 * 0.99)
        assert found.ratio_high == pytest.approx(0.386 * 1.05)
        assert found.ratio == 0.2145
