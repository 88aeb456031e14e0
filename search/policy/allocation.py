"""Allocation of trials and time to the parts of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitfront.search.policy.config import DEFAULTS, AllocationConfig
from bitfront.search.trial import Trial, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """Limits of a run.

    Attributes:
        trials: Measured candidates.
        time_limit_s: Wall clock in seconds; None is none.
        config: How it is divided.
    """

    trials: int
    time_limit_s: float | None
    config: AllocationConfig = DEFAULTS.allocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Part of a run's trials and time that a part of the search may use.

    Attributes:
        trial_fraction: Of the trials, after which it is full.
        time_fraction: Of the time limit, after which it is late.
    """

    trial_fraction: float = 1.0
    time_fraction: float = 1.0


def is_full(trials: Sequence[Trial], allocation: Allocation, limits: RunLimits) -> bool:
    """Whether as many candidates were measured as allocated."""
    uncounted = (TrialStatus.REPEATED, TrialStatus.TIMED)
    measured = sum(trial.status not in uncounted for trial in trials)
    return measured >= allocation.trial_fraction * limits.trials


def is_late(elapsed_s: float, allocation: Allocation, limits: RunLimits) -> bool:
    """Whether the allocated time is used up, or the limit leaves only what the finalists need."""
    if limits.time_limit_s is None:
        return False
    return elapsed_s >= allocation.time_fraction * search_time_s(limits.time_limit_s, limits.config)


def search_time_s(limit_s: float, config: AllocationConfig = DEFAULTS.allocation) -> float:
    """Return what of a time limit is not kept for measuring the finalists, in seconds."""
    return limit_s - min(config.finalists_time_fraction * limit_s, config.finalists_most_s)


def before_fine_tuning(limits: RunLimits, training_s: float | None) -> float:
    """Return the fraction of the time after which what is left is kept for the final fine-tuning.

    Args:
        limits: The run's.
        training_s: Training time of the run in seconds; None where none is limited or nothing is trained.
    """
    if limits.time_limit_s is None or training_s is None:
        return 1.0
    config, usable = limits.config, search_time_s(limits.time_limit_s, limits.config)
    kept_s = (1 - config.search_training_fraction) * training_s * config.fine_tuning_overhead
    return 1.0 - min(kept_s / usable, config.fine_tuning_most_fraction)
