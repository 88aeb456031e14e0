"""Mean intersection over union by hand, in every layout of class maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitfront.core import METRICS, DataError
from bitfront.core.metric_spec import metric_of
from bitfront.core.ragged import ragged

FOUND = np.array([[[0, 0, 1], [1, 2, 2]]])
LABELS = np.array([[[0, 1, 1], [1, 2, 0]]])
# Class 0: 1 of 3; class 1: 2 of 3; class 2: 1 of 2.
EXPECTED = (1 / 3 + 2 / 3 + 1 / 2) / 3
SCORES = np.eye(3, dtype=np.float32)[FOUND]


def value(output: Any, labels: Any, text: str = "iou") -> float:
    """The metric of one output."""
    metric = metric_of(text, METRICS)
    assert metric is not None
    return float(metric((np.asarray(output),), np.asarray(labels)))


@pytest.mark.parametrize(
    "output",
    [FOUND, FOUND.astype(np.uint8), FOUND[:, None], SCORES, np.moveaxis(SCORES, -1, 1)],
    ids=["class map", "bytes", "with a channel", "channels last", "channels first"],
)
def test_layouts_of_a_class_map(output: Any) -> None:
    """Class numbers, or scores with the classes at either end."""
    assert value(output, LABELS) == pytest.approx(EXPECTED)


def test_positions_that_do_not_count() -> None:
    """Those of 255, of another number, and negative ones."""
    labels = LABELS.copy()
    labels[0, 0, 1], labels[0, 1, 2] = 255, -1
    assert value(FOUND, labels) == 1.0
    labels[labels == 255] = 9
    assert value(FOUND, labels, "iou:ignore=9") == 1.0
    with pytest.raises(DataError, match="no label counts: all are negative or 255"):
        value(FOUND, np.full_like(LABELS, 255))


def test_two_classes_of_one_score() -> None:
    """Above the threshold it is class 1: one of two, two of three."""
    output = np.array([[[[0.9, 0.1], [0.6, 0.2]]]])
    labels = np.array([[[1, 0], [0, 0]]])
    assert value(output, labels) == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert value(output, labels, "iou:threshold=0.7") == 1.0


def test_samples_are_taken_together() -> None:
    """Of all positions, not the mean of each sample's; images may differ in size, classes in where they occur first."""
    rows, labels = ragged([FOUND[0], np.array([[3, 3]])]), ragged([LABELS[0], np.array([[3, 0]])])
    # Class 0: 1 of 4; class 1: 2 of 3; class 2: 1 of 2; class 3: 1 of 2.
    assert float(METRICS["iou"]((rows,), labels)) == pytest.approx((1 / 4 + 2 / 3 + 1 / 2 + 1 / 2) / 4)


def test_a_map_of_another_size_is_refused() -> None:
    """Networks that answer at a quarter of the size need it brought up first."""
    with pytest.raises(DataError, match=r"of shape \(3, 4, 4\) does not fit its labels of shape \(16, 16\)"):
        value(np.zeros((1, 3, 4, 4), np.float32), np.zeros((1, 16, 16), int))
