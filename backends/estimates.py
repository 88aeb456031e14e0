"""The maths of paired timing, without a clock: medians, ratios to the reference, and their intervals.

    symbol        meaning                                                     shape
    t[m]          times of model m's runs, in ns                              (rounds, runs of m)
    x[m]          median of each round's runs: median(t[m], axis=1)           (rounds,)
    r[m]          x[m] / x[reference], round by round                         (rounds,)

``ratio`` is median(r). A machine's speed drifts by tens of per cent in seconds, yet hardly within one round, so
r is steady where t is not; dividing two models' overall medians would keep the drift. Intervals are percentile
bootstraps (Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13) that draw whole rounds, because runs of
one round share their disturbances; drawing single runs would claim a precision that is not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from precision import LatencyStats

Times = NDArray[np.int64]
Floats = NDArray[np.float64]

_SEED = 0
_RESAMPLES = 1000
_POOLED_RESAMPLES = 400
_TAILS = (0.025, 0.975)
_NS_PER_MS = 1e6


def runs_per_slot(pilot_ns: float, slot_ns: float, most: int) -> int:
    """How many back-to-back runs fill a slot of ``slot_ns``: at least 1, at most ``most``."""
    return max(1, min(most, math.ceil(slot_ns / max(pilot_ns, 1.0))))


def round_order(count: int, number: int) -> tuple[int, ...]:
    """The order of ``count`` models in round ``number``.

    Every second round runs backwards, which cancels a linear drift within rounds; each pair of rounds starts one
    model later, so that none always goes first or always follows the same one.
    """
    start = (number // 2) % count
    order = tuple((start + index) % count for index in range(count))
    return order[::-1] if number % 2 else order


def round_medians(times: Times) -> Floats:
    """x: each round's median, at least 1 ns; (rounds, runs) → (rounds,)."""
    medians = np.median(times.astype(np.float64), axis=1)
    return np.asarray(np.maximum(medians, 1.0), dtype=np.float64)


def paired_ratios(times: Times, reference: Times) -> Floats:
    """r: each round's ratio to the reference in the same round, (rounds,); exactly 1 for the reference itself."""
    return np.asarray(round_medians(times) / round_medians(reference), dtype=np.float64)


def median_interval(values: Floats) -> tuple[float, float]:
    """95 % bootstrap interval of the median of one value a round."""
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(np.median(values[drawn], axis=1), _TAILS)
    return float(low), float(high)


def pooled_median_interval(times: Times) -> tuple[float, float]:
    """95 % bootstrap interval of the median of all runs, whole rounds drawn together; in ns."""
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, len(times), size=(_POOLED_RESAMPLES, len(times)))
    low, high = np.quantile(np.median(times[drawn].reshape(_POOLED_RESAMPLES, -1), axis=1), _TAILS)
    return float(low), float(high)


def relative_half_width(times: Mapping[str, Times], reference: str) -> float:
    """The widest model's half interval of its ratio over that ratio; a reference alone: of its own median."""
    if len(times) == 1:
        values = [round_medians(times[reference])]
    else:
        values = [paired_ratios(times[name], times[reference]) for name in times if name != reference]
    widths = []
    for value in values:
        low, high = median_interval(value)
        widths.append((high - low) / 2 / float(np.median(value)))
    return max(widths)


def summarise(times: Mapping[str, Times], reference: str, *, threads: int, batch_size: int) -> dict[str, LatencyStats]:
    """Statistics of every model.

    Args:
        times: Model → times of its runs in ns, (rounds, runs); the same rounds for all.
        reference: The model that ratios are taken to.
        threads: What they ran with; only noted down.
        batch_size: Likewise.
    """
    return {
        name: _summary(matrix, times[reference], threads=threads, batch_size=batch_size)
        for name, matrix in times.items()
    }


def _summary(times: Times, reference: Times, *, threads: int, batch_size: int) -> LatencyStats:
    ratios = paired_ratios(times, reference)
    ratio_low, ratio_high = median_interval(ratios)
    low, high = pooled_median_interval(times)
    return LatencyStats(
        median_ms=float(np.median(times)) / _NS_PER_MS,
        p90_ms=float(np.quantile(times, 0.9)) / _NS_PER_MS,
        ci_low_ms=low / _NS_PER_MS,
        ci_high_ms=high / _NS_PER_MS,
        ratio=float(np.median(ratios)),
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        rounds=len(times),
        threads=threads,
        batch_size=batch_size,
    )
