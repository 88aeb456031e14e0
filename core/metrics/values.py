"""Metrics of numbers: absolute and squared errors, the cosine of the angle between two vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import Array

Scores = NDArray[np.float64]


def mean_error(outputs: tuple[Array, ...], labels: Array, *, power: int) -> Scores:
    """Mean over a sample's values of ``|output − label| ** power``, of the first output.

    Args:
        outputs: The first has shape (n, …).
        labels: As many values a sample, shape (n, …).
        power: 1 for absolute, 2 for squared errors.

    Returns:
        Shape (n,).

    Raises:
        DataError: If output and labels hold different numbers of values a sample.
    """
    found = np.asarray(outputs[0], dtype=np.float64).reshape(len(labels), -1)
    wanted = np.asarray(labels, dtype=np.float64).reshape(len(labels), -1)
    if found.shape != wanted.shape:
        raise DataError(
            f"the first output of shape {outputs[0].shape} and labels of shape {labels.shape} hold different numbers "
            "of values a sample",
            "bring labels of the output's shape, or name another metric",
        )
    return np.asarray((np.abs(found - wanted) ** power).mean(axis=1), dtype=np.float64)


def cosine(outputs: tuple[Array, ...], labels: Array | tuple[Array, ...]) -> Scores:
    """Cosine of the angle between a sample's output and its label, or the given network's output, flattened.

    Args:
        outputs: The first has shape (n, …).
        labels: As many values a sample, shape (n, …); or the given network's outputs.

    Returns:
        Shape (n,): 1 for the same direction, −1 for the opposite one; of two rows of zeros 1, of one 0.

    Raises:
        DataError: If output and labels hold different numbers of values a sample.
    """
    target = labels[0] if isinstance(labels, tuple) else labels
    pairs = zip(outputs[0], target, strict=True)
    return np.array([_cosine(np.asarray(found), np.asarray(wanted)) for found, wanted in pairs], np.float64)


def _cosine(found: Array, wanted: Array) -> float:
    if found.size != wanted.size:
        raise DataError(
            f"a sample's output of shape {found.shape} and its label of shape {wanted.shape} hold different numbers of "
            "values",
            "bring labels of the output's shape, or name the output, as in --metric cosine:OUTPUT",
        )
    one, other = found.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    if not all(lengths):
        return float(lengths[0] == lengths[1])
    return float(np.clip(one @ other / (lengths[0] * lengths[1]), -1.0, 1.0))
