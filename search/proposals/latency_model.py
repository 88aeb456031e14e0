"""Predicts a candidate's latency, as a ratio to the given network's, from which groups run in which arithmetic.

Latency does not add up over layers: where two neighbours want their tensors in different types, the runtime converts.
So the model is linear in an indicator a group and arithmetic *and* one a boundary:

    ratio(a)/b − 1 = Σ_g Σ_k [arithmetic of a_g is k]·c_gk + Σ_(u,v)∈edges [domain of a_u ≠ domain of a_v]·e_uv

with k over the arithmetics (integer, block-wise, half) that the space offers besides float. Which two domains (integer,
half, float) meet makes no difference to e_uv: one number an edge is all that a few dozen measurements can tell.

======  ========================================================  =======
symbol  meaning                                                   shape
======  ========================================================  =======
X       features of the observed candidates                       (n, p)
b       measured ratio of FP32, 1 before it was measured          scalar
y       their measured ratios over b, minus 1                     (n,)
μ, τ    prior mean and standard deviation of the parameters       (p,)
v       variance of each ratio by its timing's own interval       (n,)
σ       what the model itself errs; the grid value with least      scalar
        LOO error
======  ========================================================  =======

Where networks may be pruned, what stays of a group scales what it costs, and a removed branch saves its layers' share
and something besides (its additions, its memory traffic):

    ratio(a)/b − 1 = Σ_g [(w_g + c_gk)·r_g − w_g] + boundaries between groups that stay + Σ_b [b is removed]·d_b

with r_g the part of group g that stays, w_g the share of FP32's latency that scales with it, and d_b.

FP32 is b by definition, hence no intercept: what is searched is a normalised form of the given network, in FP32 about
as fast as that but not exactly, and for a student architecture something else altogether. The parameters get a Gaussian
prior, with a shared part and one part for each group and edge (c_gk = s_g·C_k + γ_gk, w_g = s_g·W + ω_g, e_uv =
B/|edges| + δ_uv), so that a uniform baseline alone spreads over the groups by their weight s_g and one boundary seen
teaches about the others. The posterior mean is the generalised ridge estimate, each observation weighed by
1/(σ² + v): what was timed on a busy machine says little. Leave-one-out residuals come from the hat matrix in closed
form (Rasmussen & Williams, *Gaussian Processes for Machine Learning*, §5.4.2, for the dual form used here; weighed
alike). The predictive spread is the posterior's and σ, times what the residuals exceed their own predicted spread by.

Predictions only decide what to try next. No number from here is ever reported as a latency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Precision
from bitfront.lowering.compute_type import ComputeType
from bitfront.search.policy.config import DEFAULTS, LatencyPriorConfig
from bitfront.search.space.pruning import Pruning
from bitfront.search.space.space import UNPRUNED, ActivationType, Assignment, Encoding, Space

Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Posterior:
    """Parameters after the measurements.

    Attributes:
        mean: Of the parameters, (p,).
        loo_error: Root mean square leave-one-out error; NaN below two observations.
        deviation: τ, (p,).
        scaled: X · diag(τ), (n, p).
        precision: (scaled · scaledᵀ + diag(σ² + v))⁻¹, (n, n).
        noise: σ.
        inflation: What leave-one-out residuals exceed their predicted spread by, at least 1.
    """

    mean: Vector
    loo_error: float
    deviation: Vector
    scaled: Vector
    precision: Vector
    noise: float
    inflation: float

    def spread(self, features: Vector) -> float:
        """Standard deviation of a further observation with these features, (p,), well timed."""
        own = features * self.deviation
        seen = self.scaled @ own
        variance = float(own @ own - seen @ self.precision @ seen) + self.noise**2
        return self.inflation * math.sqrt(max(variance, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyModel:
    """A fitted model.

    Attributes:
        space: The space it speaks about.
        gains: ComputeType → what it changes, per group, in units of the given network's latency, as all that
            follow are; shape (groups,). What is not among them changes nothing.
        boundary: What a boundary costs, per edge; shape (edges,).
        scaling: What each group's FP32 latency has that scales with what is left of it; shape (groups,). Empty where
            nothing may be pruned.
        branches: What removing the whole of a prune variable adds besides; shape (variables,), 0 where it cannot be.
        base: Ratio of FP32 without pruning, everything in FP32's arithmetic.
        posterior: The parameters' uncertainty; None where they were set by hand.
        observations: Measurements it was fitted to.
        loo_error: Root mean square leave-one-out error of the ratio; NaN below two observations.
    """

    space: Space
    gains: Mapping[ComputeType, tuple[float, ...]]
    boundary: tuple[float, ...]
    observations: int
    loo_error: float
    scaling: tuple[float, ...] = ()
    branches: tuple[float, ...] = ()
    base: float = 1.0
    posterior: Posterior | None = field(default=None, compare=False)

    def spread(self, encoding: Encoding) -> float:
        """Standard deviation of what would be measured about ``predict_encoding``; NaN below two observations."""
        if self.posterior is None or self.observations < 2:
            return math.nan
        kinds = tuple(self.gains)
        features = _features(self.space, kinds, encoding, group_weights(self.space))
        return self.base * self.posterior.spread(features)

    def predict(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> float:
        """Predicted latency over the given network's; ``base`` where everything is there and in FP32's arithmetic."""
        return self.predict_encoding(self.space.encode(assignment, pruning))

    def predict_encoding(self, encoding: Encoding) -> float:
        """``predict`` for an index tuple."""
        kinds, left = _kinds(self.space, encoding), self.space.kept_fractions(encoding)
        total = self.base
        for group, (kind, part) in enumerate(zip(kinds, left, strict=True)):
            total += self._gain(group, kind) * part
            if part < 1:
                total -= self.scaling[group] * (1 - part)
        for crossed, cost in zip(_boundaries(self.space, kinds, left), self.boundary, strict=True):
            if crossed:
                total += cost
        for removed, cost in zip(_removed(self.space, encoding), self.branches, strict=True):
            if removed:
                total += cost
        return total

    def scheme_cost(self, group: int, scheme: int) -> float:
        """Part of the ratio that comes of one scheme of one group that is not pruned, boundaries apart."""
        return self._gain(group, self.space.groups[group].compute_types[scheme])

    def _gain(self, group: int, kind: ComputeType) -> float:
        gains = self.gains.get(kind)
        return gains[group] if gains else 0.0


def fit_latency_model(
    space: Space,
    observations: Sequence[tuple[Assignment, float]],
    config: LatencyPriorConfig = DEFAULTS.sampler.surrogate.latency,
) -> LatencyModel:
    """Fit to measured ratios of the given network; without observations the result is the prior.

    Args:
        space: The space.
        observations: (assignment, measured latency over the given network's).
        config: The prior.

    Raises:
        ValueError: If a ratio is not a positive, finite number.
    """
    return fit_encodings(
        space, [space.encode(assignment) for assignment, _ in observations], [r for _, r in observations], config
    )


def fit_encodings(
    space: Space,
    encodings: Sequence[Encoding],
    measured: Sequence[float],
    config: LatencyPriorConfig = DEFAULTS.sampler.surrogate.latency,
    deviations: Sequence[float] | None = None,
) -> LatencyModel:
    """Fit to encodings, which may be pruned, and their measured ratios, as ``fit_latency_model``.

    Args:
        space: The space.
        encodings: What was timed.
        measured: Their latencies over the given network's.
        config: The prior.
        deviations: Standard deviation of each ratio by its timing; None, or NaN, is not known.
    """
    known = np.nan_to_num(np.zeros(len(measured)) if deviations is None else np.array(deviations, dtype=np.float64))
    ratios = np.array(measured, dtype=np.float64)
    if not (np.isfinite(ratios).all() and (ratios > 0).all()):
        raise ValueError(f"latency ratios must be positive and finite, got {ratios.tolist()}")
    weights = group_weights(space)
    offered = {kind for group in space.groups for kind in group.compute_types}
    kinds = tuple(kind for kind in config.gains if kind in offered)
    mean, deviation = _prior(space, kinds, weights, config)
    rows = [_features(space, kinds, encoding, weights) for encoding in encodings]
    x = np.array(rows, dtype=np.float64).reshape(len(rows), len(mean))
    base = _base(space, encodings, ratios, known)
    posterior = _posterior(x, ratios / base - 1.0, (known / base) ** 2, mean, deviation, config.noise_grid)
    theta, error = base * posterior.mean, base * posterior.loo_error
    groups, edges = len(space.groups), len(space.edges)
    shared, own, pruned = np.split(theta, np.cumsum([len(kinds) + 1, len(kinds) * groups + edges]))
    return LatencyModel(
        space=space,
        gains={
            kind: tuple((weights * shared[k] + own[k * groups : (k + 1) * groups]).tolist())
            for k, kind in enumerate(kinds)
        },
        boundary=tuple((shared[-1] / max(edges, 1) + own[len(kinds) * groups :]).tolist()),
        observations=len(rows),
        loo_error=error,
        scaling=tuple((weights * pruned[0] + pruned[1 : groups + 1]).tolist()) if space.prunes else (),
        branches=tuple(pruned[groups + 1 :].tolist()),
        base=base,
        posterior=posterior,
    )


def _base(space: Space, encodings: Sequence[Encoding], ratios: Vector, deviations: Vector) -> float:
    """b: the median of the best known of FP32's ratios, without pruning; 1 where it was not measured."""
    fp32 = space.encode(space.uniform(Precision.FP32))
    own = [
        (ratio, deviation)
        for encoding, ratio, deviation in zip(encodings, ratios.tolist(), deviations.tolist(), strict=True)
        if encoding == fp32
    ]
    least = min((deviation for _, deviation in own), default=0.0)
    return median(ratio for ratio, deviation in own if deviation <= 2 * least) if own else 1.0


def group_weights(space: Space) -> Vector:
    """Each group's expected share of the latency, shape (groups,); sums to 1.

    Half by count, half by FP32 bytes: bytes alone would starve early convolutions, which have few weights and
    large activations.
    """
    sizes = np.array([group.size_bytes[0] for group in space.groups], dtype=np.float64)
    count = max(len(sizes), 1)
    return np.asarray(0.5 / count + 0.5 * sizes / sizes.sum() if sizes.sum() > 0 else np.full(len(sizes), 1 / count))


def _prior(
    space: Space, kinds: Sequence[ComputeType], weights: Vector, config: LatencyPriorConfig
) -> tuple[Vector, Vector]:
    """Mean and standard deviation of the parameters.

    They are (C per arithmetic, B, γ per arithmetic and group, δ per edge), and (W, ω per group, d per variable) where
    there are prune variables.
    """
    groups, edges = len(space.groups), len(space.edges)
    # A boundary costs about what the layers beside it could save: of the order of one group's share.
    edge_deviation = np.full(edges, config.edge_deviation / max(groups, 1))
    own = config.group_deviation * weights
    mean = np.concatenate(
        [[*(config.gains[kind] for kind in kinds), config.conversions], np.zeros(len(kinds) * groups + edges)]
    )
    deviation = np.concatenate([np.full(len(kinds) + 1, config.shared_deviation), *[own] * len(kinds), edge_deviation])
    if not space.prunes:
        return mean, deviation
    variables = len(space.prunes)
    return (
        np.concatenate([mean, [config.scaling], np.zeros(groups + variables)]),
        np.concatenate([deviation, [config.shared_deviation], own, np.full(variables, config.branch_deviation)]),
    )


def _features(space: Space, kinds: Sequence[ComputeType], encoding: Encoding, weights: Vector) -> Vector:
    taken, left = _kinds(space, encoding), space.kept_fractions(encoding)
    parts = np.array(left)
    own = [np.array([other is kind for other in taken], dtype=np.float64) * parts for kind in kinds]
    boundary = np.array(_boundaries(space, taken, left), dtype=np.float64)
    shared = [*(column @ weights for column in own), boundary.sum() / max(len(boundary), 1)]
    features = np.concatenate([shared, *own, boundary])
    if not space.prunes:
        return features
    return np.concatenate(
        [features, [(parts - 1) @ weights], parts - 1, np.array(_removed(space, encoding), dtype=float)]
    )


def _posterior(
    x: Vector, y: Vector, variances: Vector, mean: Vector, deviation: Vector, noise_grid: Sequence[float]
) -> Posterior:
    """The posterior at the grid's noise with the least leave-one-out error."""
    scaled = x * deviation
    if not len(y):
        return Posterior(
            mean=mean,
            loo_error=math.nan,
            deviation=deviation,
            scaled=scaled,
            precision=np.zeros((0, 0)),
            noise=noise_grid[-1],
            inflation=1.0,
        )
    gram = scaled @ scaled.T
    residual = y - x @ mean
    weights = 1 / (variances + min(noise_grid) ** 2)
    best: Posterior | None = None
    for noise in noise_grid:
        precision = np.asarray(np.linalg.inv(gram + np.diag(noise**2 + variances)), dtype=np.float64)
        alpha = precision @ residual
        left_out = alpha / np.diag(precision)
        error = float(np.sqrt(np.average(left_out**2, weights=weights)))
        if best is None or error < best.loo_error:
            best = Posterior(
                mean=mean + deviation * (scaled.T @ alpha),
                loo_error=error,
                deviation=deviation,
                scaled=scaled,
                precision=precision,
                noise=noise,
                inflation=max(1.0, float(np.sqrt(np.mean(left_out**2 * np.diag(precision))))),
            )
    assert best is not None
    return best if len(y) > 1 else replace(best, loo_error=math.nan)


def _kinds(space: Space, encoding: Encoding) -> list[ComputeType]:
    return [group.compute_types[i] for group, i in zip(space.groups, space.schemes(encoding), strict=True)]


def _boundaries(space: Space, kinds: Sequence[ComputeType], left: Sequence[float]) -> list[bool]:
    """Whether each edge joins two activation types; those of a group that is gone do not."""
    domains = [ActivationType.of(kind) for kind in kinds]
    return [bool(left[u] and left[v]) and domains[u] is not domains[v] for u, v in space.edges]


def _removed(space: Space, encoding: Encoding) -> list[bool]:
    """Whether each prune variable removes its whole."""
    return [prune.sparsities[i] == 1 for prune, i in zip(space.prunes, space.sparsity_indices(encoding), strict=True)]
