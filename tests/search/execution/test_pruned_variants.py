"""Which of several solutions becomes a variant."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import nn

from bitfront.core import FP32, ModelError
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.execution.pruned_variants import solved
from bitfront.search.policy.config import DEFAULTS
from bitfront.search.policy.targets import Target
from bitfront.search.space.pruning import PruneVariable
from bitfront.search.space.space import GroupSpace, Space
from tests.search.proposals.spaces import branch

TARGET = Target(0.5, None)
GIVEN = nn.Linear(4, 3)
SPACE = Space(
    groups=tuple(
        GroupSpace(name=name, schemes=(FP32,), losses=(0.0,), size_bytes=(400,), compute_types=(ComputeType.FP32,))
        for name in ("a", "b")
    ),
    edges=((0, 1),),
    prunes=(
        PruneVariable(name="a", sparsities=(0.0, 0.25, 0.5), losses=(0.0, 0.1, 0.11), parts={"a": (1.0, 0.75, 0.5)}),
        branch("r", "b"),
    ),
)


def executor(unit: int, damage: dict[float, float | None], space: Space = SPACE) -> Any:
    """Of a search in which pruning "a" to a sparsity shifts one class by so much; None cannot be pruned."""

    def pruned(steps: list[dict[str, float]]) -> nn.Module:
        (pruning,) = steps
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
        explorers={"": SimpleNamespace(space=space)},
        policy=DEFAULTS,
        unit=unit,
        trials=SimpleNamespace(seed=0, watch=SimpleNamespace(timed=lambda _: nullcontext())),
        context=SimpleNamespace(unseen={"images": images}, divergence_samples=8, measure="kl"),
        builder=SimpleNamespace(
            context=SimpleNamespace(base=GIVEN),
            prune_step=lambda pruning: pruning,
            pipeline=SimpleNamespace(module_of=pruned),
        ),
    )


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
def test_the_least_harmful_as_a_whole(steps: int, damage: dict[float, float | None], wanted: int) -> None:
    """The first has the least sum of losses; it is compared only where that costs less than the training.

    That with the branch gone too has a sum far above the first's and is not looked at.
    """
    solutions = iter([encoding(1), encoding(2), None, encoding(1, branch=1), encoding(2)])
    spaces: list[Space] = []

    def solution(space: Space, _: Target) -> tuple[int, ...] | None:
        spaces.append(space)
        return next(solutions)

    assert solved(executor(steps, damage), TARGET, 0, solution) == encoding(wanted)
    assert spaces[0] == SPACE
    if damage:
        assert len({space.prunes[0].losses for space in spaces}) == len(spaces)


def test_losses_after_training_are_added_up() -> None:
    """What the whole costs before training has no say then."""
    solutions = iter([encoding(1), encoding(2)])
    space = SPACE.with_prunes([replace(prune, trained=True) for prune in SPACE.prunes])
    assert solved(executor(100, {0.25: 0.5, 0.5: 0.1}, space), TARGET, 0, lambda *_: next(solutions)) == encoding(1)


def test_no_solution() -> None:
    assert solved(executor(100, {}), TARGET, 0, lambda *_: None) is None
