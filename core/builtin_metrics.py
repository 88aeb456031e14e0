"""The built-in metrics, chosen by name: one entry of ``METRICS`` each; their functions are in ``core.metrics``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from bitfront.core.metric import (
    COMPARED_KEY,
    DETAIL_KEY,
    DIRECTION_KEY,
    PERCENT,
    UNIT_KEY,
    ComparedWith,
    Direction,
    Metric,
    MetricFunction,
    MetricInfo,
    MetricOption,
)
from bitfront.core.metrics.agreement import fit_agreement
from bitfront.core.metrics.boxes import FORMATS, mean_average_precision
from bitfront.core.metrics.classes import AVERAGES, TOKEN_IGNORE, f1, top_k
from bitfront.core.metrics.language import negative_log_likelihood
from bitfront.core.metrics.segmentation import MAP_IGNORE, iou
from bitfront.core.metrics.sequences import BLANK, character_error_rate, word_error_rate
from bitfront.core.metrics.values import cosine, mean_error

DEFAULT, WITHOUT_LABELS = "top1", "agreement"
"""The metrics of data with labels, and of data without, unless one is named."""


def _one_of(words: tuple[str, ...]) -> MetricOption:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return MetricOption(parse=parse, text=f"{', '.join(words[:-1])} or {words[-1]} (default: {words[0]})")


def _fraction(text: str) -> float:
    if not 0 < (value := float(text)) < 1:
        raise ValueError(text)
    return value


def _ignore(default: int) -> MetricOption:
    return MetricOption(parse=int, text=f"the label of positions that do not count (default: {default})")


_THRESHOLD = MetricOption(parse=float, text="what one score has to exceed for class 1 (default: 0.5)")
_BLANK = MetricOption(parse=int, text=f"the number of the token that means none (default: {BLANK})")
_SEPARATOR = MetricOption(parse=int, text="the number of the token between words")
_IOU = MetricOption(parse=_fraction, text="one threshold of overlap between 0 and 1 (default: the ten of COCO)")


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


def _all_samples(name: str, compute: MetricFunction, reads: tuple[str, ...], **options: MetricOption) -> Metric:
    """A fraction that is computed of all samples together."""
    return Metric(
        name=name,
        compute=compute,
        unit=PERCENT,
        bounds=(0.0, 1.0),
        outputs_are=reads,
        per_sample=False,
        samples_first=True,
        options=MappingProxyType(options),
    )


def _error_rate(name: str, compute: MetricFunction, **options: MetricOption) -> Metric:
    return Metric(
        name=name,
        compute=compute,
        direction=Direction.LOWER,
        unit=PERCENT,
        bounds=(0.0, math.inf),
        outputs_are=("classes",),
        per_sample=False,
        samples_first=True,
        options=MappingProxyType(options),
    )


def _agreement(name: str, *, numbers_only: bool) -> Metric:
    return Metric(
        name=name,
        compute=_unfitted,
        unit=PERCENT,
        bounds=(0.0, 1.0),
        compared_with=ComparedWith.GIVEN,
        per_sample=True,
        fit=partial(fit_agreement, numbers_only=numbers_only),
    )


def _unfitted(*_: object) -> float:
    raise AssertionError("fit_metric decides how each output is compared")


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            _classification("top1", k=1),
            _classification("top5", k=5),
            _all_samples(
                "f1",
                f1,
                ("classes",),
                average=_one_of(AVERAGES),
                ignore=_ignore(TOKEN_IGNORE),
                threshold=_THRESHOLD,
            ),
            _all_samples("iou", iou, ("classes",), ignore=_ignore(MAP_IGNORE), threshold=_THRESHOLD),
            _all_samples("map", mean_average_precision, ("values",) * 3, boxes=_one_of(FORMATS), iou=_IOU),
            _error_rate("cer", character_error_rate, blank=_BLANK),
            _error_rate("wer", word_error_rate, blank=_BLANK, separator=_SEPARATOR),
            Metric(
                name="nats",
                compute=negative_log_likelihood,
                direction=Direction.LOWER,
                unit="nats",
                bounds=(0.0, math.inf),
                outputs_are=("classes",),
                per_sample=True,
                samples_first=True,
                options=MappingProxyType({"ignore": _ignore(TOKEN_IGNORE)}),
            ),
            _regression("mae", power=1),
            _regression("mse", power=2),
            Metric(
                name="cosine",
                compute=cosine,
                bounds=(-1.0, 1.0),
                compared_with=ComparedWith.EITHER,
                outputs_are=("values",),
                per_sample=True,
            ),
            _agreement("agreement", numbers_only=False),
            _agreement("fidelity", numbers_only=True),
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
        compared_with=settings.get(COMPARED_KEY, ComparedWith.LABELS),
        detail=settings.get(DETAIL_KEY, ""),
    )
