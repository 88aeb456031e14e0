"""Symmetric scales and nearest integers.

The weights w of one scale become integers q = clip(round(w / s), low, high), ŵ = s·q. Two ways to find s:

- ``absmax_scales``: s = max|w| / high. Nothing is clipped, so |w − ŵ| ≤ s/2 for every weight.
- ``mse_scales``: the s among shrunk ranges that minimises Σ h·(w − ŵ)², h being an importance of each weight
  (1, or the diagonal of a Hessian). Clipping few large weights buys all others a finer step.

Integers are −127…127 at 8 bits; −8…7 at 4 bits, where ``absmax_scales`` takes the symmetric part −7…7 alone, and the
search has both s = max|w|/7 and s = max|w|/8 among its candidates. At 3 bits, which are stored in 4, they are −4…3.
A channel of zeros has scale 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTEGER_RANGES = {8: (-127, 127), 4: (-8, 7), 3: (-4, 3)}
# Shares of the range max|w| / high; 0.875 is max|w|/8 at 4 bits.
CLIP_RATIOS = tuple(float(ratio) for ratio in np.linspace(1.0, 0.3, 57))
# The smallest normal float32: a denormal scale would be flushed to zero by some runtimes.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

_BLOCK = 2**15

Floats = NDArray[np.floating[Any]]


def nearest_integers(weights: Floats, scales: Floats, bits: int) -> NDArray[np.int8]:
    """Nearest integer of each weight; ``scales`` broadcasts against ``weights``."""
    low, high = INTEGER_RANGES[bits]
    found = np.empty_like(weights, dtype=np.int8)
    every = np.broadcast_to(scales, weights.shape)
    for at in _blocks(weights.shape):
        exact = np.divide(weights[at], every[at], dtype=np.float64)
        found[at] = np.clip(np.rint(exact, out=exact), low, high, out=exact)
    return found


def absmax_scales(weights: Floats, bits: int) -> NDArray[np.float32]:
    """Scales by which nothing is clipped, one a row: (rows, n) → (rows,)."""
    return _positive(np.abs(weights).max(axis=-1).astype(np.float64) / INTEGER_RANGES[bits][1])


def mse_scales(weights: Floats, bits: int, importance: Floats | None = None) -> NDArray[np.float32]:
    """Scales with the least Σ h·(w − ŵ)² over ``CLIP_RATIOS``, one a row: (rows, n) → (rows,).

    Args:
        weights: (rows, n).
        bits: 8, 4 or 3.
        importance: h, non-negative, broadcastable to ``weights``; None is 1 everywhere.
    """
    every = None if importance is None else np.broadcast_to(importance, weights.shape)
    found = np.empty(len(weights), np.float32)
    for at in _blocks(weights.shape, along=1):
        exact = np.array(weights[at], np.float64, order="C")
        found[at] = _mse_scales_of_block(exact, bits, None if every is None else every[at])
    return found


def _mse_scales_of_block(exact: NDArray[np.float64], bits: int, importance: Floats | None) -> NDArray[np.float32]:
    low, high = INTEGER_RANGES[bits]
    full = np.abs(exact).max(axis=-1) / high
    best = _positive(full)
    best_error = np.full(len(exact), np.inf)
    squares = np.empty_like(exact)
    for ratio in CLIP_RATIOS:
        scales = _positive(full * ratio)
        step = scales[:, None].astype(np.float64)
        np.rint(np.divide(exact, step, out=squares), out=squares)
        np.multiply(np.clip(squares, low, high, out=squares), step, out=squares)
        np.square(np.subtract(exact, squares, out=squares), out=squares)
        if importance is not None:
            squares *= importance
        error = squares.sum(axis=-1)
        better = error < best_error
        best, best_error = np.where(better, scales, best), np.where(better, error, best_error)
    return best


def groups_of(matrix: Floats, group_size: int) -> NDArray[np.float64]:
    """(channels, k) → (channels · groups, group_size), the last group of a channel filled up with zeros."""
    channels, length = matrix.shape
    groups = -(-length // group_size)
    padded = np.zeros((channels, groups * group_size))
    padded[:, :length] = matrix
    return padded.reshape(channels * groups, group_size)


def _blocks(shape: tuple[int, ...], *, along: int | None = None) -> Iterator[tuple[slice, ...]]:
    """Slices that divide an array into blocks of about ``_BLOCK`` elements, which the processor keeps at hand.

    Args:
        shape: The array's.
        along: Leading axes that are divided, the others staying whole; None divides all.
    """
    axes = len(shape) if along is None else along
    steps = list(shape)
    for axis in range(axes):
        inner = prod(shape[axis + 1 :])
        steps[axis] = max(1, min(shape[axis], _BLOCK // max(1, inner)))
    for starts in product(*(range(0, size, max(1, step)) for size, step in zip(shape[:axes], steps, strict=False))):
        yield tuple(slice(start, start + step) for start, step in zip(starts, steps, strict=False))


def _positive(scales: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.where(scales > 0, np.maximum(scales, SMALLEST_SCALE), 1.0).astype(np.float32)
