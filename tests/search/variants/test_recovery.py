"""Whom the last of the training budget is for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from bitfront.core import Constraints, RecipeStep, Scheme
from bitfront.search.trial import Trial, TrialStatus
from bitfront.search.variants import recovery
from bitfront.search.variants.halving import Contender
from tests.search.variants.test_halving import appraiser, trial

STEP_S = 0.5
DONE = 40


@dataclass
class Joint:
    """What recovery asks of a joint search."""

    trials: list[Trial]
    contenders: list[Contender] = field(default_factory=list)
    budget_s: float | None = 600.0
    best: Trial | None = None

    def __post_init__(self) -> None:
        self.appraiser = appraiser(self.trials, max_drop=0.02)
        self.session: Any = SimpleNamespace(evaluator=SimpleNamespace(best=self.best))
        self.builder = SimpleNamespace(
            options=SimpleNamespace(train_budget_s=self.budget_s),
            steps_of_epochs=lambda epochs: 50 * epochs,
            seconds_per_step=STEP_S,
            variants={one.network: SimpleNamespace(seconds=STEP_S * DONE) for one in self.contenders},
            pipeline=SimpleNamespace(trained_steps=lambda steps: DONE * len(steps)),
        )


def contender(tried: Trial) -> Contender:
    step = RecipeStep(name="distill", options={"training": {"steps": DONE}})
    name = tried.candidate.network
    return Contender(label=name, base=(), network=name, steps=(step,), trials=[tried], rungs=1)


def chosen(tried: list[Trial], shared_s: float, rest_s: float, first: str = "", **more: Any) -> list[str]:
    given = trial(0, 0.9, 1.0, 1000)
    joint: Any = Joint([given, *tried], [contender(one) for one in tried], **{"best": given, **more})
    plan = recovery._Plan(shared_s, rest_s, 0.0)
    preferred = next((one for one in joint.contenders if one.label == first), None)
    return [one.label for one in recovery._chosen(joint, joint.contenders, plan, first=preferred)]


FAST, TWIN, SMALL = (
    trial(1, 0.86, 0.3, 600, "fast"),
    trial(2, 0.86, 0.31, 601, "twin"),
    trial(3, 0.86, 0.8, 100, "small"),
)


def test_each_is_chosen_beside_the_others() -> None:
    """The second is not one that comes to the same as the first, though it is worth next to as much by itself."""
    assert chosen([FAST, TWIN, SMALL], 200, 300)[:2] == ["fast", "small"]


def test_the_preferred_network_is_among_them() -> None:
    """Whatever it adds to a front; not where it has nothing to gain."""
    good, perfect = trial(4, 0.89, 0.9, 900, "good"), trial(5, 0.9, 1.0, 1000, "perfect")
    assert chosen([FAST, good, SMALL], 200, 300)[0] != "good"
    assert chosen([FAST, good, SMALL], 200, 300, first="good")[0] == "good"
    assert len(chosen([FAST, good, SMALL], 200, 300, first="good")) == 3
    assert "perfect" not in chosen([FAST, perfect, SMALL], 200, 300, first="perfect")


def test_where_nothing_keeps_the_budget_the_most_accurate_is_first() -> None:
    """Both are expected to reach the floor; the smaller network promises more volume."""
    near, small = trial(1, 0.878, 0.8, 800, "near"), trial(2, 0.87, 0.2, 200, "small")
    assert chosen([near, small], 200, 300) == ["small", "near"]
    assert chosen([near, small], 200, 300, best=None) == ["near", "small"]
    over = trial(3, 0.899, 1.1, 1100, "over")
    assert chosen([near, small, over], 200, 300, best=None) == ["near", "small"], "it can enter no front"


@pytest.mark.parametrize(
    ("budget", "pruning", "label"),
    [
        (Constraints(max_drop=0.02, size_bytes=700), {"g": 0.5}, "fast"),
        (Constraints(max_drop=0.02), {"g": 0.5}, None),
        (Constraints(size_bytes=10), None, None),
        (Constraints(size_bytes=2000), {}, None),
    ],
    ids=["size is limited", "the fastest is wanted", "nothing fits", "the given network"],
)
def test_whose_point_would_be_recommended(
    budget: Constraints, pruning: dict[str, float] | None, label: str | None
) -> None:
    """A network in whichever state it was tried."""
    best = None
    if pruning is not None:
        best = replace(FAST, candidate=replace(FAST.candidate, pruning=pruning, network="before more training"))
    joint: Any = Joint([TWIN, FAST])
    joint.contenders = [replace(contender(TWIN), pruning={"g": 0.25}), replace(contender(FAST), pruning={"g": 0.5})]
    joint.session = SimpleNamespace(evaluator=SimpleNamespace(best=best), options=SimpleNamespace(budget=budget))
    found = recovery._preferred(joint)
    assert (found and found.label) == label


def test_as_many_as_can_be_trained_for_long_enough() -> None:
    assert len(chosen([FAST, SMALL], 2 * 50 * recovery._WHOLE_EPOCHS * STEP_S, 300)) == 2
    assert len(chosen([FAST, SMALL], 1.9 * 50 * recovery._WHOLE_EPOCHS * STEP_S, 300)) == 1
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
def test_rounding_must_cost_something(monkeypatch: pytest.MonkeyPatch, rounded: float, costs: bool) -> None:
    """A tenth of the drop that is allowed, 0.002, against what the same network does unrounded."""
    given, artifact, unrounded = (
        trial(0, 0.9, 1.0, 1000),
        trial(1, rounded, 0.3, 300, "a"),
        trial(2, 0.88, 0.6, 900, "a"),
    )
    joint: Any = Joint([given, artifact, unrounded])
    monkeypatch.setattr(recovery, "_best_artifacts", lambda _: [artifact])
    budget = Constraints(max_drop=0.02)
    joint.session = SimpleNamespace(
        evaluator=SimpleNamespace(trials=joint.trials, reference_accuracy=0.9), options=SimpleNamespace(budget=budget)
    )
    assert recovery._rounding_costs(joint) is costs


def test_artifacts_below_the_floor_are_trained_and_too_slow_ones_not() -> None:
    """Stopped while it was scored is what training is for; of the given network only a slow one was scored."""
    slow = replace(trial(1, 0.899, 0.6, 300), misses={"latency": 0.5, "accuracy": -0.02})
    below = replace(
        trial(2, 0.87, 0.3, 300, "a"), status=TrialStatus.STOPPED, misses={"latency": -0.2, "accuracy": 0.01}
    )
    joint: Any = Joint([trial(0, 0.9, 1.0, 1000), slow, below], [contender(below)])
    joint.explorers = {"": SimpleNamespace(trials=joint.trials)}
    int8 = Scheme.parse("int8")
    joint.session.runner = SimpleNamespace(layers=lambda _: {"conv": int8})
    assert recovery._best_artifacts(joint) == [below]


def test_the_artifact_nearest_to_the_floor_is_trained_first_where_nothing_reaches_it() -> None:
    near, small = trial(1, 0.879, 0.8, 800, "near"), trial(2, 0.87, 0.2, 200, "small")
    for best, first in ((None, near), (small, small)):
        joint: Any = Joint([trial(0, 0.9, 1.0, 1000), near, small], [contender(near), contender(small)], best=best)
        joint.explorers = {"": SimpleNamespace(trials=joint.trials)}
        int4 = Scheme.parse("int4")
        joint.session.runner = SimpleNamespace(layers=lambda _, scheme=int4: {"conv": scheme})
        assert recovery._best_artifacts(joint)[0] is first
