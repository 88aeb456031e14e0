"""Successive halving, and what a network is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bitfront.core import AccuracyStats, Constraints, LatencyStats
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.trial import Candidate, Trial, TrialStatus
from bitfront.search.variants.appraisal import USUAL_POWER, Appraiser, Rank
from bitfront.search.variants.halving import RUNGS, Contender, Halving, Judged
from bitfront.search.variants.joint import JointSearch


def contender(name: str) -> Contender:
    return Contender(label=name, base=(), network=name, steps=(), rungs=1)


def race(values: Sequence[Sequence[float]], allowed: int = 99) -> tuple[list[int], list[Judged]]:
    """Leads contenders with these worths at each rung through the race; returns how far each came."""
    history: list[Judged] = []
    trained = 0

    def train(_: Contender, steps: int) -> bool:
        nonlocal trained
        assert steps > 0
        trained += 1
        return trained <= allowed

    worths: dict[str, Sequence[float]] = {}
    halving = Halving(10, lambda c: worths[c.label][c.rungs - 1], history)
    came = []
    for number, row in enumerate(values):
        one = contender(f"n{number}")
        worths[one.label] = row
        halving.run(one, train)
        came.append(one.rungs)
    return came, history


def test_rungs_triple_the_training() -> None:
    halving = Halving(10, lambda _: 0.0, [])
    steps = [halving.steps_of(rung) for rung in range(RUNGS)]
    assert [sum(steps[: rung + 1]) for rung in range(RUNGS)] == [10, 30, 90]


def test_the_best_third_goes_on_and_the_rest_stays() -> None:
    came, history = race([[0.1] * 3, [0.2] * 3, [0.9] * 3, [0.3] * 3, [0.05] * 3, [1.0] * 3])
    assert came[0] == came[1] == 1, "nothing is trained on before there is something to compare with"
    assert came[2] > 1
    assert came[3] == came[4] == 1
    assert came[5] > 1
    assert [judged.promoted for judged in history if judged.rung == 0] == [False, False, True, False, False, True]


def test_a_worthless_network_is_not_trained_on() -> None:
    came, _ = race([[0.0] * 3] * 6)
    assert came == [1] * 6


def test_an_empty_budget_ends_the_race_where_it_stands() -> None:
    came, history = race([[0.1] * 3, [0.1] * 3, [1.0] * 3], allowed=0)
    assert came[2] == 1
    assert history[-1].promoted, "it was chosen, but the budget left nothing"


def test_networks_of_an_interrupted_run_count() -> None:
    """Those that were taken up are what a new one is compared with, and their rungs are in the history."""
    history: list[Judged] = []
    worths = {"weak": 0.1, "middle": 0.5, "new": 0.3, "best": 0.9}
    halving = Halving(10, lambda c: worths[c.label], history)
    came = {}
    for name, rungs in (("weak", 1), ("middle", 2)):
        one = contender(name)
        one.rungs = rungs
        halving.restore(one)
    assert [(j.label, j.rung, j.promoted) for j in history] == [
        ("weak", 0, False),
        ("middle", 0, True),
        ("middle", 1, False),
    ]
    for name in ("new", "best"):
        one = contender(name)
        halving.run(one, lambda *_: True)
        came[name] = one.rungs
    assert came["new"] == 1
    assert came["best"] > 1


@dataclass
class Known:
    """What an appraiser asks of an evaluator."""

    trials: list[Trial]
    reference_ms: float = 2.0
    reference_accuracy: float = 0.9


def trial(number: int, accuracy: float, ratio: float, size: int, network: str = "") -> Trial:
    return Trial(
        number=number,
        candidate=Candidate(origin="test", schemes={}, network=network),
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


def appraiser(trials: list[Trial], **limits: Any) -> Appraiser:
    return Appraiser(cast(Evaluator, Known(trials)), Constraints(**limits))


def test_worth_is_what_a_network_adds_to_the_others_front() -> None:
    given = [trial(0, 0.9, 1.0, 1000), trial(1, 0.89, 0.6, 300)]
    fast, slow = trial(2, 0.85, 0.3, 200, "a"), trial(3, 0.85, 0.65, 310, "b")
    judge = appraiser([*given, fast, slow], max_drop=0.05)
    assert judge.worth([fast], 1) > 0
    assert judge.worth([slow], 1) == 0, "another is faster, smaller and more accurate"


def test_training_that_is_still_to_come_counts() -> None:
    given = [trial(0, 0.9, 1.0, 1000)]
    weak = trial(1, 0.5, 0.3, 200, "a")
    judge = appraiser([*given, weak], max_drop=0.05)
    assert judge.worth([weak], 1) == 0
    assert judge.rank([weak], 1) == Rank(reaches=False, worth=0.0, accuracy=0.5)
    assert judge.rank([], 1).accuracy == -math.inf
    assert judge.hope(16) == pytest.approx(1 - 16**-USUAL_POWER)
    assert judge.worth([weak], 100) > 0
    judge.learn(0.5, 0.8, 2)  # twice the steps left a quarter of the gap: the second power
    assert judge.hope(4) == pytest.approx(1 - 4 ** -((2 + USUAL_POWER) / 2))
    assert judge.worth([weak], 8) > 0
    assert judge.rank([weak], 8).reaches


def test_who_can_reach_the_floor_comes_first() -> None:
    """A much faster network that stays below it is worth more volume, and less training; else the more accurate one."""
    given = [trial(0, 0.9, 1.0, 1000)]
    fast, safe, lost = trial(1, 0.82, 0.1, 100, "a"), trial(2, 0.87, 0.8, 800, "b"), trial(3, 0.5, 1.0, 1000, "c")
    judge = appraiser([*given, fast, safe, lost], max_drop=0.02)
    assert judge.worth([fast], 4) > judge.worth([safe], 4)
    assert judge.rank([safe], 4) > judge.rank([fast], 4) > judge.rank([lost], 4)
    worse = trial(4, 0.4, 1.0, 1000, "d")
    assert judge.rank([lost], 1)[:2] == judge.rank([worse], 1)[:2]
    assert judge.rank([lost], 1) > judge.rank([worse], 1)


def test_what_is_over_a_limit_is_worth_nothing() -> None:
    given = [trial(0, 0.9, 1.0, 1000)]
    found = trial(1, 0.9, 0.6, 200, "a")
    assert appraiser([*given, found], latency_ms=1.0).worth([found], 1) == 0
    assert appraiser([*given, found], latency_ms=1.2).worth([found], 1) > 0, "just held"
    assert not appraiser([*given, found], size_bytes=199).rank([found], 1).reaches
    assert appraiser([*given, found], size_bytes=100.0).worth([found], 0) == 0


def test_reaching_the_floor_counts_more_than_volume_below_it() -> None:
    given = [trial(0, 0.9, 1.0, 1000)]
    near, far = trial(1, 0.895, 0.5, 500, "a"), trial(2, 0.875, 0.1, 100, "b")
    judge = appraiser([*given, near, far], max_drop=0.01)
    assert judge.worth([near], 0) > judge.worth([far], 0) > 0


def test_just_reaching_the_floor_is_worth_something() -> None:
    """Who allows a drop wants something for it: much faster at the floor beats somewhat faster above it."""
    given = [trial(0, 0.9, 1.0, 1000), trial(1, 0.9, 0.6, 600)]
    bare, fine, short = trial(2, 0.881, 0.3, 600, "a"), trial(3, 0.899, 0.5, 600, "b"), trial(4, 0.879, 0.3, 600, "c")
    judge = appraiser([*given, bare, fine, short], max_drop=0.02)
    assert judge.worth([bare], 1) > judge.worth([fine], 1) > judge.worth([short], 1) > 0


def test_a_network_is_not_judged_by_the_luckiest_of_many_candidates() -> None:
    """What was stopped above the floor was no better than another, and may look good on few samples by chance."""
    given = trial(0, 0.9, 1.0, 1000)
    judge = appraiser([given], max_drop=0.05)

    def stopped(accuracy: float, origin: str) -> Trial:
        found = trial(1, accuracy, 0.5, 500, "a")
        return replace(found, status=TrialStatus.STOPPED, candidate=replace(found.candidate, origin=origin))

    assert judge.conclusive(trial(1, 0.95, 0.5, 500, "a"))
    assert not judge.conclusive(stopped(0.95, "sampler"))
    assert judge.conclusive(stopped(0.5, "sampler")), "surely below the floor"
    assert judge.conclusive(stopped(0.95, "prune")), "one of few, on a thousand samples"
    assert not judge.conclusive(replace(given, accuracy=None))


@pytest.mark.parametrize("conclusive", [True, False])
def test_what_the_sampler_tries_on_a_network_counts_where_it_is_conclusive(conclusive: bool) -> None:
    mine, other = contender("a"), contender("b")
    joint: Any = SimpleNamespace(_new=None, contenders=[mine, other], appraiser=appraiser([trial(0, 0.9, 1.0, 1000)]))
    tried = trial(1, 0.95, 0.5, 500, "a")
    if not conclusive:
        tried = replace(tried, status=TrialStatus.STOPPED, candidate=replace(tried.candidate, origin="sampler"))
    JointSearch._after(joint, tried)
    assert (mine.trials, other.trials) == ([tried] if conclusive else [], [])
