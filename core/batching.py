"""The batch axis of a network's inputs and outputs.

The engine holds samples along the first axis of every array, whatever a network's own layout is: (layers, batch, width)
for a recurrent state, or no axis at all for a rate that all samples share. ``Batching.samples`` and ``Batching.feed``
are the two directions between that and what the network reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.metric import Array
from bitfront.core.ragged import median_sample, rows_like, stacked
from bitfront.core.workload import Inputs

_NOTHING: Mapping[str, int | None] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """The batch axis of each input and output of a network.

    Attributes:
        inputs: Input name → axis; None for an input whose one value all samples share. 0 for those that are not named.
        outputs: Output name → axis as the network declares it; None where it declares none. 0 for those not named.
        fixed: The batch size the network insists on; None where it is dynamic. 1 where each run is one sample: then
            an input without a batch axis may have a value of its own in each, and an output without one is the sample's
            row, whatever its shape.
        certain: Outputs whose axis was seen in runs or said by a person, not only declared.
    """

    inputs: Mapping[str, int | None] = field(default_factory=lambda: _NOTHING)
    outputs: Mapping[str, int | None] = field(default_factory=lambda: _NOTHING)
    fixed: int | None = None
    certain: frozenset[str] = frozenset()

    @property
    def single(self) -> bool:
        """Whether each run is one sample."""
        return self.fixed == 1

    def input_axis(self, name: str) -> int | None:
        """The batch axis of an input, None where it has none."""
        return self.inputs.get(name, 0)

    def output_axes(self, name: str) -> tuple[int, ...]:
        """Candidate batch axes of an output, the declared one first; a run shows which one it is."""
        declared = self.outputs.get(name, 0)
        if name in self.certain:
            return () if declared is None else (declared,)
        return (0,) if declared is None else tuple(dict.fromkeys((declared, 0)))

    @property
    def undeclared_outputs(self) -> bool:
        """Whether an output declares no batch axis, as some exporters write for outputs that do have one."""
        return any(axis is None and name not in self.certain for name, axis in self.outputs.items())

    def feed(self, samples: Inputs) -> dict[str, Array]:
        """Arrays as the network reads them, from arrays of samples (n, …), at least one.

        Args:
            samples: Input name → array (n, …); one that all samples share is repeated n times, or a view that seems so.

        Raises:
            DataError: If samples of different shapes are among them.
        """
        return {name: _placed(stacked(array), self.input_axis(name)) for name, array in samples.items()}

    def samples(self, name: str, array: Array, count: int) -> Array:
        """An array as the network reads it, rearranged with the samples first, (n, …).

        Args:
            name: The input.
            array: As the network reads it, for all samples at once.
            count: Number of samples, which an input that all share is repeated for without taking memory.
        """
        axis = self.input_axis(name)
        if axis is None:
            return np.broadcast_to(array, (count, *array.shape))
        return np.moveaxis(array, axis, 0)


def take_rows(array: Array, rows: NDArray[np.integer[Any]]) -> Array:
    """The given samples of an array (n, …); a value that all samples share is still held once."""
    if array.ndim and array.strides[0] == 0:
        return np.broadcast_to(array[0], (len(rows), *array.shape[1:]))
    taken: Array = array[rows]
    return taken


def median_batch(inputs: Inputs, count: int) -> Inputs:
    """Batch of ``count`` samples to time a network on: the first ones, or those of median size where shapes differ."""
    rows = rows_like(inputs, median_sample(inputs), count)
    return {name: take_rows(array, rows) for name, array in inputs.items()}


def _placed(array: Array, axis: int | None) -> Array:
    if axis is None:
        return np.array(array[0])  # a copy: some runtimes write to no other
    return array if axis == 0 else np.ascontiguousarray(np.moveaxis(array, 0, axis))
