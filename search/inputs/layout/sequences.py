"""Samples that are sequences: a network of one step, some of whose outputs feed its inputs at the next.

What a person brings has the samples first and time second, (n, time, …), or is a list of (time, …) where lengths
differ. States begin at zero unless an array (n, …) is given. Calibration becomes one sample a step, with the state that
the network had come to, so that whatever calibrates, rounds, scores sensitivities or times sees the steps of real
sequences; evaluation stays sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bitfront.backends.sequences import Recurrence
from bitfront.core import Array, DataError, Inputs, UsageError
from bitfront.core.batching import take_rows
from bitfront.core.ragged import equal_shapes, joined, stacked
from bitfront.lowering.interpreter import InterpreterError
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.arrays import LABELS, cast, check_finite, fits, shown_shape
from bitfront.search.inputs.data.archive import array_names, read_npz
from bitfront.search.inputs.data.npz_folder import npz_files
from bitfront.search.inputs.values import as_array, as_samples

_CHUNK = 64


def recurrence_of(reference: ReferenceModel, state: Mapping[str, str]) -> Recurrence:
    """Description of how the network is run over sequences.

    Args:
        reference: The network of one step.
        state: Output → the input that it feeds.

    Raises:
        UsageError: If one is no output or input, an input is fed twice, or types differ.
    """
    for output, name in state.items():
        if output not in reference.output_names or name not in reference.input_shapes:
            raise UsageError(
                f"--state {output}={name}: expected OUTPUT=INPUT; outputs: {', '.join(reference.output_names)}; "
                f"inputs: {', '.join(reference.input_shapes)}",
                "name both as the network does",
            )
    if len(set(state.values())) < len(state) or set(state.values()) == set(reference.input_shapes):
        raise UsageError(
            f"--state: {', '.join(f'{output}={name}' for output, name in state.items())} leaves no input for the "
            "sequence, or feeds one twice",
            "name each state once",
        )
    shared = frozenset(
        name
        for name in reference.input_shapes
        if reference.batching.input_axis(name) is None and name not in state.values()
    )
    return Recurrence(state=dict(state), shared=shared, batching=reference.batching)


def check_sequences(
    arrays: Mapping[str, object], reference: ReferenceModel, recurrence: Recurrence, source: str
) -> dict[str, Array]:
    """Sequences as the engine holds them, in the order of the network's inputs.

    Args:
        arrays: Input name → array or list, as the module says; states may be missing.
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
        where = f"'{source}': array '{name}'"
        value = cast(as_array(arrays[name], where), reference.input_types[name], where)
        if not fits(value.shape, reference.input_shapes[name], None):
            expected = shown_shape(reference.input_shapes[name], None)
            raise DataError(f"{where}: expected shape {expected}, got {value.shape}", "it is the same at every step")
        found[name] = np.broadcast_to(check_finite(value, where), (count, *value.shape))
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
    parts: dict[str, list[Array]] = {name: [] for name in inputs}
    try:
        graph = reference.interpreter.load(reference.runnable)
        for start, stop in equal_shapes(inputs, count, size):
            rows = np.resize(np.arange(start, stop), reference.fixed_batch or stop - start)
            chunk = {name: stacked(take_rows(array, rows)) for name, array in inputs.items()}
            read = [each for each, _ in recurrence.steps(graph, chunk)]
            for name, found in parts.items():
                if name not in recurrence.shared:
                    found.extend(np.stack([step[name] for step in read], axis=1)[: stop - start])
    except InterpreterError as error:
        raise DataError(
            f"'{reference.source}': the network refused the steps of calibration sequences: {error.message}",
            "give arrays (samples, time, …), or the states' first values too",
        ) from error
    joined = {name: np.concatenate(found) for name, found in parts.items() if found}
    total = len(next(iter(joined.values())))
    return {
        name: joined[name] if name in joined else np.broadcast_to(inputs[name][0], (total, *inputs[name].shape[1:]))
        for name in inputs
    }


def first_steps(inputs: Inputs, recurrence: Recurrence) -> dict[str, Array]:
    """Inputs of the network at the first step, (n, …) each; arguments as for ``steps_of``."""
    still = {*recurrence.shared, *recurrence.state.values()}
    return {n: array if n in still else np.stack([sample[0] for sample in array]) for n, array in inputs.items()}


def read_sequences(
    spec: str, reference: ReferenceModel, state: Mapping[str, str], *, labelled: bool = False
) -> dict[str, object]:
    """Arrays of an ``.npz`` file, or of a folder with a file for each sequence, not yet compared with the network.

    Args:
        spec: What ``--calib`` or ``--eval`` was given.
        reference: The network of one step.
        state: Output → the input that it feeds; states may be missing.
        labelled: Whether ``labels`` are read too.

    Raises:
        DataError: If a file is damaged.
    """
    files = npz_files(spec)
    parts = [_arrays(path, reference, state, labelled=labelled) for path in files or [Path(spec)]]
    if not files:
        return dict(parts[0])
    shared = {name for name in parts[0] if reference.batching.input_axis(name) is None and name not in state.values()}
    joined: dict[str, object] = {}
    for name in parts[0]:
        values = [part[name] for part in parts if name in part]
        if len(values) < len(parts):
            raise DataError(f"'{spec}': some files have no array '{name}'", "give the same arrays in each")
        alike = name in state.values() or (name == LABELS and len({value.shape for value in values}) == 1)
        joined[name] = values[0] if name in shared and name != LABELS else np.stack(values) if alike else values
    return joined


def _arrays(path: Path, reference: ReferenceModel, state: Mapping[str, str], *, labelled: bool) -> dict[str, Array]:
    there = array_names(path)
    wanted = [name for name in reference.input_shapes if name in there or name not in state.values()]
    if missing := [name for name in (*wanted, *([LABELS] if labelled else [])) if name not in there]:
        raise DataError(f"'{path}': no array '{missing[0]}'; got {', '.join(there) or 'none'}", "add it")
    return dict(read_npz(path, tuple(wanted), labels=LABELS if labelled else None))


def _sequence(name: str, value: object, reference: ReferenceModel, where: str) -> Array:
    shape, axis = reference.input_shapes[name], reference.batching.input_axis(name)
    step = tuple(size for place, size in enumerate(shape) if place != axis)
    samples = as_samples(value, where, len(step) + 1)
    arrays = list(as_array(value, where)) if samples is None else samples
    for array in arrays:
        if not fits(array.shape, (None, *step), None):
            expected = shown_shape((None, None, *step), 0)
            raise DataError(f"{where}: expected shape {expected} with time second, got {(len(arrays), *array.shape)}")
    checked = [check_finite(cast(array, reference.input_types[name], where), where) for array in arrays]
    return joined(checked)


def _first_state(name: str, value: object, count: int, reference: ReferenceModel, where: str) -> Array:
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
    array = cast(as_array(value, where), kind.name, where)
    if axis is not None and array.ndim == len(shape):
        array = np.moveaxis(array, axis, 0)
    if not fits(array.shape, (count, *step), None):
        raise DataError(f"{where}: expected shape {shown_shape(shape, axis)} for {count} samples, got {array.shape}")
    return check_finite(array, where)
