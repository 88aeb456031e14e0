"""Activation ranges of the FP32 network on calibration inputs, in memory that does not grow with their number.

The tensors asked for become extra outputs of the network, which ONNX Runtime runs in chunks: once for the smallest and
largest values and, for every method but min-max, once more for a histogram a tensor (``lowering.ranges``). An
output is never fused away, so what is calibrated is the FP32 network's own tensor.

Refused: calibration inputs that hold, or lead to, NaN or infinity; the message says which samples do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np
import onnx
from numpy.typing import NDArray

from lowering.interpreter import interpret, runtime_errors
from lowering.ranges import BINS, Histogram, count_into, range_of, usable_range
from precision import (
    Array,
    CalibrationSettings,
    ContentStore,
    DataError,
    Inputs,
    LoweringError,
    ModelError,
    RangeMethod,
    digest,
)

_SCHEMA = 1
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
    store: ContentStore,
    key: str,
) -> dict[str, Range]:
    """Ranges of the named tensors on the first ``settings.samples`` inputs.

    Args:
        reference: Normalised FP32 network; not modified.
        inputs: One array per network input, (n, …).
        settings: Which method, on how many samples.
        tensors: Names of float tensors of the network, its inputs included.
        store: Where ranges are kept.
        key: Digest of the network and the inputs.

    Returns:
        Tensor → (low, high) in the order asked for, low ≤ 0 ≤ high and low < high; (0, 1) for a tensor that is
        zero throughout.

    Raises:
        DataError: If an input is missing or does not fit, or a value is NaN or infinite.
        LoweringError: If a tensor is not in the network, or is not of a floating type.
        ModelError: If ONNX Runtime refuses the network.
    """
    names = list(dict.fromkeys(tensors))
    entry = digest("calibration", _SCHEMA, key, settings.to_json(), sorted(names))
    kept = store.get_json(_KIND, entry)
    if kept is not None:
        return {name: (float(kept[name][0]), float(kept[name][1])) for name in names}
    ranges = _measure(_Probe(reference, inputs, settings.samples, names), settings) if names else {}
    store.put_json(_KIND, entry, {name: list(bounds) for name, bounds in ranges.items()})
    return {name: ranges[name] for name in names}


def run_network(reference: onnx.ModelProto, inputs: Inputs) -> list[Array]:
    """All outputs of the FP32 network on one batch.

    Raises:
        ModelError: If ONNX Runtime refuses the network, or fails on the inputs.
    """
    session, errors = _session(reference, ())
    try:
        outputs: list[Array] = session.run(None, dict(inputs))
    except errors as error:
        raise ModelError(f"ONNX Runtime failed on the FP32 network: {error}", "check that it runs as it is") from error
    return outputs


def _measure(probe: _Probe, settings: CalibrationSettings) -> dict[str, Range]:
    """One pass for the extremes and, unless they are the answer, one for the histograms."""
    lows = dict.fromkeys(probe.tensors, 0.0)
    highs = dict.fromkeys(probe.tensors, 0.0)
    for name, values in probe.values():
        if values.size:
            lows[name] = min(lows[name], float(values.min()))
            highs[name] = max(highs[name], float(values.max()))
    extremes = {name: usable_range(lows[name], highs[name]) for name in probe.tensors}
    if settings.method is RangeMethod.MINMAX:
        return extremes
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in probe.tensors}
    zeros = dict.fromkeys(probe.tensors, 0)
    for name, values in probe.values():
        zeros[name] += count_into(counts[name], *extremes[name], values)
    return {
        name: range_of(
            Histogram(low=low, high=high, counts=counts[name], zeros=zeros[name]), settings.method, settings.percentile
        )
        for name, (low, high) in extremes.items()
    }


class _Probe:
    """The network with its inner tensors as outputs, run over the calibration inputs chunk by chunk."""

    def __init__(self, reference: onnx.ModelProto, inputs: Inputs, samples: int, tensors: Sequence[str]) -> None:
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
        self._inner = [name for name in self.tensors if name not in graph_inputs]
        self._session, self._errors = _session(reference, self._inner)
        batches = {axis for value in self._session.get_inputs() for axis in value.shape[:1] if isinstance(axis, int)}
        self._fixed = bool(batches)
        self._size = max(batches) if batches else self._chunk_size()

    def values(self) -> Iterator[tuple[str, Values]]:
        """Each tensor's values on each chunk; all are finite.

        A network with a fixed batch may see some samples twice in the last chunk. Rows of the repeated ones are
        dropped from tensors that have the batch as first axis; the others keep them, which is no new value.
        """
        for start in range(0, self._count, self._size):
            real = min(self._size, self._count - start)
            rows = np.arange(start, start + (self._size if self._fixed else real))
            rows[real:] = rows[real - 1]
            feed = {name: array[rows] for name, array in self._inputs.items()}
            for name, array in feed.items():
                _check_finite(f"calibration input '{name}'", array, rows, feed)
            outputs = dict(zip(self._inner, self._run(feed), strict=True))
            for name in self.tensors:
                values = outputs[name] if name in outputs else feed[name]
                if not _is_float(values):
                    raise LoweringError(
                        f"tensor '{name}': expected a floating type to calibrate, got {values.dtype}",
                        "leave the layers around it at fp32",
                    )
                _check_finite(f"tensor '{name}'", values, rows, feed)
                yield name, values[:real] if values.ndim and len(values) == len(rows) else values

    def _chunk_size(self) -> int:
        """Samples a chunk, so that all tensors of one chunk stay within ``_CHUNK_BYTES``."""
        one = sum(output.nbytes for output in self._run({name: array[:1] for name, array in self._inputs.items()}))
        return max(1, min(_LARGEST_CHUNK, _CHUNK_BYTES // max(one, 1)))

    def _run(self, feed: Inputs) -> list[Array]:
        if not self._inner:
            return []
        try:
            outputs: list[Array] = self._session.run(self._inner, dict(feed))
        except self._errors as error:
            shapes = ", ".join(f"'{name}' {array.dtype} {array.shape}" for name, array in feed.items())
            raise DataError(
                f"the network refused calibration inputs {shapes}: {error}",
                "give arrays of the shapes and types that 'search inspect' shows",
            ) from error
        return outputs


def _session(reference: onnx.ModelProto, tensors: Sequence[str]) -> tuple[Any, tuple[type[Exception], ...]]:
    """A session with ``tensors`` as further outputs, and the errors its runs may raise.

    Raises:
        LoweringError: If a tensor is not in the network.
        ModelError: If ONNX Runtime refuses the network.
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
        runner = interpret(proto)
    except runtime_errors() as error:
        raise ModelError(
            f"ONNX Runtime refused the FP32 network: {error}", "check that the network runs in ONNX Runtime as it is"
        ) from error
    return runner.session, runner.errors


def _is_float(values: Array) -> TypeGuard[Values]:
    return bool(np.issubdtype(values.dtype, np.floating))


def _check_finite(what: str, values: Array, rows: NDArray[np.int64], feed: Inputs) -> None:
    """Raise a DataError that names the samples whose ``values`` are NaN or infinite.

    Args:
        what: The tensor, in words.
        values: Its values on one chunk.
        rows: Numbers of the chunk's samples.
        feed: What the network was fed.
    """
    if not _is_float(values):
        return
    finite = np.isfinite(values)
    if finite.all():
        return
    bad = rows
    if values.ndim and len(values) == len(rows):
        bad = rows[~finite.reshape(len(rows), -1).all(axis=1)]
    samples = sorted({int(row) for row in bad})
    listed = ", ".join(map(str, samples[:8])) + (f" and {len(samples) - 8} more" if len(samples) > 8 else "")
    ranges = ", ".join(
        f"'{name}' {array.min():.3g} to {array.max():.3g}"
        for name, array in feed.items()
        if _is_float(array) and np.isfinite(array).all()
    )
    raise DataError(
        f"{what}: NaN or infinite on calibration sample{'s' if len(samples) > 1 else ''} {listed} (counted from 0)",
        "remove or repair those samples; check how inputs are scaled"
        + (f": there they run from {ranges}" if ranges else ""),
    )
