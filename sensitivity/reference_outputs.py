"""The FP32 network's outputs, kept run by run, and a candidate's beside them: neither is ever whole in memory.

Up to ``_IN_MEMORY`` bytes are kept in memory, beyond that all lie in a temporary file. A run has so few samples that
its outputs take ``_RUN_BYTES`` at most, where the network's batch is dynamic and a sample takes no more than that.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np

from bitfront.backends.base import CompiledModel
from bitfront.backends.batches import (
    fixed_batch,
    no_rows,
    plan_runs,
    repeated,
    run_each,
    sample_axis,
    without_filling,
)
from bitfront.core import Array, BackendError, Batching, Inputs, unwritable
from bitfront.core.ragged import is_ragged
from bitfront.sensitivity.divergence import Outputs
from bitfront.sensitivity.divergence_metric import OutputForm

_IN_MEMORY = 64 * 2**20
_RUN_BYTES = 16 * 2**20
_BATCH = 64


class ReferenceOutputs:
    """Outputs of the FP32 network on all samples.

    Args:
        compiled: The network.
        inputs: The samples, (n, …) each.
        batching: Where the samples are in the network's own arrays.

    Raises:
        DataError: If the inputs do not fit, or no output has a row a sample.
        BackendError: If the runtime fails.
        OutputError: If there is no room for the outputs.
    """

    def __init__(self, compiled: CompiledModel, inputs: Inputs, batching: Batching) -> None:
        self._inputs = inputs
        self._batching = batching
        self._runs = plan_runs(compiled, inputs, batch=_batch(compiled, inputs, batching), batching=batching)
        self._kept = _KeptArrays()
        shapes: list[tuple[tuple[int, ...], ...]] = []
        for outputs in run_each(compiled, inputs, self._runs, batching):
            self._kept.append(outputs)
            shapes.append(tuple(output.shape for output in outputs))
        names, columns = compiled.output_names, list(zip(*shapes, strict=True))
        self.axes = tuple(
            sample_axis(column, batching.output_axes(name), self._runs)
            for name, column in zip(names, columns, strict=True)
        )
        if not batching.single and all(axis is None for axis in self.axes):
            raise no_rows(dict(zip(names, shapes[0], strict=True)), self._runs.counts[0])
        self._rows_of = [
            _Rows.of(column, axis) if axis is not None or batching.single else None
            for column, axis in zip(columns, self.axes, strict=True)
        ]

    @property
    def forms(self) -> tuple[OutputForm, ...]:
        """Shape, type and variation of each output, its samples first; empty where it has no row a sample."""
        runs = (tuple(map(OutputForm.of, part)) for part in self.parts())
        return reduce(lambda one, other: tuple(map(OutputForm.followed_by, one, other)), runs)

    def parts(self) -> Iterator[Outputs]:
        """Each run's outputs, the samples first; an empty array for one without a row a sample."""
        for index, real in enumerate(self._runs.counts):
            yield self._rows(self._kept.run(index), real)

    def beside(self, compiled: CompiledModel) -> Iterator[tuple[Outputs, Outputs]]:
        """Each run's outputs, and those of another form of the network on the same samples.

        Raises:
            BackendError: If the runtime fails.
        """
        candidate = run_each(compiled, self._inputs, self._runs, self._batching)
        for reference, outputs, real in zip(self.parts(), candidate, self._runs.counts, strict=True):
            yield reference, self._rows(outputs, real)

    def _rows(self, outputs: Outputs, real: int) -> Outputs:
        """A run's outputs with the samples first."""
        pairs = zip(outputs, self._rows_of, strict=True)
        return tuple(np.zeros(0) if rows is None else rows.taken(output, real) for output, rows in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The rows of samples in an output.

    Attributes:
        axis: Which counts the samples; None where a run's output is one sample's row.
        rank: Axes of the output.
        longest: What rows whose shapes differ between runs are repeated up to; None where they have one shape.
    """

    axis: int | None
    rank: int
    longest: tuple[int, ...] | None

    @classmethod
    def of(cls, shapes: Sequence[tuple[int, ...]], axis: int | None) -> _Rows:
        """The rows of an output that has these shapes in the runs."""
        rows = [shape if axis is None else shape[:axis] + shape[axis + 1 :] for shape in shapes]
        longest = tuple(map(max, zip(*rows, strict=True))) if len(set(rows)) > 1 else None
        return cls(axis=axis, rank=len(shapes[0]), longest=longest)

    def taken(self, output: Array, real: int) -> Array:
        """The rows of the samples of a run, of which ``real`` are no filling; of another rank the output itself."""
        if output.ndim != self.rank:
            return output
        if self.axis is None:
            rows = output[None]
        else:
            rows = np.moveaxis(without_filling(output, real, self.axis), self.axis, 0)
        return rows if self.longest is None else repeated(rows, self.longest)


class _KeptArrays:
    """Arrays of one run after the other; those of objects stay in memory."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, self._file.close)
        self._runs: list[list[tuple[int | None, Array]]] = []  # place in the file and an empty array, or the array

    def append(self, outputs: Sequence[Array]) -> None:
        """Keep one run's outputs.

        Raises:
            OutputError: If there is no room for them.
        """
        places: list[tuple[int | None, Array]] = []
        for output in outputs:
            if output.dtype.hasobject:
                places.append((None, output))
                continue
            places.append((self._file.tell(), np.broadcast_to(np.empty((), output.dtype), output.shape)))
            try:
                self._file.write(np.ascontiguousarray(output).reshape(-1).view(np.uint8).data)
            except OSError as error:
                raise unwritable(Path(tempfile.gettempdir()), error) from error
        self._runs.append(places)

    def run(self, index: int) -> Outputs:
        """Outputs of a run."""
        found = []
        for place, like in self._runs[index]:
            if place is None:
                found.append(like)
                continue
            self._file.seek(place)
            data = self._file.read(like.size * like.itemsize)
            found.append(np.frombuffer(data, like.dtype).reshape(like.shape))
        return tuple(found)


def _batch(compiled: CompiledModel, inputs: Inputs, batching: Batching) -> int:
    """Samples of a run where the batch is dynamic, from what one sample's outputs take."""
    if fixed_batch(compiled.input_shapes, batching) or batching.fixed:
        return _BATCH
    sample = {name: array[_largest(inputs) :][:1] for name, array in inputs.items()}
    try:
        outputs = next(run_each(compiled, sample, plan_runs(compiled, sample, batching=batching), batching))
    except BackendError:
        return _BATCH  # a network that cannot run one sample may run more
    return max(1, min(_BATCH, _RUN_BYTES // max(1, sum(output.nbytes for output in outputs))))


def _largest(inputs: Inputs) -> int:
    """Index of the largest sample where their shapes differ, else 0."""
    uneven = [array for array in inputs.values() if is_ragged(array)]
    return int(np.argmax(np.sum([[sample.size for sample in array] for array in uneven], axis=0))) if uneven else 0
