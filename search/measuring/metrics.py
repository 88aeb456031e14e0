"""Calling a metric, the one place that does: what it gives is checked before it is believed.

Scores may come as an array, a PyTorch tensor, a list, booleans, or one column; they leave as float64, one a sample or
one number. A metric cannot spoil the labels: it gets a copy.
"""

from __future__ import annotations

import inspect
from typing import cast

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.batches import Output, Outputs
from bitfront.core import Array, BackendError, DataError, Metric, WorkloadError
from bitfront.core.ragged import is_ragged, ragged, stacked
from bitfront.search.inputs.values import as_array
from bitfront.search.inputs.workloads import call_user_code

Scores = NDArray[np.float64]

_ROUNDING = 1e-6  # of a bound: scores are sums of rounded numbers
_LARGEST = 1e100  # squares of it can be added up, too
_HINT = "return one score per sample, or their mean"


def score(metric: Metric, outputs: Outputs, target: Array | tuple[Array, ...], where: str) -> Scores:
    """Score a network's outputs with a metric.

    It is called once with all of them, or, where an output has no row a sample and differs from run to run, once for
    each run with what that run gave; then there must be a score a sample.

    Args:
        metric: The person's.
        outputs: Of all samples.
        target: Labels, one a sample; or the given network's outputs on these samples, as ``scored_outputs`` gives them.
        where: Names the samples in messages.

    Returns:
        Scores of all samples, (n,), or one number, ().

    Raises:
        DataError: If a built-in metric cannot read the outputs or the labels.
        BackendError: If an output that is read is NaN.
        WorkloadError: If the metric fails, or gives neither one finite score a sample nor one finite number.
    """
    if metric.samples_first:
        try:
            found = scored_outputs(metric, outputs)
            return call(metric, found, target, where, count=sum(outputs.counts))
        except DataError as error:
            raise DataError(f"metric '{metric.name}' on {where}: {error.message}", error.hint) from error
    assert not isinstance(target, tuple), "the given network's outputs have the samples first"
    labels, whole = target, outputs.whole
    if whole is not None:
        return call(metric, whole, labels, where)
    parts, start = [], 0
    for index, count in enumerate(outputs.counts):
        given = tuple(output.parts[index] for output in outputs.each)
        scores = call(metric, given, _of_one_run(labels[start : start + count]), where)
        if scores.ndim == 0:
            loose = next(output.name for output in outputs.each if output.whole is None)
            raise WorkloadError(
                f"the metric on {where}: output '{loose}' has no row for each sample, so the metric is called batch by "
                "batch, and gave one number for a batch",
                "return one score per sample, or export the network without that output",
            )
        parts.append(scores)
        start += count
    return np.concatenate(parts)


def _of_one_run(labels: Array) -> Array:
    """Labels of samples that were run together, an array (n, …) where they have one shape."""
    alike = is_ragged(labels) and len({np.shape(label) for label in labels}) == 1
    return stacked(labels) if alike else labels


def scored_outputs(metric: Metric, outputs: Outputs) -> tuple[Array, ...]:
    """Arrange outputs as a metric that wants the samples first gets them.

    Returns:
        One array (n, …) for each output, or (n,) of each sample's own where their shapes differ; (n, 0) for what it
        does not read.

    Raises:
        DataError: If an output that it reads has no row a sample.
        BackendError: If such an output is NaN.
    """
    count, found = sum(outputs.counts), []
    for index, output in enumerate(outputs.each):
        rows = _samples_first(output)
        if metric.reading(index) == "unread" or (rows is None and metric.outputs_are is None):
            rows = np.zeros((count, 0), np.float32)
        elif rows is None:
            raise DataError(
                f"output '{output.name}' has no row for each of {count} samples, got shape {output.parts[0].shape}",
                "name another output, as in --metric NAME:OUTPUT",
            )
        else:
            _check_numbers(output)
        found.append(rows)
    return tuple(found)


def _samples_first(output: Output) -> Array | None:
    if not output.by_sample:
        return None
    whole = output.whole
    if output.axis is None:
        return whole
    if whole is not None:
        return np.moveaxis(whole, output.axis, 0)
    return ragged([sample for part in output.parts for sample in np.moveaxis(part, output.axis, 0)])


def _check_numbers(output: Output) -> None:
    bad = sum(int(np.isnan(part).sum()) for part in output.parts if part.dtype.kind == "f")
    if bad:
        total = sum(part.size for part in output.parts)
        raise BackendError(
            f"output '{output.name}' is NaN on {bad} of {total} values", "the network in this form cannot be scored"
        )


def call(
    metric: Metric,
    outputs: tuple[Array, ...],
    target: Array | tuple[Array, ...],
    where: str,
    *,
    count: int | None = None,
) -> Scores:
    """Call a metric once.

    Args:
        metric: The person's.
        outputs: What it reads.
        target: Labels, or the given network's outputs.
        where: Names the samples in messages.
        count: How many samples there are; None for as many as labels.

    Raises:
        WorkloadError: If it fails, or gives neither one finite score a sample nor one finite number.
    """
    shapes = ", ".join(str(output.shape) for output in outputs)
    copied = tuple(array.copy() for array in target) if isinstance(target, tuple) else target.copy()
    against = "the given network's outputs" if isinstance(copied, tuple) else f"labels {copied.shape}"
    what = f"the metric on {where} (outputs {shapes}, {against})"
    found: object = call_user_code(what, lambda: metric(outputs, copied))
    scores = _numbers(found, f"the metric on {where}")
    count = len(target) if count is None else count
    if scores.shape == (count, 1):
        scores = scores[:, 0]
    if (np.abs(scores) > _LARGEST).any() and np.isfinite(scores).all():
        raise WorkloadError(
            f"the metric on {where}: gave {np.abs(scores).max():.3g}, expected scores between "
            f"-{_LARGEST:g} and {_LARGEST:g}",
            "scale it: larger ones cannot be added up",
        )
    _check_declared(metric, scores, f"the metric on {where}")
    if scores.ndim > 1 or (scores.ndim == 1 and len(scores) != count) or not np.isfinite(scores).all():
        raise WorkloadError(
            f"the metric on {where}: expected {count} finite scores or one finite number, got an array "
            f"of shape {scores.shape} with {int((~np.isfinite(scores)).sum())} NaN or infinite entries",
            _HINT,
        )
    return scores


def _check_declared(metric: Metric, scores: Scores, where: str) -> None:
    if metric.per_sample is not None and metric.per_sample != (scores.ndim > 0) and scores.ndim < 2:
        raise WorkloadError(
            f"{where}: gave {'one score a sample' if scores.ndim else 'one number'}, but declares "
            f"per_sample={metric.per_sample}",
            "declare what it gives, or leave per_sample out",
        )
    low, high = metric.bounds
    outside = scores[(scores < low - _ROUNDING * abs(low)) | (scores > high + _ROUNDING * abs(high))]
    if outside.size:
        raise WorkloadError(
            f"{where}: gave {outside.flat[0]:.6g}, but declares bounds from {low:g} to {high:g}",
            "is it a fraction in one place and per cent in the other?",
        )


def _numbers(found: object, where: str) -> Scores:
    if found is None:
        raise WorkloadError(f"{where} gave None, expected scores", "does its function end without 'return'?")
    if inspect.iscoroutine(found) or inspect.isgenerator(found):
        found.close()
        raise WorkloadError(f"{where} gave a {type(found).__name__}, expected scores", "make it an ordinary function")
    try:
        return cast(Scores, as_array(found, f"{where}: its result").astype(np.float64))
    except DataError as error:
        raise WorkloadError(error.message, _HINT) from error
