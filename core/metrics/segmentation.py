"""Mean intersection over union of class maps.

    IoU of a class = tp / (tp + fp + fn), positions of all samples together
    mean           = over the classes that occur in labels or predictions

tp, fp and fn are true positives, false positives and false negatives.
"""

from __future__ import annotations

import numpy as np

from bitfront.core.errors import DataError
from bitfront.core.metric import Array
from bitfront.core.metrics.class_numbers import label_classes, predicted_classes
from bitfront.core.metrics.classes import confusion

MAP_IGNORE = 255
"""Label of positions that do not count, as segmentation data sets have it; all negative labels do not count."""


def iou(outputs: tuple[Array, ...], labels: Array, *, ignore: int = MAP_IGNORE, threshold: float = 0.5) -> float:
    """Mean intersection over union over the classes that occur.

    Args:
        outputs: The first has class numbers (n, h, w), scores (n, classes, h, w) or (n, h, w, classes), or scores of
            one class (n, 1, h, w).
        labels: Class numbers, shape (n, h, w).
        ignore: Label of positions that do not count; negative ones never do.
        threshold: Above it one score means class 1.

    Raises:
        DataError: If shapes or labels do not fit, or no label counts.
    """
    total = np.zeros((3, 0), np.int64)
    for row, label in zip(outputs[0], labels, strict=True):
        predicted, told = predicted_classes(np.asarray(row), np.shape(label), threshold=threshold, channels_first=True)
        numbers, counted = label_classes(label, told, ignore)
        pair = predicted[counted].ravel(), numbers[counted].ravel()
        classes = max(total.shape[1], *(int(part.max()) + 1 if part.size else 0 for part in pair), 1)
        total = np.pad(total, ((0, 0), (0, classes - total.shape[1]))) + np.stack(confusion(*pair, classes))
    tp, fp, fn = total
    if not (tp + fn).sum():
        raise DataError(f"no label counts: all are negative or {ignore}", "bring labels, or another ignore=NUMBER")
    occurring = tp + fp + fn > 0
    return float((tp[occurring] / (tp + fp + fn)[occurring]).mean())
