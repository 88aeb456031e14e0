"""Sequences as the engine runs them: step by step, some of a network's outputs fed to its inputs at the next.

Calibration becomes one sample a step, with the state that the network had come to, so that whatever calibrates, rounds,
scores sensitivities or times sees the steps of real sequences; evaluation stays sequences.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitfront.backends.sequences import Recurrence
from bitfront.core import Array, DataError, Inputs
from bitfront.core.batching import take_rows
from bitfront.core.ragged import equal_shapes, stacked
from bitfront.lowering.interpreter import InterpreterError
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.layout.sequences import shared_inputs

_CHUNK = 64


def recurrence_of(reference: ReferenceModel, state: Mapping[str, str]) -> Recurrence:
    """Description of how the network is run over sequences.

    Args:
        reference: The network of one step.
        state: Output → the input that it feeds.

    Raises:
        UsageError: If the states do not fit, as ``shared_inputs`` says.
    """
    return Recurrence(state=dict(state), shared=shared_inputs(reference, state), batching=reference.batching)


def steps_of(inputs: Inputs, reference: ReferenceModel, recurrence: Recurrence) -> dict[str, Array]:
    """Sequences as one sample a step, each with the state that the network had come to in FP32.

    Args:
        inputs: As ``check_sequences`` gives them.
        reference: The network of one step.
        recurrence: What feeds what.

    Raises:
        DataError: If the network does not take them.
    """
    count = len(next(iter(inputs.values())))
    size = reference.fixed_batch or _CHUNK
    parts: dict[str, list[Array]] = {name: [] for name, array in inputs.items() if array.strides[0] != 0}
    try:
        graph = reference.interpreter.load(reference.runnable)
        for start, stop in equal_shapes(inputs, count, size):
            rows = np.resize(np.arange(start, stop), reference.fixed_batch or stop - start)
            chunk = {name: stacked(take_rows(array, rows)) for name, array in inputs.items()}
            read = [each for each, _ in recurrence.steps(graph, chunk)]
            for name, found in parts.items():
                found.extend(np.stack([step[name] for step in read], axis=1)[: stop - start])
    except InterpreterError as error:
        raise DataError(
            f"'{reference.source}': the network refused the steps of calibration sequences: {error.message}",
            "give arrays (samples, time, …), or the states' first values too",
        ) from error
    whole = {name: np.concatenate(found) for name, found in parts.items()}
    total = len(next(iter(whole.values())))
    return {
        name: whole[name] if name in whole else np.broadcast_to(array[0], (total, *array.shape[1:]))
        for name, array in inputs.items()
    }


def first_steps(inputs: Inputs, recurrence: Recurrence) -> dict[str, Array]:
    """Inputs of the network at the first step, (n, …) each; arguments as for ``steps_of``."""
    still = {*recurrence.shared, *recurrence.state.values()}
    return {n: array if n in still else np.stack([sample[0] for sample in array]) for n, array in inputs.items()}
