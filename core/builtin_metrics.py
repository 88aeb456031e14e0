"""The built-in metrics, chosen by name: one entry of ``METRICS`` each. All give one score a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError
from bitfront.core.metric import DIRECTION_KEY, UNIT_KEY, Array, Direction, Metric, MetricInfo

Scores = NDArray[np.float64]


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


def _classification(name: str, k: int) -> Metric:
    return Metric(
        name=name,
        compute=partial(top_k, k=k),
        unit="%",
        bounds=(0.0, 1.0),
        outputs_are=("classes",),
        per_sample=True,
        classification=True,
    )


def _regression(name: str, power: int) -> Metric:
    return Metric(
        name=name,
        compute=partial(mean_error, power=power),
        direction=Direction.LOWER,
        bounds=(0.0, math.inf),
        outputs_are=("values",),
        per_sample=True,
    )


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            _classification("top1", k=1),
            _classification("top5", k=5),
            _regression("mae", power=1),
            _regression("mse", power=2),
        )
    }
)
top1 = METRICS["top1"]


def info_from_settings(settings: Mapping[str, Any]) -> MetricInfo:
    """The metric that ``MetricInfo.settings`` wrote; a run that did not say how it is compared has it higher is better.

    Raises:
        WorkloadError: If the direction is none.
    """
    name = str(settings["metric"])
    usual = METRICS[name].unit if name in METRICS else ""
    return MetricInfo(
        name=name,
        direction=settings.get(DIRECTION_KEY, Direction.HIGHER),
        unit=settings.get(UNIT_KEY, usual),
    )
