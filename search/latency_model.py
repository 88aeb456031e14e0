"""Predicts a candidate's latency, as a ratio to FP32, from which groups run in which arithmetic.

Latency does not add up over layers: where a group in integer arithmetic meets one in float, the runtime converts.
So the model is linear in an indicator a group *and* one a boundary:

    ratio(a) − 1 = Σ_g [a_g integer]·c_g + Σ_g [a_g block]·b_g + Σ_(u,v)∈edges [a_u integer ≠ a_v integer]·e_uv

======  ========================================================  =======
symbol  meaning                                                   shape
======  ========================================================  =======
X       features of the observed candidates                       (n, p)
y       their measured ratios minus 1                             (n,)
μ, τ    prior mean and standard deviation of the parameters       (p,)
σ       noise of a ratio; the grid value with least LOO error      scalar
======  ========================================================  =======

FP32 is 1 by definition, hence no intercept. The parameters get a Gaussian prior, with a shared part and one part
for each group and edge (c_g = s_g·C + γ_g, e_uv = B/|edges| + δ_uv), so that a uniform baseline alone spreads over
the groups by their weight s_g and one boundary seen teaches about the others. The posterior mean is the ridge
estimate μ + (XᵀX/σ² + diag τ⁻²)⁻¹ Xᵀ(y − Xμ)/σ²; leave-one-out residuals come from the hat matrix in closed form
(Rasmussen & Williams, *Gaussian Processes for Machine Learning*, §5.4.2, for the dual form used here).

Predictions only decide what to try next. No number from here is ever reported as a latency.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.space import Arithmetic, Assignment, Code, Space, arithmetic

Vector = NDArray[np.float64]

_NOISE_GRID = (0.003, 0.01, 0.03, 0.1)
_GAIN = -0.6  # expected ratio − 1 with everything in integer arithmetic
_BLOCK_GAIN = -0.3
_BOUNDARIES = 0.4  # expected cost of having every edge a boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """A fitted model.

    Attributes:
        space: The space it speaks about.
        integer: What integer arithmetic changes, per group, in units of FP32's latency; shape (groups,).
        block: What block-wise weights change, likewise.
        boundary: What a boundary costs, per edge; shape (edges,).
        observations: Measurements it was fitted to.
        loo_error: Root mean square leave-one-out error of the ratio; NaN below two observations.
    """

    space: Space
    integer: tuple[float, ...]
    block: tuple[float, ...]
    boundary: tuple[float, ...]
    observations: int
    loo_error: float

    def predict(self, assignment: Assignment) -> float:
        """Predicted latency over FP32's; exactly 1 where everything is in floating arithmetic."""
        return self.predict_code(self.space.encode(assignment))

    def predict_code(self, code: Code) -> float:
        """``predict`` for an index tuple."""
        kinds = _kinds(self.space, code)
        total = 1.0
        for kind, integer, block in zip(kinds, self.integer, self.block, strict=True):
            total += integer if kind is Arithmetic.INTEGER else block if kind is Arithmetic.BLOCK else 0.0
        for (first, second), cost in zip(self.space.edges, self.boundary, strict=True):
            if (kinds[first] is Arithmetic.INTEGER) != (kinds[second] is Arithmetic.INTEGER):
                total += cost
        return total

    def choice_cost(self, group: int, choice: int) -> float:
        """What one choice of one group adds to the ratio, boundaries apart."""
        kind = arithmetic(self.space.groups[group].choices[choice])
        if kind is Arithmetic.FLOAT:
            return 0.0
        return self.integer[group] if kind is Arithmetic.INTEGER else self.block[group]


def fit_latency_model(space: Space, observations: Sequence[tuple[Assignment, float]]) -> LatencyModel:
    """Fit to measured ratios; without observations the result is the prior.

    Args:
        space: The space.
        observations: (assignment, measured latency over FP32's).

    Raises:
        ValueError: If a ratio is not a positive, finite number.
    """
    return fit_codes(space, [space.encode(assignment) for assignment, _ in observations], [r for _, r in observations])


def fit_codes(space: Space, codes: Sequence[Code], measured: Sequence[float]) -> LatencyModel:
    """``fit_latency_model`` for index tuples and their ratios."""
    ratios = np.array(measured, dtype=np.float64)
    if not (np.isfinite(ratios).all() and (ratios > 0).all()):
        raise ValueError(f"latency ratios must be positive and finite, got {ratios.tolist()}")
    weights = group_weights(space)
    mean, deviation = _prior(space, weights)
    rows = [_features(space, code, weights) for code in codes]
    x = np.array(rows, dtype=np.float64).reshape(len(rows), len(mean))
    theta, error = _posterior(x, ratios - 1.0, mean, deviation)
    groups, edges = len(space.groups), len(space.edges)
    own = theta[3:]
    return LatencyModel(
        space=space,
        integer=tuple((weights * theta[0] + own[:groups]).tolist()),
        block=tuple((weights * theta[1] + own[groups : 2 * groups]).tolist()),
        boundary=tuple((theta[2] / max(edges, 1) + own[2 * groups :]).tolist()),
        observations=len(rows),
        loo_error=error,
    )


def group_weights(space: Space) -> Vector:
    """Each group's expected share of the latency, shape (groups,); sums to 1.

    Half by count, half by FP32 bytes: bytes alone would starve early convolutions, which have few weights and
    large activations.
    """
    sizes = np.array([group.size_bytes[0] for group in space.groups], dtype=np.float64)
    count = max(len(sizes), 1)
    return np.asarray(0.5 / count + 0.5 * sizes / sizes.sum() if sizes.sum() > 0 else np.full(len(sizes), 1 / count))


def _prior(space: Space, weights: Vector) -> tuple[Vector, Vector]:
    """Mean and standard deviation of (C, Block, B, γ per group, block γ per group, δ per edge)."""
    groups, edges = len(space.groups), len(space.edges)
    # A boundary costs about what the layers beside it could save: of the order of one group's share.
    edge_deviation = np.full(edges, 0.5 / max(groups, 1))
    mean = np.concatenate([[_GAIN, _BLOCK_GAIN, _BOUNDARIES], np.zeros(2 * groups + edges)])
    deviation = np.concatenate([[0.5, 0.5, 0.5], 0.7 * weights, 0.7 * weights, edge_deviation])
    return mean, deviation


def _features(space: Space, code: Code, weights: Vector) -> Vector:
    kinds = _kinds(space, code)
    integer = np.array([kind is Arithmetic.INTEGER for kind in kinds], dtype=np.float64)
    block = np.array([kind is Arithmetic.BLOCK for kind in kinds], dtype=np.float64)
    boundary = np.array([abs(integer[first] - integer[second]) for first, second in space.edges], dtype=np.float64)
    shared = [integer @ weights, block @ weights, boundary.sum() / max(len(boundary), 1)]
    return np.concatenate([shared, integer, block, boundary])


def _posterior(x: Vector, y: Vector, mean: Vector, deviation: Vector) -> tuple[Vector, float]:
    """Posterior mean and leave-one-out error, at the grid's noise with the least such error."""
    if not len(y):
        return mean, math.nan
    spread = x * deviation
    gram = spread @ spread.T
    residual = y - x @ mean
    best: tuple[float, Vector] | None = None
    for noise in _NOISE_GRID:
        precision = np.linalg.inv(gram + noise**2 * np.eye(len(y)))
        alpha = precision @ residual
        error = float(np.sqrt(np.mean((alpha / np.diag(precision)) ** 2)))
        if best is None or error < best[0]:
            best = (error, mean + deviation * (spread.T @ alpha))
    assert best is not None
    return best[1], best[0] if len(y) > 1 else math.nan


def _kinds(space: Space, code: Code) -> list[Arithmetic]:
    return [arithmetic(group.choices[i]) for group, i in zip(space.groups, code, strict=True)]
