"""How trials and time are divided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bitfront.search.policy.allocation import (
    Allocation,
    RunLimits,
    before_fine_tuning,
    is_full,
    is_late,
    search_time_s,
)
from bitfront.search.trial import TrialStatus
from tests.search.policy.test_improvement import trial

LIMITS = RunLimits(trials=4, time_limit_s=100.0)


def test_duplicates_and_cost_probes_do_not_count_as_trials() -> None:
    tried = [trial(number, 0.9, 1.0, 1000) for number in range(2)]
    free = [replace(tried[0], status=status) for status in (TrialStatus.REPEATED, TrialStatus.TIMED)]
    half = Allocation(trial_fraction=0.5)
    assert not is_full([*tried[:1], *free], half, LIMITS)
    assert is_full([*tried, *free], half, LIMITS)
    assert not is_full(tried, Allocation(), LIMITS)


@pytest.mark.parametrize(("limit_s", "search_s"), [(100.0, 80.0), (1000.0, 970.0)])
def test_finalists_get_a_fifth_of_the_time_but_thirty_seconds_at_most(limit_s: float, search_s: float) -> None:
    assert search_time_s(limit_s) == search_s
    limits = RunLimits(trials=1, time_limit_s=limit_s)
    assert not is_late(search_s - 1, Allocation(), limits)
    assert is_late(search_s, Allocation(), limits)
    assert is_late(0.5 * search_s, Allocation(time_fraction=0.5), limits)
    assert not is_late(1e9, Allocation(), replace(limits, time_limit_s=None))


@pytest.mark.parametrize(("training_s", "fraction"), [(None, 1.0), (40.0, 1 - 0.6 * 40 * 1.15 / 80), (1000.0, 0.5)])
def test_time_is_kept_for_the_fine_tuning(training_s: float | None, fraction: float) -> None:
    """Half of the time at most."""
    assert before_fine_tuning(LIMITS, training_s) == pytest.approx(fraction)
    assert before_fine_tuning(replace(LIMITS, time_limit_s=None), training_s) == 1.0
