"""What a network is worth training further: the volume its best candidate would add to the given network's front.

Not to the front of all, which grows as a run goes: networks that were tried early and late would not compare.

Objectives are accuracy, ratio to FP32's latency and size relative to FP32's file. Training has more to give the less
of it there was, so a candidate is appraised with part of its gap to FP32's accuracy closed: the part that further
training closed in networks that had it, and before there are any a usual one. Limits bound the volume; below the
floor of accuracy it counts a tenth, or nothing would lead there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

from precision import Budget
from search.evaluate import Evaluator
from search.gains import gains
from search.trial import Outcome, Trial

USUAL_GAP = 0.6  # of a gap that a rung's training leaves
_BELOW_FLOOR = 3.0  # gaps between FP32 and the floor that count below the floor
_BELOW = 0.1  # what volume below the floor counts beside volume above it
_WITHOUT_FLOOR = 0.3  # of FP32's accuracy that counts, without a floor


class Appraiser:
    """Judges networks by their trials.

    Args:
        evaluator: Knows all trials.
        budget: Limits.
    """

    def __init__(self, evaluator: Evaluator, budget: Budget) -> None:
        self._evaluator = evaluator
        self._budget = budget
        self._gaps: list[float] = []

    def learn(self, before: float, after: float) -> None:
        """Take note of the best accuracy of a network before and after a rung's training."""
        reference = self._evaluator.reference_accuracy
        if before < reference:
            self._gaps.append(min(max((reference - after) / (reference - before), 0.0), 1.0))

    def hope(self, rungs: int) -> float:
        """The part of an accuracy's gap that so many further rungs are expected to close."""
        return 1.0 - float((median(self._gaps) if self._gaps else USUAL_GAP) ** rungs)

    def worth(self, own: Sequence[Trial], rungs: int) -> float:
        """What a network's trials would add after so many further rungs of training; ≥ 0."""
        scored = [trial for trial in own if trial.accuracy is not None and trial.latency is not None]
        reference = self._evaluator.reference_accuracy
        if not scored or not math.isfinite(reference):
            return 0.0
        rivals = [
            trial
            for trial in self._evaluator.trials
            if trial.outcome is Outcome.COMPLETE and trial not in own and not trial.candidate.network
        ]
        front = np.array([self._point(trial, 0) for trial in rivals]).reshape(-1, 3)
        points = np.array([self._point(trial, rungs) for trial in scored])
        corner = self._corner()
        total = _BELOW * gains(front, corner, points)
        floor = self._budget.accuracy_floor(reference)
        if math.isfinite(floor):
            total = total + gains(front, np.array([-floor + 1e-9, *corner[1:]]), points)
        return float(total.max())

    def _point(self, trial: Trial, rungs: int) -> tuple[float, float, float]:
        assert trial.accuracy is not None
        assert trial.latency is not None
        assert trial.size_bytes is not None
        gap = max(self._evaluator.reference_accuracy - trial.accuracy.value, 0.0)
        accuracy = trial.accuracy.value + self.hope(rungs) * gap
        return -accuracy, trial.latency.ratio, trial.size_bytes / self._fp32_bytes

    @property
    def _fp32_bytes(self) -> float:
        return float(max(trial.size_bytes or 0 for trial in self._evaluator.trials))

    def _corner(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        evaluator, budget = self._evaluator, self._budget
        reference = evaluator.reference_accuracy
        floor = budget.accuracy_floor(reference)
        least = reference - _BELOW_FLOOR * max(reference - floor, 0.01) if math.isfinite(floor) else 0.0
        if not math.isfinite(floor):
            least = reference - _WITHOUT_FLOOR * abs(reference)
        ratio = budget.latency_ms / evaluator.reference_ms if budget.latency_ms is not None else 1.0
        size = budget.size_bytes / self._fp32_bytes if budget.size_bytes is not None else 1.0
        return np.array([-least, min(ratio, 1.0), min(size, 1.0)])
