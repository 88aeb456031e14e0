"""The batch axes of a network as runs show them: samples run two at once are compared with the same run one by one.

Declared shapes may say too little of outputs (an exporter's example sizes, no names) or be wrong: a batch that is
dynamic by name while a Reshape inside holds 1, or samples that change each other's answers. Where two samples at once
fail or answer otherwise, each is run alone from there on, as under a fixed batch of 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from bitfront.core import Array, Batching, DataError, Inputs
from bitfront.core.batching import take_rows
from bitfront.core.ragged import is_ragged, rows_like
from bitfront.lowering.interpreter import InterpretedGraph, InterpreterError
from bitfront.lowering.output_difference import widened
from bitfront.lowering.reference import ReferenceModel

_LOOKED_AT = 8  # samples, of which the first and the last are run
_LEAST_DB = 20.0  # dynamic quantisation reads its scales off the whole batch, so answers agree no better than it rounds
_ROUNDING = 1e-5
_LONGEST = 160  # characters of a runtime's own message
_HINT = "if another axis counts the samples, say so with --batch-axis INPUT=AXIS"


def measured_batching(reference: ReferenceModel, inputs: Inputs) -> ReferenceModel:
    """The reference model with its batch axes as runs on two samples show them; notices say what was not as declared.

    Args:
        reference: The network.
        inputs: One array per network input, (n, …).

    Raises:
        DataError: As ``single_batching`` does.
    """
    reference = single_batching(reference, inputs)
    if reference.batching.fixed is not None or any(not len(inputs.get(name, ())) for name in reference.input_shapes):
        return reference
    rows = np.unique(rows_like(inputs, 0, _LOOKED_AT))[[0, -1]]
    feed = {name: take_rows(inputs[name], rows) for name in reference.input_shapes}
    try:
        graph = reference.interpreter.load(reference.runnable, optimised=False)
        alone = [_run(graph, reference.batching, feed, [row]) for row in (0, 1)]
    except InterpreterError:
        return reference  # what reads the same inputs next says what is wrong with them
    try:
        together = _run(graph, reference.batching, feed, [0, 1])
    except InterpreterError as error:
        line = error.message.strip().splitlines()[0]
        text = line if len(line) <= _LONGEST else f"… {line[-_LONGEST:]}"
        return _single(reference, f"it runs one sample at a time, and fails on two at once ({text})", _HINT)
    outputs, mixed = dict(reference.batching.outputs), list[str]()
    seen, counted = set(reference.batching.certain), False
    for name, *values in zip(graph.output_names, *alone, together, strict=True):
        one, other, both = values
        declared = outputs.get(name, 0)
        if name in seen or not all(isinstance(value, np.ndarray) for value in values):
            counted = counted or declared is not None
            continue
        axes = _counting_axes(one, other, both)
        axis = next(
            (k for k in sorted(axes, key=lambda k: k != declared) if _alike(_joined(one, other, k), both)), None
        )
        if axis is not None:
            outputs[name], counted = axis, True
            seen.add(name)
        elif one.shape == other.shape == both.shape and _alike(one, both) and _alike(other, both):
            outputs[name] = None
            seen.add(name)
        elif declared in axes and one.dtype.kind == "f":
            mixed.append(name)
    if mixed and _steady(graph, reference.batching, feed, alone[0]):
        reason = f"output '{mixed[0]}' for two samples at once is not what it is for each of them"
        return _single(reference, reason, _HINT)
    if not counted and not mixed:
        shapes = ", ".join(f"'{n}' {a.shape}" for n, a in zip(graph.output_names, together, strict=True))
        return _single(reference, f"no output has a row for each of two samples; got {shapes}", _HINT)
    return replace(reference, batching=replace(reference.batching, outputs=outputs, certain=frozenset(seen)))


def inputs_of_their_own(batching: Batching, inputs: Inputs) -> list[str]:
    """Inputs without a batch axis that have another value for some sample than for the first."""
    return [name for name, array in inputs.items() if batching.input_axis(name) is None and not _all_alike(array)]


def single_batching(reference: ReferenceModel, inputs: Inputs, states: Collection[str] = ()) -> ReferenceModel:
    """The reference model, run one sample at a time if one of its inputs without a batch axis differs by sample.

    Args:
        reference: The network.
        inputs: One array per network input, (n, …).
        states: Inputs that an output feeds, so that they differ by sample whatever they begin with.

    Raises:
        DataError: If it insists on several samples at once.
    """
    layout = reference.batching
    fed = [name for name in states if layout.input_axis(name) is None]
    own = [*fed, *inputs_of_their_own(layout, inputs)]
    if not own or layout.single:
        return reference
    reason = f"input '{own[0]}' has no batch axis and a value of its own for each sample"
    if layout.fixed is not None:
        raise DataError(
            f"'{reference.source}': {reason}, and each run takes {layout.fixed} samples",
            "export the network with a batch of 1, or a dynamic one, or give one value that all samples share; if an "
            f"axis of it counts the samples, say so with --batch-axis {own[0]}=AXIS",
        )
    return _single(reference, reason, "")


def _all_alike(array: Array) -> bool:
    """Whether all samples, (n, …), are the same."""
    if is_ragged(array):
        return all(np.array_equal(array[0], sample) for sample in array[1:])
    return len(array) < 2 or array.strides[0] == 0 or bool((array == array[:1]).all())


def _single(reference: ReferenceModel, reason: str, hint: str) -> ReferenceModel:
    text = f"'{reference.source}': samples are run one by one, as with a fixed batch of 1: {reason}"
    return replace(
        reference,
        batching=replace(reference.batching, fixed=1),
        notices=(*reference.notices, f"{text}; {hint}" if hint else text),
    )


def _run(graph: InterpretedGraph, batching: Batching, feed: Inputs, rows: Sequence[int]) -> list[Array]:
    taken = {name: take_rows(array, np.array(rows)) for name, array in feed.items()}
    return graph.run(batching.feed(taken))


def _steady(graph: InterpretedGraph, batching: Batching, feed: Inputs, before: Sequence[Array]) -> bool:
    """Whether the first sample is answered as it was before: some networks draw numbers."""
    again = _run(graph, batching, feed, [0])
    return all(one.shape == two.shape and _alike(one, two) for one, two in zip(before, again, strict=True))


def _counting_axes(one: Array, other: Array, both: Array) -> list[int]:
    """Axes along which the third array is as long as the first two together, all else alike."""
    if not one.ndim == other.ndim == both.ndim:
        return []
    return [
        axis
        for axis in range(one.ndim)
        if one.shape[axis] == other.shape[axis] == 1
        and both.shape[axis] == 2
        and _without(one, axis) == _without(other, axis) == _without(both, axis)
    ]


def _without(array: Array, axis: int) -> tuple[int, ...]:
    return array.shape[:axis] + array.shape[axis + 1 :]


def _joined(one: Array, other: Array, axis: int) -> Array:
    return np.concatenate([one, other], axis=axis)


def _alike(wanted: Array, found: Array) -> bool:
    """Whether two arrays of one shape hold the same, but for rounding."""
    if wanted.dtype.kind != "f":
        return bool(np.array_equal(wanted, found))
    one, two = widened(wanted), widened(found)
    usable = np.isfinite(one)
    if not np.array_equal(usable, np.isfinite(two)) or not np.array_equal(one[~usable], two[~usable], equal_nan=True):
        return False
    one, two = one[usable], two[usable]
    noise, signal = float(((one - two) ** 2).sum()), float((one**2).sum())
    near = np.allclose(one, two, rtol=_ROUNDING, atol=_ROUNDING)
    return near or noise * 10 ** (_LEAST_DB / 10) <= signal
