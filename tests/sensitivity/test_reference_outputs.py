"""Outputs kept run by run: the divergences are those of whole outputs, and memory does not grow with the samples."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from bitfront.backends.batches import FIRST_AXIS
from bitfront.backends.host import HostModel
from bitfront.core import Array, Batching, DataError, Inputs
from bitfront.sensitivity import divergence as divergence_module
from bitfront.sensitivity import reference_outputs
from bitfront.sensitivity.divergence import DivergenceFrom, divergence
from bitfront.sensitivity.divergence_metric import OutputForm, OutputReading, choose_divergence_metric
from bitfront.sensitivity.reference_outputs import ReferenceOutputs

Function = Callable[[Array], tuple[Array, ...]]
INPUTS = {"x": np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)}
READ = (OutputReading(kind="classes", axis=2), OutputReading(kind="values"), OutputReading(kind="classes"))
SINGLE = Batching(inputs={"x": 0}, outputs={"y": None}, fixed=1)


class Model(HostModel):
    """Outputs of a function of ``x``; notes how many samples each run had."""

    def __init__(self, function: Function, batch: int | None = None) -> None:
        self._function = function
        self._batch = batch
        self.runs: list[int] = []

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {"x": (self._batch, 6)}

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(f"y{index}" for index in range(len(self._function(INPUTS["x"][:1]))))

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        self.runs.append(len(inputs["x"]))
        return self._function(inputs["x"])

    def operators(self) -> tuple[str, ...]:
        return ()


def _head(classes: int, noise: float) -> Function:
    """Logits of two positions and, beside them, numbers and integers."""
    weights = np.random.default_rng(1).standard_normal((6, 2, classes)).astype(np.float32)
    weights = weights + np.float32(noise) * np.random.default_rng(2).standard_normal(weights.shape).astype(np.float32)

    def run(x: Array) -> tuple[Array, ...]:
        logits = np.tensordot(np.asarray(x, np.float32), weights, 1)
        return logits, logits[:, 0] * np.float32(7), logits.argmax(-1)

    return run


def _by_runs(metric: str, one: Model, other: Model, batching: Batching = FIRST_AXIS) -> Array:
    kept = ReferenceOutputs(one, INPUTS, batching)
    taken = DivergenceFrom(metric, kept.parts)
    return np.concatenate([taken.of(*pair) for pair in kept.beside(other)])


@pytest.mark.parametrize("metric", ["kl:2,-,-", "-,nsr,-", "-,-,changed", "kl:2,nsr,changed"])
@pytest.mark.parametrize("batch", [None, 7])
def test_runs_of_few_samples_score_as_all_at_once(
    metric: str, batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fits into a run, and wherever the reference is kept."""
    reference, candidate = _head(50, 0), _head(50, 0.1)
    whole = divergence(metric, reference(INPUTS["x"]), candidate(INPUTS["x"]))
    assert whole.min() >= 0 < whole.max()
    assert _by_runs(metric, Model(reference), Model(candidate)) == pytest.approx(whole, rel=1e-5)
    monkeypatch.setattr(reference_outputs, "_RUN_BYTES", 3000)  # four samples of 616 bytes
    monkeypatch.setattr(reference_outputs, "_IN_MEMORY", 1000)
    monkeypatch.setattr(divergence_module, "_ENTRIES", 60)
    one, other = Model(reference, batch), Model(candidate, batch)
    assert _by_runs(metric, one, other) == pytest.approx(whole, rel=1e-5)
    assert other.runs == ([4] * 10 if batch is None else [7] * 6)


def test_memory_does_not_grow_with_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head of many classes: neither network's logits are ever whole."""
    classes = 20_000
    run_bytes = 4 * 2 * 2 * classes  # of the logits of two samples; numbers and integers add to them
    monkeypatch.setattr(reference_outputs, "_RUN_BYTES", run_bytes * 2)
    monkeypatch.setattr(reference_outputs, "_IN_MEMORY", 1000)
    monkeypatch.setattr(divergence_module, "_ENTRIES", classes)
    one, other = Model(_head(classes, 0)), Model(_head(classes, 0.1))
    tracemalloc.start()
    kept = ReferenceOutputs(one, INPUTS, FIRST_AXIS)
    metric = choose_divergence_metric(READ, kept.forms, 40)
    taken = DivergenceFrom(metric, kept.parts)
    for pair in kept.beside(other):
        taken.of(*pair)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert metric == "kl:2,nsr,changed"
    assert peak < 15 * run_bytes < 40 / 2 * run_bytes


def test_rows_of_different_lengths_are_repeated_to_the_longest() -> None:
    """As of the whole output, so that both networks' rows have one shape."""

    def words(x: Array) -> tuple[Array, ...]:
        return (np.repeat(x[0], 1 + int(x[0, 0] > 0))[None] if x[0, 1] > 0 else x,)

    kept = ReferenceOutputs(Model(words, 1), INPUTS, SINGLE)
    assert {part[0].shape for part in kept.parts()} == {(1, 12)}
    first = next(part[0] for part, x in zip(kept.parts(), INPUTS["x"], strict=True) if x[1] <= 0)
    assert np.array_equal(first[0, :6], first[0, 6:])


def test_another_networks_outputs_are_refused() -> None:
    """Of other shape or rank than the FP32 network's."""
    for wrong in (lambda x: (x[:, :5],), lambda x: (x[:, :, None],), lambda x: (x[:, 0],)):
        with pytest.raises(DataError, match="the FP32 network"):
            _by_runs("nsr", Model(lambda x: (x,)), Model(wrong))


def test_outputs_without_rows_are_named() -> None:
    """A network that answers once for all samples cannot be scored."""
    with pytest.raises(DataError, match="no output has a row for each of 40 samples; the shapes are 'y0' \\(3,\\)"):
        ReferenceOutputs(Model(lambda _: (np.ones(3, np.float32),)), INPUTS, FIRST_AXIS)


def test_words_are_kept() -> None:
    """Strings, as arrays of objects or of fixed width, change or do not."""
    for kind in (object, np.str_):

        def answer(x: Array, kind: type = kind, flip: bool = False) -> tuple[Array, ...]:
            return (np.where((np.asarray(x, np.float32)[:, :1] > 0) != flip, "yes", "no").astype(kind),)

        assert _by_runs("changed", Model(answer), Model(answer)).max() == 0
        assert _by_runs("changed", Model(answer), Model(lambda x: answer(x, flip=True))).min() == 1


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_forms_of_parts_make_that_of_the_whole(cut: int) -> None:
    """Shape, type and constancy, whether it is the parts that vary or one beside the other."""
    for whole in (np.ones((6, 2)), np.arange(6), np.repeat([[1.0], [2.0]], [cut, 6 - cut], axis=0), np.zeros((6, 0))):
        found, expected = OutputForm.of(whole[:cut]).followed_by(OutputForm.of(whole[cut:])), OutputForm.of(whole)
        assert (found.shape, found.floating, found.constant) == (expected.shape, expected.floating, expected.constant)
