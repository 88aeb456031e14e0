"""Running a compiled model over any number of samples: the one place that knows how to cut and pad batches.

A model with a fixed batch gets chunks of exactly that size; the last one is filled up by repeating its last sample and
what comes out for the filling is thrown away. A model with a dynamic batch gets chunks of at most ``batch`` samples,
the last one shorter. Refused: models whose outputs have no row per sample, for they cannot be put together again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from backends.base import CompiledModel
from precision import Array, DataError, Inputs


def sample_count(inputs: Inputs) -> int:
    """Samples in ``inputs``, whose arrays are (n, …) each.

    Raises:
        DataError: If there are no samples, or the arrays disagree about how many.
    """
    counts = {name: len(array) if array.ndim else 0 for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' has {count}" for name, count in counts.items())
        raise DataError(f"inputs disagree about the number of samples: {listed}", "give one row a sample in each array")
    count = next(iter(counts.values()), 0)
    if count == 0:
        raise DataError("expected at least one sample, got none", "give arrays of shape (n, …) with n ≥ 1")
    return count


def fixed_batch(shapes: Mapping[str, tuple[int | None, ...]]) -> int | None:
    """The batch a model insists on, from its input shapes; None where the batch is dynamic.

    Raises:
        DataError: If inputs insist on different batches.
    """
    sizes = {shape[0] for shape in shapes.values() if shape and shape[0] is not None}
    if len(sizes) > 1:
        listed = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
        raise DataError(
            f"inputs have different first axes: {listed}", "export the network with one batch axis shared by all inputs"
        )
    return sizes.pop() if sizes else None


def padded(inputs: Inputs, size: int) -> dict[str, Array]:
    """``inputs`` filled up to ``size`` samples by repeating the last one."""
    return {
        name: array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
        for name, array in inputs.items()
    }


def run_batches(compiled: CompiledModel, inputs: Inputs, *, batch: int = 64) -> tuple[Array, ...]:
    """Run a model over all samples.

    Args:
        compiled: The model.
        inputs: Arrays (n, …), at least one for each of the model's inputs; others are left out.
        batch: Samples a run where the model's batch is dynamic.

    Returns:
        One array an output, (n, …), in the model's order.

    Raises:
        DataError: If an input is missing, there are no samples, or an output has no row per sample.
        BackendError: If the runtime fails.
    """
    missing = [name for name in compiled.input_shapes if name not in inputs]
    if missing:
        raise DataError(
            f"no array for the network's input '{missing[0]}'; got {', '.join(sorted(inputs)) or 'none'}",
            f"name the arrays as the network does: {', '.join(compiled.input_shapes)}",
        )
    wanted = {name: inputs[name] for name in compiled.input_shapes}
    count = sample_count(wanted)
    fixed = fixed_batch(compiled.input_shapes)
    size = fixed if fixed is not None else min(batch, count)

    parts: list[tuple[Array, ...]] = []
    for start in range(0, count, size):
        chunk = {name: array[start : start + size] for name, array in wanted.items()}
        real = min(size, count - start)
        ran = real if fixed is None else size
        outputs = compiled.run(padded(chunk, ran))
        for name, output in zip(compiled.output_names, outputs, strict=True):
            if output.ndim == 0 or len(output) != ran:
                raise DataError(
                    f"output '{name}': expected one row for each of {ran} samples, got shape {output.shape}",
                    "export the network so that the first axis of each output is the batch",
                )
        parts.append(tuple(output[:real] for output in outputs))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))
