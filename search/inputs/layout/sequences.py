"""Samples that are sequences: a network of one step, some of whose outputs feed its inputs at the next.

What a person brings has the samples first and time second, (n, time, …), or is a list of (time, …) where lengths
differ. States begin at zero unless an array (n, …) is given. Calibration becomes one sample a step, with the state that
the network had come to, so that whatever calibrates, rounds, scores sensitivities or times sees the steps of real
sequences; evaluation stays sequences.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bitfront.backends.sequences import Recurrence
from bitfront.core import Array, DataError, Inputs, UsageError
from bitfront.core.batching import take_rows
from bitfront.core.ragged import equal_shapes, is_ragged, joined, stacked
from bitfront.lowering.interpreter import InterpreterError
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import cast, check_finite, check_inputs, fits, shown_shape
from bitfront.search.inputs.values import as_array, as_samples

_CHUNK = 64


def recurrence_of(reference: ReferenceModel, state: Mapping[str, str]) -> Recurrence:
    """Description of how the network is run over sequences.

    Args:
        reference: The network of one step.
        state: Output → the input that it feeds.

    Raises:
        UsageError: If one is no output or input, an input is fed twice, or no input is left for the sequence.
    """
    told = ", ".join(f"{output}={name}" for output, name in state.items())
    for output, name in state.items():
        if output not in reference.output_names or name not in reference.input_shapes:
            raise UsageError(
                f"--state {output}={name}: expected OUTPUT=INPUT; outputs: {', '.join(reference.output_names)}; "
                f"inputs: {', '.join(reference.input_shapes)}",
                "name both as the network does",
            )
    if len(set(state.values())) < len(state):
        raise UsageError(f"--state: {told} feeds an input twice", "name each input once")
    others = [name for name in reference.input_shapes if name not in state.values()]
    shared = frozenset(name for name in others if reference.batching.input_axis(name) is None)
    if not others:
        raise UsageError(f"--state: {told} leaves no input for the sequence", "take out what is given anew")
    if len(shared) == len(others):
        raise UsageError(
            f"--state: none of the inputs {', '.join(others)} has an axis that counts samples, so none is given anew "
            "at each step",
            f"say which axis of an input does, as in --batch-axis {others[0]}=0",
        )
    return Recurrence(state=dict(state), shared=shared, batching=reference.batching)


def check_samples(
    arrays: Mapping[str, object], reference: ReferenceModel, state: Mapping[str, str], source: str
) -> dict[str, Array]:
    """Samples as the engine holds them: as ``check_inputs`` does, or ``check_sequences`` where there are states.

    Raises:
        DataError: If an array does not fit.
        UsageError: If the states do not.
    """
    if not state:
        return check_inputs(arrays, reference, source)
    return check_sequences(arrays, reference, recurrence_of(reference, state), source)


def check_sequences(
    arrays: Mapping[str, object], reference: ReferenceModel, recurrence: Recurrence, source: str
) -> dict[str, Array]:
    """Sequences as the engine holds them, in the order of the network's inputs.

    Args:
        arrays: Input name → array or list, as the module says; states may be missing. What is shared is given as it is,
            or with one more axis in front where each sequence has a value of its own.
        reference: The network of one step.
        recurrence: What feeds what.
        source: Where the arrays come from, for messages.

    Returns:
        Input name → (n, time, …), ragged where lengths differ; (n, …) for states and what is shared.

    Raises:
        DataError: If an array is missing or does not fit.
    """
    found, given = dict[str, Array](), {name for name in arrays if name in reference.input_shapes}
    states = set(recurrence.state.values())
    if missing := [name for name in reference.input_shapes if name not in given and name not in states]:
        raise DataError(f"'{source}': no array for the network's input '{missing[0]}'", "add it, (samples, time, …)")
    moving = [name for name in reference.input_shapes if name not in states and name not in recurrence.shared]
    for name in moving:
        found[name] = _sequence(name, arrays[name], reference, f"'{source}': array '{name}'")
    lengths = {name: [len(sample) for sample in array] for name, array in found.items()}
    first = lengths[moving[0]]
    for name, other in lengths.items():
        if other != first or 0 in other:
            raise DataError(
                f"'{source}': array '{name}' has sequences of {other[:4]} steps, '{moving[0]}' of {first[:4]}",
                "give each sample as many steps in every input, one at least: (samples, time, …)",
            )
    count = len(first)
    for name in recurrence.shared:
        found[name] = _shared(name, arrays[name], count, reference, f"'{source}': array '{name}'")
    for name in states:
        found[name] = _first_state(name, arrays.get(name), count, reference, f"'{source}': array '{name}'")
    return {name: found[name] for name in reference.input_shapes}


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


def _sequence(name: str, value: object, reference: ReferenceModel, where: str) -> Array:
    shape, axis = reference.input_shapes[name], reference.batching.input_axis(name)
    step = tuple(size for place, size in enumerate(shape) if place != axis)
    samples = as_samples(value, where, len(step) + 1)
    arrays = list(as_array(value, where)) if samples is None else samples
    for array in arrays:
        if not fits(array.shape, (None, *step), None):
            expected = shown_shape((None, None, *step), 0)
            raise DataError(
                f"{where}: expected shape {expected} with time second, got {(len(arrays), *array.shape)}",
                "give (samples, time, …), or a list of (time, …), each step as the network reads it without the batch",
            )
    checked = [check_finite(cast(array, reference.input_types[name], where), where) for array in arrays]
    return joined(checked)


def _shared(name: str, value: object, count: int, reference: ReferenceModel, where: str) -> Array:
    """Values that are the same at every step, (n, …)."""
    shape, kind = reference.input_shapes[name], reference.input_types[name]
    samples = as_samples(value, where, len(shape))
    array = as_array(value, where) if samples is None else joined(samples)
    if is_ragged(array):
        raise DataError(f"{where}: sequences have it in different shapes", "give it one shape in all")
    array = check_finite(cast(array, kind, where), where)
    if fits(array.shape, shape, None):
        return np.broadcast_to(array, (count, *array.shape))
    if not fits(array.shape, (count, *shape), None):
        raise DataError(
            f"{where}: expected shape {shown_shape(shape, None)}, got {array.shape}",
            f"it is the same at every step; give one value, or with one more axis in front one for each of {count}",
        )
    return array


def _first_state(name: str, value: object, count: int, reference: ReferenceModel, where: str) -> Array:
    """A state's first value, (n, …)."""
    shape, axis = reference.input_shapes[name], reference.batching.input_axis(name)
    step = [size for place, size in enumerate(shape) if place != axis]
    kind = np.dtype(reference.input_types[name])
    if value is None:
        if None in step:
            raise DataError(
                f"{where}: has dynamic axes, {shown_shape(shape, axis)}, so its first value cannot be zeros",
                "give it for each sample",
            )
        return np.zeros((count, *(size or 0 for size in step)), kind)
    samples = as_samples(value, where, len(step))
    if samples is None and axis is not None:
        # As the network reads it, with a batch of one.
        rows = as_samples(value, where, len(shape))
        samples = None if rows is None else [row.squeeze(axis) if row.shape[axis] == 1 else row for row in rows]
    array = cast(as_array(value, where) if samples is None else joined(samples), kind.name, where)
    if samples is None and axis is not None and array.ndim == len(shape) and array.shape[axis] == count:
        array = np.moveaxis(array, axis, 0)
    if is_ragged(array) or not fits(array.shape, (count, *step), None):
        raise DataError(
            f"{where}: expected shape {shown_shape(shape, axis)} for {count} samples, got {array.shape}",
            "give the state that each sequence begins with, or leave the array out to begin with zeros",
        )
    return check_finite(array, where)
