"""Judges candidates that nobody has measured: what would each add to the front, if the models are right?

Latency comes from the latency model, size from the groups' bytes and what files hold besides them, and accuracy from
a falling step function of the logarithm of the summed loss, fitted to all scored trials (isotonic regression, Barlow
et al., *Statistical Inference under Order Restrictions*, 1972): losses order candidates well and scale badly. A trial
counts by the error of its difference to the given network, so that one stopped on a few samples says little. The loss
of a pruning was measured before any training, which takes most of it back: it counts with the weight ρ, of a short
grid, under which the steps err least. Of several trials of one encoding (its network was trained on in between) the
best accuracy counts.

A candidate's score is the hypervolume it adds within the user's budgets, relative to that box, plus a tenth of what
it adds anywhere: fronts are also shown beyond the budgets, and before anything fits that is what leads there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bitfront.core import Constraints, Limit, LimitCheck, Precision
from bitfront.search.policy.config import DEFAULTS, SurrogateConfig
from bitfront.search.proposals.history import History, Observation
from bitfront.search.proposals.hypervolume_gain import hypervolume_gains
from bitfront.search.proposals.ilp_instance import IlpInstance
from bitfront.search.proposals.latency_model import fit_encodings
from bitfront.search.space.space import Encoding, Space


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeLimits:
    """The constraints in the models' units.

    Attributes:
        ratio: Latency limit over the given network's latency; None without one.
        size_bytes: Size limit; None without one.
        accuracy: Lowest accuracy; −inf without one.
    """

    ratio: float | None
    size_bytes: float | None
    accuracy: float

    @classmethod
    def of(cls, budget: Constraints, history: History) -> RelativeLimits:
        """Limits of ``budget``, whose accuracy is a floor, next to the given network; none before it was timed."""
        limit = budget.latency_ms / history.reference_ms if budget.latency_ms is not None else math.nan
        return cls(
            ratio=limit if math.isfinite(limit) else None,
            size_bytes=budget.size_bytes,
            accuracy=-math.inf if budget.min_accuracy is None else budget.min_accuracy,
        )

    def met_by(self, observation: Observation) -> bool:
        """Whether a measured point keeps all limits."""
        beside = (
            (Limit.LATENCY, observation.ratio, self.ratio),
            (Limit.SIZE, observation.size_bytes, self.size_bytes),
            (Limit.ACCURACY, observation.accuracy, self.accuracy),
        )
        return all(
            LimitCheck(limit=limit, value=value, best=value, bound=bound).met
            for limit, value, bound in beside
            if bound is not None
        )


class Surrogate:
    """Models of latency, size and accuracy fitted to a study, and the acquisition function over them.

    Args:
        space: What encodings are of.
        budget: Limits, the accuracy's a floor.
        history: What was measured.
        config: How they are fitted and weighed.

    Attributes:
        problem: Losses, predicted latency and bytes, as the solver takes them.
        limits: The budget.
        front: Completed trials that no other beats, by number.
    """

    def __init__(
        self,
        space: Space,
        budget: Constraints,
        history: History,
        config: SurrogateConfig = DEFAULTS.sampler.surrogate,
    ) -> None:
        self._config = config
        timed = [r for r in history.observations if math.isfinite(r.ratio) and r.ratio > 0]
        self._latency = fit_encodings(
            space,
            [seen.encoding for seen in timed],
            [seen.ratio for seen in timed],
            config.latency,
            deviations=[seen.ratio_deviation for seen in timed],
        )
        self.problem = IlpInstance.of(space, self._latency, history.overhead(space, config.file_overhead_pull))
        self.limits = RelativeLimits.of(budget, history)
        points = [r for r in history.observations if r.complete and math.isfinite(r.accuracy + r.ratio + r.size_bytes)]
        self._bytes = self.problem.size(space.encode(space.uniform(Precision.FP32))) or 1.0
        measured = np.array([[-r.accuracy, r.ratio, r.size_bytes / self._bytes] for r in points]).reshape(-1, 3)
        kept = _nondominated(measured)
        self.front = tuple(point for point, keep in zip(points, kept, strict=True) if keep)
        self._front = measured[kept]
        self.problem, self._losses, self._accuracies = _fit_accuracy(self.problem, history, config.prune_weights)
        self._anywhere = self._corner(measured)
        self._within = self._box()

    @property
    def prune_weight(self) -> float:
        """ρ, how much of a pruning's loss is left after training; 1 before a pruned network was scored."""
        return self.problem.prune_weight

    def accuracy(self, encodings: Sequence[Encoding]) -> NDArray[np.float64]:
        """Predicted accuracies, shape (n,); on an arbitrary scale before anything was scored."""
        decades = _decades(self.problem, encodings)
        span = max(float(np.ptp(self._accuracies)), 1e-3)
        steps = np.interp(decades, self._losses, self._accuracies)
        return np.asarray(steps - self._config.tie_slope * span * (decades - self._losses[0]))

    def too_slow(self, encoding: Encoding) -> bool:
        """Whether even the fast end of a candidate's predicted latency is over the limit."""
        return self.limits.ratio is not None and self.fast_end(encoding) > self.limits.ratio

    def fast_end(self, encoding: Encoding) -> float:
        """The ratio that a candidate is surely not below; NaN before anything was timed twice."""
        return self.problem.ratio(encoding) - self._config.certainty * self._latency.spread(encoding)

    def scores(self, encodings: Sequence[Encoding]) -> NDArray[np.float64]:
        """Expected worth of trying each candidate, shape (n,)."""
        ratios = [self.problem.ratio(encoding) for encoding in encodings]
        sizes = [self.problem.size(encoding) / self._bytes for encoding in encodings]
        points = np.stack([-self.accuracy(encodings), ratios, sizes], axis=1)
        total = np.zeros(len(encodings))
        for corner, worth in ((self._within, 1.0), (self._anywhere, self._config.outside_weight)):
            ideal = np.minimum(points.min(axis=0), self._front.min(axis=0, initial=np.inf))
            volume = float(np.prod(np.clip(corner - ideal, 1e-9, None)))
            total += worth * hypervolume_gains(self._front, corner, points) / volume
        return total

    def _corner(self, measured: NDArray[np.float64]) -> NDArray[np.float64]:
        worst = measured.max(axis=0, initial=-np.inf)
        lowest = float(self._accuracies.min()) - self._config.accuracy_margin * max(
            float(np.ptp(self._accuracies)), 1e-3
        )
        margin = self._config.margin
        return np.array([-lowest, margin * max(worst[1], 1.0), margin * max(worst[2], 1.0)])

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


def _fit_accuracy(
    problem: IlpInstance, history: History, prune_weights: Sequence[float]
) -> tuple[IlpInstance, NDArray[np.float64], NDArray[np.float64]]:
    """The problem with the prune weight that orders the scores best; decades of loss and the accuracy at each."""
    best: dict[Encoding, Observation] = {}
    for seen in history.observations:
        known = best.get(seen.encoding)
        if math.isfinite(seen.accuracy) and (known is None or seen.accuracy > known.accuracy):
            best[seen.encoding] = seen
    if not best:
        return problem, np.array([-9.0, 1.0]), np.array([1.0, 0.0])
    pruned = any(any(encoding[len(problem.losses) :]) for encoding in best)
    fits, weights = [], _weights(list(best.values()))
    for weight in prune_weights if pruned else prune_weights[:1]:
        weighted = replace(problem, prune_weight=weight)
        found = _decades(weighted, list(best)).tolist()
        rows = zip(found, (seen.accuracy for seen in best.values()), weights, strict=True)
        decades, accuracies, trust = (np.array(column) for column in zip(*sorted(rows, key=_falling), strict=True))
        steps = np.asarray(isotonic_regression(accuracies, weights=trust, increasing=False).x)
        fits.append((float(np.sum(trust * (steps - accuracies) ** 2)), weighted, decades, steps))
    return min(fits, key=lambda fit: fit[0])[1:]


def _weights(observations: Sequence[Observation]) -> list[float]:
    """Inverse variances; alike where an error is not known.

    Losses do not order accuracies perfectly: that misfit, taken to be as large as the median error, is in all of them.
    """
    errors = [seen.error for seen in observations]
    typical = median(errors)
    if not all(map(math.isfinite, errors)) or typical == 0:
        return [1.0] * len(errors)
    return [2 / (1 + (error / typical) ** 2) for error in errors]


def _falling(row: tuple[float, float, float]) -> tuple[float, float]:
    return row[0], -row[1]


def _decades(problem: IlpInstance, encodings: Sequence[Encoding]) -> NDArray[np.float64]:
    """Logarithms of the summed losses; FP32's loss of 0 stays on the scale, below every other."""
    floor = 0.1 * min((loss for row in problem.losses for loss in row if loss > 0), default=1.0)
    return np.array([math.log10(problem.loss(encoding) + floor) for encoding in encodings])


def _nondominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    no_better = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    differs = (points[:, None, :] != points[None, :, :]).any(axis=2)
    return np.asarray(~(no_better & differs).any(axis=1))
