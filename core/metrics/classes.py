"""Metrics of classifiers: hits among the largest scores, and F1.

    F1 of a class = 2·tp / (2·tp + fp + fn)
    macro         = mean of it over the classes that occur in labels or predictions

tp, fp and fn are true positives, false positives and false negatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import Array
from bitfront.core.metrics.class_numbers import label_classes, predicted_classes

Scores = NDArray[np.float64]

AVERAGES = ("auto", "binary", "macro")
TOKEN_IGNORE = -100
"""Label of tokens that do not count, as training frameworks have it; all negative labels do not count."""


def top_k(outputs: tuple[Array, ...], labels: Array, *, k: int) -> Scores:
    """Whether the label is among the ``k`` largest entries of the first output; of equal entries the first are larger.

    Args:
        outputs: The first has scores or probabilities of classes, shape (n, classes) or (n, classes, 1…).
        labels: Class numbers, shape (n,).
        k: How many.

    Returns:
        1.0 where it is, else 0.0; shape (n,).

    Raises:
        DataError: If there are no more than ``k`` classes: every label would be among the largest.
    """
    scores: NDArray[Any] = outputs[0].reshape(len(labels), -1)
    if k == 1:
        return np.asarray(scores.argmax(axis=1) == labels, dtype=np.float64)
    classes = scores.shape[1]
    if classes <= k:
        raise DataError(f"top{k} of {classes} classes counts every sample as a hit", "score it with --metric top1")
    wanted = labels.astype(np.int64)[:, None]
    own = np.take_along_axis(scores, wanted, axis=1)
    ahead = (scores > own) | ((scores == own) & (np.arange(classes) < wanted))
    return np.asarray(ahead.sum(axis=1) < k, dtype=np.float64)


def f1(
    outputs: tuple[Array, ...],
    labels: Array,
    *,
    average: str = "auto",
    ignore: int = TOKEN_IGNORE,
    threshold: float = 0.5,
) -> float:
    """F1 of all samples' classes together.

    Args:
        outputs: The first has class numbers or scores of classes, a sample or a token (n, tokens, classes).
        labels: Class numbers, shape (n,) or (n, tokens).
        average: ``binary`` is the F1 of class 1, ``macro`` the mean over classes; ``auto`` is binary of two classes.
        ignore: Label of positions that do not count; negative ones never do.
        threshold: Above it one score means class 1.

    Returns:
        Between 0 and 1; 1 where there is no positive and none was predicted.

    Raises:
        DataError: If shapes or labels do not fit, or no label counts.
    """
    found: list[NDArray[np.int64]] = []
    wanted: list[NDArray[np.int64]] = []
    told: int | None = None
    for row, label in zip(outputs[0], labels, strict=True):
        predicted, told = predicted_classes(np.asarray(row), np.shape(label), threshold=threshold, channels_first=False)
        numbers, counted = label_classes(label, told, ignore)
        found.append(predicted[counted].ravel())
        wanted.append(numbers[counted].ravel())
    predictions, truth = np.concatenate(found), np.concatenate(wanted)
    if not truth.size:
        raise DataError(f"no label counts: all are negative or {ignore}", "bring labels, or another ignore=NUMBER")
    classes = told or int(max(predictions.max(), truth.max())) + 1
    tp, fp, fn = confusion(predictions, truth, max(classes, 2))
    if average == "binary" or (average == "auto" and classes <= 2):
        return 1.0 if tp[1] + fp[1] + fn[1] == 0 else float(2 * tp[1] / (2 * tp[1] + fp[1] + fn[1]))
    occurring = tp + fp + fn > 0
    return float((2 * tp[occurring] / (2 * tp + fp + fn)[occurring]).mean())


def confusion(
    predictions: NDArray[np.int64], truth: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """True positives, false positives and false negatives of each class, shape (classes,) each."""
    outside = (predictions < 0) | (predictions >= classes)
    hits = np.bincount(truth[predictions == truth], minlength=classes)
    predicted = np.bincount(predictions[~outside], minlength=classes)
    present = np.bincount(truth, minlength=classes)
    return hits, predicted - hits, present - hits
