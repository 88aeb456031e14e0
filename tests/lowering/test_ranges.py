"""Ranges read off histograms, against brute force on the values themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitfront.core import RangeMethod
from bitfront.lowering.ranges import (
    BINS,
    Histogram,
    clip_divergence,
    count_into,
    entropy_range,
    mse_range,
    percentile_range,
    quantisation_error,
    range_of,
    usable_range,
)

Floats = NDArray[np.float64]


def _histogram(values: NDArray[np.floating], bins: int = BINS) -> Histogram:
    low, high = usable_range(float(values.min()), float(values.max()))
    counts = np.zeros(bins, dtype=np.int64)
    return Histogram(low=low, high=high, counts=counts, zeros=count_into(counts, low, high, values))


def _quantised(values: NDArray[np.floating], low: float, high: float) -> Floats:
    """Textbook U8 quantisation and back."""
    scale = (high - low) / 255
    zero_point = np.clip(round(-low / scale), 0, 255)
    return np.asarray((np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale)


def _mse(values: Floats, low: float, high: float) -> float:
    return float(np.mean((values - _quantised(values, low, high)) ** 2))


def _samples(name: str) -> Floats:
    random = np.random.default_rng(7)
    values = {
        "normal": random.normal(size=20_000),
        "uniform": random.uniform(-1, 3, size=20_000),
        "heavy": random.standard_t(2.5, size=20_000),
        "relu": np.maximum(random.standard_t(2.5, size=20_000), 0),
        "skewed": random.gumbel(size=20_000) * 50 - 20,
        "negative": -random.exponential(size=20_000),
    }
    return values[name]


ALL = ["normal", "uniform", "heavy", "relu", "skewed", "negative"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=40),
    st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_every_value_is_counted_once(values: list[float], dtype: type[np.floating]) -> None:
    """Bins and exact zeros together hold each value, whatever the floating type."""
    array = np.clip(np.array(values), -6e4, 6e4).astype(dtype)
    histogram = _histogram(array)
    assert histogram.counts.sum() + histogram.zeros == array.size
    assert histogram.zeros == np.count_nonzero(array == 0)
    assert (histogram.counts >= 0).all()


def test_counting_matches_numpy() -> None:
    """Our bins hold what ``numpy.histogram`` puts there."""
    values = _samples("skewed")
    histogram = _histogram(values, bins=64)
    expected, _ = np.histogram(values, bins=64, range=(histogram.low, histogram.high))
    np.testing.assert_array_equal(histogram.counts, expected)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(2.0, 3.0, (0.0, 3.0)), (-3.0, -2.0, (-3.0, 0.0)), (5.0, 5.0, (0.0, 5.0)), (0.0, 0.0, (0.0, 1.0))],
    ids=["positive", "negative", "constant", "zero"],
)
def test_usable_ranges_include_zero(low: float, high: float, expected: tuple[float, float]) -> None:
    """A range holds zero and is never empty."""
    assert usable_range(low, high) == expected


def _check_percentile(rule: Callable[[Histogram, float], tuple[float, float]], values: Floats, share: float) -> None:
    """The oracle: quantiles of the sorted values, to two bins' width."""
    outside = 100 - share
    below = 0 if values.min() >= 0 else outside if values.max() <= 0 else outside / 2
    histogram = _histogram(values)
    tolerance = 2 * (histogram.high - histogram.low) / BINS
    low, high = rule(histogram, share)
    assert low == pytest.approx(min(np.percentile(values, below), 0), abs=tolerance)
    assert high == pytest.approx(max(np.percentile(values, 100 - (outside - below)), 0), abs=tolerance)


@pytest.mark.parametrize("share", [90.0, 99.0, 99.9, 100.0])
@pytest.mark.parametrize("name", [*ALL])
def test_percentile_matches_brute_force(name: str, share: float) -> None:
    """The histogram's percentile is the sorted values', on both ends, and keeps at least the share asked for."""
    values = _samples(name)
    _check_percentile(percentile_range, values, share)
    low, high = percentile_range(_histogram(values), share)
    assert np.mean((values >= low) & (values <= high)) >= share / 100 - 1e-4


@pytest.mark.parametrize(
    "broken",
    [
        lambda histogram, share: percentile_range(histogram, 100 - (100 - share) / 2),
        lambda histogram, share: (histogram.low, percentile_range(histogram, share)[1]),
        lambda histogram, share: tuple(-end for end in reversed(percentile_range(histogram, share))),
    ],
    ids=["half the tail", "one side only", "sides swapped"],
)
def test_percentile_oracle_rejects_bugs(
    broken: Callable[[Histogram, float], tuple[float, float]],
) -> None:
    """The percentile's oracle fails on planted bugs."""
    with pytest.raises(AssertionError):
        _check_percentile(broken, _samples("skewed"), 95.0)


def _check_error(rule: Callable[[NDArray[np.floating], NDArray[np.floating], float, float], float]) -> None:
    """The oracle: the error of very many evenly spread values, quantised one by one."""
    edges = np.arange(33) - 9.0
    counts = np.random.default_rng(1).integers(0, 9, size=32).astype(np.float64)
    fine = (edges[:-1, None] + (np.arange(4000) + 0.5) / 4000).reshape(-1)
    weights = np.repeat(counts / 4000, 4000)
    for low, high in [(-9.0, 23.0), (-4.3, 11.7), (0.0, 20.0), (-8.0, 0.0), (-1.0, 1.5)]:
        expected = float(weights @ (fine - _quantised(fine, low, high)) ** 2)
        assert rule(edges, counts, low, high) == pytest.approx(expected, rel=1e-3)


def test_expected_error_matches_brute_force() -> None:
    """The closed form is the error of quantising evenly spread values one by one, inside the range and beyond."""
    _check_error(quantisation_error)


@pytest.mark.parametrize(
    "broken",
    [
        lambda edges, counts, low, high: quantisation_error(edges, counts, low, high) * 2,
        lambda edges, counts, low, high: quantisation_error(edges, counts, 2 * low, 2 * high),
        lambda edges, counts, low, high: quantisation_error(edges, counts, low - (high - low) / 255, high),
        lambda edges, counts, low, high: quantisation_error(edges, counts[::-1], low, high),
    ],
    ids=["doubled", "scale x2", "zero point off by one", "bins reversed"],
)
def test_error_oracle_rejects_bugs(
    broken: Callable[[NDArray[np.floating], NDArray[np.floating], float, float], float],
) -> None:
    """The error's oracle fails on planted bugs."""
    with pytest.raises(AssertionError):
        _check_error(broken)


@pytest.mark.parametrize("name", ALL)
def test_mse_matches_brute_force(name: str) -> None:
    """No range on a fine grid quantises the values themselves noticeably better."""
    values = _samples(name)
    low, high = float(min(values.min(), 0)), float(max(values.max(), 0))
    shares = np.geomspace(1, 1 / 64, 40)
    best = min(
        _mse(values, low * a, high * b) for a in (shares if low < 0 else [1.0]) for b in (shares if high > 0 else [1.0])
    )
    found = mse_range(_histogram(values))
    assert _mse(values, *found) <= best * 1.03
    assert _mse(values, *found) <= _mse(values, low, high) * 1.0001


def test_mse_clips_outliers_and_keeps_uniform() -> None:
    """One value far off is worth clipping at 8 bits; evenly spread values are not."""
    values = np.append(np.tile(_samples("normal"), 100), 40.0)  # (R/255)²/12 a value against R² once
    assert mse_range(_histogram(values))[1] < 20
    assert mse_range(_histogram(_samples("uniform"))) == pytest.approx((-1.0, 3.0), abs=1e-3)


def test_entropy_clips_heavy_tails_only() -> None:
    """Entropy picks a clip on a heavy-tailed sample and none on a uniform one."""
    heavy = _histogram(_samples("heavy"))
    low, high = entropy_range(heavy)
    assert heavy.low / 2 < low < 0 < high < heavy.high * 0.8
    values = _samples("heavy")
    assert np.mean((values >= low) & (values <= high)) > 0.99
    assert entropy_range(_histogram(_samples("uniform"))) == pytest.approx((-1.0, 3.0), abs=0.01)


@pytest.mark.parametrize(("name", "side"), [("relu", 0), ("negative", 1)])
def test_one_signed_tensors_stay_so(name: str, side: int) -> None:
    """A tensor with one sign gets a range that ends at zero, by every method."""
    for method in RangeMethod:
        ends = range_of(_histogram(_samples(name)), method, 99.0)
        assert ends[side] == 0.0
        assert ends[0] < ends[1]


def test_zeros_do_not_move_entropy_and_mse() -> None:
    """Zeros are exact under every range, so adding them changes neither; the percentile counts them."""
    few = _samples("relu")
    many = np.append(few, np.zeros(500_000))
    for rule in (entropy_range, mse_range):
        assert rule(_histogram(few)) == rule(_histogram(many))
    assert percentile_range(_histogram(many), 99.0)[1] < percentile_range(_histogram(few), 99.0)[1]


def test_divergence_of_an_exact_histogram_is_smoothing_alone() -> None:
    """With one bin a level and nothing outside, quantising loses nothing; what is cut off costs."""
    counts = np.zeros(1024, dtype=np.int64)
    counts[:256] = np.random.default_rng(0).integers(1, 100, size=256)
    assert clip_divergence(counts, 0, 256) == pytest.approx(0, abs=1e-3)
    counts[600] = 300
    assert clip_divergence(counts, 0, 256) > 0.02


def test_ranges_scale_with_the_values() -> None:
    """Multiplying a tensor multiplies its range, down to magnitudes near float32's limits."""
    values = _samples("heavy").astype(np.float32)
    for method in RangeMethod:
        plain = np.array(range_of(_histogram(values), method, 99.0))
        for exponent in (-70, 60):
            scaled = range_of(_histogram(np.ldexp(values, exponent)), method, 99.0)
            np.testing.assert_allclose(np.ldexp(np.array(scaled), -exponent), plain, rtol=1e-6)


def test_each_method_is_the_one_asked_for() -> None:
    """On values with heavy tails all four give other ranges, each by its own rule."""
    histogram = _histogram(_samples("heavy"))
    found = {method: range_of(histogram, method, 99.0) for method in RangeMethod}
    assert found == {
        RangeMethod.MINMAX: (histogram.low, histogram.high),
        RangeMethod.PERCENTILE: percentile_range(histogram, 99.0),
        RangeMethod.ENTROPY: entropy_range(histogram),
        RangeMethod.MSE: mse_range(histogram),
    }
    assert len(set(found.values())) == len(found)
