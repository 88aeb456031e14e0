"""The cosine and the negative log likelihood by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bitfront.core import METRICS, DataError
from bitfront.core.ragged import ragged

HALF = math.log(0.5)


def scores(name: str, output: Any, labels: Any) -> list[float]:
    """What a metric gives for one output."""
    found: list[float] = np.asarray(METRICS[name]((np.asarray(output),), labels)).tolist()
    return found


def test_cosine_by_hand() -> None:
    """Whatever the length and the shape; zeros agree with zeros alone."""
    output = np.array([[3.0, 4.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    labels = np.array([[6.0, 8.0], [0.0, 5.0], [-2.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    expected = [1.0, 0.0, -1.0, 1.0, 0.0]
    assert scores("cosine", output, labels) == pytest.approx(expected)
    assert scores("cosine", output, (labels, labels[:, :1])) == pytest.approx(expected)  # the given network's outputs
    assert scores("cosine", output.reshape(5, 2, 1), labels) == pytest.approx(expected)
    with pytest.raises(DataError, match=r"output of shape \(2,\) and its label of shape \(\) hold different numbers"):
        scores("cosine", output, np.zeros(5))


def test_likelihood_by_hand() -> None:
    """The softmax of (0, 0) is a half each, of (log 3, 0) three quarters and one quarter."""
    output = np.array([[[0.0, 0.0], [math.log(3), 0.0]], [[HALF, HALF], [9.0, 9.0]]])
    labels = np.array([[1, 0], [0, -100]])
    expected = [(math.log(2) + math.log(4 / 3)) / 2, math.log(2)]
    assert scores("nats", output, labels) == pytest.approx(expected)
    assert scores("nats", output + 1000.0, labels) == pytest.approx(expected)
    assert scores("nats", output[:, 0], labels[:, 0]) == pytest.approx([math.log(2)] * 2)
    rows = ragged([output[0], output[1, :1]])
    assert scores("nats", rows, ragged([labels[0], labels[1, :1]])) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 2], [0, 0]], "labels hold class 2, and the output tells 2 classes apart"),
        ([[0, 0], [-100, -1]], "a sample has no label that counts: all are negative or -100"),
        ([0, 0], r"of shape \(2, 2\) does not fit its labels of shape \(\): expected scores \(vocabulary\)"),
        (np.zeros((2, 3), int), r"does not fit its labels of shape \(3,\): expected scores \(3, vocabulary\)"),
    ],
)
def test_tokens_that_do_not_fit(labels: Any, message: str) -> None:
    """The message says what was expected."""
    with pytest.raises(DataError, match=message):
        scores("nats", np.zeros((2, 2, 2)), np.asarray(labels))
