"""Sequences: a network run step by step, some of its outputs fed back as inputs of the next step.

A sample is a sequence. Its arrays are (time, …) for the inputs that change from step to step, and (…) for the states it
begins with and for what all samples share. What a network answered step by step is (n, time, …).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from bitfront.backends.base import CompiledModel
from bitfront.backends.batches import Outputs, run_outputs
from bitfront.core import Array, Batching, DataError, Inputs


class StepModel(Protocol):
    """Model of one step: a compiled one, or a graph in the interpreter."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        ...

    def run(self, inputs: Inputs, /) -> Sequence[Array]:
        """The outputs of one step, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """Description of how a network is run over sequences.

    Attributes:
        state: Output → the input that it feeds at the next step.
        shared: Inputs that are the same at every step.
        batching: Where the samples are in the network's own arrays of one step.
    """

    state: Mapping[str, str]
    shared: frozenset[str]
    batching: Batching

    def steps(self, model: StepModel, inputs: Inputs) -> Iterator[tuple[dict[str, Array], tuple[Array, ...]]]:
        """Inputs and answers of each step, samples first.

        Args:
            model: The network.
            inputs: Input name → array (n, time, …), (n, …) for states and what is shared.

        Raises:
            DataError: If an output that feeds an input has no row a sample, or grows.
        """
        constant = {name: inputs[name] for name in self.shared}
        current = {name: inputs[name] for name in self.state.values()}
        moving = {name: array for name, array in inputs.items() if name not in constant and name not in current}
        count = min(array.shape[1] for array in moving.values())
        for step in range(count):
            read = {**constant, **current, **{name: array[:, step] for name, array in moving.items()}}
            size = len(next(iter(read.values())))
            found = model.run(self.batching.feed(read))
            answered = tuple(
                self._rows(name, array, size) for name, array in zip(model.output_names, found, strict=True)
            )
            yield read, answered
            by_name = dict(zip(model.output_names, answered, strict=True))
            for name, to in self.state.items():
                if by_name[name].shape != current[to].shape:
                    raise DataError(
                        f"--state {name}={to}: one step made {by_name[name].shape[1:]} a sample of "
                        f"{current[to].shape[1:]}, and a state keeps its shape",
                        "export the network with a state of fixed length, such as a cache whose oldest entry is "
                        f"dropped; if another axis of it counts the samples, say so with --batch-axis {name}=AXIS",
                    )
            current = {to: by_name[name] for name, to in self.state.items()}

    def _rows(self, name: str, array: Array, size: int) -> Array:
        axes = [axis for axis in self.batching.output_axes(name) if axis < array.ndim and array.shape[axis] == size]
        if axes:
            return np.moveaxis(array, axes[0], 0)
        if size == 1:
            return array[None]
        if name in self.state:
            raise DataError(
                f"--state {name}={self.state[name]}: output '{name}' has no row for each of {size} samples",
                f"say which of its axes counts them with --batch-axis {name}=AXIS",
            )
        return np.broadcast_to(array, (size, *array.shape))


class SequenceModel:
    """A compiled model that runs whole sequences; inputs are those of ``Recurrence.steps``, outputs (n, time, …)."""

    def __init__(self, compiled: CompiledModel, recurrence: Recurrence) -> None:
        self._model = compiled
        self._recurrence = recurrence

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → the batch that it is fixed to, or None."""
        return dict.fromkeys(self._model.input_shapes, (self._recurrence.batching.fixed,))

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in order."""
        return self._model.output_names

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of all steps.

        Raises:
            DataError: If one has other shapes from step to step, or as ``Recurrence.steps`` does.
        """
        answered = zip(*(outputs for _, outputs in self._recurrence.steps(self._model, inputs)), strict=True)
        return tuple(_over_time(name, steps) for name, steps in zip(self.output_names, answered, strict=True))


def _over_time(name: str, steps: Sequence[Array]) -> Array:
    """An output's answers of each step, (n, …), as (n, time, …)."""
    shapes = {step.shape[1:] for step in steps}
    if len(shapes) > 1:
        raise DataError(
            f"output '{name}' has other shapes from step to step: {', '.join(map(str, sorted(shapes)[:4]))} a sample",
            "export the network without it, or with one shape at every step",
        )
    return np.stack(steps, axis=1)


def run_sequences(compiled: CompiledModel, inputs: Inputs, recurrence: Recurrence, *, batch: int = 64) -> Outputs:
    """Run a model over sequences.

    Args:
        compiled: The model of one step.
        inputs: As for ``Recurrence.steps``; sequences of different lengths are ``core.ragged``.
        recurrence: What feeds what.
        batch: Sequences run together where the model's batch is dynamic.

    Raises:
        DataError: If an input is missing, or an output that feeds an input has no row a sample.
        BackendError: If the runtime fails.
    """
    return run_outputs(SequenceModel(compiled, recurrence), inputs, batch=batch)
