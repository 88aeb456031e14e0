"""Running a compiled model over any number of samples: the one place that knows how to cut and pad batches.

A model with a fixed batch gets chunks of exactly that size; the last one is filled up by repeating its last sample and
what comes out for the filling is thrown away. A model with a dynamic batch gets chunks of at most ``batch`` samples,
the last one shorter. Where the batch axis of an input or output lies is in ``core.batching``.

An output that declares no batch axis may be a constant, a value of the whole batch, or have one all the same, because
its exporter wrote the sizes of an example. Runs of two sizes tell them apart, so one sample fewer is run at first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bitfront.backends.base import CompiledModel
from bitfront.core import Array, Batching, DataError, Inputs
from bitfront.core.ragged import equal_shapes, is_ragged, joined

FIRST_AXIS = Batching()
"""Every input and output has its samples on the first axis."""


class RunnableModel(Protocol):
    """The part of a compiled model that running needs."""

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        ...

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of one run, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Output of a model over all samples.

    Attributes:
        name: The output's name.
        axis: Which axis counts the samples; None for an output that has no such axis.
        parts: What each run gave, as the network lays it out, without the rows of samples that only filled a batch.
        single: Whether each run was one sample, so that what it gave is the sample's row where no axis counts samples.
    """

    name: str
    axis: int | None
    parts: tuple[Array, ...]
    single: bool = False

    @property
    def by_sample(self) -> bool:
        """Whether there is a row a sample."""
        return self.axis is not None or self.single

    @property
    def whole(self) -> Array | None:
        """The output for all samples at once, as the network lays it out.

        Where each run was one sample and no axis counts them, that is the runs' outputs stacked, (n, …), or an array
        (n,) of them where their shapes differ (``core.ragged``). Else None where runs differ and have no rows, or where
        samples of different shapes have rows of different shapes, and what was the same in every run is taken for a
        constant.
        """
        if self.axis is None and self.single:
            return joined(self.parts)
        if self.axis is not None:
            if len({_without(part.shape, self.axis) for part in self.parts}) > 1:
                return None
            return self.parts[0] if len(self.parts) == 1 else np.concatenate(self.parts, axis=self.axis)
        first = self.parts[0]
        return first if all(_equal(first, part) for part in self.parts[1:]) else None

    @property
    def rows(self) -> Array | None:
        """The output with the samples first, (n, …); None where it has no row a sample.

        Rows of different shapes are repeated along each axis up to the longest, so that a mean over positions stays
        about that of the sample's own.
        """
        if not self.by_sample:
            return None
        whole, axis = self.whole, self.axis or 0
        if whole is not None and not is_ragged(whole):
            return np.moveaxis(whole, axis, 0)
        parts = [np.moveaxis(part, axis, 0) if self.axis is not None else part[None] for part in self.parts]
        longest = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
        return np.concatenate([repeated(part, longest) for part in parts])

    def first(self, count: int) -> Output:
        """The output of the first ``count`` samples alone, where it has a row a sample."""
        whole = self.whole
        if self.axis is None and self.single:
            return replace(self, parts=self.parts[:count])
        if self.axis is None or whole is None:
            return self
        rows = np.moveaxis(whole, self.axis, 0)[:count]
        return replace(self, parts=(np.ascontiguousarray(np.moveaxis(rows, 0, self.axis)),))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """All outputs of a model over all samples.

    Attributes:
        each: In the model's order.
        counts: Samples of each run.
    """

    each: tuple[Output, ...]
    counts: tuple[int, ...]

    @property
    def whole(self) -> tuple[Array, ...] | None:
        """Each output for all samples at once; None where one cannot be put together (``Output.whole``)."""
        found = [output.whole for output in self.each]
        return tuple(array for array in found if array is not None) if all(a is not None for a in found) else None


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


def fixed_batch(shapes: Mapping[str, tuple[int | None, ...]], batching: Batching = FIRST_AXIS) -> int | None:
    """The batch a model insists on, from its input shapes; None where the batch is dynamic.

    Raises:
        DataError: If inputs insist on different batches.
    """
    found = [_batch_of(shape, batching.input_axis(name)) for name, shape in shapes.items()]
    sizes = {size for size in found if size is not None}
    if len(sizes) > 1:
        listed = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
        raise DataError(
            f"inputs have different batch sizes: {listed}", "export the network with one batch shared by all inputs"
        )
    return sizes.pop() if sizes else None


def padded(inputs: Inputs, size: int) -> dict[str, Array]:
    """``inputs`` filled up to ``size`` samples by repeating the last one."""
    return {
        name: array if len(array) == size else np.concatenate([array, np.repeat(array[-1:], size - len(array), axis=0)])
        for name, array in inputs.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The division of samples among a model's runs.

    Attributes:
        counts: Samples of each run.
        sizes: Samples that each run is fed, with those that only fill a batch.
    """

    counts: tuple[int, ...]
    sizes: tuple[int, ...]


def plan_runs(compiled: RunnableModel, inputs: Inputs, *, batch: int = 64, batching: Batching = FIRST_AXIS) -> Runs:
    """Divide samples among a model's runs; arguments and errors as of ``run_outputs``."""
    missing = [name for name in compiled.input_shapes if name not in inputs]
    if missing:
        raise DataError(
            f"no array for the network's input '{missing[0]}'; got {', '.join(sorted(inputs)) or 'none'}",
            f"name the arrays as the network does: {', '.join(compiled.input_shapes)}",
        )
    wanted = {name: inputs[name] for name in compiled.input_shapes}
    count = sample_count(wanted)
    fixed = fixed_batch(compiled.input_shapes, batching) or batching.fixed
    size = fixed or min(batch, count)
    if any(is_ragged(array) for array in wanted.values()):
        counts = [stop - start for start, stop in equal_shapes(wanted, count, size)]
    else:
        counts = _counts(count, size, uneven=fixed is None and batching.undeclared_outputs)
    return Runs(counts=tuple(counts), sizes=tuple(fixed or real for real in counts))


def run_each(
    compiled: RunnableModel, inputs: Inputs, runs: Runs, batching: Batching = FIRST_AXIS
) -> Iterator[tuple[Array, ...]]:
    """The outputs of one run after the other, as the network lays them out, with the samples that only fill a batch.

    Raises:
        BackendError: If the runtime fails.
    """
    start = 0
    for real, size in zip(runs.counts, runs.sizes, strict=True):
        chunk = {name: inputs[name][start : start + real] for name in compiled.input_shapes}
        yield compiled.run(batching.feed(padded(chunk, size)))
        start += real


def run_outputs(
    compiled: RunnableModel, inputs: Inputs, *, batch: int = 64, batching: Batching = FIRST_AXIS
) -> Outputs:
    """Run a model over all samples.

    Args:
        compiled: The model.
        inputs: Arrays (n, …), at least one for each of the model's inputs; others are left out. Of samples whose shapes
            differ (``core.ragged``), neighbours of one shape are run together.
        batch: Samples a run where the model's batch is dynamic.
        batching: Where the samples are in the model's own arrays.

    Raises:
        DataError: If an input is missing, or there are no samples.
        BackendError: If the runtime fails.
    """
    runs = plan_runs(compiled, inputs, batch=batch, batching=batching)
    columns = list(run_each(compiled, inputs, runs, batching))
    each = []
    for name, parts in zip(compiled.output_names, zip(*columns, strict=True), strict=True):
        axis = sample_axis([part.shape for part in parts], batching.output_axes(name), runs)
        cut = tuple(without_filling(part, real, axis) for part, real in zip(parts, runs.counts, strict=True))
        each.append(Output(name=name, axis=axis, parts=cut, single=batching.single))
    return Outputs(each=tuple(each), counts=runs.counts)


def run_batches(
    compiled: CompiledModel, inputs: Inputs, *, batch: int = 64, batching: Batching = FIRST_AXIS
) -> tuple[Array, ...]:
    """Run a model over all samples; arguments as for ``run_outputs``.

    Returns:
        One array (n, …) for each output that has a row a sample, in the model's order; the others are left out.

    Raises:
        DataError: If an input is missing, there are no samples, or no output has a row a sample.
        BackendError: If the runtime fails.
    """
    rows = rows_of(run_outputs(compiled, inputs, batch=batch, batching=batching))
    return tuple(array for array in rows if array is not None)


def rows_of(outputs: Outputs) -> tuple[Array | None, ...]:
    """Each output with the samples first, (n, …); None for those that have no row a sample.

    Raises:
        DataError: If that is none of them.
    """
    rows = tuple(output.rows for output in outputs.each)
    if all(array is None for array in rows):
        raise no_rows({output.name: output.parts[0].shape for output in outputs.each}, outputs.counts[0])
    return rows


def no_rows(shapes: Mapping[str, tuple[int, ...]], count: int) -> DataError:
    """The error of a network of which no output has a row for each of ``count`` samples, from outputs' shapes."""
    listed = ", ".join(f"'{name}' {shape}" for name, shape in shapes.items())
    return DataError(
        f"no output has a row for each of {count} samples; the shapes are {listed}",
        "say which axis counts the samples with --batch-axis INPUT=AXIS, INPUT=none where each run is one sample",
    )


def _batch_of(shape: tuple[int | None, ...], axis: int | None) -> int | None:
    return shape[axis] if axis is not None and axis < len(shape) else None


def _counts(count: int, size: int, *, uneven: bool) -> list[int]:
    """Samples of each run; with ``uneven`` they are not all alike, as far as that can be."""
    first = [size - 1] if uneven and size > 1 and count % size == 0 else []
    rest = count - sum(first)
    return [*first, *(min(size, rest - start) for start in range(0, rest, size))]


def sample_axis(shapes: Sequence[tuple[int, ...]], candidates: Iterable[int], runs: Runs) -> int | None:
    """The first of ``candidates`` that is as long in an output of each run as the run had samples."""
    for axis in candidates:
        if all(axis < len(shape) and shape[axis] == size for shape, size in zip(shapes, runs.sizes, strict=True)):
            return axis
    return None


def without_filling(part: Array, real: int, axis: int | None) -> Array:
    """An output of a run without the rows of samples that only filled the batch."""
    if axis is None or part.shape[axis] == real:
        return part
    return np.moveaxis(np.moveaxis(part, axis, 0)[:real], 0, axis)


def repeated(part: Array, longest: Sequence[int]) -> Array:
    """An array (n, …) with every axis but the first repeated from its beginning up to a length."""
    for axis, size in enumerate(longest, 1):
        if 0 < part.shape[axis] < size:
            part = np.take(part, np.arange(size) % part.shape[axis], axis=axis)
    return part


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _equal(one: Array, other: Array) -> bool:
    if one.shape != other.shape:
        return False
    return np.array_equal(one, other, equal_nan=one.dtype.kind in "fc")
