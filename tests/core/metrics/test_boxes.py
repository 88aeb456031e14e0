"""Mean average precision of boxes by hand, in each convention of outputs."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from bitfront.core import METRICS, DataError, UsageError
from bitfront.core.metric_spec import metric_of

BOXES = np.array([[[0, 0, 10, 10], [20, 20, 30, 40], [0, 0, 0, 0]]], np.float32)
SCORES = np.array([[0.9, 0.8, 0.0]], np.float32)
CLASSES = np.array([[0, 1, 0]])
LABELS = np.array([[[0, 0, 0, 10, 10], [1, 20, 20, 30, 40], [-1, 0, 0, 0, 0]]], np.float32)
EACH = np.array([[[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]]], np.float32)


def value(outputs: tuple[Any, ...], labels: Any = LABELS, text: str = "map") -> float:
    """The metric of some outputs."""
    metric = metric_of(text, METRICS)
    assert metric is not None
    return float(metric(outputs, np.asarray(labels)))


@pytest.fixture
def library() -> None:
    """Skips where the library is not installed."""
    pytest.importorskip("faster_coco_eval")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    "outputs",
    [
        (BOXES, SCORES, CLASSES),
        (BOXES, SCORES[..., None], CLASSES.astype(np.float32)),
        (BOXES, EACH),
        (np.concatenate([BOXES, SCORES[..., None], CLASSES[..., None]], axis=2),),
    ],
    ids=["three outputs", "a column of scores", "scores of each class", "one output"],
)
def test_conventions_of_outputs(outputs: tuple[Any, ...]) -> None:
    """The same boxes found are a precision of 1; boxes of no score fill up."""
    assert value(outputs) == 1.0


@pytest.mark.usefixtures("library")
def test_precision_by_hand() -> None:
    """A box moved by one of ten: an overlap of 9/11 = 0.818 counts at seven of ten thresholds, 0.50 to 0.80."""
    moved = BOXES + np.array([1, 0, 1, 0], np.float32)
    alone = LABELS.copy()
    alone[0, 1, 0] = -1
    found = np.array([[0.9, 0.0, 0.0]], np.float32)
    assert value((moved, found, CLASSES), alone) == pytest.approx(0.7)
    assert value((moved, found, CLASSES), alone, "map:iou=0.5") == 1.0
    assert value((moved, found, CLASSES), alone, "map:iou=0.85") == 0.0
    # One class found, one missed; then found with a surer false alarm of its class: precision 1/2 at every recall.
    assert value((BOXES, found, CLASSES)) == pytest.approx(0.5)
    alarm = np.concatenate([BOXES[:, :1], BOXES[:, :1] + 50], axis=1)
    assert value((alarm, np.array([[0.5, 0.9]]), np.zeros((1, 2), int)), alone) == pytest.approx(0.5)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("form", ["xywh", "cxcywh"])
def test_other_forms_of_a_box(form: str) -> None:
    """Labels and outputs alike are corners and sizes, or centres and sizes."""

    def turned(corners: Any) -> Any:
        start, size = corners[..., :2], corners[..., 2:] - corners[..., :2]
        return np.concatenate([start + size / 2 if form == "cxcywh" else start, size], axis=-1)

    moved = BOXES + np.array([1, 0, 1, 0], np.float32)
    labels = np.concatenate([LABELS[..., :1], turned(LABELS[..., 1:])], axis=-1)
    assert value((turned(moved), SCORES, CLASSES), labels, f"map:boxes={form}") == pytest.approx(
        value((moved, SCORES, CLASSES))
    )


def test_nothing_to_find() -> None:
    """Without any object 1 where none was found, else 0; with objects and no box found 0."""
    nothing, silent = np.full_like(LABELS, -1), np.zeros_like(SCORES)
    assert value((BOXES, silent, CLASSES), nothing) == 1.0
    assert value((BOXES, SCORES, CLASSES), nothing) == 0.0
    assert value((BOXES, silent, CLASSES)) == 0.0


@pytest.mark.parametrize(
    ("outputs", "labels", "message"),
    [
        ((BOXES,), LABELS, r"outputs have shapes \(3, 4\), expected boxes \(k, 4\), scores \(k,\) and classes \(k,\)"),
        ((BOXES, SCORES[:, :2], CLASSES), LABELS, r"outputs have shapes \(3, 4\), \(2,\), \(3,\)"),
        ((BOXES, SCORES, CLASSES), LABELS[..., 1:], r"labels have shape \(3, 4\), expected \(objects, 5\)"),
    ],
)
def test_what_does_not_fit(outputs: tuple[Any, ...], labels: Any, message: str) -> None:
    """The message has the shapes that came and those expected."""
    with pytest.raises(DataError, match=message):
        value(outputs, labels)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package and the extra that bring it are named."""
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    with pytest.raises(UsageError, match="--metric map needs faster-coco-eval, which cannot be imported") as caught:
        value((BOXES, SCORES, CLASSES))
    assert "extra 'detection'" in str(caught.value.hint)
