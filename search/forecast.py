"""Judges candidates that nobody has measured: what would each add to the front, if the models are right?

Latency comes from the latency model, size from the groups' bytes and what files hold besides them, and accuracy from
a falling step function of the logarithm of the summed loss, fitted to all scored trials (isotonic regression, Barlow
et al., *Statistical Inference under Order Restrictions*, 1972): losses order candidates well and scale badly.

A candidate's score is the hypervolume it adds within the user's budgets, relative to that box, plus a tenth of what
it adds anywhere: fronts are also shown beyond the budgets, and before anything fits that is what leads there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from precision import Budget
from search.gains import gains
from search.history import History, Record
from search.latency_model import fit_codes
from search.solver import Problem
from search.space import Code, Space

_ELSEWHERE = 0.1
_TIE_SLOPE = 0.01  # accuracy span lost a decade of loss, where the steps see no difference
_MARGIN = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The budget in the models' units.

    Attributes:
        ratio: Latency limit over FP32's latency; None without one.
        size_bytes: Size limit; None without one.
        accuracy: Lowest accuracy; −inf without one.
    """

    ratio: float | None
    size_bytes: float | None
    accuracy: float

    @classmethod
    def of(cls, space: Space, budget: Budget, history: History) -> Limits:
        """What ``budget`` means next to the FP32 point; without it, limits relative to FP32 are left out."""
        fp32 = tuple(0 for _ in space.groups)
        known = [r.accuracy for r in history.records if r.code == fp32 and math.isfinite(r.accuracy)]
        limit = budget.latency_ms / history.reference_ms if budget.latency_ms is not None else math.nan
        floor = budget.accuracy_floor(known[0] if known else math.nan)
        return cls(
            ratio=limit if math.isfinite(limit) else None,
            size_bytes=budget.size_bytes,
            accuracy=-math.inf if math.isnan(floor) else floor,
        )

    def met_by(self, record: Record) -> bool:
        """Whether a measured point keeps all of them."""
        return (
            (self.ratio is None or record.ratio <= self.ratio)
            and (self.size_bytes is None or record.size_bytes <= self.size_bytes)
            and record.accuracy >= self.accuracy
        )


class Forecast:
    """Everything a study has taught, as one judge of candidates.

    Attributes:
        problem: Losses, predicted latency and bytes, as the solver takes them.
        error: Root mean square error of the predicted ratio, left-one-out; NaN before it is known.
        limits: The budget.
        front: Completed trials that no other beats, by number.
    """

    def __init__(self, space: Space, budget: Budget, history: History) -> None:
        timed = [r for r in history.records if math.isfinite(r.ratio) and r.ratio > 0]
        model = fit_codes(space, [r.code for r in timed], [r.ratio for r in timed])
        self.error = model.loo_error
        self.problem = Problem.of(space, model, history.overhead_bytes(space))
        self.limits = Limits.of(space, budget, history)
        points = [r for r in history.records if r.complete and math.isfinite(r.accuracy + r.ratio + r.size_bytes)]
        self._bytes = self.problem.size(tuple(0 for _ in space.groups)) or 1.0
        measured = np.array([[-r.accuracy, r.ratio, r.size_bytes / self._bytes] for r in points]).reshape(-1, 3)
        kept = _nondominated(measured)
        self.front = tuple(point for point, keep in zip(points, kept, strict=True) if keep)
        self._front = measured[kept]
        self._losses, self._accuracies = self._fit_accuracy(history)
        self._anywhere = self._corner(measured)
        self._within = self._box()

    def accuracy(self, codes: Sequence[Code]) -> NDArray[np.float64]:
        """Predicted accuracies, shape (n,); on an arbitrary scale before anything was scored."""
        decades = np.array([self._decade(code) for code in codes])
        span = max(float(np.ptp(self._accuracies)), 1e-3)
        steps = np.interp(decades, self._losses, self._accuracies)
        return np.asarray(steps - _TIE_SLOPE * span * (decades - self._losses[0]))

    def too_slow(self, code: Code) -> bool:
        """Whether a candidate is predicted over the latency limit by more than the model errs."""
        return self.limits.ratio is not None and self.problem.ratio(code) > self.limits.ratio + self.error

    def scores(self, codes: Sequence[Code]) -> NDArray[np.float64]:
        """How much each candidate is worth trying, shape (n,)."""
        ratios = [self.problem.ratio(code) for code in codes]
        sizes = [self.problem.size(code) / self._bytes for code in codes]
        points = np.stack([-self.accuracy(codes), ratios, sizes], axis=1)
        total = np.zeros(len(codes))
        for corner, worth in ((self._within, 1.0), (self._anywhere, _ELSEWHERE)):
            ideal = np.minimum(points.min(axis=0), self._front.min(axis=0, initial=np.inf))
            volume = float(np.prod(np.clip(corner - ideal, 1e-9, None)))
            total += worth * gains(self._front, corner, points) / volume
        return total

    def _decade(self, code: Code) -> float:
        return math.log10(self.problem.loss(code) + self._floor)

    @property
    def _floor(self) -> float:
        """Keeps FP32's loss of 0 on the logarithmic scale, below every other."""
        return 0.1 * min((loss for row in self.problem.losses for loss in row if loss > 0), default=1.0)

    def _fit_accuracy(self, history: History) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scored = [(self._decade(r.code), r.accuracy) for r in history.records if math.isfinite(r.accuracy)]
        if not scored:
            return np.array([-9.0, 1.0]), np.array([1.0, 0.0])
        scored.sort(key=lambda pair: (pair[0], -pair[1]))
        decades, accuracies = (np.array(column) for column in zip(*scored, strict=True))
        return decades, np.asarray(isotonic_regression(accuracies, increasing=False).x)

    def _corner(self, measured: NDArray[np.float64]) -> NDArray[np.float64]:
        worst = measured.max(axis=0, initial=-np.inf)
        lowest = float(self._accuracies.min()) - 0.05 * max(float(np.ptp(self._accuracies)), 1e-3)
        return np.array([-lowest, _MARGIN * max(worst[1], 1.0), _MARGIN * max(worst[2], 1.0)])

    def _box(self) -> NDArray[np.float64]:
        limits = self.limits
        corner = self._anywhere.copy()
        if math.isfinite(limits.accuracy):
            corner[0] = min(corner[0], -limits.accuracy)
        if limits.ratio is not None:
            corner[1] = min(corner[1], limits.ratio)
        if limits.size_bytes is not None:
            corner[2] = min(corner[2], limits.size_bytes / self._bytes)
        # The limits themselves are allowed, the corner of a volume is not: move it by a hair.
        return corner * (1 + 1e-9 * np.sign(corner))


def _nondominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    no_better = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    differs = (points[:, None, :] != points[None, :, :]).any(axis=2)
    return np.asarray(~(no_better & differs).any(axis=1))
