"""A built-in metric as it is written on the command line, and the metric for the outputs of one network.

    NAME[:OUTPUT,…][,KEY=VALUE,…]      agreement    f1:average=macro    iou:masks    map:boxes,scores,labels,iou=0.5

Without outputs a metric reads the network's own in their order, mostly the first alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bitfront.core.errors import DataError, WorkloadError
from bitfront.core.metric import Array, ComparedWith, Metric, MetricFunction, OutputInfo


def metric_of(text: str, known: Mapping[str, Metric]) -> Metric | None:
    """The built-in metric of a text, with its settings; None where the text begins with no built-in metric's name.

    Args:
        text: As above.
        known: Name → metric.

    Raises:
        WorkloadError: If a setting is unknown or makes no sense.
    """
    name, _, rest = text.partition(":")
    if name not in known:
        return None
    if not rest:
        return known[name]
    metric, settings, outputs = known[name], dict[str, object](), list[str]()
    for part in rest.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            outputs.append(part)
            continue
        if key not in metric.options:
            raise WorkloadError(
                f"--metric {text}: '{name}' has no setting '{key}'",
                f"its settings are {', '.join(metric.options)}" if metric.options else "it has none",
            )
        try:
            settings[key] = metric.options[key].parse(value)
        except ValueError as error:
            raise WorkloadError(
                f"--metric {text}: {key} is '{value}', expected {metric.options[key].text}", f"{key}=VALUE"
            ) from error
    if not all(outputs):
        raise WorkloadError(f"--metric {text}: an output has no name", f"write for example {name}:logits")
    compute = partial(metric.compute, **settings) if settings else metric.compute
    return replace(metric, name=text, compute=compute, reads=tuple(outputs))


def fit_metric(metric: Metric, outputs: Sequence[OutputInfo], *, labelled: bool) -> Metric:
    """The metric for the outputs of one network and data with labels or without.

    Args:
        metric: A built-in or a person's.
        outputs: The network's, in its order.
        labelled: Whether there are labels.

    Raises:
        DataError: If it reads labels and there are none, or an output that the network does not have.
    """
    if metric.compared_with is ComparedWith.EITHER:
        metric = replace(metric, compared_with=ComparedWith.LABELS if labelled else ComparedWith.GIVEN)
    if metric.compared_with is ComparedWith.LABELS and not labelled:
        raise DataError(
            f"--metric {metric.name}: reads labels, and the evaluation data has none",
            "add them, or leave --metric out: agreement with the network as given needs none",
        )
    if metric.fit is not None:
        return metric.fit(metric, outputs)
    return _selecting(metric, outputs) if metric.reads else metric


def _selecting(metric: Metric, outputs: Sequence[OutputInfo]) -> Metric:
    names = [output.name for output in outputs]
    missing = [name for name in metric.reads if name not in names]
    if missing:
        raise DataError(
            f"--metric {metric.name}: the network has no output '{missing[0]}'",
            f"its outputs are {', '.join(names)}; a module of your own may not be called as a built-in metric",
        )
    places = tuple(names.index(name) for name in metric.reads)
    kinds = [metric.reading(index) or "values" for index in range(len(places))]
    read = dict(zip(places, kinds, strict=True))
    return replace(
        metric,
        compute=partial(_on_outputs, compute=metric.compute, places=places),
        reads=(),
        outputs_are=tuple(read.get(index, "unread") for index in range(len(names))),
        classification=metric.classification and places[:1] == (0,),
    )


def _on_outputs(
    outputs: tuple[Array, ...],
    labels: Array | tuple[Array, ...],
    *,
    compute: MetricFunction,
    places: tuple[int, ...],
) -> NDArray[np.generic] | float:
    """A metric's scores from some of the outputs alone."""
    target = tuple(labels[place] for place in places) if isinstance(labels, tuple) else labels
    return compute(tuple(outputs[place] for place in places), target)
