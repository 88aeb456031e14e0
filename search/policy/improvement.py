"""Expected improvement by training a variant further: hypervolume its best candidate adds to the given network's front.

Not to the front of all, which grows as a run goes: variants that were tried early and late would not compare.

Objectives are accuracy, ratio to the given network's latency and size relative to the largest file tried, FP32's. What
is over a limit of latency or size counts nothing; what is within it counts as if the limit were somewhat higher, or
holding it just so would be worth nothing. So does what reaches the floor of accuracy: as if the floor were as far below
the given network again. Volume of what does not reach it counts a tenth, or nothing would lead there.

A candidate counts with the accuracy it would have after further training (``learning_curve``). The power of that curve
differs between variants: the improvement is the mean over a lower, the learned and a higher one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Constraints
from bitfront.search.policy.config import DEFAULTS, LearningCurveConfig
from bitfront.search.policy.learning_curve import LearningCurve
from bitfront.search.proposals.hypervolume_gain import hypervolume_gains
from bitfront.search.trial import Trial, TrialStatus


class Priority(NamedTuple):
    """Order of variants to be trained further: reasons for one, the weightiest first.

    Attributes:
        reaches_floor: Whether one of its candidates within the limits is expected to reach the floor.
        improvement: The expected hypervolume improvement.
        accuracy: The best that is expected; −∞ where nothing was scored.
    """

    reaches_floor: bool
    improvement: float
    accuracy: float


class Projected(NamedTuple):
    """A trial as it would be after training its variant to so many times the steps."""

    trial: Trial
    times: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Trials, limits and expectations by which variants are compared.

    Attributes:
        trials: All of the run.
        reference_accuracy: The given network's; NaN before it was scored.
        reference_ms: Its latency in milliseconds; NaN before it was timed.
        constraints: Limits.
        curve: What training is expected to bring.
        config: How volumes are weighed.
    """

    trials: tuple[Trial, ...]
    reference_accuracy: float
    reference_ms: float
    constraints: Constraints
    curve: LearningCurve
    config: LearningCurveConfig = DEFAULTS.learning_curve

    @property
    def floor(self) -> float:
        """The lowest accuracy within the limits; −∞ without one."""
        return self.constraints.accuracy_floor(self.reference_accuracy)

    @property
    def allowed_gap(self) -> float:
        """Accuracy between the given network and the floor, at least ``least_gap``; infinite without a floor."""
        return max(self.reference_accuracy - self.floor, self.config.least_gap)

    def conclusive(self, trial: Trial) -> bool:
        """Whether a trial's accuracy says something of its variant.

        A search that tries many candidates on one variant finds some that do well on the few samples after which they
        were stopped, being no better than another: the best of those is the luckiest.
        """
        if trial.accuracy is None:
            return False
        if trial.status is TrialStatus.COMPLETE or trial.candidate.judges_variant:
            return True
        return trial.accuracy.ci_high < self.floor

    def improvement(self, own: Sequence[Trial], times: float, beside: Sequence[Projected] = ()) -> float:
        """Return the hypervolume that a variant's trials are expected to add after further training, ≥ 0.

        Args:
            own: Its trials.
            times: The steps over those so far.
            beside: What is counted as there already besides the given network's trials.
        """
        scored = self._usable(own)
        if not scored or not math.isfinite(self.reference_accuracy):
            return 0.0
        rivals = [
            trial
            for trial in self._usable(self.trials)
            if trial.status is TrialStatus.COMPLETE and trial not in own and not trial.candidate.variant
        ]
        known = [self._point(trial, 1) for trial in rivals]
        known += [self._point(other.trial, other.times) for other in beside if self._usable([other.trial])]
        front, corner = np.array(known).reshape(-1, 3), self._corner()
        floor, config = self.floor, self.config
        lower = np.array([config.floor_gaps * self.allowed_gap - self.reference_accuracy, *corner[1:]])
        total = np.zeros(len(scored))
        for factor in config.power_factors:
            points = np.array([self._point(trial, times, factor) for trial in scored])
            total += config.below_weight * hypervolume_gains(front, corner, points)
            if math.isfinite(floor):
                reaching = front[-front[:, 0] >= floor]
                total += np.where(-points[:, 0] >= floor, hypervolume_gains(reaching, lower, points), 0.0)
        return float(total.max()) / len(config.power_factors)

    def priority(self, own: Sequence[Trial], times: float, beside: Sequence[Projected] = ()) -> Priority:
        """Return what speaks for training a variant to so many times the steps; the greater the better."""
        return Priority(
            reaches_floor=any(-self._point(trial, times)[0] >= self.floor for trial in self._usable(own)),
            improvement=self.improvement(own, times, beside),
            accuracy=self.expected_accuracy(own, times),
        )

    def expected_accuracy(self, own: Sequence[Trial], times: float, power_factor: float = 1.0) -> float:
        """Return the best accuracy expected of trials, within limits or not; −∞ where nothing was scored.

        Args:
            own: A variant's trials.
            times: The steps over those so far.
            power_factor: Times the learned power.
        """
        scored = [trial for trial in own if trial.accuracy is not None and trial.latency is not None]
        return max((-self._point(trial, times, power_factor)[0] for trial in scored), default=-math.inf)

    def _usable(self, trials: Sequence[Trial]) -> list[Trial]:
        """Trials that were scored and are within the limits of latency and size."""
        ratio, size = self._limits
        return [
            trial
            for trial in trials
            if trial.accuracy is not None
            and trial.latency is not None
            and trial.latency.ratio <= ratio
            and (trial.size_bytes or 0) <= size * self._fp32_bytes
        ]

    def _point(self, trial: Trial, times: float, power_factor: float = 1.0) -> tuple[float, float, float]:
        assert trial.accuracy is not None
        assert trial.latency is not None
        assert trial.size_bytes is not None
        gap = max(self.reference_accuracy - trial.accuracy.value, 0.0)
        accuracy = trial.accuracy.value + self.curve.gap_closed(times, power_factor) * gap
        return -accuracy, trial.latency.ratio, trial.size_bytes / self._fp32_bytes

    @property
    def _fp32_bytes(self) -> float:
        return float(max(trial.size_bytes or 0 for trial in self.trials))

    @property
    def _limits(self) -> tuple[float, float]:
        """Limits of latency and size, relative to the given network and to the largest file; infinite without one."""
        latency_ms, size_bytes = self.constraints.latency_ms, self.constraints.size_bytes
        return (
            math.inf if latency_ms is None else latency_ms / self.reference_ms,
            math.inf if size_bytes is None else size_bytes / self._fp32_bytes,
        )

    def _corner(self) -> NDArray[np.float64]:
        reference, config = self.reference_accuracy, self.config
        if math.isfinite(self.floor):
            least = reference - config.below_gaps * self.allowed_gap
        else:
            least = reference - config.without_floor * abs(reference)
        return np.array([-least, *(min(config.beyond_limit * limit, 1.0) for limit in self._limits)])
