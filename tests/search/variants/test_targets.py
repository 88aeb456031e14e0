"""Which of several solutions becomes a network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from bitfront.core import FP32, Constraints, ModelError
from bitfront.lowering.dialect import ComputeType
from bitfront.search.proposals.prune_space import PruneSpace
from bitfront.search.proposals.space import GroupSpace, Space
from bitfront.search.variants import targets
from tests.search.proposals.spaces import branch
from tests.search.variants.test_halving import Known, appraiser, trial
from tests.search.variants.test_recovery import contender

GIVEN = nn.Linear(4, 3)
SPACE = Space(
    groups=tuple(
        GroupSpace(name=name, schemes=(FP32,), losses=(0.0,), size_bytes=(400,), arithmetic=(ComputeType.FLOAT,))
        for name in ("a", "b")
    ),
    edges=((0, 1),),
    prunes=(
        PruneSpace(name="a", sparsities=(0.0, 0.25, 0.5), losses=(0.0, 0.1, 0.11), parts={"a": (1.0, 0.75, 0.5)}),
        branch("r", "b"),
    ),
)


def joint(min_resource: int, damage: dict[float, float | None]) -> Any:
    """Of a search in which pruning "a" to a sparsity shifts one class by so much; None cannot be pruned."""

    def pruned(pruning: dict[str, float]) -> nn.Module:
        assert set(pruning) == {"a"}
        shift = damage[pruning["a"]]
        if shift is None:
            raise ModelError("it cannot be pruned so")
        module = nn.Linear(4, 3)
        module.load_state_dict(GIVEN.state_dict())
        module.bias.data[0] += shift
        return module

    images = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    return SimpleNamespace(
        space=SPACE,
        measure="kl",
        session=SimpleNamespace(
            options=SimpleNamespace(seed=0, sensitivity_samples=8),
            unseen={"images": images},
            runner=SimpleNamespace(watch=SimpleNamespace(timed=lambda _: nullcontext())),
        ),
        builder=SimpleNamespace(
            min_resource=min_resource,
            prune_step=dict,
            pipeline=SimpleNamespace(module_of=lambda steps: pruned(*steps)),
            context=SimpleNamespace(base=GIVEN),
        ),
    )


def asking(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> Any:
    """A search in which the given network comes to half of FP32's latency (2 ms) and 0.4 of its size.

    A recovery is four times the training that networks had.
    """
    monkeypatch.setattr(targets, "times_to_come", lambda *_: 4)
    trials = [trial(0, 0.9, 1.0, 1000), trial(1, 0.9, 0.5, 600), trial(2, 0.89, 0.7, 400)]
    return SimpleNamespace(
        explorer=SimpleNamespace(trials=trials),
        session=SimpleNamespace(options=SimpleNamespace(budget=Constraints(**limits)), evaluator=Known(trials)),
        contenders=[],
        appraiser=appraiser(trials, **limits),
    )


def test_limits_close_in_on_the_least_that_reaches_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what networks came to, not by what they were to come to; latency and size each on their own."""
    search = asking(monkeypatch, max_drop=0.02)
    limits = targets.limits(search)
    assert next(limits) == approximately(0.35, None)
    search.contenders.append(contender(trial(3, 0.875, 0.4, 390, "reaches")))
    assert next(limits) == approximately(None, 273)
    search.contenders.append(contender(trial(4, 0.7, 0.45, 250, "does not")))
    assert next(limits) == approximately(0.28, None), "not above what is known to reach"
    search.contenders.append(contender(trial(5, 0.7, 0.1, 395, "nor does this")))
    assert next(limits) == approximately(None, (390 * 250) ** 0.5)
    assert next(limits) == approximately((0.4 * 0.1) ** 0.5, None)
    assert len([*limits]) == 3


@pytest.mark.parametrize(("accuracy", "wanted"), [(0.87, 0.21), (0.868, (0.5 * 0.3) ** 0.5)])
def test_what_is_to_come_from_recovery_counts(monkeypatch: pytest.MonkeyPatch, accuracy: float, wanted: float) -> None:
    """Four times the training leaves half of a gap by the usual power, 0.66 by that which is counted on."""
    search = asking(monkeypatch, max_drop=0.02)
    search.contenders.append(contender(trial(3, accuracy, 0.3, 390, "fast")))
    assert next(targets.limits(search)) == approximately(wanted, None)


def test_limits_without_a_floor_are_parts_of_what_precisions_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    search = asking(monkeypatch, latency_ms=0.8)
    search.contenders.append(contender(trial(3, 0.2, 0.1, 100, "any")))
    near = 0.4 * 0.97
    parts = [each for part in (0.7, 0.5, 0.85, 0.6) for each in ((min(0.5 * part, near), None), (near, 400 * part))]
    for limits, wanted in zip(targets.limits(search), [(near, None), (0.4 * 0.88, None), *parts], strict=True):
        assert limits == approximately(*wanted)


def approximately(*values: float | None) -> Any:
    return tuple(value if value is None else pytest.approx(value) for value in values)


def encoding(level: int, branch: int = 0) -> tuple[int, ...]:
    return (0, 0, level, branch)


@pytest.mark.parametrize(
    ("steps", "damage", "wanted"),
    [
        (100, {0.25: 0.5, 0.5: 0.1}, 2),
        (100, {0.25: 0.1, 0.5: 0.5}, 1),
        (100, {0.25: None, 0.5: 0.5}, 2),
        (100, {0.25: 0.2, 0.5: float("nan")}, 1),
        (10, {}, 1),
    ],
)
def test_the_least_harmful_as_a_whole(
    monkeypatch: pytest.MonkeyPatch, steps: int, damage: dict[float, float | None], wanted: int
) -> None:
    """The first has the least sum of losses; it is compared only where that costs less than the training.

    That with the branch gone too has a sum far above the first's and is not looked at.
    """
    solutions = iter([encoding(1), encoding(2), None, encoding(1, branch=1), encoding(2)])
    spaces: list[Space] = []

    def solution(space: Space, _: object) -> tuple[int, ...] | None:
        spaces.append(space)
        return next(solutions)

    monkeypatch.setattr(targets, "_solver", lambda _: solution)
    assert targets.solved(joint(steps, damage), (0.5, None), 0) == encoding(wanted)
    assert spaces[0] == SPACE
    if damage:
        assert len({space.prunes[0].losses for space in spaces}) == len(spaces)


def test_losses_after_training_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the whole costs before training has no say then."""
    solutions = iter([encoding(1), encoding(2)])
    monkeypatch.setattr(targets, "_solver", lambda _: lambda *_: next(solutions))
    search = joint(100, {0.25: 0.5, 0.5: 0.1})
    search.space = replace(SPACE, prunes=tuple(replace(prune, trained=True) for prune in SPACE.prunes))
    assert targets.solved(search, (0.5, None), 0) == encoding(1)


def test_other_losses_keep_their_order() -> None:
    """One factor a group: what hurts more at more sparsity still does."""
    other = targets._otherwise(SPACE, np.random.default_rng(1))
    for ours, theirs in zip(other.prunes, SPACE.prunes, strict=True):
        assert ours.losses != theirs.losses
        ratios = {round(a / b, 9) for a, b in zip(ours.losses, theirs.losses, strict=True) if b}
        assert len(ratios) == 1


def test_no_solution() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "_solver", lambda _: lambda *_: None)
        assert targets.solved(joint(100, {}), (0.1, None), 0) is None
