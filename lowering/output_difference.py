"""Differences between two answers of a network, and how much of them its own rounding explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array

STRICT_DB = 90.0
_MARGIN_DB = 6.0
# Below this the network's own rounding is as large as its answers: nothing can be told from a comparison.
_CHAOTIC_DB = 10.0
_LARGEST_DB = 300.0
_LAST_PLACES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Output of the given network, and the same output under disturbed constants and inputs.

    Attributes:
        name, value: The output.
        disturbed: The same from disturbed runs.
        last_place: A unit in the last place of the largest value it can have; 0 where that is not known.
    """

    name: str
    value: Array
    disturbed: Sequence[Array]
    last_place: float


def disturbed_array(array: Array, size: float, generator: np.random.Generator) -> Array:
    """A floating array whose elements are changed by up to a relative size; any other one as it is."""
    if not is_float(array):
        return array
    factors = 1 + size * generator.uniform(-1, 1, array.shape)
    with np.errstate(over="ignore"):
        changed: Array = np.asarray(array.astype(np.float64) * factors).astype(array.dtype)
    # A mask of the type's least number stays finite.
    return np.where(np.isinf(widened(changed)), array, changed)


def difference(output: Output, found: Array, *, strict: bool, cause: str = "rounding") -> str:
    """Sentence on how an output differs beyond what ``cause`` explains; empty where it does not."""
    if not is_array(found) or output.value.shape != found.shape:
        moving = any(run.shape != output.value.shape for run in output.disturbed)
        got = found.shape if is_array(found) else type(found).__name__
        return "" if moving else f"output '{output.name}' has shape {got}, given {output.value.shape}"
    if output.value.dtype != found.dtype:
        return f"output '{output.name}' is {found.dtype}, given {output.value.dtype}"
    alike = [run for run in output.disturbed if run.shape == output.value.shape]
    if not is_float(output.value):
        steady = np.ones(output.value.shape, bool)
        for run in alike:
            steady &= run == output.value
        wrong = int((steady & (found != output.value)).sum())
        return f"output '{output.name}' differs in {wrong} of {found.size} elements" if wrong else ""
    near = sqnr_db(output.value, found)
    own = min((sqnr_db(output.value, run) for run in alike), default=_LARGEST_DB)
    if own < _CHAOTIC_DB:
        return ""
    least = min(STRICT_DB, own - _MARGIN_DB) if strict else own - _MARGIN_DB
    if near >= least:
        return ""
    largest = float(np.nanmax(np.abs(widened(output.value) - widened(found)), initial=0.0))
    if largest <= output.last_place * _LAST_PLACES and largest < np.inf:
        return ""
    return (
        f"output '{output.name}' differs by {largest:.3g} at most, an SQNR of {near:.1f} dB where {cause} explains "
        f"{least:.0f} dB"
    )


def sqnr_db(wanted: Array, found: Array) -> float:
    """Signal to noise of ``found`` in dB, infinite and undefined elements left out where both have the same ones.

    −300 where one has such an element and the other has not, 300 where they are equal.
    """
    one, other = widened(wanted), widened(found)
    odd = ~np.isfinite(one) | ~np.isfinite(other)
    if not np.array_equal(one[odd], other[odd], equal_nan=True):
        return -_LARGEST_DB
    one, other = one[~odd], other[~odd]
    noise, signal = float(((one - other) ** 2).sum()), float((one**2).sum())
    if noise == 0:
        return _LARGEST_DB
    return float(np.clip(10 * np.log10(max(signal, 1e-300) / noise), -_LARGEST_DB, _LARGEST_DB))


def is_near(wanted: Array, found: Array, least_db: float) -> bool:
    """Whether an answer is the wanted one: in shape and type, and to so many dB where it is floating."""
    if not is_array(found) or wanted.shape != found.shape or wanted.dtype != found.dtype:
        return False
    return sqnr_db(wanted, found) >= least_db if is_float(wanted) else bool(np.array_equal(wanted, found))


def is_same(one: Array, other: Array) -> bool:
    """Whether two arrays are equal, elements that are no numbers included."""
    if one.shape != other.shape:
        return False
    return bool(np.array_equal(widened(one), widened(other), equal_nan=True) if is_float(one) else (one == other).all())


def is_array(value: object) -> bool:
    """Whether an output is an array, and no sequence or map."""
    return isinstance(value, np.ndarray)


def is_float(array: Array) -> bool:
    """Whether elements are floating, bfloat16 included."""
    return bool(np.issubdtype(array.dtype, np.floating)) or array.dtype.name == "bfloat16"


def widened(array: Array) -> NDArray[np.float64]:
    """The array in float64."""
    wide: NDArray[np.float64] = array.astype(np.float64)
    return wide
