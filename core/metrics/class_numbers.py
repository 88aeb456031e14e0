"""Class numbers of one sample, from an output that holds them or scores of classes, and from its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import Array

Numbers = NDArray[np.int64]


def predicted_classes(
    row: Array, shape: tuple[int, ...], *, threshold: float, channels_first: bool
) -> tuple[Numbers, int | None]:
    """Predicted class at each labelled position of a sample, and how many classes the network tells apart.

    Args:
        row: The sample's output: class numbers (…) as integers, scores of one class (…) as floats, of which those above
            the threshold are class 1, or scores (…, classes) or (classes, …). Axes of size 1 may stand in between.
        shape: Of the sample's labels, (…).
        threshold: What divides class 0 from class 1 where there is one score.
        channels_first: Which of the two layouts is meant where both fit.

    Returns:
        Class numbers of the labels' shape; the number of classes, None where the output holds class numbers.

    Raises:
        DataError: If the output's shape fits neither.
    """
    values: NDArray[Any] = row
    axis = _class_axis(row.shape, shape, channels_first=channels_first)
    if axis is not None and row.shape[axis] > 1:
        return np.asarray(row.argmax(axis=axis), dtype=np.int64).reshape(shape), row.shape[axis]
    if row.size == int(np.prod(shape, dtype=np.int64)):
        values = values.reshape(shape)
        if values.dtype.kind == "f":
            return np.asarray(values > threshold, dtype=np.int64), 2
        return values.astype(np.int64), None
    lengths = ", ".join(map(str, shape))
    start, end = (f"{lengths}, " if lengths else ""), (f", {lengths}" if lengths else "")
    raise DataError(
        f"a sample's output of shape {row.shape} does not fit its labels of shape {shape}: expected class numbers of "
        f"that shape, or scores ({start}classes) or (classes{end})",
        "bring labels of the output's positions, or name the output that holds the classes, as in --metric NAME:OUTPUT",
    )


def label_classes(labels: Array, classes: int | None, ignore: int | None) -> tuple[Numbers, NDArray[np.bool_]]:
    """A sample's labels as class numbers, and which of them count.

    Args:
        labels: Whole numbers of any type.
        classes: How many classes there are; None where that is not known.
        ignore: The number of positions that do not count; those below 0 never do.

    Raises:
        DataError: If they are no whole numbers, or beyond the classes.
    """
    numbers = whole_numbers(labels)
    counted = numbers >= 0
    if ignore is not None:
        counted &= numbers != ignore
    if classes is not None and counted.any() and int(numbers[counted].max()) >= classes:
        raise DataError(
            f"labels hold class {int(numbers[counted].max())}, and the output tells {classes} classes apart, 0 to "
            f"{classes - 1}",
            "class numbers start at 0; positions that do not count are negative, or named by ignore=NUMBER",
        )
    return numbers, counted


def whole_numbers(labels: Array) -> Numbers:
    """Labels as int64.

    Raises:
        DataError: If they are no whole numbers.
    """
    array: NDArray[Any] = np.asarray(labels)
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and (array == np.round(array)).all()):
        raise DataError(
            f"labels of dtype {array.dtype.name} are no whole numbers", "bring class or token numbers as integers"
        )
    return array.astype(np.int64)


def _class_axis(row: tuple[int, ...], labels: tuple[int, ...], *, channels_first: bool) -> int | None:
    """Axis of the classes in a sample's output; None where it is not one of the two ends."""
    sized, wanted = [size for size in row if size != 1], [size for size in labels if size != 1]
    first, last = sized[1:] == wanted and bool(sized), sized[:-1] == wanted and bool(sized)
    if not (first or last):
        return None
    kept = [axis for axis, size in enumerate(row) if size != 1]
    return kept[0] if first and (channels_first or not last) else kept[-1]
