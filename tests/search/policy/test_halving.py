"""Successive halving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.pruners import SuccessiveHalvingPruner

from bitfront.search.policy.config import HalvingConfig
from bitfront.search.policy.halving import PromotionDecision, decide, decided_before, first_rung_steps, steps_of
from bitfront.search.policy.variant import VariantState

RUNGS = HalvingConfig().rungs


def variant(name: str, rungs: int = 1) -> VariantState:
    return VariantState(label=name, base=(), id=name, steps=(), rungs=rungs)


def race(
    values: Sequence[Sequence[float]], config: HalvingConfig | None = None
) -> tuple[list[int], list[PromotionDecision]]:
    """Lead variants with these values at each rung as far as they come; returns how far each came."""
    history: list[PromotionDecision] = []
    came = []
    for number, row in enumerate(values):
        one = variant(f"n{number}")
        while True:
            history.append(decide(history, one, row[one.rungs - 1], 10, config or HalvingConfig()))
            if not history[-1].promoted:
                break
            one.rungs += 1
        came.append(one.rungs)
    return came, history


def test_rungs_triple_the_training() -> None:
    steps = [steps_of(rung, 10) for rung in range(RUNGS)]
    assert [sum(steps[: rung + 1]) for rung in range(RUNGS)] == [10, 30, 90]


@pytest.mark.parametrize(
    ("limit_s", "epoch_steps", "steps"),
    [(None, 900, 800), (600.0, 900, 200), (60.0, 900, 45), (60.0, 20, 20)],
    ids=["as often as data should be seen", "a part of the time", "too short to tell", "few data"],
)
def test_the_first_rung(limit_s: float | None, epoch_steps: int, steps: int) -> None:
    assert first_rung_steps(limit_s=limit_s, pace_s=0.1, epoch_steps=epoch_steps) == steps


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


def test_a_config_decides_how_many_go_on() -> None:
    """With η = 2 and nobody to wait for, half of them do, up to another number of rungs."""
    came, _ = race([[0.1] * 2, [0.2] * 2, [0.15] * 2, [0.3] * 2], HalvingConfig(factor=2, rungs=2, warm_up=0))
    assert came == [2, 2, 1, 2]


def test_networks_of_an_interrupted_run_count() -> None:
    """Those that were taken up are what a new one is compared with, and their rungs are in the history."""
    values: Mapping[str, float] = {"weak": 0.1, "middle": 0.5, "new": 0.3, "best": 0.9}
    history: list[PromotionDecision] = []
    for name, rungs in (("weak", 1), ("middle", 2)):
        history += decided_before(variant(name, rungs), values[name], 10)
    assert [(j.label, j.rung, j.promoted) for j in history] == [
        ("weak", 0, False),
        ("middle", 0, True),
        ("middle", 1, False),
    ]
    promoted = {}
    for name in ("new", "best"):
        history.append(decide(history, variant(name), values[name], 10))
        promoted[name] = history[-1].promoted
    assert promoted == {"new": False, "best": True}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.floats(0.01, 1.0), min_size=RUNGS, max_size=RUNGS), min_size=1, max_size=12))
def test_decisions_are_those_of_one_long_study(values: list[list[float]]) -> None:
    """Told anew from the history each time, Optuna's pruner decides as if it had seen everything happen."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=3, bootstrap_count=2)
    )
    expected = []
    for row in values:
        entry, rungs = study.ask(), 1
        while True:
            entry.report(row[rungs - 1], 3 ** (rungs - 1))
            if rungs == RUNGS or entry.should_prune():
                break
            rungs += 1
        expected.append(rungs)
    assert race(values)[0] == expected
