"""F1 by hand: binary, macro, of tokens; what does not count, and what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitfront.core import METRICS, DataError
from bitfront.core.metric_spec import metric_of
from bitfront.core.ragged import ragged

TWO = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32)  # predicted 1, 0, 1, 0
THREE = np.eye(3, dtype=np.float32)[[0, 1, 2, 1]]


def value(text: str, output: Any, labels: Any) -> float:
    """A metric's one number for one output."""
    metric = metric_of(text, METRICS)
    assert metric is not None
    return float(metric((np.asarray(output),), np.asarray(labels)))


@pytest.mark.parametrize(
    ("text", "output", "labels", "expected"),
    [
        pytest.param("f1", TWO, [1, 1, 0, 0], 1 / 2, id="binary: one hit, one false alarm, one miss"),
        pytest.param("f1:average=macro", TWO, [1, 1, 0, 0], 1 / 2, id="macro of two classes"),
        pytest.param("f1", TWO, [1, 0, 1, 0], 1.0, id="all right"),
        # Class 0: 2/2; class 1: 2·1/(2+1) with one false alarm; class 2: 2·1/(2+1) with one miss.
        pytest.param("f1", THREE, [0, 1, 2, 2], (1 + 2 / 3 + 2 / 3) / 3, id="macro of three"),
        pytest.param("f1", THREE, [0, 0, 0, 0], (2 / 5 + 0 + 0) / 3, id="classes predicted only"),
        pytest.param("f1", THREE[:2], [0, 1], 1.0, id="a class that occurs nowhere"),
        pytest.param("f1:average=binary", THREE, [0, 1, 2, 2], 2 / 3, id="class 1 alone"),
        pytest.param("f1", [[0.7], [0.2], [0.9]], [1, 0, 0], 2 / 3, id="one score"),
        pytest.param("f1:threshold=0.8", [0.7, 0.2, 0.9], [1, 0, 1], 2 / 3, id="its threshold"),
        pytest.param("f1", [1, 0, 1, 0], [1, 1, 0, 0], 1 / 2, id="class numbers"),
        pytest.param("f1", TWO[[1, 3]], [0, 0], 1.0, id="no positives, none found"),
        pytest.param("f1", TWO[[0, 1]], [0, 0], 0.0, id="no positives, one found"),
        pytest.param("f1", THREE[None], [[0, 1, 2, -100]], 1.0, id="tokens that do not count"),
        pytest.param("f1:ignore=2", THREE[None], [[0, 0, 2, 2]], (2 / 3 + 0) / 2, id="another ignored label"),
    ],
)
def test_f1_by_hand(text: str, output: Any, labels: Any, expected: float) -> None:
    """2·tp / (2·tp + fp + fn); of classes the mean over those that occur."""
    assert value(text, output, labels) == pytest.approx(expected)


def test_f1_of_texts_of_different_lengths() -> None:
    """Samples of their own shapes score as if they were filled up."""
    rows = ragged([THREE[:1], THREE[1:]])
    labels = ragged([np.array([0]), np.array([1, 2, 2])])
    assert float(METRICS["f1"]((rows,), labels)) == pytest.approx(value("f1", THREE, [0, 1, 2, 2]))


@pytest.mark.parametrize(
    ("output", "labels", "message"),
    [
        (THREE, [0, 1, 2, 3], "labels hold class 3, and the output tells 3 classes apart, 0 to 2"),
        (THREE, [-100] * 4, "no label counts: all are negative or -100"),
        (THREE, [0.5, 1, 1, 1], "labels of dtype float64 are no whole numbers"),
        (
            np.zeros((2, 4, 3)),
            np.zeros((2, 5), int),
            r"shape \(4, 3\) does not fit its labels of shape \(5,\).*scores \(5, classes\) or \(classes, 5\)",
        ),
    ],
)
def test_what_does_not_fit(output: Any, labels: Any, message: str) -> None:
    """The message has both shapes, and those expected."""
    with pytest.raises(DataError, match=message):
        value("f1", output, labels)
