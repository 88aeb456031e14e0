"""Cutting samples into batches and putting the outputs together again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from bitfront.backends.batches import fixed_batch, run_batches, run_outputs, sample_count
from bitfront.backends.host import HostModel
from bitfront.core import Array, Batching, DataError, Inputs
from bitfront.core.ragged import is_ragged, ragged


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
    """Inputs that insist on different batches cannot be fed; one that all samples share insists on none."""
    assert fixed_batch({"x": (None, 3), "y": (8,)}) == 8
    assert fixed_batch({"x": (4, 3), "y": (8,)}, Batching(inputs={"x": 0, "y": None})) == 4
    assert fixed_batch({"x": (4, 3), "y": (2, 4)}, Batching(inputs={"x": 0, "y": 1})) == 4
    with pytest.raises(DataError, match="different batch sizes"):
        fixed_batch({"x": (4, 3), "y": (8,)})


@pytest.mark.parametrize(
    "broken",
    [lambda double: double[:-1], lambda double: double.sum(), lambda double: double.T],
    ids=["row missing", "scalar", "axes swapped"],
)
def test_outputs_without_a_row_per_sample_are_left_out(broken: Callable[[Array], Array]) -> None:
    """An output that cannot be told apart by sample is left out, not glued together wrongly; the others are there."""
    x = _samples(5)
    (total,) = run_batches(Doubler(None, broken), {"x": x})
    np.testing.assert_array_equal(total, np.asarray(x, dtype=np.float32).sum(axis=1, keepdims=True))


class Recurrent(HostModel):
    """``y`` (time, n, 2) = ``x`` (n, 2) · ``rate`` + ``state`` (time, n, 2), and outputs without rows beside it.

    Args:
        batch: The fixed batch, or None.
        more: Further outputs, from a batch of ``x``.
    """

    def __init__(self, batch: int | None, more: Callable[[Array], Array] = lambda _: np.ones(1)) -> None:
        self.batch, self.more, self.sizes = batch, more, list[int]()

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {"x": (self.batch, 2), "rate": (), "state": (3, self.batch, 2)}

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("y", "more")

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        x, rate, state = (np.asarray(inputs[name], np.float64) for name in ("x", "rate", "state"))
        assert (x.ndim, rate.ndim, state.shape) == (2, 0, (3, len(x), 2))
        self.sizes.append(len(x))
        return x[None] * rate + state, self.more(x)

    def operators(self) -> tuple[str, ...]:
        return ()


LAYOUT = Batching(inputs={"x": 0, "rate": None, "state": 1}, outputs={"y": 1, "more": None})


def _recurrent(count: int) -> tuple[dict[str, Array], Array]:
    """Samples as the engine holds them, and the wanted ``y``."""
    x = np.asarray(_samples(count)[:, :2], np.float64)
    state = np.random.default_rng(1).normal(size=(3, count, 2))
    given = {"x": x, "rate": np.array(2.0), "state": state}
    return {name: LAYOUT.samples(name, array, count) for name, array in given.items()}, 2 * x[None] + state


@pytest.mark.parametrize("count", [1, 2, 7, 8])
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_samples_lie_where_the_network_has_them(batch: int | None, count: int) -> None:
    """Whatever the axis, each sample meets its own state and the shared rate, and outputs are joined along theirs."""
    inputs, wanted = _recurrent(count)
    y, more = run_outputs(Recurrent(batch), inputs, batch=4, batching=LAYOUT).each
    assert y.axis == 1
    np.testing.assert_array_equal(np.asarray(y.whole), wanted)
    (rows, *_) = run_batches(Recurrent(batch), inputs, batch=4, batching=LAYOUT)
    np.testing.assert_array_equal(rows, np.moveaxis(wanted, 1, 0))
    first = y.first(1).whole
    assert first is not None
    np.testing.assert_array_equal(first, wanted[:, :1])
    assert more.whole is not None


MORE: dict[str, tuple[Callable[[Array], Array], bool, bool]] = {
    # what it is → (how it comes out of a batch, has rows, can be put together)
    "constant": (lambda _: np.ones(1), False, True),
    "constant as long as a batch": (lambda _: np.ones(4), False, True),
    "constant with NaN": (lambda _: np.array([np.nan]), False, True),
    "scalar of the batch": (lambda x: x.mean(), False, False),
    "as many rows as were found": (lambda x: np.argwhere(np.asarray(x, np.float64) > 0).T, False, False),
    "rows that the file does not declare": (lambda x: x[:, :1], True, True),
}


@pytest.mark.parametrize("case", MORE)
@pytest.mark.parametrize("count", [4, 8, 11])
def test_what_declares_no_batch_axis_is_told_by_running(case: str, count: int) -> None:
    """A constant, a value of the batch and undeclared rows are told apart, even where whole batches fit exactly."""
    make, has_rows, joins = MORE[case]
    inputs, _ = _recurrent(count)
    ran = run_outputs(Recurrent(None, make), inputs, batch=4, batching=LAYOUT)
    more = ran.each[1]
    assert (more.axis == 0) == has_rows
    assert (more.whole is not None) == joins
    assert (ran.whole is not None) == joins
    if has_rows:
        np.testing.assert_array_equal(np.asarray(more.whole), np.asarray(inputs["x"])[:, :1])
    if case.startswith("constant"):
        np.testing.assert_array_equal(np.asarray(more.whole), make(np.zeros((1, 2))))


def test_no_output_with_rows() -> None:
    """Where no output has a row a sample there is nothing to compare."""
    with pytest.raises(DataError, match=r"no output has a row for each of 5 samples; the shapes are 'double' \(\)"):
        run_batches(OnlyScalar(), {"x": _samples(5)})


class OnlyScalar(Doubler):
    """A mean over the batch, nothing else."""

    def __init__(self) -> None:
        super().__init__(None)

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("double",)

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        return (np.asarray(inputs["x"], np.float64).mean(),)


class Counting(HostModel):
    """One run is one sample (length, 2): its sum, and its values without a batch axis."""

    def __init__(self) -> None:
        self.runs = 0

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {"x": (None, 2)}

    @property
    def output_names(self) -> tuple[str, ...]:
        return ("sum", "values", "row")

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        x = np.asarray(inputs["x"], np.float64)
        self.runs += 1
        return x.sum(), x, x[:1] * 0 + self.runs

    def operators(self) -> tuple[str, ...]:
        return ()


@pytest.mark.parametrize("lengths", [(3, 3, 3), (2, 4, 3)])
def test_where_a_run_is_a_sample_its_output_is_the_row(lengths: tuple[int, ...]) -> None:
    """Outputs of any shape are stacked, or a list where shapes differ; one that counts samples is joined as ever."""
    samples = [np.full((length, 2), float(index)) for index, length in enumerate(lengths)]
    layout = Batching(inputs={"x": None}, outputs={"sum": None, "values": None, "row": None}, fixed=1)
    alike = len(set(lengths)) == 1
    x: Array = np.stack(samples) if alike else ragged(samples)
    model = Counting()
    total, values, row = run_outputs(model, {"x": x}, batching=layout).each
    assert model.runs == len(lengths)
    assert total.whole is not None
    np.testing.assert_array_equal(total.whole, [sample.sum() for sample in samples])
    assert values.whole is not None
    assert len(values.whole) == len(lengths)
    assert is_ragged(values.whole) != alike
    for found, sample in zip(values.whole, samples, strict=True):
        np.testing.assert_array_equal(found, sample)
    assert values.rows is not None
    assert values.rows.shape == (len(lengths), max(lengths), 2)
    first = values.first(2).whole
    assert first is not None
    assert len(first) == 2
    assert row.axis == 0
    assert row.whole is not None
    np.testing.assert_array_equal(row.whole[:, 0], np.arange(1, len(lengths) + 1))
