"""Scales and nearest integers, and the guard that keeps biases inside 32 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bitfront.lowering.rounding.bias_overflow import INT32_MAX, activation_scale, min_scales_for_bias
from bitfront.lowering.rounding.scales import INTEGER_RANGES, absmax_scales, groups_of, mse_scales, nearest_integers

BITS = sorted(INTEGER_RANGES)


def _weights(seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).laplace(0, 0.1, (16, 200)).astype(np.float32)


def _worst_step(weights: NDArray[Any], integers: NDArray[np.int8], scales: NDArray[Any], bits: int) -> float:
    """Largest |w − ŵ| / scale among weights inside the integers' range."""
    low, high = INTEGER_RANGES[bits]
    inside = (weights >= low * scales) & (weights <= high * scales)
    return float(np.where(inside, np.abs(weights - integers * scales.astype(np.float64)) / scales, 0).max())


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("find", [absmax_scales, mse_scales])
def test_error_is_at_most_half_a_step(find: Any, bits: int) -> None:
    """|w − ŵ| ≤ scale/2 for each weight inside the range; abs-max scales have every weight inside."""
    weights = _weights()
    scales = find(weights, bits)[:, None]
    assert _worst_step(weights, nearest_integers(weights, scales, bits), scales, bits) <= 0.5 + 1e-6
    if find is absmax_scales:
        assert (np.abs(weights) <= scales * INTEGER_RANGES[bits][1] * (1 + 1e-6)).all()


@pytest.mark.parametrize("bug", ["scale doubled", "axis swapped", "code off by one"])
def test_the_half_step_oracle_rejects_planted_bugs(bug: str) -> None:
    """Scales ×2, scales of another axis, and integers off by one each break |w − ŵ| ≤ scale/2."""
    weights = _weights()[:, :16] * np.geomspace(1, 30, 16)[:, None]
    scales = absmax_scales(weights, 8)[:, None]
    integers = nearest_integers(weights, scales, 8)
    if bug == "scale doubled":
        scales = scales * 2
    elif bug == "axis swapped":
        scales = scales.T
    else:
        integers = np.clip(integers + 1, -127, 127).astype(np.int8)
    assert _worst_step(weights, integers, scales, 8) > 0.5 + 1e-3


@pytest.mark.parametrize("bits", BITS)
def test_codes_stay_in_range(bits: int) -> None:
    """Codes never leave the range of their bits, however small the scale."""
    integers = nearest_integers(_weights(), np.array(1e-6), bits)
    assert (integers.min(), integers.max()) == INTEGER_RANGES[bits]


@pytest.mark.parametrize("bits", BITS)
def test_mse_is_never_worse_than_absmax(bits: int) -> None:
    """The search has the unclipped scale among its candidates."""
    weights = _weights()

    def error(scales: NDArray[Any]) -> NDArray[Any]:
        step = scales[:, None].astype(np.float64)
        return np.asarray(((weights - step * nearest_integers(weights, step, bits)) ** 2).sum(axis=1))

    assert (error(mse_scales(weights, bits)) <= error(absmax_scales(weights, bits))).all()


def test_mse_uses_the_ninth_negative_code_at_4_bits() -> None:
    """Weights at −8, …, 7 steps are met exactly by max|w|/8."""
    weights = np.arange(-8, 8, dtype=np.float32)[None] * 0.25
    scales = mse_scales(weights, 4)
    assert scales.tolist() == [0.25]
    assert nearest_integers(weights, scales[:, None], 4)[0].tolist() == list(range(-8, 8))


def test_importance_moves_the_scale_towards_important_weights() -> None:
    """With all importance on the small weights their error falls, at the large one's cost."""
    weights = np.array([[0.9, 0.11, -0.07, 0.05, 0.13, 0.02]], dtype=np.float32)
    importance = np.array([0.0, 1, 1, 1, 1, 1])
    plain, weighted = mse_scales(weights, 4), mse_scales(weights, 4, importance)
    errors = [
        float((importance * (weights - s[:, None] * nearest_integers(weights, s[:, None], 4)) ** 2).sum())
        for s in (plain, weighted)
    ]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("find", [absmax_scales, mse_scales])
def test_zero_channels_have_scale_one(find: Any) -> None:
    """A channel of zeros has a positive scale and integers 0; tiny ones keep a normal, finite scale."""
    weights = np.array([[0.0, 0.0], [1e-42, -1e-42], [1.0, 0.5]], dtype=np.float32)
    scales = find(weights, 8)
    assert scales.dtype == np.float32
    assert scales[0] == 1.0
    assert (scales >= np.finfo(np.float32).tiny).all()
    assert not nearest_integers(weights, scales[:, None], 8)[0].any()


def test_blocks_are_filled_up_with_zeros() -> None:
    """7 weights in blocks of 4 are (4, 3 and a zero)."""
    assert groups_of(np.arange(1.0, 8.0)[None], 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 0]]


def test_guarded_scales_keep_the_bias_inside_32_bits() -> None:
    """At the smallest allowed scale b / (s_x·s_w) fits an INT32; at half of it, it does not."""
    bias = np.array([4000.0, -2500.0, 0.0], dtype=np.float32)
    limits = min_scales_for_bias(bias, (-0.001, 0.004))
    step = activation_scale(-0.001, 0.004)
    integers = np.abs(bias[:2]) / (step * limits[:2].astype(np.float32))
    assert (integers < INT32_MAX - 127 * 4096).all()
    assert (integers * 2 > INT32_MAX).all()
    assert limits[2] == 0


def test_activation_scale_includes_zero() -> None:
    """Ranges are extended to include 0, and an empty one has scale 1."""
    assert activation_scale(1.0, 5.1) == pytest.approx(5.1 / 255)
    assert activation_scale(-1.0, -0.5) == pytest.approx(1.0 / 255)
    assert activation_scale(0.0, 0.0) == 1.0
