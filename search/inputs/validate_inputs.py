"""Checks of network, data and metric that need a run: the FP32 network is run once before the search.

A person's metric is called here on a few samples before anything expensive starts: twice with the same, since a search
compares scores that were taken at different times, and once with fewer of them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bitfront.backends.base import Backend
from bitfront.backends.batches import Outputs, run_outputs
from bitfront.backends.sequences import run_sequences
from bitfront.core import Array, DataError, Labelled, Metric, ModelError, WorkloadError
from bitfront.core.metric import ComparedWith
from bitfront.core.ragged import is_ragged
from bitfront.lowering.reference import ReferenceModel
from bitfront.lowering.serialise import artifact_of
from bitfront.search.inputs.arrays import check_classes
from bitfront.search.inputs.loading import LoadedWorkload, check_classifier
from bitfront.search.measuring.metrics import score, scored_outputs

SAMPLES = 64
# Sums on several threads are not taken in one order, so repeated scores may differ in their last bits.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6


def check_reference(
    reference: ReferenceModel, backend: Backend, workload: LoadedWorkload, *, threads: int, batch_size: int
) -> float:
    """Run the network on the first evaluation samples in the batch it will be timed in, and score what it answers.

    Returns:
        The metric's mean on those samples.

    Raises:
        ModelError: If an output is NaN or +∞; −∞ rules a class out.
        DataError: If no output has a row a sample, or a classification metric cannot read the first one or a label.
        WorkloadError: If the metric fails, or gives other scores when it is called again.
        BackendError: If the runtime refuses the network, or this batch.
    """
    model = artifact_of(reference.proto)
    compiled = backend.compile(model, threads=threads, batch_size=batch_size)
    # A whole number of batches: a network that takes one batch only, though its axis is dynamic, shows here.
    wanted = max(SAMPLES // batch_size, 1) * batch_size
    part = workload.evaluation.part(0, wanted)
    if workload.recurrence is not None:
        outputs = run_sequences(compiled, part.inputs, workload.recurrence, batch=batch_size)
    else:
        outputs = run_outputs(compiled, part.inputs, batch=batch_size, batching=reference.batching)
    for output in outputs.each:
        for array in output.parts if output.by_sample else ():
            _check_finite(array, output.name, reference)
    if not any(output.by_sample for output in outputs.each):
        shapes = ", ".join(f"'{output.name}' {output.parts[0].shape}" for output in outputs.each)
        raise DataError(
            f"'{reference.source}': no output has a row for each of {outputs.counts[0]} samples; got {shapes}",
            "say which axis of an input or output counts the samples with --batch-axis NAME=AXIS, or with INPUT=none "
            "that each run is one sample",
        )
    metric = workload.metric
    if metric.classification:
        first = outputs.each[0]
        whole = first.whole
        shape = first.parts[0].shape if whole is None or is_ragged(whole) else whole.shape
        check_classifier(reference, shape, metric.name)
        if first.axis != 0 and not (first.axis is None and first.single):
            raise DataError(
                f"'{reference.source}': output '{first.name}' has no row for each of {outputs.counts[0]} samples, got "
                f"shape {shape}: {metric.name} cannot read it",
                "name a metric that reads another output with --metric module:function",
            )
        check_classes(workload.evaluation.labels, shape[1], f"{workload.name}: evaluation", use=metric.name)
    where = workload.data_sources.get("evaluation", {}).get("text", workload.name)
    return try_metric(metric, outputs, part, f"the first samples of {where}")


def try_metric(metric: Metric, outputs: Outputs, part: Labelled, where: str) -> float:
    """Call a metric as the search will, on a few samples.

    Args:
        metric: The person's.
        outputs: The network's, on the samples.
        part: The samples.
        where: Names them in messages.

    Returns:
        The mean of the scores.

    Raises:
        WorkloadError: If it fails, gives other scores for the same samples, or scores of another kind for fewer.
    """
    scores = score(metric, _copy(outputs), _target(metric, outputs, part.labels), where)
    again = score(metric, _copy(outputs), _target(metric, outputs, part.labels), where)
    if scores.shape != again.shape or not np.allclose(scores, again, rtol=_RELATIVE, atol=_ABSOLUTE):
        raise WorkloadError(
            f"the metric on {where}: gave {_shown(scores)} for outputs that it gave {_shown(again)} for a moment later",
            "make it a function of its arguments alone: seed what it draws, and keep nothing between calls",
        )
    if outputs.whole is not None and len(part) > 1:
        count = (len(part) + 1) // 2
        fewer = Outputs(each=tuple(output.first(count) for output in _copy(outputs).each), counts=(count,))
        some = score(metric, fewer, _target(metric, fewer, part.labels[:count]), where)
        if some.ndim != scores.ndim:
            raise WorkloadError(
                f"the metric on {where}: gave {_shown(scores)} for {len(part)} samples and {_shown(some)} for {count}",
                "return one score per sample always, or one number always",
            )
    return float(scores.mean())


def _target(metric: Metric, outputs: Outputs, labels: Array) -> Array | tuple[Array, ...]:
    """Target that outputs are tried against: labels, or themselves where the given network's count."""
    return labels if metric.compared_with is ComparedWith.LABELS else scored_outputs(metric, outputs)


def _copy(outputs: Outputs) -> Outputs:
    """The same outputs in arrays of their own: a metric may compute in place."""
    return replace(
        outputs, each=tuple(replace(each, parts=tuple(part.copy() for part in each.parts)) for each in outputs.each)
    )


def _shown(scores: Array) -> str:
    return f"the number {float(scores):.6g}" if scores.ndim == 0 else f"{len(scores)} scores, mean {scores.mean():.6g}"


def _check_finite(output: Array, name: str, reference: ReferenceModel) -> None:
    bad = np.isnan(output) | (output == np.inf) if output.dtype.kind == "f" else np.zeros(1, np.bool_)
    if bad.any():
        raise ModelError(
            f"'{reference.source}': output '{name}' is NaN or infinite on {int(bad.sum())} values "
            "of the first evaluation samples, before anything was changed",
            "check that the inputs are scaled as the network was trained with",
        )
    if output.dtype.kind == "O":
        raise DataError(f"'{reference.source}': output '{name}' holds no numbers", "remove it before the search")
