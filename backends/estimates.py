"""The maths of paired timing, without a clock: medians, ratios to the reference, and their intervals.

    symbol        meaning                                                     shape
    t[m]          times of model m's runs, in ns                              (rounds, runs of m)
    x[m]          median of each round's runs: median(t[m], axis=1)           (rounds,)
    r[m]          x[m] / x[reference], round by round                         (rounds,)

``ratio`` is median(r). A machine's speed drifts by tens of per cent in seconds, yet hardly within one round, so
r is steady where t is not; dividing two models' overall medians would keep the drift. Intervals are percentile
bootstraps (Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13) that draw whole rounds, because runs of
one round share their disturbances; drawing single runs would claim a precision that is not there.

On a shared machine another tenant's load changes more than speed: integer and floating kernels suffer differently, so
even r moves. So a round counts for a model if neither it nor the reference took more than ``QUIET`` times as long as
when undisturbed, which is the fastest tenth of its rounds (for the reference, or what is known from before, if that is
shorter). Looking at the reference alone would favour rounds in which luck made it fast, and bias r. Rounds are taken
in the pairs of ``round_order``, forwards and backwards, so that drift within rounds still cancels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from bitfront.core import LatencyStats

Times = NDArray[np.int64]
Floats = NDArray[np.float64]

_SEED = 0
_RESAMPLES = 1000
_POOLED_RESAMPLES = 400
_TAILS = (0.025, 0.975)
_NS_PER_MS = 1e6

QUIET = 1.1
FEWEST_ROUNDS = 3
_FASTEST = 0.1


def undisturbed_rounds(times: Times, reference: Times, known_ms: float | None) -> NDArray[np.bool_]:
    """Mask of the rounds that count for a model, (rounds,).

    Args:
        times: Times of the model's runs in ns, (rounds, runs).
        reference: The same of the reference.
        known_ms: The reference's undisturbed time as known from before.
    """
    mask = _undisturbed(times, None) & _undisturbed(reference, known_ms)
    paired = len(mask) // 2 * 2
    both = mask[:paired:2] & mask[1:paired:2]
    result = np.zeros(len(mask), np.bool_)
    result[:paired] = both.repeat(2)
    return result


def _undisturbed(times: Times, known_ms: float | None) -> NDArray[np.bool_]:
    medians = round_medians(times)
    level = float(np.quantile(medians, _FASTEST, method="lower"))
    if known_ms is not None:
        level = min(level, known_ms * _NS_PER_MS)
    return np.asarray(medians <= QUIET * level, dtype=np.bool_)


def runs_per_slot(pilot_ns: float, slot_ns: float, most: int) -> int:
    """Number of back-to-back runs that fill a slot of ``slot_ns``: at least 1, at most ``most``."""
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


def relative_half_width(times: Times, reference: Times) -> float:
    """Half the interval of a model's ratio over that ratio; for the reference itself, of its own median."""
    values = round_medians(times) if np.array_equal(times, reference) else paired_ratios(times, reference)
    low, high = median_interval(values)
    return (high - low) / 2 / float(np.median(values))


def summarise(
    times: Mapping[str, Times], reference: str, *, threads: int, batch_size: int, known_ms: float | None = None
) -> dict[str, LatencyStats]:
    """Statistics of every model over the rounds that count for it.

    Where fewer than three rounds count by what is known from before, the machine has become slower: the reference's
    own fastest rounds decide; where even these are too few, all rounds count.

    Args:
        times: Model → times of its runs in ns, (rounds, runs); the same rounds for all.
        reference: The model that ratios are taken to.
        threads: What they ran with; only noted down.
        batch_size: Likewise.
        known_ms: The reference's undisturbed time as known from before.
    """
    summaries = {}
    for name, matrix in times.items():
        masks = (undisturbed_rounds(matrix, times[reference], known) for known in (known_ms, None))
        mask = next((mask for mask in masks if mask.sum() >= FEWEST_ROUNDS), np.ones(len(matrix), np.bool_))
        summaries[name] = _summary(matrix, times[reference], mask, threads=threads, batch_size=batch_size)
    return summaries


def _summary(times: Times, reference: Times, mask: NDArray[np.bool_], *, threads: int, batch_size: int) -> LatencyStats:
    kept = times[mask]
    ratios = paired_ratios(kept, reference[mask])
    ratio_low, ratio_high = median_interval(ratios)
    low, high = pooled_median_interval(kept)
    return LatencyStats(
        median_ms=float(np.median(kept)) / _NS_PER_MS,
        p90_ms=float(np.quantile(kept, 0.9)) / _NS_PER_MS,
        ci_low_ms=low / _NS_PER_MS,
        ci_high_ms=high / _NS_PER_MS,
        ratio=float(np.median(ratios)),
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        rounds=len(kept),
        threads=threads,
        batch_size=batch_size,
        rounds_left_out=len(times) - len(kept),
    )
