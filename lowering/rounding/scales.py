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

from typing import Any

import numpy as np
from numpy.typing import NDArray

INTEGER_RANGES = {8: (-127, 127), 4: (-8, 7), 3: (-4, 3)}
# Shares of the range max|w| / high; 0.875 is max|w|/8 at 4 bits.
CLIP_RATIOS = tuple(float(ratio) for ratio in np.linspace(1.0, 0.3, 57))
# The smallest normal float32: a denormal scale would be flushed to zero by some runtimes.
SMALLEST_SCALE = float(np.finfo(np.float32).tiny)

Floats = NDArray[np.floating[Any]]


def nearest_integers(weights: Floats, scales: Floats, bits: int) -> NDArray[np.int8]:
    """Nearest integer of each weight; ``scales`` broadcasts against ``weights``."""
    low, high = INTEGER_RANGES[bits]
    return np.clip(np.rint(np.divide(weights, scales, dtype=np.float64)), low, high).astype(np.int8)


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
    low, high = INTEGER_RANGES[bits]
    exact = weights.astype(np.float64)
    full = np.abs(exact).max(axis=-1) / high
    best = _positive(full)
    best_error = np.full(len(exact), np.inf)
    for ratio in CLIP_RATIOS:
        scales = _positive(full * ratio)
        step = scales[:, None].astype(np.float64)
        squares = (exact - step * np.clip(np.rint(exact / step), low, high)) ** 2
        error = (squares if importance is None else squares * importance).sum(axis=-1)
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


def _positive(scales: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.where(scales > 0, np.maximum(scales, SMALLEST_SCALE), 1.0).astype(np.float32)
