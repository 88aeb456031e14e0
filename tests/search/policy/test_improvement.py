"""What training a variant further is worth."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from bitfront.core import AccuracyStats, Constraints, LatencyStats
from bitfront.search.policy.improvement import Evidence, Priority
from bitfront.search.policy.learning_curve import LearningCurve
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus

PRIOR = LearningCurve().powers[0]


def trial(number: int, accuracy: float, ratio: float, size: int, network: str = "") -> Trial:
    return Trial(
        number=number,
        candidate=Candidate(origin=Origin.PRUNED, schemes={}, variant=network),
        status=TrialStatus.COMPLETE,
        size_bytes=size,
        latency=LatencyStats(
            **{
                **{name: 0.0 for name in LatencyStats.__dataclass_fields__},
                "ratio": ratio,
                "median_ms": 2 * ratio,
            }  # type: ignore[arg-type]
        ),
        latency_ms=2 * ratio,
        accuracy=AccuracyStats.from_json({"value": accuracy, "ci_low": accuracy, "ci_high": accuracy, "samples": 100}),
        misses={},
        seconds=0.0,
    )


def evidence(trials: list[Trial], **limits: Any) -> Evidence:
    """Of a given network of 2 ms and 0.9."""
    return Evidence(
        trials=tuple(trials),
        reference_accuracy=0.9,
        reference_ms=2.0,
        constraints=Constraints(**limits),
        curve=LearningCurve(),
    )


def test_worth_is_what_a_network_adds_to_the_others_front() -> None:
    given = [trial(0, 0.9, 1.0, 1000), trial(1, 0.89, 0.6, 300)]
    fast, slow = trial(2, 0.85, 0.3, 200, "a"), trial(3, 0.85, 0.65, 310, "b")
    judge = evidence([*given, fast, slow], max_drop=0.05)
    assert judge.improvement([fast], 1) > 0
    assert judge.improvement([slow], 1) == 0, "another is faster, smaller and more accurate"


def test_training_that_is_still_to_come_counts() -> None:
    given = [trial(0, 0.9, 1.0, 1000)]
    weak = trial(1, 0.5, 0.3, 200, "a")
    judge = evidence([*given, weak], max_drop=0.05)
    assert judge.improvement([weak], 1) == 0
    assert judge.priority([weak], 1) == Priority(reaches_floor=False, improvement=0.0, accuracy=0.5)
    assert judge.priority([], 1).accuracy == -math.inf
    assert judge.curve.gap_closed(16) == pytest.approx(1 - 16**-PRIOR)
    assert judge.improvement([weak], 100) > 0
    judge = replace(judge, curve=judge.curve.after(0.5, 0.8, reference=0.9, times=2))
    # twice the steps left a quarter of the gap: the second power
    assert judge.curve.gap_closed(4) == pytest.approx(1 - 4 ** -((2 + PRIOR) / 2))
    assert judge.improvement([weak], 8) > 0
    assert judge.priority([weak], 8).reaches_floor


def test_who_can_reach_the_floor_comes_first() -> None:
    """A much faster network that stays below it is worth more volume, and less training; else the more accurate one."""
    given = [trial(0, 0.9, 1.0, 1000)]
    fast, safe, lost = trial(1, 0.82, 0.1, 100, "a"), trial(2, 0.87, 0.8, 800, "b"), trial(3, 0.5, 1.0, 1000, "c")
    judge = evidence([*given, fast, safe, lost], max_drop=0.02)
    assert judge.improvement([fast], 4) > judge.improvement([safe], 4)
    assert judge.priority([safe], 4) > judge.priority([fast], 4) > judge.priority([lost], 4)
    worse = trial(4, 0.4, 1.0, 1000, "d")
    assert judge.priority([lost], 1)[:2] == judge.priority([worse], 1)[:2]
    assert judge.priority([lost], 1) > judge.priority([worse], 1)


def test_what_is_over_a_limit_is_worth_nothing() -> None:
    given = [trial(0, 0.9, 1.0, 1000)]
    found = trial(1, 0.9, 0.6, 200, "a")
    assert evidence([*given, found], latency_ms=1.0).improvement([found], 1) == 0
    assert evidence([*given, found], latency_ms=1.2).improvement([found], 1) > 0, "just held"
    assert not evidence([*given, found], size_bytes=199).priority([found], 1).reaches_floor
    assert evidence([*given, found], size_bytes=100.0).improvement([found], 0) == 0


def test_reaching_the_floor_counts_more_than_volume_below_it() -> None:
    given = [trial(0, 0.9, 1.0, 1000)]
    near, far = trial(1, 0.895, 0.5, 500, "a"), trial(2, 0.875, 0.1, 100, "b")
    judge = evidence([*given, near, far], max_drop=0.01)
    assert judge.improvement([near], 0) > judge.improvement([far], 0) > 0


def test_just_reaching_the_floor_is_worth_something() -> None:
    """Who allows a drop wants something for it: much faster at the floor beats somewhat faster above it."""
    given = [trial(0, 0.9, 1.0, 1000), trial(1, 0.9, 0.6, 600)]
    bare, fine, short = trial(2, 0.881, 0.3, 600, "a"), trial(3, 0.899, 0.5, 600, "b"), trial(4, 0.879, 0.3, 600, "c")
    judge = evidence([*given, bare, fine, short], max_drop=0.02)
    assert judge.improvement([bare], 1) > judge.improvement([fine], 1) > judge.improvement([short], 1) > 0


def test_a_network_is_not_judged_by_the_luckiest_of_many_candidates() -> None:
    """What was stopped above the floor was no better than another, and may look good on few samples by chance."""
    given = trial(0, 0.9, 1.0, 1000)
    judge = evidence([given], max_drop=0.05)

    def stopped(accuracy: float, origin: Origin) -> Trial:
        found = trial(1, accuracy, 0.5, 500, "a")
        return replace(found, status=TrialStatus.STOPPED, candidate=replace(found.candidate, origin=origin))

    assert judge.conclusive(trial(1, 0.95, 0.5, 500, "a"))
    assert not judge.conclusive(stopped(0.95, Origin.SAMPLER))
    assert judge.conclusive(stopped(0.5, Origin.SAMPLER)), "surely below the floor"
    assert judge.conclusive(stopped(0.95, Origin.PRUNED)), "one of few, on a thousand samples"
    assert not judge.conclusive(replace(given, accuracy=None))
