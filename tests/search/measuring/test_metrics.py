"""A person's metric: what is accepted, what is refused, and that it is tried before anything expensive."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from bitfront.backends.batches import Output, Outputs
from bitfront.core import Array, Labelled, Metric, WorkloadError, as_metric, top1
from bitfront.search.inputs.validate_inputs import try_metric
from bitfront.search.measuring.metrics import call, score

HITS = np.array([1.0, 0.0, 1.0, 1.0])
LABELS = np.arange(4)
LOGITS = np.eye(4, dtype=np.float32)[[0, 2, 2, 3]]

ACCEPTED: dict[str, object] = {
    "floats": HITS,
    "float32": HITS.astype(np.float32),
    "big-endian": HITS.astype(">f8"),
    "booleans": HITS > 0,
    "whole numbers": HITS.astype(np.int64),
    "list": [1, 0, 1, 1],
    "list of booleans": [True, False, True, True],
    "one column": HITS[:, None],
    "tensor": torch.from_numpy(HITS),
    "boolean tensor with gradient around": torch.from_numpy(HITS > 0),
    "tensor that needs a gradient": torch.from_numpy(HITS).requires_grad_(),
}


@pytest.mark.parametrize("form", ACCEPTED)
def test_scores_in_any_form(form: str) -> None:
    """Scores that are unambiguous are accepted, one a sample."""
    scores = call(as_metric(lambda *_: ACCEPTED[form]), (LOGITS,), LABELS, "x")  # type: ignore[arg-type]
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(scores, HITS)


@pytest.mark.parametrize("form", [0.75, np.float32(0.75), np.array(0.75), torch.tensor(0.75)], ids=type)
def test_one_number_in_any_form(form: object) -> None:
    """One number for all samples is a number, in whatever form."""
    scores = call(as_metric(lambda *_: form), (LOGITS,), LABELS, "x")  # type: ignore[arg-type]
    assert scores.shape == ()
    assert float(scores) == 0.75


def generator(*_: object) -> Iterator[float]:
    yield 1.0


async def waiting(*_: object) -> float:
    return 1.0


def leave(*_: object) -> float:
    sys.exit(3)


def stop(*_: object) -> float:
    raise StopIteration


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def unspeakable(*_: object) -> float:
    raise Unspeakable


def in_library(outputs: tuple[Array, ...], _: Array) -> Array:
    return np.concatenate([outputs[0], np.zeros(3)])


REFUSED: dict[str, tuple[Any, str]] = {
    "None": (lambda *_: None, "gave None, expected scores"),
    "text": (lambda *_: "high", "its result is a str, expected an array"),
    "mapping": (lambda *_: {"top1": HITS}, "its result is a dict, expected an array"),
    "a tuple of arrays": (lambda *_: (HITS, HITS), r"got an array of shape \(2, 4\)"),
    "ragged": (lambda *_: [[1.0], [1.0, 2.0]], "is a list that is no array of numbers"),
    "masked": (lambda *_: np.ma.masked_array(HITS, mask=HITS > 0), "3 entries are masked"),
    "complex": (lambda *_: HITS * 1j, "holds complex numbers"),
    "matrix": (lambda *_: np.zeros((4, 2)), r"got an array of shape \(4, 2\)"),
    "a row": (lambda *_: HITS[None], r"got an array of shape \(1, 4\)"),
    "too many": (lambda *_: np.zeros(5), "expected 4 finite scores"),
    "NaN": (lambda *_: np.full(4, np.nan), "with 4 NaN"),
    "infinite number": (lambda *_: np.inf, "with 1 NaN or infinite"),
    "beyond addition": (lambda *_: np.full(4, 1e300), r"gave 1e\+300, expected scores between -1e\+100"),
    "generator": (generator, "gave a generator"),
    "coroutine": (waiting, "gave a coroutine"),
    "exit": (leave, r"failed at .*test_metrics\.py:\d+: SystemExit: 3"),
    "stop": (stop, r"failed at .*test_metrics\.py:\d+: StopIteration"),
    "exception that fails": (unspeakable, r"test_metrics\.py:\d+: Unspeakable: \(it cannot be shown\)"),
    "library": (in_library, r"failed at .*test_metrics\.py:\d+: ValueError: all the input"),
    "index": (lambda o, _: o[1], r"\(outputs \(4, 4\), labels \(4,\)\) failed at .*test_metrics\.py:\d+: IndexError"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_metric_may_not_do(case: str) -> None:
    """Whatever a metric gives or raises is an error that names the samples, and the line of the person's own code."""
    metric, message = REFUSED[case]
    with pytest.raises(WorkloadError, match=f"(?s)the metric on the data.*{message}"):
        call(as_metric(metric), (LOGITS,), LABELS, "the data")


def test_ctrl_c_stays_ctrl_c() -> None:
    """An interruption while a metric runs is one."""

    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(as_metric(interrupted), (LOGITS,), LABELS, "x")


def test_labels_are_safe_from_a_metric() -> None:
    """A metric that computes in place spoils neither the labels nor its own second trial."""

    def spoiling(outputs: tuple[Array, ...], labels: Array) -> Array:
        scores = np.asarray(top1(outputs, labels))
        labels[:] = 0
        np.asarray(outputs[0], dtype=np.float32)[:] = 0
        return scores

    labels = LABELS.copy()
    assert try_metric(as_metric(spoiling), answers(), Labelled(inputs={}, labels=labels), "x") == 0.75
    np.testing.assert_array_equal(labels, LABELS)


def answers() -> Outputs:
    return Outputs(each=(Output(name="y", axis=0, parts=(LOGITS.copy(),)),), counts=(4,))


def test_outputs_without_rows_come_batch_by_batch() -> None:
    """Where an output differs from run to run without rows, the metric gets each run as it was, and joins scores."""
    loose = Output(name="found", axis=None, parts=(np.array([7.0]), np.array([8.0])))
    rows = Output(name="y", axis=0, parts=(LOGITS[:3], LOGITS[3:]))
    outputs = Outputs(each=(rows, loose), counts=(3, 1))
    seen: list[tuple[tuple[int, ...], float, list[int]]] = []

    def metric(found: tuple[Array, ...], labels: Array) -> Array:
        seen.append((found[0].shape, float(found[1][0]), labels.tolist()))
        return np.asarray(top1(found, labels))

    np.testing.assert_array_equal(score(as_metric(metric), outputs, LABELS, "x"), HITS)
    assert seen == [((3, 4), 7.0, [0, 1, 2]), ((1, 4), 8.0, [3])]
    with pytest.raises(WorkloadError, match=r"output 'found' has no row for each sample.*one number for a batch"):
        score(as_metric(lambda *_: 0.5), outputs, LABELS, "x")


def drawing() -> Callable[..., Array]:
    rng = np.random.default_rng(0)
    return lambda *_: rng.random(len(LABELS))


def counting() -> Callable[..., float]:
    calls = itertools.count()
    return lambda *_: float(next(calls))


TRIALS: dict[str, tuple[Callable[..., Any], str]] = {
    "random scores": (drawing(), "gave 4 scores, mean .* for outputs that it gave 4 scores"),
    "a number that grows": (counting(), "gave the number 0 for outputs that it gave the number 1"),
    "as many as the first time": (lambda *_: np.zeros(4), "expected 2 finite scores"),
    "a number for few": (
        lambda _, labels: HITS if len(labels) == 4 else 0.5,
        "gave 4 scores, mean 0.75 for 4 samples and the number 0.5 for 2",
    ),
}


@pytest.mark.parametrize("case", TRIALS)
def test_a_trial_shows_what_would_spoil_a_search(case: str) -> None:
    """Scores that change from call to call, or with the number of samples, are refused on the first few."""
    metric, message = TRIALS[case]
    with pytest.raises(WorkloadError, match=message):
        try_metric(as_metric(metric), answers(), Labelled(inputs={}, labels=LABELS), "x")


def test_a_trial_forgives_last_bits() -> None:
    """Sums on several threads differ in their last bits."""
    calls = itertools.count()
    assert try_metric(
        as_metric(lambda *_: 0.75 + 1e-9 * next(calls)), answers(), Labelled(inputs={}, labels=LABELS), "x"
    ) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("declared", "gives", "message"),
    [
        ({"per_sample": True}, 0.5, "gave one number, but declares per_sample=True"),
        ({"per_sample": False}, HITS, "gave one score a sample, but declares per_sample=False"),
        ({"bounds": (0.0, 1.0)}, 100 * HITS, "gave 100, but declares bounds from 0 to 1"),
        ({"bounds": (0.0, 9.0)}, -0.5, "gave -0.5, but declares bounds from 0 to 9"),
    ],
)
def test_what_a_metric_gives_is_what_it_declares(declared: dict[str, Any], gives: Any, message: str) -> None:
    """Kind of scores and bounds; the last bits of a rounded sum are forgiven."""
    metric = Metric(name="mine", compute=lambda *_: gives, **declared)
    with pytest.raises(WorkloadError, match=message):
        call(metric, (LOGITS,), LABELS, "x")
    forgiven = Metric(name="mine", compute=lambda *_: 1.0 + 1e-9, bounds=(0.0, 1.0))
    assert float(call(forgiven, (LOGITS,), LABELS, "x")) == pytest.approx(1.0)
