"""Whom the last of the training time is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bitfront.core import Constraints, Preference
from bitfront.search.policy import fine_tuning
from bitfront.search.policy.fine_tuning import TimeSplit, TrainingResources
from bitfront.search.policy.variant import VariantState
from bitfront.search.trial import Trial, TrialStatus
from tests.search.policy.test_improvement import evidence, trial

STEP_S = 0.5
DONE = 40
GIVEN = trial(0, 0.9, 1.0, 1000)
RESOURCES = TrainingResources(left_s=600.0, asked=True, pace_s=STEP_S, epoch_steps=50)


def variant(tried: Trial) -> VariantState:
    """One that was trained for 40 steps."""
    name = tried.candidate.variant
    return VariantState(
        label=name, base=(), id=name, steps=(), trained_steps=DONE, train_s=STEP_S * DONE, trials=[tried], rungs=1
    )


def chosen(tried: list[Trial], shared_s: float, final_s: float, first: str = "", *, feasible: bool = True) -> list[str]:
    variants = [variant(one) for one in tried]
    found = fine_tuning.choose_variants(
        variants,
        TimeSplit(shared_s, final_s, 0.0),
        evidence([GIVEN, *tried], max_drop=0.02),
        RESOURCES,
        every=variants,
        feasible=feasible,
        first=next((one for one in variants if one.label == first), None),
    )
    return [one.label for one in found]


FAST, ALIKE, SMALL = (
    trial(1, 0.86, 0.3, 600, "fast"),
    trial(2, 0.86, 0.31, 601, "alike"),
    trial(3, 0.86, 0.8, 100, "small"),
)


def test_each_is_chosen_beside_the_others() -> None:
    """The second is not one that comes to the same as the first, though it is worth next to as much by itself."""
    assert chosen([FAST, ALIKE, SMALL], 200, 300)[:2] == ["fast", "small"]


def test_the_preferred_variant_is_among_them() -> None:
    """Whatever it adds to a front; not where it has nothing to gain."""
    good, perfect = trial(4, 0.89, 0.9, 900, "good"), trial(5, 0.9, 1.0, 1000, "perfect")
    assert chosen([FAST, good, SMALL], 200, 300)[0] != "good"
    assert chosen([FAST, good, SMALL], 200, 300, first="good")[0] == "good"
    assert len(chosen([FAST, good, SMALL], 200, 300, first="good")) == 3
    assert "perfect" not in chosen([FAST, perfect, SMALL], 200, 300, first="perfect")


def test_where_nothing_keeps_the_limits_the_most_accurate_is_first() -> None:
    """Both are expected to reach the floor; the smaller variant promises more volume."""
    near, small = trial(1, 0.878, 0.8, 800, "near"), trial(2, 0.87, 0.2, 200, "small")
    assert chosen([near, small], 200, 300) == ["small", "near"]
    assert chosen([near, small], 200, 300, feasible=False) == ["near", "small"]
    over = trial(3, 0.899, 1.1, 1100, "over")
    assert chosen([near, small, over], 200, 300, feasible=False) == ["near", "small"], "it can enter no front"


@pytest.mark.parametrize(
    ("constraints", "pruning", "label"),
    [
        (Constraints(max_drop=0.02, size_bytes=700), {"g": 0.5}, "fast"),
        (Constraints(max_drop=0.02), {"g": 0.5}, None),
        (Constraints(size_bytes=10), None, None),
        (Constraints(size_bytes=2000), {}, None),
    ],
    ids=["size is limited", "the fastest is wanted", "nothing fits", "the given network"],
)
def test_whose_point_would_be_recommended(
    constraints: Constraints, pruning: dict[str, float] | None, label: str | None
) -> None:
    """A variant in whichever state it was tried."""
    best = None
    if pruning is not None:
        best = replace(FAST, candidate=replace(FAST.candidate, pruning=pruning, variant="before more training"))
    variants = [replace(variant(ALIKE), pruning={"g": 0.25}), replace(variant(FAST), pruning={"g": 0.5})]
    found = fine_tuning.preferred_variant(variants, best, accuracy_first=Preference().accuracy_first(constraints))
    assert (found and found.label) == label


def test_as_many_as_can_be_trained_for_long_enough() -> None:
    whole_s = RESOURCES.config.whole_epochs * RESOURCES.epoch_steps * STEP_S
    assert len(chosen([FAST, SMALL], 2 * whole_s, 300)) == 2
    assert len(chosen([FAST, SMALL], 1.9 * whole_s, 300)) == 1
    assert chosen([], 300, 300) == []


@pytest.mark.parametrize(("gap", "count"), [(0.04, 2), (0.085, 1)])
def test_fewer_where_only_longer_training_reaches_the_floor(gap: float, count: int) -> None:
    """Both come near in half of the time; with a wide gap only one that gets all of it."""
    left = [trial(1, 0.9 - gap, 0.3, 600, "a"), trial(2, 0.9 - gap, 0.8, 100, "b")]
    assert len(chosen(left, 500, 0)) == count


def test_the_most_accurate_where_none_is_worth_anything() -> None:
    """Both are larger and slower than FP32."""
    assert chosen([trial(1, 0.5, 1.2, 1200, "bad"), trial(2, 0.6, 1.2, 1200, "better")], 100, 300) == ["better"]


@pytest.mark.parametrize(("rounded", "costs"), [(0.874, True), (0.8795, False)])
def test_rounding_must_cost_something(rounded: float, costs: bool) -> None:
    """A tenth of the drop that is allowed, 0.002, against what the same variant does unrounded."""
    artifact, unrounded = trial(1, rounded, 0.3, 300, "a"), trial(2, 0.88, 0.6, 900, "a")
    known = evidence([GIVEN, artifact, unrounded], max_drop=0.02)
    assert fine_tuning.rounding_costs([artifact], known) is costs


def test_artifacts_below_the_floor_are_trained_and_too_slow_ones_not() -> None:
    """Stopped while it was scored is what training is for; of the given network only a slow one was scored."""
    slow = replace(trial(1, 0.899, 0.6, 300), misses={"latency": 0.5, "accuracy": -0.02})
    below = replace(
        trial(2, 0.87, 0.3, 300, "a"), status=TrialStatus.STOPPED, misses={"latency": -0.2, "accuracy": 0.01}
    )
    known = evidence([GIVEN, slow, below], max_drop=0.02)
    assert fine_tuning.choose_artifacts([slow, below], [variant(below)], known, feasible=False) == [below]


def test_artifacts_of_an_earlier_state_are_left_out() -> None:
    """A variant that was trained on since is another network."""
    old, now = trial(1, 0.88, 0.3, 300, "before"), trial(2, 0.87, 0.4, 400, "after")
    known = evidence([GIVEN, old, now], max_drop=0.02)
    assert fine_tuning.choose_artifacts([old, now], [variant(now)], known, feasible=True) == [now]


def test_the_artifact_nearest_to_the_floor_is_trained_first_where_nothing_reaches_it() -> None:
    near, small = trial(1, 0.879, 0.8, 800, "near"), trial(2, 0.87, 0.2, 200, "small")
    known = evidence([GIVEN, near, small], max_drop=0.02)
    variants = [variant(near), variant(small)]
    for feasible, first in ((False, near), (True, small)):
        assert fine_tuning.choose_artifacts([near, small], variants, known, feasible=feasible)[0] is first


@pytest.mark.parametrize(
    ("budget_left_s", "time_left_s", "left_s"),
    [(None, float("inf"), float("inf")), (50.0, 100.0, 50.0), (95.0, 100.0, 90.0), (10.0, -1.0, 0.0)],
)
def test_both_limits_of_time_hold(budget_left_s: float | None, time_left_s: float, left_s: float) -> None:
    """Of the wall clock a tenth goes by while candidates are tried."""
    assert fine_tuning.seconds_left(budget_left_s, time_left_s) == left_s


@pytest.mark.parametrize(
    ("asked", "qat", "split"),
    [(True, False, (50, 50, 0)), (True, True, (40, 40, 20)), (False, False, (100, 0, 0)), (False, True, (80, 0, 20))],
)
def test_half_is_shared_where_the_time_was_asked_for(asked: bool, qat: bool, split: Any) -> None:
    resources = replace(RESOURCES, left_s=100.0, asked=asked)
    assert fine_tuning.split_time(resources, qat=qat) == pytest.approx(split)


def test_steps_go_by_the_pace_of_the_variant_itself() -> None:
    """By the given network's before it was trained, and never more than the data should be seen."""
    one = variant(FAST)
    assert fine_tuning.steps_within(one, 100.0, RESOURCES) == 200
    assert fine_tuning.steps_within(replace(one, train_s=2 * STEP_S * DONE), 100.0, RESOURCES) == 100
    assert fine_tuning.steps_within(replace(one, train_s=0.0, trained_steps=0), 100.0, RESOURCES) == 200
    assert fine_tuning.steps_within(one, 1e9, RESOURCES) == 60 * 50
    assert fine_tuning.steps_within(one, 1e9, replace(RESOURCES, asked=False, epoch_steps=2)) == 60
