"""Cutting samples into batches and putting the outputs together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from backends.batches import fixed_batch, run_batches, sample_count
from backends.host import HostModel
from precision import Array, DataError, Inputs


class Doubler(HostModel):
    """Doubles ``x`` and sums it per sample; records the batches it was given."""

    def __init__(self, batch: int | None, broken: Callable[[Array], Array] | None = None) -> None:
        self.batches: list[int] = []
        self._batch = batch
        self._broken = broken

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {"x": (self._batch, 3)}

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("double", "sum")

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        x = np.asarray(inputs["x"], dtype=np.float32)
        assert set(inputs) == {"x"}
        self.batches.append(len(x))
        double: Array = x * 2
        return (self._broken(double) if self._broken else double, x.sum(axis=1, keepdims=True))

    def operators(self) -> tuple[str, ...]:
        return ("Mul", "ReduceSum")


def _samples(count: int) -> Array:
    return np.random.default_rng(0).normal(size=(count, 3)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 4, 7, 8, 9])
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_batching_does_not_change_results(batch: int | None, count: int) -> None:
    """However samples are cut, the outputs are those of all samples at once, in order."""
    x = _samples(count)
    double, total = run_batches(Doubler(batch), {"x": x}, batch=4)
    np.testing.assert_array_equal(double, np.asarray(x, dtype=np.float32) * 2)
    np.testing.assert_array_equal(total, np.asarray(x, dtype=np.float32).sum(axis=1, keepdims=True))


def test_fixed_batches_are_kept_and_dynamic_ones_are_not_padded() -> None:
    """A fixed batch sees only its own size; a dynamic one never runs a sample that was not asked for."""
    fixed, dynamic = Doubler(4), Doubler(None)
    run_batches(fixed, {"x": _samples(7)}, batch=64)
    run_batches(dynamic, {"x": _samples(7)}, batch=4)
    assert fixed.batches == [4, 4]
    assert dynamic.batches == [4, 3]


def test_extra_arrays_are_left_out() -> None:
    """Arrays that the model has no input for never reach it."""
    assert run_batches(Doubler(None), {"x": _samples(2), "unused": _samples(2)})[0].shape == (2, 3)


def test_missing_input_is_named() -> None:
    """An input without an array is a DataError that names it."""
    with pytest.raises(DataError, match="no array for the network's input 'x'; got y"):
        run_batches(Doubler(None), {"y": _samples(2)})


def test_samples_must_exist_and_agree() -> None:
    """No samples, and arrays of different lengths, are refused."""
    with pytest.raises(DataError, match="at least one sample"):
        run_batches(Doubler(None), {"x": _samples(0)})
    with pytest.raises(DataError, match="'x' has 2, 'y' has 3"):
        sample_count({"x": _samples(2), "y": _samples(3)})


def test_contradictory_fixed_batches_are_refused() -> None:
    """Inputs that insist on different batches cannot be fed."""
    assert fixed_batch({"x": (None, 3), "y": (8,)}) == 8
    with pytest.raises(DataError, match="different first axes"):
        fixed_batch({"x": (4, 3), "y": (8,)})


@pytest.mark.parametrize(
    "broken",
    [lambda double: double[:-1], lambda double: double.sum(), lambda double: double.T],
    ids=["row missing", "scalar", "axes swapped"],
)
def test_outputs_without_a_row_per_sample_are_refused(broken: Callable[[Array], Array]) -> None:
    """An output that cannot be told apart by sample is refused, not glued together wrongly."""
    with pytest.raises(DataError, match="output 'double': expected one row for each of 5 samples"):
        run_batches(Doubler(None, broken), {"x": _samples(5)})
