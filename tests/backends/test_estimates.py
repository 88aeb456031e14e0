"""The maths of paired timing, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.backends.estimates import (
    median_interval,
    paired_ratios,
    pooled_median_interval,
    relative_half_width,
    round_medians,
    round_order,
    runs_per_slot,
    summarise,
    undisturbed_rounds,
)

_REFERENCE = np.array([[10, 12, 11], [20, 22, 21], [40, 44, 42]], np.int64)
_MODEL = np.array([[5, 6, 90], [11, 10, 9], [21, 1, 22]], np.int64)


def test_ratios_pair_medians_of_the_same_round() -> None:
    """Medians 11, 21, 42 and 6, 10, 21: ratios 6/11, 10/21 and 1/2, whatever the machine's speed in each round."""
    np.testing.assert_array_equal(round_medians(_REFERENCE), [11, 21, 42])
    np.testing.assert_allclose(paired_ratios(_MODEL, _REFERENCE), [6 / 11, 10 / 21, 0.5], rtol=1e-12)


def test_the_ratio_is_not_that_of_overall_medians() -> None:
    """Planted bug: overall medians, 10 over 21, are another number than the median of ratios, 0.5."""
    stats = summarise({"fp32": _REFERENCE, "m": _MODEL}, "fp32", threads=1, batch_size=1)
    assert stats["m"].ratio == 0.5
    assert float(np.median(_MODEL) / np.median(_REFERENCE)) != pytest.approx(0.5, rel=0.01)


def test_summary_is_over_all_runs_in_milliseconds() -> None:
    """Median and 90th percentile of all runs, from ns to ms."""
    times = np.arange(1, 12, dtype=np.int64).reshape(11, 1) * 1_000_000
    stats = summarise({"m": times}, "m", threads=3, batch_size=4)["m"]
    assert (stats.median_ms, stats.p90_ms, stats.rounds) == (6.0, 10.0, 11)
    assert (stats.ratio, stats.threads, stats.batch_size) == (1.0, 3, 4)


def test_models_may_have_different_numbers_of_runs() -> None:
    """Only rounds are shared; a fast model has more runs in each."""
    fast = np.full((3, 7), 10, np.int64)
    np.testing.assert_allclose(paired_ratios(fast, _REFERENCE), [10 / 11, 10 / 21, 10 / 42])


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    """Runs of 0 ns count as 1 ns."""
    zero = np.zeros((3, 2), np.int64)
    np.testing.assert_array_equal(paired_ratios(zero, zero), [1, 1, 1])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """About 95 % of intervals hold the true median; the same oracle refuses intervals of half and twice the width."""
    rng = np.random.default_rng(0)
    # Medians of 25 normal values, whose true median is 0.
    low, high = np.array([median_interval(rng.normal(size=25)) for _ in range(200)]).T

    def right(width: float) -> bool:
        middle, half = (low + high) / 2, (high - low) / 2 * width
        return 0.91 <= float(np.mean(np.abs(middle) <= half)) <= 0.985

    assert right(1.0)
    assert not right(0.5)
    assert not right(2.0)


def test_rounds_are_drawn_whole() -> None:
    """Runs of a round that share one disturbance count as one observation: many runs don't shrink the interval."""
    levels = np.random.default_rng(1).integers(1000, 2000, size=(20, 1))
    few, many = levels.repeat(2, axis=1), levels.repeat(50, axis=1)
    assert pooled_median_interval(many) == pooled_median_interval(few)
    low, high = pooled_median_interval(many)
    single_low, single_high = pooled_median_interval(many.reshape(-1, 1))  # planted: single runs drawn
    assert (single_high - single_low) < 0.5 * (high - low)


def test_half_width_of_a_ratio() -> None:
    """The width is that of the ratio, which a shared disturbance leaves alone; of the reference itself, its own."""
    steady = np.full((12, 1), 100, np.int64)
    shaky = np.array([[80], [120]] * 6, np.int64)
    assert relative_half_width(steady, steady) == 0
    assert relative_half_width(shaky, steady) > 0.05
    assert relative_half_width(shaky * 2, shaky) == 0
    assert relative_half_width(shaky, shaky) > 0.05


def test_rounds_count_in_pairs_and_for_both_models() -> None:
    """A round counts if neither model was disturbed in it nor in its mirrored partner; choosing by one would bias."""
    reference = np.array([[100], [100], [100], [150], [100], [100], [100]], np.int64)
    model = np.array([[50], [51], [50], [50], [50], [70], [50]], np.int64)
    assert undisturbed_rounds(model, reference, None).tolist() == [True, True, False, False, False, False, False]
    assert not undisturbed_rounds(model, reference, 50e-6).any()
    rng = np.random.default_rng(0)
    noisy = [(level * rng.lognormal(sigma=0.2, size=(4000, 1))).astype(np.int64) for level in (10**6, 10**6)]
    fair = noisy[0][undisturbed_rounds(noisy[0], noisy[1], None)]
    assert np.median(fair) == pytest.approx(np.median(noisy[1][undisturbed_rounds(noisy[1], noisy[0], None)]), rel=0.02)
    by_reference_alone = noisy[1] <= 1.1 * np.quantile(noisy[1], 0.1)  # planted
    assert np.median(noisy[0][by_reference_alone] / noisy[1][by_reference_alone]) > 1.1


@pytest.mark.parametrize(
    ("pilot_ns", "slot_ns", "most", "expected"),
    [(1e6, 5e6, 32, 5), (1e6, 5.1e6, 32, 6), (9e6, 5e6, 32, 1), (1e3, 5e6, 32, 32), (0.0, 5e6, 32, 32)],
)
def test_slots_are_filled(pilot_ns: float, slot_ns: float, most: int, expected: int) -> None:
    """Runs that fill the slot, rounded up, within the limits."""
    assert runs_per_slot(pilot_ns, slot_ns, most) == expected


@given(count=st.integers(1, 7), start=st.integers(0, 20))
def test_every_model_takes_every_place(count: int, start: int) -> None:
    """Each round runs every model once; over 2 · count rounds each model takes each place twice."""
    rounds = [round_order(count, 2 * start + number) for number in range(2 * count)]
    assert all(sorted(order) == list(range(count)) for order in rounds)
    for place in range(count):
        taken = sorted(order[place] for order in rounds)
        assert taken == sorted([*range(count), *range(count)])


def test_results_repeat() -> None:
    """The bootstrap is seeded: the same times give the same statistics."""
    first, second = (summarise({"r": _REFERENCE, "m": _MODEL}, "r", threads=1, batch_size=1) for _ in range(2))
    assert first == second
