"""Samples of one input whose shapes differ, such as texts of different lengths.

The samples of an input are an array (n, …) where they have one shape. Where they have not, they are an array (n,) of
objects, each a sample's own array (…): slices and rows of it are taken as of any other. Only samples of one shape are
run together, so whoever runs a network cuts them by ``equal_shapes`` and lays them out by ``stacked``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import Array
from bitfront.core.workload import Inputs


def ragged(samples: Sequence[Array]) -> Array:
    """Samples (…) of any shapes as an array (n,) of them."""
    array = np.empty(len(samples), object)
    for index, sample in enumerate(samples):
        array[index] = sample
    return array


def joined(samples: Sequence[Array]) -> Array:
    """Samples (…) as an array (n, …), or one (n,) of them where their shapes differ."""
    return np.stack(samples) if len({sample.shape for sample in samples}) == 1 else ragged(samples)


def is_ragged(array: Array) -> bool:
    """Whether an array holds samples of different shapes."""
    return array.dtype.hasobject


def stacked(array: Array) -> Array:
    """Samples of one shape as an array (n, …); what is one already is returned as it is.

    Raises:
        DataError: If their shapes differ.
    """
    if not is_ragged(array):
        return array
    shapes = {sample.shape for sample in array}
    if len(shapes) > 1:
        listed = ", ".join(map(str, sorted(shapes)[:4]))
        raise DataError(f"samples of shapes {listed} cannot be run together", "pad them to one shape")
    return np.stack(list(array))


def equal_shapes(inputs: Inputs, count: int, size: int) -> list[tuple[int, int]]:
    """Cut the first ``count`` samples into runs of neighbours that have one shape in every input.

    Args:
        inputs: Input name → samples.
        count: Samples to cut.
        size: Samples of a run at most.

    Returns:
        (start, stop) of each run, in order.
    """
    uneven = [array for array in inputs.values() if is_ragged(array)]
    found, start = [], 0
    while start < count:
        stop = start + 1
        while stop < min(start + size, count) and all(array[stop].shape == array[start].shape for array in uneven):
            stop = stop + 1 if uneven else min(start + size, count)
        found.append((start, stop))
        start = stop
    return found


def rows_like(inputs: Inputs, sample: int, count: int) -> NDArray[np.int64]:
    """Indices of ``count`` samples of one sample's shapes, from the first on; repeated where there are fewer."""
    uneven = [array for array in inputs.values() if is_ragged(array)]
    total = min(len(array) for array in inputs.values())
    rows = [row for row in range(total) if all(array[row].shape == array[sample].shape for array in uneven)]
    return np.resize(np.array(rows, np.int64), count)


def median_sample(inputs: Inputs) -> int:
    """Index of the sample of median size, all inputs together; 0 where all have one shape."""
    uneven = [array for array in inputs.values() if is_ragged(array)]
    if not uneven:
        return 0
    sizes = np.sum([[sample.size for sample in array] for array in uneven], axis=0)
    return int(np.argsort(sizes, kind="stable")[len(sizes) // 2])
