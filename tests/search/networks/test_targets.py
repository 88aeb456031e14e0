"""Which of several solutions becomes a network."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from lowering.dialect import Arithmetic
from precision import FP32, ModelError
from search.networks import targets
from search.proposals.prune_space import PruneSpace
from search.proposals.space import GroupSpace, Space
from tests.search.proposals.spaces import branch

GIVEN = nn.Linear(4, 3)
SPACE = Space(
    groups=tuple(
        GroupSpace(name=name, choices=(FP32,), losses=(0.0,), size_bytes=(400,), arithmetic=(Arithmetic.FLOAT,))
        for name in ("a", "b")
    ),
    edges=((0, 1),),
    prunes=(
        PruneSpace(name="a", sparsities=(0.0, 0.25, 0.5), losses=(0.0, 0.1, 0.11), parts={"a": (1.0, 0.75, 0.5)}),
        branch("r", "b"),
    ),
)


def joint(unit_steps: int, damage: dict[float, float | None]) -> Any:
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
            bench=SimpleNamespace(watch=SimpleNamespace(measure=lambda _: nullcontext())),
        ),
        making=SimpleNamespace(unit_steps=unit_steps, maker=SimpleNamespace(module=GIVEN, pruned=pruned)),
    )


def code(level: int, branch: int = 0) -> tuple[int, ...]:
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
    solutions = iter([code(1), code(2), None, code(1, branch=1), code(2)])
    spaces: list[Space] = []

    def solution(space: Space, _: object) -> tuple[int, ...] | None:
        spaces.append(space)
        return next(solutions)

    monkeypatch.setattr(targets, "_solver", lambda _: solution)
    assert targets.solved(joint(steps, damage), (0.5, None), 0) == code(wanted)
    assert spaces[0] == SPACE
    if damage:
        assert len({space.prunes[0].losses for space in spaces}) == len(spaces)


def test_losses_after_training_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the whole costs before training has no say then."""
    solutions = iter([code(1), code(2)])
    monkeypatch.setattr(targets, "_solver", lambda _: lambda *_: next(solutions))
    search = joint(100, {0.25: 0.5, 0.5: 0.1})
    search.space = replace(SPACE, prunes=tuple(replace(prune, trained=True) for prune in SPACE.prunes))
    assert targets.solved(search, (0.5, None), 0) == code(1)


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
