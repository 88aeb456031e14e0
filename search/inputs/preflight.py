"""One run of the FP32 network before the search: what only a run can tell about network, data and metric."""

from __future__ import annotations

import numpy as np

from backends.base import Backend
from backends.batches import run_batches
from lowering.reference import Reference
from precision import Array, DataError, ModelError, top1
from search.inputs.arrays import check_classes
from search.inputs.loading import LoadedWorkload, not_a_classifier

SAMPLES = 64


def check_reference(
    reference: Reference, backend: Backend, workload: LoadedWorkload, *, threads: int, batch_size: int
) -> None:
    """Run the network on the first evaluation samples in the batch it will be timed in.

    Raises:
        ModelError: If an output is NaN or +∞; −∞ rules a class out.
        DataError: If ``top1`` cannot read the first output, or a label is beyond its classes.
        BackendError: If the runtime refuses the network, or this batch.
    """
    model = reference.proto.SerializeToString(deterministic=True)
    compiled = backend.compile(model, threads=threads, batch_size=batch_size)
    # A whole number of batches: a network that takes one batch only, though its axis is dynamic, shows here.
    wanted = max(SAMPLES // batch_size, 1) * batch_size
    part = workload.evaluation.part(0, wanted)
    outputs = run_batches(compiled, part.inputs, batch=batch_size)
    for name, output in zip(compiled.output_names, outputs, strict=True):
        _check_finite(output, name, reference)
    if workload.metric is top1:
        shape = outputs[0].shape
        if len(shape) < 2 or any(size != 1 for size in shape[2:]):
            raise not_a_classifier(reference, shape)
        check_classes(workload.evaluation.labels, shape[1], f"{workload.name}: evaluation")


def _check_finite(output: Array, name: str, reference: Reference) -> None:
    bad = np.isnan(output) | (output == np.inf) if output.dtype.kind == "f" else np.zeros(1, np.bool_)
    if bad.any():
        raise ModelError(
            f"'{reference.source}': output '{name}' is NaN or infinite on {int(bad.sum())} values "
            "of the first evaluation samples, before anything was changed",
            "check that the inputs are scaled as the network was trained with",
        )
    if output.dtype.kind == "O":
        raise DataError(f"'{reference.source}': output '{name}' holds no numbers", "remove it before the search")
