"""Divergences, against SciPy and hand-computed cases; the oracles are proved by planted bugs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import entropy

from bitfront.core import Array, DataError
from bitfront.sensitivity.divergence import divergence, kl_divergence, noise_to_signal

Floats = NDArray[np.float64]
Rule = Callable[[Floats, Floats], Floats]


def _kl(reference: Floats, output: Floats) -> float:
    return float(kl_divergence(reference, output).mean())


def _nsr(reference: Floats, output: Floats) -> float:
    return float(noise_to_signal(reference, output).mean())


def _logits(seed: int, rows: int = 6, classes: int = 4) -> Floats:
    return np.random.default_rng(seed).normal(size=(rows, classes)) * 3


def _check_kl(rule: Rule) -> None:
    """The oracle: SciPy's entropy of SciPy's softmax, sample by sample."""
    reference, output = _logits(0), _logits(1)
    expected = entropy(softmax(reference, axis=1), softmax(output, axis=1), axis=1)
    assert rule(reference, output) == pytest.approx(expected, rel=1e-9)


def test_kl_matches_scipy() -> None:
    """KL of logits is that of their softmax over classes, a number a sample, FP32 first."""
    _check_kl(kl_divergence)


@pytest.mark.parametrize(
    "broken",
    [
        lambda reference, output: kl_divergence(output, reference),
        lambda reference, output: kl_divergence(reference.T, output.T),
        lambda reference, output: np.broadcast_to(kl_divergence(reference, output).mean(), len(reference)),
        lambda reference, output: kl_divergence(reference, output) / math.log(2),
        lambda reference, output: kl_divergence(softmax(reference, axis=1) * 2, softmax(output, axis=1) * 2),
    ],
    ids=["arguments swapped", "softmax over samples", "mean over samples", "bits", "softmax twice"],
)
def test_kl_oracle_rejects_bugs(broken: Rule) -> None:
    """KL's oracle fails on planted bugs."""
    with pytest.raises(AssertionError):
        _check_kl(broken)


def test_kl_of_a_hand_computed_case() -> None:
    """Probabilities (3/4, 1/4) against (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2."""
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert _kl(np.array([[0.75, 0.25]]), np.array([[0.5, 0.5]])) == pytest.approx(expected)
    assert _kl(np.log([[3.0, 1.0]]), np.log([[7.0, 7.0]])) == pytest.approx(expected)


def test_probabilities_and_their_logits_score_alike() -> None:
    """Outputs that already are probabilities are not put through softmax again, nor need the candidate's sum to 1."""
    reference, output = _logits(0), _logits(1)
    expected = _kl(reference, output)
    assert _kl(softmax(reference, axis=1), softmax(output, axis=1)) == pytest.approx(expected, rel=1e-4)
    assert _kl(softmax(reference, axis=1), softmax(output, axis=1) * 0.97) == pytest.approx(expected, rel=1e-4)


def test_kl_ignores_a_shift_of_logits_and_extremes() -> None:
    """Adding a constant to a row changes nothing, and neither huge logits nor zero probabilities overflow."""
    reference, output = _logits(0), _logits(1)
    assert _kl(reference + 1e4, output - 1e4) == pytest.approx(_kl(reference, output), rel=1e-6)
    assert _kl(np.array([[1e5, 0.0]]), np.array([[0.0, 1e5]])) == pytest.approx(1e5)
    assert _kl(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])) == pytest.approx(math.log(1e7), rel=1e-3)


def _check_nsr(rule: Rule) -> None:
    """The oracle: 3² and 4² of noise over half of 1 + 4 + 9 + 16 of signal, and 10 % off, which is 20 dB."""
    reference = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert rule(reference, np.array([[4.0, 2.0], [3.0, 0.0]])) == pytest.approx(np.array([9 / 15, 16 / 15]))
    assert float(rule(reference, reference * 1.1).mean()) == pytest.approx(0.01)


def test_nsr_is_a_power_ratio() -> None:
    """NSR is noise power over the reference's power; 10 % off is 20 dB."""
    _check_nsr(noise_to_signal)


@pytest.mark.parametrize(
    "broken",
    [
        lambda reference, output: noise_to_signal(output, reference),
        lambda reference, output: np.sqrt(noise_to_signal(reference, output)),
        lambda reference, output: np.sum((reference - output) ** 2, axis=1),
        lambda reference, output: np.sum((reference - output) ** 2, axis=1) / np.sum(reference**2, axis=1),
    ],
    ids=["arguments swapped", "amplitude ratio", "no signal", "each sample's own signal"],
)
def test_nsr_oracle_rejects_bugs(broken: Rule) -> None:
    """NSR's oracle fails on planted bugs."""
    with pytest.raises(AssertionError):
        _check_nsr(broken)


def test_nsr_at_the_limits() -> None:
    """Squares neither overflow nor vanish; a zero reference is unchanged or infinitely noisy."""
    for size in (1e-200, 1e200):
        reference = np.full((2, 2), size)
        assert _nsr(reference, reference * 1.1) == pytest.approx(0.01)
    assert _nsr(np.zeros((2, 2)), np.zeros((2, 2))) == 0
    assert _nsr(np.zeros((2, 2)), np.ones((2, 2))) == math.inf


@given(
    arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (3, 4), elements=st.floats(-100, 100, width=32)),
)
def test_divergences_are_never_negative(reference: Array, output: Array) -> None:
    """Both metrics are 0 for unchanged outputs and not negative otherwise."""
    for metric in ("kl", "nsr"):
        assert not divergence(metric, (reference,), (reference,)).any()
        assert (divergence(metric, (reference,), (output,)) >= 0).all()


def test_several_outputs() -> None:
    """KL is summed over heads, NSR is the mean over its outputs, and what is unread is ignored."""
    heads, others = (_logits(0), _logits(1)), (_logits(2), _logits(3))
    first, second = kl_divergence(heads[0], others[0]), kl_divergence(heads[1], others[1])
    image, noisy = np.ones((6, 2, 2, 2)), np.full((6, 2, 2, 2), 9.0)
    assert divergence("kl,kl,-", (*heads, image), (*others, noisy)) == pytest.approx(first + second)
    assert divergence("nsr,nsr", (image, image), (image * 1.1, image)) == pytest.approx(np.full(6, 0.005))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_broken_outputs(value: float) -> None:
    """A sample whose output is NaN or infinite scores NaN by either measure; the reference's NaN and ∞ are errors."""
    good, bad = _logits(0), _logits(0)
    bad[2, 1] = value
    for metric in ("kl", "nsr"):
        assert np.flatnonzero(np.isnan(divergence(metric, (good,), (bad,)))).tolist() == [2]
        if value == -np.inf:
            continue  # rules an entry out
        with pytest.raises(DataError, match="FP32 network's outputs hold NaN or infinity"):
            divergence(metric, (bad,), (good,))


def test_shapes_must_agree() -> None:
    """Outputs of other shapes than the FP32 network's are refused, not broadcast."""
    with pytest.raises(DataError, match=r"shapes \[\(6, 1\)\]"):
        divergence("nsr", (_logits(0),), (_logits(0)[:, :1],))


def test_positions_are_averaged() -> None:
    """(n, positions, classes) and (n, classes, h, w) are the mean over positions of each position's KL."""
    rng = np.random.default_rng(4)
    wanted, found = rng.normal(size=(2, 5, 7, 3))
    each = [kl_divergence(wanted[:, at], found[:, at]) for at in range(7)]
    assert divergence("kl:2", (wanted,), (found,)) == pytest.approx(np.mean(each, axis=0))
    maps = [np.moveaxis(array, 2, 1).reshape(5, 3, 7, 1) for array in (wanted, found)]
    assert divergence("kl:1", (maps[0],), (maps[1],)) == pytest.approx(np.mean(each, axis=0))
    assert divergence("kl:1", (wanted,), (found,)) != pytest.approx(np.mean(each, axis=0)), "another axis must show"


def test_entries_that_are_ruled_out() -> None:
    """−∞ in the reference has no part in either measure, and the others are measured as without it."""
    wanted, found = _logits(1), _logits(2)
    more = [np.concatenate([array, np.full((6, 1), -np.inf)], axis=1) for array in (wanted, found)]
    for metric in ("kl", "nsr"):
        assert divergence(metric, (more[0],), (more[1],)) == pytest.approx(divergence(metric, (wanted,), (found,)))
    more[1][3, -1] = 0.5
    assert np.isfinite(divergence("kl", (more[0],), (more[1],))).all()


def test_changed_answers() -> None:
    """Integers and words are compared entry by entry."""
    answers = np.array([[1, 2], [3, 4], [5, 6]])
    other = np.array([[1, 2], [3, 0], [0, 0]])
    assert divergence("changed", (answers,), (other,)).tolist() == [0, 0.5, 1]
    assert divergence("changed", (answers.astype(str),), (other.astype(str),)).tolist() == [0, 0.5, 1]
    assert divergence("nsr,changed", (np.ones((3, 2)), answers), (np.ones((3, 2)), other)).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("divergence_metric", ["kl:2", "nsr"])
def test_large_outputs_are_taken_in_parts(divergence_metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers, a sample or all of them at a time."""
    wanted, found = np.random.default_rng(4).normal(size=(2, 9, 4, 11)).astype(np.float32)
    whole = divergence(divergence_metric, (wanted,), (found,))
    monkeypatch.setattr("bitfront.sensitivity.divergence._ENTRIES", 100)
    assert divergence(divergence_metric, (wanted,), (found,)) == pytest.approx(whole)
