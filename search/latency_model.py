"""Predicts a candidate's latency, as a ratio to FP32, from which groups run in which arithmetic.

Latency does not add up over layers: where two neighbours want their tensors in different types, the runtime converts.
So the model is linear in an indicator a group and arithmetic *and* one a boundary:

    ratio(a) − 1 = Σ_g Σ_k [arithmetic of a_g is k]·c_gk + Σ_(u,v)∈edges [domain of a_u ≠ domain of a_v]·e_uv

with k over the arithmetics (integer, block-wise, half) that the space offers besides float. Which two domains (integer,
half, float) meet makes no difference to e_uv: one number an edge is all that a few dozen measurements can tell.

======  ========================================================  =======
symbol  meaning                                                   shape
======  ========================================================  =======
X       features of the observed candidates                       (n, p)
y       their measured ratios minus 1                             (n,)
μ, τ    prior mean and standard deviation of the parameters       (p,)
σ       noise of a ratio; the grid value with least LOO error      scalar
======  ========================================================  =======

FP32 is 1 by definition, hence no intercept. The parameters get a Gaussian prior, with a shared part and one part
for each group and edge (c_gk = s_g·C_k + γ_gk, e_uv = B/|edges| + δ_uv), so that a uniform baseline alone spreads over
the groups by their weight s_g and one boundary seen teaches about the others. The posterior mean is the ridge
estimate μ + (XᵀX/σ² + diag τ⁻²)⁻¹ Xᵀ(y − Xμ)/σ²; leave-one-out residuals come from the hat matrix in closed form
(Rasmussen & Williams, *Gaussian Processes for Machine Learning*, §5.4.2, for the dual form used here).

Predictions only decide what to try next. No number from here is ever reported as a latency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowering.dialect import Arithmetic
from search.space import Assignment, Code, Domain, Space

Vector = NDArray[np.float64]

_NOISE_GRID = (0.003, 0.01, 0.03, 0.1)
# Expected ratio − 1 with everything in one arithmetic.
_GAINS = {Arithmetic.INTEGER: -0.6, Arithmetic.BLOCK: -0.3, Arithmetic.HALF: -0.4}
_BOUNDARIES = 0.4  # expected cost of having every edge a boundary


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """A fitted model.

    Attributes:
        space: The space it speaks about.
        gains: Arithmetic → what it changes, per group, in units of FP32's latency; shape (groups,). What is not among
            them changes nothing.
        boundary: What a boundary costs, per edge; shape (edges,).
        observations: Measurements it was fitted to.
        loo_error: Root mean square leave-one-out error of the ratio; NaN below two observations.
    """

    space: Space
    gains: Mapping[Arithmetic, tuple[float, ...]]
    boundary: tuple[float, ...]
    observations: int
    loo_error: float

    def predict(self, assignment: Assignment) -> float:
        """Predicted latency over FP32's; exactly 1 where everything is in FP32's arithmetic."""
        return self.predict_code(self.space.encode(assignment))

    def predict_code(self, code: Code) -> float:
        """``predict`` for an index tuple."""
        kinds = _kinds(self.space, code)
        total = 1.0
        for group, kind in enumerate(kinds):
            total += self._gain(group, kind)
        domains = [Domain.of(kind) for kind in kinds]
        for (first, second), cost in zip(self.space.edges, self.boundary, strict=True):
            if domains[first] is not domains[second]:
                total += cost
        return total

    def choice_cost(self, group: int, choice: int) -> float:
        """What one choice of one group adds to the ratio, boundaries apart."""
        return self._gain(group, self.space.groups[group].arithmetic[choice])

    def _gain(self, group: int, kind: Arithmetic) -> float:
        gains = self.gains.get(kind)
        return gains[group] if gains else 0.0


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
    offered = {kind for group in space.groups for kind in group.arithmetic}
    kinds = tuple(kind for kind in _GAINS if kind in offered)
    mean, deviation = _prior(space, kinds, weights)
    rows = [_features(space, kinds, code, weights) for code in codes]
    x = np.array(rows, dtype=np.float64).reshape(len(rows), len(mean))
    theta, error = _posterior(x, ratios - 1.0, mean, deviation)
    groups, edges = len(space.groups), len(space.edges)
    shared, own = theta[: len(kinds) + 1], theta[len(kinds) + 1 :]
    return LatencyModel(
        space=space,
        gains={
            kind: tuple((weights * shared[k] + own[k * groups : (k + 1) * groups]).tolist())
            for k, kind in enumerate(kinds)
        },
        boundary=tuple((shared[-1] / max(edges, 1) + own[len(kinds) * groups :]).tolist()),
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


def _prior(space: Space, kinds: Sequence[Arithmetic], weights: Vector) -> tuple[Vector, Vector]:
    """Mean and standard deviation of (C per arithmetic, B, γ per arithmetic and group, δ per edge)."""
    groups, edges = len(space.groups), len(space.edges)
    # A boundary costs about what the layers beside it could save: of the order of one group's share.
    edge_deviation = np.full(edges, 0.5 / max(groups, 1))
    mean = np.concatenate([[*(_GAINS[kind] for kind in kinds), _BOUNDARIES], np.zeros(len(kinds) * groups + edges)])
    deviation = np.concatenate([np.full(len(kinds) + 1, 0.5), *[0.7 * weights] * len(kinds), edge_deviation])
    return mean, deviation


def _features(space: Space, kinds: Sequence[Arithmetic], code: Code, weights: Vector) -> Vector:
    taken = _kinds(space, code)
    own = [np.array([other is kind for other in taken], dtype=np.float64) for kind in kinds]
    domains = [Domain.of(kind) for kind in taken]
    boundary = np.array([domains[first] is not domains[second] for first, second in space.edges], dtype=np.float64)
    shared = [*(column @ weights for column in own), boundary.sum() / max(len(boundary), 1)]
    return np.concatenate([shared, *own, boundary])


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
    return [group.arithmetic[i] for group, i in zip(space.groups, code, strict=True)]
