"""What a network is worth training further: the volume its best candidate would add to the given network's front.

Not to the front of all, which grows as a run goes: networks that were tried early and late would not compare.

Objectives are accuracy, ratio to the given network's latency and size relative to the largest file tried, FP32's. What
is over a limit of latency or size counts nothing; what is within it counts as if the limit were somewhat higher, or
holding it just so would be worth nothing. So does what reaches the floor of accuracy: as if the floor were as far below
the given network again. Volume of what does not reach it counts a tenth, or nothing would lead there.

A candidate is appraised with the accuracy it would have after further training. A network's gap to the given one's
accuracy is taken to fall with a power of the training steps, as errors do (Hestness et al., arXiv:1712.00409); the
power is learned from the networks that were trained on. It differs between networks: worth is the mean over a lower,
the learned and a higher power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Constraints
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.proposals.hypervolume_gain import hypervolume_gains
from bitfront.search.trial import Trial, TrialStatus

USUAL_POWER = 0.5  # counts as one network seen
_POWERS = (0.6, 1.0, 1.6)  # times the learned one, equally likely
LEAST_GAP = 0.01  # between the given network and the floor, for what follows
_BELOW_FLOOR = 3.0  # gaps that count for what does not reach the floor, from the given network down
_FLOOR = 2.0  # and for what reaches it
_BELOW = 0.1  # what volume below the floor counts beside volume above it
_WITHOUT_FLOOR = 0.3  # of the given network's accuracy that counts, without a floor
_BEYOND = 1.5  # of a limit: where volume within it ends


class Rank(NamedTuple):
    """What speaks for training a network further, the weightiest first.

    Attributes:
        reaches: Whether one of its candidates within the limits is expected to reach the floor.
        worth: See ``Appraiser.worth``.
        accuracy: The best that is expected; −∞ where nothing was scored.
    """

    reaches: bool
    worth: float
    accuracy: float


class Hope(NamedTuple):
    """A trial as it would be after training its network to so many times the steps."""

    trial: Trial
    times: float


class Appraiser:
    """Judges networks by their trials.

    Args:
        evaluator: Knows all trials.
        budget: Limits.
    """

    def __init__(self, evaluator: Evaluator, budget: Constraints) -> None:
        self._evaluator = evaluator
        self._budget = budget
        self._powers = [USUAL_POWER]

    def conclusive(self, trial: Trial) -> bool:
        """Whether its accuracy tells something of its network.

        A search that tries many candidates on one network finds some that do well on the few samples after which they
        were stopped, being no better than another: the best of those is the luckiest.
        """
        if trial.accuracy is None:
            return False
        if trial.status is TrialStatus.COMPLETE or trial.candidate.least_samples:
            return True
        return trial.accuracy.ci_high < self._budget.accuracy_floor(self._evaluator.reference_accuracy)

    def learn(self, before: float, after: float, times: float) -> None:
        """Take note of the best accuracy of a network before and after training to so many times the steps."""
        reference = self._evaluator.reference_accuracy
        if before < reference and times > 1:
            left = min(max((reference - after) / (reference - before), 0.01), 1.0)
            self._powers.append(-math.log(left) / math.log(times))

    def hope(self, times: float, power: float = 1.0) -> float:
        """The part of an accuracy's gap that training to so many times the steps closes, at so many times the power."""
        return 1.0 - float(max(times, 1.0) ** -(power * fmean(self._powers)))

    def worth(self, own: Sequence[Trial], times: float, beside: Sequence[Hope] = ()) -> float:
        """What a network's trials would add after training to so many times the steps.

        Args:
            own: Its trials.
            times: The steps over those so far.
            beside: What is counted as there already besides the given network's trials.

        Returns:
            ≥ 0.
        """
        scored = self._usable(own)
        reference = self._evaluator.reference_accuracy
        if not scored or not math.isfinite(reference):
            return 0.0
        rivals = [
            trial
            for trial in self._usable(self._evaluator.trials)
            if trial.status is TrialStatus.COMPLETE and trial not in own and not trial.candidate.network
        ]
        known = [self._point(trial, 1) for trial in rivals]
        known += [self._point(hope.trial, hope.times) for hope in beside if self._usable([hope.trial])]
        front, corner = np.array(known).reshape(-1, 3), self._corner()
        floor = self._budget.accuracy_floor(reference)
        lower = np.array([_FLOOR * max(reference - floor, LEAST_GAP) - reference, *corner[1:]])
        total = np.zeros(len(scored))
        for power in _POWERS:
            points = np.array([self._point(trial, times, power) for trial in scored])
            total += _BELOW * hypervolume_gains(front, corner, points)
            if math.isfinite(floor):
                reaching = front[-front[:, 0] >= floor]
                total += np.where(-points[:, 0] >= floor, hypervolume_gains(reaching, lower, points), 0.0)
        return float(total.max()) / len(_POWERS)

    def rank(self, own: Sequence[Trial], times: float, beside: Sequence[Hope] = ()) -> Rank:
        """What speaks for training a network to so many times the steps, as in ``worth``; the greater the better."""
        floor = self._budget.accuracy_floor(self._evaluator.reference_accuracy)
        return Rank(
            reaches=any(-self._point(trial, times)[0] >= floor for trial in self._usable(own)),
            worth=self.worth(own, times, beside),
            accuracy=self.expected(own, times),
        )

    def expected(self, own: Sequence[Trial], times: float, power: float = 1.0) -> float:
        """The best accuracy a network's trials would have, within limits or not; −∞ where nothing was scored.

        Args:
            own: Its trials.
            times: The steps over those so far.
            power: Times the learned power.
        """
        scored = [trial for trial in own if trial.accuracy is not None and trial.latency is not None]
        return max((-self._point(trial, times, power)[0] for trial in scored), default=-math.inf)

    def _usable(self, trials: Sequence[Trial]) -> list[Trial]:
        """Those that were scored and are within the limits of latency and size."""
        ratio, size = self._limits
        return [
            trial
            for trial in trials
            if trial.accuracy is not None
            and trial.latency is not None
            and trial.latency.ratio <= ratio
            and (trial.size_bytes or 0) <= size * self._fp32_bytes
        ]

    def _point(self, trial: Trial, times: float, power: float = 1.0) -> tuple[float, float, float]:
        assert trial.accuracy is not None
        assert trial.latency is not None
        assert trial.size_bytes is not None
        gap = max(self._evaluator.reference_accuracy - trial.accuracy.value, 0.0)
        accuracy = trial.accuracy.value + self.hope(times, power) * gap
        return -accuracy, trial.latency.ratio, trial.size_bytes / self._fp32_bytes

    @property
    def _fp32_bytes(self) -> float:
        return float(max(trial.size_bytes or 0 for trial in self._evaluator.trials))

    @property
    def _limits(self) -> tuple[float, float]:
        """Of latency and size, as shares of the given network's and of the largest file; infinite without one."""
        latency_ms, size_bytes = self._budget.latency_ms, self._budget.size_bytes
        return (
            math.inf if latency_ms is None else latency_ms / self._evaluator.reference_ms,
            math.inf if size_bytes is None else size_bytes / self._fp32_bytes,
        )

    def _corner(self) -> NDArray[np.float64]:
        reference = self._evaluator.reference_accuracy
        floor = self._budget.accuracy_floor(reference)
        least = reference - _BELOW_FLOOR * max(reference - floor, LEAST_GAP) if math.isfinite(floor) else 0.0
        if not math.isfinite(floor):
            least = reference - _WITHOUT_FLOOR * abs(reference)
        return np.array([-least, *(min(_BEYOND * limit, 1.0) for limit in self._limits)])
