"""Activation ranges of the reference model on calibration inputs, in memory that does not grow with their number.

The tensors asked for become extra outputs of the network, which the interpreter runs in chunks: once for the smallest
and largest values and, for every method but min-max, once more for a histogram a tensor (``lowering.ranges``). An
output is never fused away, so what is calibrated is the FP32 network's own tensor.

Inside a network NaN and infinities may stand where nothing comes of them: −∞ in front of a softmax, log 0 that is
clipped. Such tensors are unbounded, which is no fault. Refused are calibration inputs that hold NaN, or for which the
network's answer is NaN or +∞ (−∞ is an answer: the score of a class that is ruled out); the message says which samples
do, and in which tensor it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfront.core import (
    Array,
    Batching,
    CalibrationSettings,
    ContentStore,
    DataError,
    Inputs,
    LoweringError,
    ModelError,
    RangeMethod,
    digest,
)
from bitfront.core.ragged import equal_shapes, is_ragged, stacked
from bitfront.lowering.batching import infer_batching
from bitfront.lowering.interpreter import InterpretedGraph, Interpreter, InterpreterError
from bitfront.lowering.ranges import BINS, UNBOUNDED, Histogram, count_into, is_bounded, is_zero, range_of, usable_range

_SCHEMA = 2
_KIND = "ranges"
# Of all tensors of one chunk together; the runtime holds about as much again.
_CHUNK_BYTES = 128 * 2**20
_LARGEST_CHUNK = 64

Range = tuple[float, float]
Values = NDArray[np.floating]


def calibrate(
    reference: onnx.ModelProto,
    inputs: Inputs,
    settings: CalibrationSettings,
    tensors: Sequence[str],
    *,
    interpreter: Interpreter,
    store: ContentStore,
    key: str,
    batching: Batching | None = None,
) -> dict[str, Range]:
    """Ranges of the named tensors on the first ``settings.samples`` inputs.

    Args:
        reference: Normalised FP32 network; not modified.
        inputs: One array per network input, (n, …).
        settings: Which method, on how many samples.
        tensors: Names of float tensors of the network, its inputs included.
        interpreter: Runs the network.
        store: Where ranges are kept.
        key: Digest of the network and the inputs.
        batching: Where the samples are in the network's inputs; None takes what its graph declares.

    Returns:
        Tensor → (low, high) in the order asked for, low ≤ 0 ≤ high and low < high; (0, 0) for a tensor that is
        zero throughout, ``UNBOUNDED`` for one that cannot be quantised.

    Raises:
        DataError: If an input is missing or does not fit, or the network does not answer it with numbers.
        LoweringError: If a tensor is not in the network, or is not of a floating type.
        ModelError: If the interpreter refuses the network.
    """
    names = list(dict.fromkeys(tensors))
    entry = digest("calibration", _SCHEMA, interpreter.version, key, settings.to_json(), sorted(names))
    kept = store.get_json(_KIND, entry)
    if kept is not None:
        return {name: (float(kept[name][0]), float(kept[name][1])) if kept[name] else UNBOUNDED for name in names}
    ranges = {}
    if names:
        ranges = _measure(_Probe(reference, inputs, settings.samples, names, interpreter, batching), settings)
    written = {name: list(bounds) if is_bounded(bounds) else None for name, bounds in ranges.items()}
    store.put_json(_KIND, entry, written)
    return {name: ranges[name] for name in names}


def run_network(reference: onnx.ModelProto, inputs: Inputs, interpreter: Interpreter) -> list[Array]:
    """All outputs of the FP32 network on one batch.

    Raises:
        ModelError: If the interpreter refuses the network, or fails on the inputs.
    """
    graph = _with_outputs(reference, (), interpreter)
    try:
        return graph.run(inputs)
    except InterpreterError as error:
        text = f"{interpreter.name} failed on the FP32 network: {error.message}"
        raise ModelError(text, "check that it runs as it is") from error


def _measure(probe: _Probe, settings: CalibrationSettings) -> dict[str, Range]:
    """Ranges from one pass for the extremes and, unless these are the answer, one for the histograms."""
    extremes = dict.fromkeys(probe.tensors, (0.0, 0.0))
    for name, values, _ in probe.values():
        if values.size and is_bounded(extremes[name]):
            low, high = float(values.min()), float(values.max())
            seen = (min(extremes[name][0], low), max(extremes[name][1], high))
            extremes[name] = seen if is_bounded((low, high)) else UNBOUNDED
    found = {name: (0.0, 0.0) if is_zero(ends) else ends for name, ends in extremes.items()}
    usable = {name: usable_range(*ends) for name, ends in found.items() if is_bounded(ends) and not is_zero(ends)}
    if settings.method is RangeMethod.MINMAX or not usable:
        return found | usable
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in usable}
    zeros = dict.fromkeys(usable, 0)
    for name, _, counted in probe.values():
        if name in usable:
            zeros[name] += count_into(counts[name], *usable[name], counted)
    return found | {
        name: range_of(
            Histogram(low=low, high=high, counts=counts[name], zeros=zeros[name]), settings.method, settings.percentile
        )
        for name, (low, high) in usable.items()
    }


class _Probe:
    """The network with its inner tensors as outputs, run over the calibration inputs chunk by chunk."""

    def __init__(
        self,
        reference: onnx.ModelProto,
        inputs: Inputs,
        samples: int,
        tensors: Sequence[str],
        interpreter: Interpreter,
        batching: Batching | None,
    ) -> None:
        self.tensors = tuple(tensors)
        graph_inputs = [value.name for value in reference.graph.input]
        missing = [name for name in graph_inputs if name not in inputs]
        if missing:
            raise DataError(
                f"calibration inputs: no array for the network's input '{missing[0]}'",
                f"name the arrays as the network does: {', '.join(graph_inputs)}",
            )
        self._inputs = {name: inputs[name][:samples] for name in graph_inputs}
        self._count = min(len(array) for array in self._inputs.values())
        if self._count == 0:
            raise DataError(
                "calibration inputs: expected at least one sample, got none", "give some, unlabelled is enough"
            )
        inner = [name for name in self.tensors if name not in graph_inputs]
        self._answers = [value.name for value in reference.graph.output if value.name not in graph_inputs]
        self._inner = list(dict.fromkeys([*inner, *self._answers]))
        self._graph = _with_outputs(reference, inner, interpreter)
        self._batching = batching or infer_batching(reference.graph)
        self._fixed = self._batching.fixed is not None
        self._size = self._batching.fixed or self._chunk_size()

    def values(self) -> Iterator[tuple[str, Values, Values]]:
        """Each tensor's values on each chunk of samples, and those of them that are to be counted.

        A network with a fixed batch sees some samples twice where their number is no multiple of it. What they gave
        before is not counted again in tensors whose first axis may be the batch.
        """
        uneven = any(is_ragged(array) for array in self._inputs.values())
        for start, stop in equal_shapes(self._inputs, self._count, self._size):
            rows = np.arange(start, stop)
            if self._fixed:  # filled up from the first samples, or from its own where samples have other shapes
                rows = np.resize(rows, self._size) if uneven else np.arange(start, start + self._size) % self._count
            feed = {name: stacked(array[rows]) for name, array in self._inputs.items()}
            for name, array in feed.items():
                if (bad := _bad_samples(array, np.isnan, rows)).size:
                    raise _no_numbers(f"calibration input '{name}'", bad, feed)
            feed = self._batching.feed(feed)
            outputs = dict(zip(self._inner, self._run(feed), strict=True))
            self._check_answers(outputs, rows, feed)
            for name in self.tensors:
                values = outputs[name] if name in outputs else feed[name]
                if not _is_float(values):
                    raise LoweringError(
                        f"tensor '{name}': expected a floating type to calibrate, got {values.dtype}",
                        "leave the layers around it at fp32",
                    )
                yield name, values, values[: stop - start] if values.ndim and len(values) == len(rows) else values

    def _check_answers(self, outputs: Inputs, rows: NDArray[np.int64], feed: Inputs) -> None:
        """Raise a DataError where an answer is NaN or +∞; it names the tensor in which that began."""
        bad = [_bad_samples(outputs[name], _is_no_answer, rows) for name in self._answers]
        wrong = np.unique(np.concatenate(bad)) if bad else np.zeros(0, np.int64)
        if not wrong.size:
            return
        order = [*((f"calibration input '{name}'", array) for name, array in feed.items())]
        order += [(f"tensor '{name}'", outputs[name]) for name in self._inner]
        begins = (what for what, array in order if np.isin(wrong, _bad_samples(array, _is_no_answer, rows)).any())
        raise _no_numbers(next(begins), wrong, feed)

    def _chunk_size(self) -> int:
        """Samples a chunk, so that all tensors of one chunk stay within ``_CHUNK_BYTES``."""
        first = self._batching.feed({name: array[:1] for name, array in self._inputs.items()})
        one = sum(output.nbytes for output in self._run(first))
        return max(1, min(_LARGEST_CHUNK, _CHUNK_BYTES // max(one, 1)))

    def _run(self, feed: Inputs) -> list[Array]:
        if not self._inner:
            return []
        try:
            return self._graph.run(feed, self._inner)
        except InterpreterError as error:
            shapes = ", ".join(f"'{name}' {array.dtype} {array.shape}" for name, array in feed.items())
            raise DataError(
                f"the network refused calibration inputs {shapes}: {error.message}",
                "give arrays of the shapes and types that 'search inspect' shows",
            ) from error


def _with_outputs(reference: onnx.ModelProto, tensors: Sequence[str], interpreter: Interpreter) -> InterpretedGraph:
    """The network ready to be run, with ``tensors`` as further outputs.

    Raises:
        LoweringError: If a tensor is not in the network.
        ModelError: If the interpreter refuses the network.
    """
    made = {name for node in reference.graph.node for name in node.output}
    unknown = [name for name in tensors if name not in made]
    if unknown:
        raise LoweringError(
            f"tensor '{unknown[0]}' cannot be calibrated: no node of the network makes it",
            "ask for a network input or a node's output",
        )
    proto = onnx.ModelProto()
    proto.CopyFrom(reference)
    already = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in already)
    try:
        return interpreter.load(proto)
    except InterpreterError as error:
        raise ModelError(
            f"{interpreter.name} refused the FP32 network: {error.message}",
            f"check that the network runs in {interpreter.name} as it is",
        ) from error


def _is_float(values: Array) -> TypeGuard[Values]:
    return bool(np.issubdtype(values.dtype, np.floating))


def _is_no_answer(values: Values) -> NDArray[np.bool_]:
    return np.isnan(values) | np.isposinf(values)


def _bad_samples(
    values: Array, is_bad: Callable[[Values], NDArray[np.bool_]], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Numbers of the samples some of whose values are bad; of the whole chunk where the first axis is not the batch.

    Args:
        values: A tensor on one chunk; those of other than floating types hold nothing bad.
        is_bad: Of values, which are.
        rows: Numbers of the chunk's samples.
    """
    if not _is_float(values):
        return rows[:0]
    bad = is_bad(values)
    if not bad.any():
        return rows[:0]
    return rows[bad.reshape(len(rows), -1).any(axis=1)] if values.ndim and len(values) == len(rows) else rows


def _no_numbers(what: str, bad: NDArray[np.int64], feed: Inputs) -> DataError:
    """The error that names samples for which the network has no answer.

    Args:
        what: The tensor in which it begins, in words.
        bad: Numbers of the samples.
        feed: What the network was fed.
    """
    samples = sorted({int(row) for row in bad})
    listed = ", ".join(map(str, samples[:8])) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
    ranges = ", ".join(
        f"'{name}' {array.min():.3g} to {array.max():.3g}"
        for name, array in feed.items()
        if _is_float(array) and np.isfinite(array).all()
    )
    return DataError(
        f"{what}: NaN or infinite on calibration sample{'s' if len(samples) > 1 else ''} {listed} (counted from 0)",
        "remove or repair those samples; check how inputs are scaled"
        + (f": there they run from {ranges}" if ranges else ""),
    )
