"""Learning curve of accuracy: a variant's gap to the given network falls with a power of the training steps.

As errors do (Hestness et al., arXiv:1712.00409). The power is learned from the variants that were trained on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from bitfront.search.policy.config import DEFAULTS


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Powers of the learning curve, learned so far.

    Attributes:
        powers: A prior one, then that of each training seen.
    """

    powers: tuple[float, ...] = (DEFAULTS.learning_curve.prior_power,)

    def after(self, before: float, after: float, *, reference: float, times: float) -> LearningCurve:
        """Return the curve that has also seen one training.

        Args:
            before: A variant's best accuracy before it.
            after: And after it.
            reference: The given network's.
            times: Its training steps in all, over those before.
        """
        if before >= reference or times <= 1:
            return self
        left = min(max((reference - after) / (reference - before), 0.01), 1.0)
        return LearningCurve((*self.powers, -math.log(left) / math.log(times)))

    def gap_closed(self, times: float, power_factor: float = 1.0) -> float:
        """Return the fraction of a gap that training to so many times the steps closes, from 0 to 1.

        Args:
            times: The steps over those so far.
            power_factor: Times the learned power.
        """
        return 1.0 - float(max(times, 1.0) ** -(power_factor * fmean(self.powers)))
