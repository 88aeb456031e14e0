"""Sequences whose steps do not fit each other: every state keeps its shape, and so does every answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from bitfront.backends.sequences import Recurrence, StepModel, run_sequences
from bitfront.core import Array, Batching, DataError, Inputs


class Cache:
    """Concatenates what it reads to the past, of which it keeps a number of entries at most; answers with their sum."""

    output_names = ("sum", "present")
    input_shapes: Mapping[str, tuple[int | None, ...]] = {"x": (None, 1), "past": (None, None)}

    def __init__(self, keeps: int) -> None:
        self._keeps = keeps

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        present = np.concatenate([inputs["past"], inputs["x"]], axis=1)
        sums = present.sum(axis=1)
        return sums, present[:, -self._keeps :]


RECURRENCE = Recurrence(state={"present": "past"}, shared=frozenset(), batching=Batching())
INPUTS = {"x": np.arange(12.0).reshape(3, 4, 1), "past": np.zeros((3, 2))}


def steps(model: StepModel) -> None:
    for _ in RECURRENCE.steps(model, INPUTS):
        pass


def test_a_state_that_grows_is_refused() -> None:
    """It is named with its shapes, and with what would do."""
    steps(Cache(2))
    with pytest.raises(DataError, match=r"--state present=past: one step made \(3,\) a sample of \(2,\)") as caught:
        steps(Cache(9))
    assert "fixed length" in caught.value.hint


def test_answers_of_other_shapes_are_refused() -> None:
    """An output that grows beside a state that does not."""

    class Growing(Cache):
        def run(self, inputs: Inputs) -> tuple[Array, ...]:
            sums, present = super().run(inputs)
            return np.repeat(sums[:, None], int(inputs["x"][0, 0]) + 1, axis=1), present

    with pytest.raises(DataError, match=r"output 'sum' has other shapes from step to step: \(1,\), \(2,\)") as caught:
        run_sequences(Growing(2), INPUTS, RECURRENCE)  # type: ignore[arg-type]
    assert caught.value.hint
    run_sequences(Cache(2), INPUTS, RECURRENCE)  # type: ignore[arg-type]
