"""Agreement with the given network by hand: top classes, numbers, integers; which outputs count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bitfront.core import METRICS, DataError, Metric
from bitfront.core.metric import ComparedWith, OutputInfo
from bitfront.core.metric_spec import fit_metric, metric_of
from bitfront.core.ragged import ragged

LOGITS = OutputInfo(name="logits", class_axis=1)
BOXES = OutputInfo(name="boxes")
COUNT = OutputInfo(name="count", is_float=False)
EYE = np.eye(3, dtype=np.float32)


def fitted(text: str, *outputs: OutputInfo) -> Metric:
    """The metric for a network's outputs, without labels."""
    metric = metric_of(text, METRICS)
    assert metric is not None
    return fit_metric(metric, outputs, labelled=False)


def scores(metric: Metric, found: tuple[Any, ...], given: tuple[Any, ...]) -> list[float]:
    """What it gives, a score a sample."""
    scored: list[float] = np.asarray(metric(found, given)).tolist()
    return scored


def test_class_scores_agree_by_their_largest() -> None:
    """One a sample; of several positions the share, wherever the classes are."""
    assert scores(fitted("agreement", LOGITS), (EYE[[0, 1, 2]],), (9 * EYE[[0, 1, 1]],)) == [1.0, 1.0, 0.0]
    maps, others = EYE[[[0, 1], [2, 2]]], EYE[[[0, 0], [2, 2]]]  # (n, positions, classes)
    last = OutputInfo(name="logits", class_axis=2)
    assert scores(fitted("agreement", last), (maps,), (others,)) == [0.5, 1.0]
    turned = tuple((np.moveaxis(array, 2, 1),) for array in (maps, others))
    assert scores(fitted("agreement", LOGITS), *turned) == [0.5, 1.0]


def test_numbers_agree_by_their_noise() -> None:
    """1 − 1/25 and 1 − 0; never below 0; noise beside nothing is judged as that of silence."""
    given = np.array([[3.0, 4.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    found = np.array([[3.0, 5.0], [1.0, 1.0], [9.0, 0.0], [0.0, 0.0], [1e-8, 0.0]])
    expected = [0.96, 1.0, 0.0, 1.0, 1.0 - 0.5e-4]
    assert scores(fitted("agreement", BOXES), (found,), (given,)) == pytest.approx(expected)
    assert scores(fitted("fidelity", LOGITS), (found,), (given,)) == pytest.approx(expected)


def test_masked_values_have_to_be_masked_in_both() -> None:
    """−∞ says nothing of noise where both have it, and all where one has."""
    given = np.array([[-np.inf, 1.0], [-np.inf, 1.0], [2.0, 1.0], [-np.inf, -np.inf]])
    found = np.array([[-np.inf, 1.0], [-9.0, 1.0], [2.0, -np.inf], [-np.inf, -np.inf]])
    assert scores(fitted("agreement", BOXES), (found,), (given,)) == [1.0, 0.0, 0.0, 1.0]


def test_the_least_agreeing_output_counts() -> None:
    """Of those that hold floating-point numbers, or are named; of integers where there are no others."""
    found = (EYE[[0, 1]], np.array([[1.0], [0.5]]), np.array([[1, 2], [3, 4]]))
    given = (EYE[[0, 0]], np.array([[1.0], [1.0]]), np.array([[9, 9], [3, 9]]))
    everything = (LOGITS, BOXES, COUNT)
    assert scores(fitted("agreement", *everything), found, given) == [1.0, 0.0]
    assert scores(fitted("agreement:boxes", *everything), found, given) == [1.0, 0.75]
    assert scores(fitted("agreement:count", *everything), found, given) == [0.0, 0.5]
    assert scores(fitted("agreement", COUNT), found[2:], given[2:]) == [0.0, 0.5]
    assert fitted("agreement", *everything).outputs_are == ("classes", "values", "unread")
    assert "top class of 'logits'; 1 − noise-to-signal ratio of 'boxes'" in fitted("agreement", *everything).text


def test_samples_of_other_shapes() -> None:
    """Those of different shapes are compared one by one; a shape that is not the given network's agrees in nothing."""
    given = ragged([np.ones((2, 3)), np.ones((1, 3)), np.zeros((0, 3))])
    found = ragged([np.ones((2, 3)), np.ones((2, 3)), np.zeros((0, 3))])
    assert scores(fitted("agreement", BOXES), (found,), (given,)) == [1.0, 0.0, 1.0]


def test_an_output_that_is_not_there() -> None:
    """The message lists those that are."""
    with pytest.raises(DataError, match="agreement:masks: the network has no output 'masks'") as caught:
        fitted("agreement:masks", LOGITS, BOXES)
    assert "logits, boxes" in str(caught.value.hint)


def test_cosine_without_labels_is_to_the_given_network() -> None:
    """With labels it is to them; what it is held against is said."""
    metric = fitted("cosine:boxes", LOGITS, BOXES)
    assert metric.compared_with is ComparedWith.GIVEN
    assert (metric.quantity, metric.outputs_are) == ("agreement", ("unread", "values"))
    assert scores(metric, (EYE, EYE), (EYE, -EYE)) == [-1.0, -1.0, -1.0]
    labelled = fit_metric(METRICS["cosine"], (LOGITS,), labelled=True)
    assert (labelled.compared_with, labelled.quantity) == (ComparedWith.LABELS, "accuracy")
