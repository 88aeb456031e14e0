"""Mean average precision of boxes, computed by ``faster-coco-eval`` as the COCO challenge defines it.

    AP  = mean precision at 101 recalls, of one class at one threshold of overlap
    map = mean over classes and thresholds 0.50, 0.55 … 0.95, with 100 boxes an image at most

Non-maximum suppression is the network's work: its outputs are the boxes that count.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError, UsageError
from bitfront.core.metric import Array
from bitfront.core.metrics.class_numbers import whole_numbers

FORMATS = ("xyxy", "xywh", "cxcywh")
MOST = 100

Boxes = NDArray[np.float64]


def mean_average_precision(
    outputs: tuple[Array, ...], labels: Array, *, boxes: str = "xyxy", iou: float | None = None
) -> float:
    """Mean average precision of all samples' boxes.

    Args:
        outputs: One of (n, k, 6), a box, its score and its class a row; or boxes (n, k, 4), scores (n, k) and classes
            (n, k); or boxes and scores of each class, (n, k, classes), of which the largest counts. Boxes with a score
            of 0 or less fill up and do not count.
        labels: Shape (n, m, 5): class and box of each object; rows of a negative class fill up.
        boxes: What the four numbers of a box are, in labels as in outputs: two corners, a corner and a size, or a
            centre and a size.
        iou: The one threshold of overlap; None for the ten of COCO.

    Returns:
        Between 0 and 1. Without any object 1 where no box was found either, else 0.

    Raises:
        UsageError: If ``faster-coco-eval`` is not installed.
        DataError: If shapes do not fit.
    """
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image, label in enumerate(labels):
        truth += _objects(image, np.asarray(label), boxes, first=len(truth) + 1)
        found += _detections(image, tuple(np.asarray(output[image]) for output in outputs), boxes)
    if not truth or not found:
        return float(not truth and not found)
    classes = sorted({int(entry["category_id"]) for entry in (*truth, *found)})
    coco, evaluation = _library()
    known = coco(
        {
            "images": [{"id": image} for image in range(len(labels))],
            "categories": [{"id": number, "name": str(number)} for number in classes],
            "annotations": truth,
        }
    )
    run = evaluation(known, known.loadRes(found), "bbox")
    if iou is not None:
        run.params.iouThrs = np.array([iou])
    run.evaluate()
    run.accumulate()
    # (thresholds, recalls, classes, areas, most boxes): the first area is every size, the last number of boxes 100.
    precision = np.asarray(run.eval["precision"], dtype=np.float64)[:, :, :, 0, -1]
    return float(precision[precision >= 0].mean())


def _objects(image: int, label: Array, form: str, *, first: int) -> list[dict[str, Any]]:
    if label.ndim != 2 or label.shape[1] != 5:
        raise DataError(
            f"a sample's labels have shape {label.shape}, expected (objects, 5): class and box of each",
            "fill up with rows of class -1 where a sample has fewer",
        )
    numbers = whole_numbers(label[:, 0])
    corners = _corner_and_size(label[numbers >= 0, 1:].astype(np.float64), form)
    return [
        {
            "id": first + index,
            "image_id": image,
            "category_id": int(number),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": 0,
        }
        for index, (number, box) in enumerate(zip(numbers[numbers >= 0], corners, strict=True))
    ]


def _detections(image: int, outputs: tuple[Array, ...], form: str) -> list[dict[str, Any]]:
    boxes, scores, classes = _parts(outputs)
    counted = scores > 0
    corners = _corner_and_size(boxes[counted], form)
    order = np.argsort(-scores[counted], kind="stable")[:MOST]
    return [
        {
            "image_id": image,
            "category_id": int(classes[counted][index]),
            "bbox": corners[index].tolist(),
            "score": float(scores[counted][index]),
        }
        for index in order
    ]


def _parts(outputs: tuple[Array, ...]) -> tuple[Boxes, NDArray[np.float64], NDArray[np.int64]]:
    """Boxes (k, 4), scores (k,) and classes (k,) of one sample."""
    first = outputs[0].astype(np.float64)
    if first.ndim == 2 and first.shape[1] == 6:
        return first[:, :4], first[:, 4], first[:, 5].astype(np.int64)
    shapes = [output.shape for output in outputs[:3]]
    if first.ndim == 2 and first.shape[1] == 4 and len(outputs) > 1 and len(outputs[1]) == len(first):
        scores = outputs[1].astype(np.float64)
        if scores.ndim == 2 and scores.shape[1] > 1:
            return first, scores.max(axis=1), scores.argmax(axis=1)
        if scores.size == len(first) and len(outputs) > 2 and outputs[2].size == len(first):
            return first, scores.ravel(), whole_numbers(outputs[2]).ravel()
    raise DataError(
        f"a sample's outputs have shapes {', '.join(map(str, shapes))}, expected boxes (k, 4), scores (k,) and classes "
        "(k,), or boxes (k, 4) and scores (k, classes), or all in one (k, 6)",
        "name the outputs in that order, as in --metric map:BOXES,SCORES,CLASSES",
    )


def _corner_and_size(boxes: Boxes, form: str) -> Boxes:
    """Boxes (k, 4) as left, top, width and height."""
    start, other = boxes[:, :2], boxes[:, 2:]
    if form == "xyxy":
        other = other - start
    elif form == "cxcywh":
        start = start - other / 2
    return np.concatenate([start, other], axis=1)


def _library() -> tuple[Any, Any]:
    try:
        found = importlib.import_module("faster_coco_eval")
    except ImportError as error:
        raise UsageError(
            f"--metric map needs faster-coco-eval, which cannot be imported ({error})",
            "pip install faster-coco-eval, or install this program with its extra 'detection'",
        ) from error
    return found.COCO, found.COCOeval_faster
