"""Which limits pruned variants are solved for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bitfront.search.policy.config import TargetConfig
from bitfront.search.policy.fine_tuning import TrainingResources
from bitfront.search.policy.targets import (
    Costs,
    Target,
    VariantOutcome,
    next_target,
    perturbed,
    variant_outcomes,
)
from bitfront.search.policy.variant import VariantState
from bitfront.search.trial import Trial
from tests.search.policy.test_fine_tuning import variant
from tests.search.policy.test_improvement import evidence, trial
from tests.search.proposals.spaces import prunable_chain

GIVEN = Costs(0.5, 400.0)  # what precisions alone reach
FREE = Costs(math.inf, math.inf)


def target(number: int, outcomes: list[VariantOutcome] | None, limits: Costs = FREE) -> Any:
    found = next_target(number, given=GIVEN, limits=limits, outcomes=outcomes)
    return found and tuple(value if value is None else pytest.approx(value) for value in found)


def outcome(ratio: float, size_bytes: float, *, reaches: bool) -> VariantOutcome:
    return VariantOutcome(Costs(ratio, size_bytes), reaches)


def test_targets_close_in_on_the_least_that_reaches_the_floor() -> None:
    """By what variants came to, not by what they were to come to; latency and size each on their own."""
    known: list[VariantOutcome] = []
    assert target(0, known) == Target(0.35, None)
    known.append(outcome(0.4, 390, reaches=True))
    assert target(1, known) == Target(None, 273)
    known.append(outcome(0.45, 250, reaches=False))
    assert target(2, known) == Target(0.28, None), "not above what is known to reach"
    known.append(outcome(0.1, 395, reaches=False))
    assert target(3, known) == Target(None, (390 * 250) ** 0.5)
    assert target(4, known) == Target((0.4 * 0.1) ** 0.5, None)
    assert target(7, known) is not None
    assert target(8, known) is None


def test_targets_without_a_floor_are_fractions_of_what_precisions_reach() -> None:
    """First near the limit that they do not reach, then within it."""
    limits, near = Costs(0.4, math.inf), 0.4 * 0.97
    fractions = [each for f in TargetConfig().fractions for each in ((min(0.5 * f, near), None), (near, 400 * f))]
    for number, wanted in enumerate([(near, None), (0.4 * 0.88, None), *fractions, None]):
        assert target(number, None, limits) == wanted


@pytest.mark.parametrize(("accuracy", "reaches"), [(0.87, True), (0.868, False)])
def test_what_is_to_come_from_fine_tuning_counts(accuracy: float, reaches: bool) -> None:
    """Four times the training leaves half of a gap by the usual power, 0.66 by that which is counted on."""
    tried = trial(3, accuracy, 0.3, 390, "fast")
    resources = TrainingResources(left_s=2 * 60.0, asked=True, pace_s=0.5, epoch_steps=50)
    found = variant_outcomes([variant(tried)], evidence([trial(0, 0.9, 1.0, 1000), tried], max_drop=0.02), resources)
    assert found == [VariantOutcome(Costs(0.3, 390.0), reaches)]


def test_what_was_not_scored_tells_nothing() -> None:
    """Nor does anything where no accuracy is asked for."""
    given = trial(0, 0.9, 1.0, 1000)
    trials: list[Trial] = []
    unscored = VariantState(label="u", base=(), id="u", steps=(), trials=trials)
    assert variant_outcomes([unscored], evidence([given], max_drop=0.02), None) == []
    assert variant_outcomes([unscored], evidence([given]), None) is None


def test_perturbed_losses_keep_their_order() -> None:
    """One factor a group: what hurts more at more sparsity still does."""
    space = prunable_chain(6)
    other = perturbed(space, np.random.default_rng(1))
    for ours, theirs in zip(other.prunes, space.prunes, strict=True):
        assert ours.losses != theirs.losses
        ratios = {round(a / b, 9) for a, b in zip(ours.losses, theirs.losses, strict=True) if b}
        assert len(ratios) == 1
