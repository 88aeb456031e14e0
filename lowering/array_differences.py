"""Differences between two arrays: signal to noise, and equality of shapes, types and elements."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array

LARGEST_DB = 300.0


def sqnr_db(wanted: Array, found: Array) -> float:
    """Signal to noise of ``found`` in dB, infinite and undefined elements left out where both have the same ones.

    −300 where one has such an element and the other has not, 300 where they are equal.
    """
    one, other = wide(wanted), wide(found)
    odd = ~np.isfinite(one) | ~np.isfinite(other)
    if not np.array_equal(one[odd], other[odd], equal_nan=True):
        return -LARGEST_DB
    one, other = one[~odd], other[~odd]
    noise, signal = float(((one - other) ** 2).sum()), float((one**2).sum())
    if noise == 0:
        return LARGEST_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -LARGEST_DB, LARGEST_DB))


def near(wanted: Array, found: Array, least_db: float) -> bool:
    """Whether two arrays are of one shape and type, and equal but for noise of ``least_db`` and less."""
    if not is_array(found) or wanted.shape != found.shape or wanted.dtype != found.dtype:
        return False
    return sqnr_db(wanted, found) >= least_db if is_float(wanted) else bool(np.array_equal(wanted, found))


def same(one: Array, other: Array) -> bool:
    """Whether two arrays are equal, elements that are no number included."""
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(wide(one), wide(other), equal_nan=True) if is_float(one) else (one == other).all())


def is_array(value: object) -> bool:
    """Whether a value is an array, not a sequence or a map."""
    return isinstance(value, np.ndarray)


def is_float(array: Array) -> bool:
    """Whether an array holds floating numbers, of any width."""
    return bool(np.issubdtype(array.dtype, np.floating)) or array.dtype.name == "bfloat16"


def wide(array: Array) -> NDArray[np.float64]:
    """Array in double precision."""
    wide: NDArray[np.float64] = array.astype(np.float64)
    return wide
