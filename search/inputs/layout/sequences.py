"""Samples that are sequences, as a person brings them: checked against a network of one step.

They have the samples first and time second, (n, time, …), or are a list of (time, …) where lengths differ. States begin
at zero unless an array (n, …) is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import Array, DataError, UsageError
from bitfront.core.ragged import is_ragged, joined
from bitfront.search.inputs.arrays import cast, check_finite, check_inputs, fits, shown_shape
from bitfront.search.inputs.values import as_array, as_samples

if TYPE_CHECKING:
    from bitfront.lowering.reference import ReferenceModel


def shared_inputs(reference: ReferenceModel, state: Mapping[str, str]) -> frozenset[str]:
    """Inputs that are the same at every step: those without a batch axis that no state feeds.

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
    return shared


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
    return check_sequences(arrays, reference, state, source)


def check_sequences(
    arrays: Mapping[str, object], reference: ReferenceModel, state: Mapping[str, str], source: str
) -> dict[str, Array]:
    """Sequences as the engine holds them, in the order of the network's inputs.

    Args:
        arrays: Input name → array or list, as the module says; states may be missing. What is shared is given as it is,
            or with one more axis in front where each sequence has a value of its own.
        reference: The network of one step.
        state: Output → the input that it feeds.
        source: Where the arrays come from, for messages.

    Returns:
        Input name → (n, time, …), ragged where lengths differ; (n, …) for states and what is shared.

    Raises:
        DataError: If an array is missing or does not fit.
        UsageError: If the states do not.
    """
    found, given = dict[str, Array](), {name for name in arrays if name in reference.input_shapes}
    states, shared = set(state.values()), shared_inputs(reference, state)
    if missing := [name for name in reference.input_shapes if name not in given and name not in states]:
        raise DataError(f"'{source}': no array for the network's input '{missing[0]}'", "add it, (samples, time, …)")
    moving = [name for name in reference.input_shapes if name not in states and name not in shared]
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
    for name in shared:
        found[name] = _shared(name, arrays[name], count, reference, f"'{source}': array '{name}'")
    for name in states:
        found[name] = _first_state(name, arrays.get(name), count, reference, f"'{source}': array '{name}'")
    return {name: found[name] for name in reference.input_shapes}


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
