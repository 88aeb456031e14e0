"""Reading a quantisation range off a histogram of a tensor's values.

A range is (low, high) with low ≤ 0 ≤ high, because U8 must hold zero exactly: padding and Relu produce it. Exact
zeros are counted apart: whatever the range, they cost nothing, so only the percentile takes notice of them.

    percentile  cuts the same share off both tails; of a tensor with one sign, all of it off its only tail
    entropy     the clip whose 256-level version of the histogram diverges least from the clipped one: S. Migacz,
                "8-bit inference with TensorRT", GTC 2017, with both ends free instead of one
    mse         the range with the least expected squared error of U8 quantisation, taking the values of a bin as
                evenly spread over it; rounding of the zero point included

Entropy and MSE look for the two ends on a geometric grid: first shrinking both by one factor, then each in turn
until neither moves. The grid keeps at least 1/16 (entropy) or 1/64 (MSE) of each side.

Not every tensor has a range that 8 bits can hold. What hides positions from a softmax or a maximum is −∞, −3.4e38,
−1e30 or the like; such a value says nothing of the tensor's others, and a scale that held it would make all of them 0.
So a tensor with NaN, infinities or values from ``MASK`` on is ``UNBOUNDED``, and dialects leave it floating.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitfront.core import LoweringError, RangeMethod

BINS = 4096
LEVELS = 256  # of U8

# Below this a scale of range / 255 comes near float32's smallest normal number.
_SMALLEST = 1e-30
_ALL_ZERO = (0.0, 1.0)
# Beyond what networks compute with: float32 has no fractions from 8e6 on. Masks in use begin at −1e4; those that
# are no larger than this are left to be measured, since activations of that size exist.
MASK = 1e18
UNBOUNDED = (-math.inf, math.inf)
# Values counted at a time: what is computed on the way stays in the processor's cache.
_BLOCK = 65_536
_STEPS = 96
_ROUNDS = 4
# Share of an even distribution mixed into the quantised histogram, so that a bin it leaves empty costs a finite
# divergence.
_SMOOTHING = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Values of a tensor in equal bins over a range that includes zero.

    Attributes:
        low, high: Outer edges, low ≤ 0 ≤ high and low < high.
        counts: Values other than zero in each bin, shape (bins,).
        zeros: How many values are exactly zero.
    """

    low: float
    high: float
    counts: NDArray[np.int64]
    zeros: int

    @property
    def origin(self) -> float:
        """Position of zero, in bins from the left."""
        return len(self.counts) * (0.0 - self.low) / (self.high - self.low)


def is_bounded(bounds: tuple[float, float]) -> bool:
    """Whether a tensor of this range can be quantised: no NaN, no infinity, nothing as large as ``MASK``."""
    return bounds[0] > -MASK and bounds[1] < MASK


def why_unbounded(tensor: str) -> str:
    """Sentence that says why a tensor that is not bounded stays floating."""
    return f"tensor '{tensor}' holds NaN, infinities or masks (from {MASK:g} on) on the calibration inputs"


def has_range(tensor: str, ranges: Mapping[str, tuple[float, float]]) -> bool:
    """Whether a tensor's range is known and bounded, so that it can be quantised."""
    return tensor in ranges and is_bounded(ranges[tensor])


def require_range(tensor: str, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse to quantise a tensor that has no range.

    Raises:
        LoweringError: If it has none; says why.
    """
    if not has_range(tensor, ranges):
        known = why_unbounded(tensor) if tensor in ranges else f"tensor '{tensor}' has no calibrated range"
        raise LoweringError(
            f"{known}, but a layer beside it is to be quantised",
            "calibrate the network anew, or leave the layers around it at fp32",
        )


def is_zero(bounds: tuple[float, float]) -> bool:
    """Whether a tensor of this range is zero throughout, or too near to it for a scale."""
    return max(bounds[1], 0.0) - min(bounds[0], 0.0) <= _SMALLEST


def usable_range(low: float, high: float) -> tuple[float, float]:
    """(low, high) widened to include zero; of a tensor that is zero throughout, (0, 1)."""
    low, high = min(low, 0.0) + 0.0, max(high, 0.0) + 0.0  # + 0.0 makes −0.0 plain 0
    return _ALL_ZERO if is_zero((low, high)) else (low, high)


def count_into(counts: NDArray[np.int64], low: float, high: float, values: NDArray[np.floating]) -> int:
    """Add the values other than zero to ``counts`` in place; values outside go to the outermost bins.

    Args:
        counts: Shape (bins,), modified.
        low: Left outer edge, from ``usable_range``.
        high: Right outer edge, from ``usable_range``.
        values: Finite, any shape.

    Returns:
        How many of ``values`` are exactly zero.
    """
    bins = len(counts)
    # Half precision is too narrow to number 4,096 bins.
    kind = np.promote_types(values.dtype, np.float32).type
    offset, factor = kind(low), kind(bins / (high - low))

    def bin_of(part: NDArray[np.floating]) -> NDArray[np.int64]:
        with np.errstate(over="ignore"):  # what overflows is clipped into the last bin, where it belongs
            position = (part - offset) * factor
        return np.asarray(np.clip(position, 0, bins - 1, out=position).astype(np.int64))

    flat = values.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        counts += np.bincount(bin_of(flat[start : start + _BLOCK]), minlength=bins)
    zeros = flat.size - int(np.count_nonzero(flat))
    counts[bin_of(np.zeros(1, dtype=kind))] -= zeros
    return zeros


def range_of(histogram: Histogram, method: RangeMethod, percentile: float) -> tuple[float, float]:
    """The range of a tensor by ``method``; ``percentile`` in percent, read by that method only."""
    if method is RangeMethod.MINMAX or not histogram.counts.any():
        return histogram.low, histogram.high
    if method is RangeMethod.PERCENTILE:
        return percentile_range(histogram, percentile)
    if method is RangeMethod.ENTROPY:
        return entropy_range(histogram)
    return mse_range(histogram)


def percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """The range that holds ``percentile`` percent of the values, zeros included, to a bin's width."""
    bins, origin = len(histogram.counts), histogram.origin
    counts = histogram.counts.copy()
    counts[min(int(origin), bins - 1)] += histogram.zeros
    below = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    outside = 1 - percentile / 100
    lower = 0.0 if histogram.low == 0 else outside if histogram.high == 0 else outside / 2
    # The last edge with at most `lower` below it, the first with at most `outside − lower` above it: nothing that
    # should be kept is cut off.
    start = int(np.searchsorted(below, lower + 1e-12, side="right")) - 1
    stop = int(np.searchsorted(below, 1 - (outside - lower) - 1e-12, side="left"))
    return _from_bins(histogram, min(start - origin, 0.0), max(stop - origin, 0.0))


def entropy_range(histogram: Histogram) -> tuple[float, float]:
    """Migacz's range: least KL(clipped histogram ‖ its 256-level version), both ends free."""
    bins, origin = len(histogram.counts), histogram.origin

    def cost(low: float, high: float) -> float:
        start, stop = max(int(origin + low), 0), min(int(np.ceil(origin + high)), bins)
        if stop - start < LEVELS:  # fewer bins than levels say nothing about what quantising loses
            return np.inf
        return clip_divergence(histogram.counts, start, stop)

    return _from_bins(histogram, *_least(cost, -origin, bins - origin, floor=LEVELS / bins))


def clip_divergence(counts: NDArray[np.int64], start: int, stop: int) -> float:
    """KL in nats between the histogram clipped to bins ``start`` to ``stop`` and its 256-level version.

    What lies outside is added to the outermost bins of the clipped histogram, and not to the quantised one: that is
    what clipping costs. Each level spreads its mass evenly over its bins that are not empty.
    """
    inside = counts[start:stop].astype(np.float64)
    clipped = inside.copy()
    clipped[0] += counts[:start].sum()
    clipped[-1] += counts[stop:].sum()
    occupied = inside > 0
    if not occupied.any():
        return float(np.inf)
    first = np.arange(LEVELS) * len(inside) // LEVELS
    mass = np.add.reduceat(inside, first)
    share = mass / np.maximum(np.add.reduceat(occupied.astype(np.int64), first), 1)
    spread = np.repeat(share, np.diff(np.append(first, len(inside)))) * occupied
    target = clipped / clipped.sum()
    quantised = (1 - _SMOOTHING) * spread / spread.sum() + _SMOOTHING / len(inside)
    seen = target > 0
    return float(np.sum(target[seen] * np.log(target[seen] / quantised[seen])))


def mse_range(histogram: Histogram) -> tuple[float, float]:
    """The range with the least expected squared error of U8 quantisation."""
    bins, origin = len(histogram.counts), histogram.origin
    edges = np.arange(bins + 1) - origin
    cost = partial(quantisation_error, edges, histogram.counts.astype(np.float64))
    return _from_bins(histogram, *_least(cost, -origin, bins - origin, floor=1 / 64))


def quantisation_error(edges: NDArray[np.floating], counts: NDArray[np.floating], low: float, high: float) -> float:
    """Summed squared error of U8 quantisation to (low, high), values evenly spread within each bin.

    With scale s and k the code of x (zero point taken off), ∫₀ˣ (t − Q(t))² dt = k s³/12 + (x − k s)³/3, since
    each whole cell around a grid point holds s³/12. It holds beyond the ends too, where k stays and x goes on.

    Args:
        edges: Of the bins, shape (bins + 1,), evenly spaced by 1.
        counts: Shape (bins,).
        low: Lower end of the range, at most 0, in the edges' unit.
        high: Upper end, at least 0 and above ``low``.
    """
    scale = (high - low) / (LEVELS - 1)
    zero_point = round(-low / scale)
    code = np.clip(np.rint(edges / scale), -zero_point, LEVELS - 1 - zero_point)
    integral = code * scale**3 / 12 + (edges - code * scale) ** 3 / 3
    return float(counts @ np.diff(integral))


def _least(cost: Callable[[float, float], float], low: float, high: float, *, floor: float) -> tuple[float, float]:
    """The (low, high) of least cost among shares of the whole range; of equals, the widest."""
    shares = np.geomspace(1, floor, _STEPS)
    ends = (low, high)
    sides = [side for side in (0, 1) if ends[side] != 0]
    best, share = cost(low, high), [1.0, 1.0]

    def attempt(tried: list[float]) -> bool:
        nonlocal best, share
        found = cost(tried[0] * low, tried[1] * high)
        if not found < best:
            return False
        best, share = found, tried
        return True

    for both in shares[1:]:
        attempt([float(both), float(both)])
    for _ in range(_ROUNDS if len(sides) == 2 else 0):
        moved = False
        for side in sides:
            for one in shares:
                tried = list(share)
                tried[side] = float(one)
                moved |= attempt(tried)
        if not moved:
            break
    return share[0] * low, share[1] * high


def _from_bins(histogram: Histogram, low: float, high: float) -> tuple[float, float]:
    """A range in bins from zero, in the tensor's unit, never wider than the histogram."""
    width = (histogram.high - histogram.low) / len(histogram.counts)
    return usable_range(max(low * width, histogram.low), min(high * width, histogram.high))
