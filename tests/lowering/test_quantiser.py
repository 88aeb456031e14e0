"""The U8 quantiser by hand: scale, zero point, both ends of the range, and what lies beyond them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitfront.lowering.quantiser import quantiser_u8


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        pytest.param(0.0, 2.55, 0.01, 0, id="positive"),
        pytest.param(-1.0, 1.55, 0.01, 100, id="both signs"),
        pytest.param(-2.55, 0.0, 0.01, 255, id="negative"),
        pytest.param(1.0, 5.1, 0.02, 0, id="extended to zero from above"),
        pytest.param(-5.1, -1.0, 0.02, 255, id="extended to zero from below"),
        pytest.param(0.0, 0.0, 1.0, 0, id="empty"),
    ],
)
def test_the_range_is_255_steps(low: float, high: float, scale: float, zero_point: int) -> None:
    """Its ends are the integers 0 and 255, zero is a code exactly, and float32 holds the scale."""
    found = quantiser_u8(low, high)
    assert found.scale == float(np.float32(scale))
    assert found.zero_point == zero_point
    assert found.quantise(0.0) == zero_point
    if high > low:
        assert found.quantise(min(low, 0.0)) == 0
        assert found.quantise(max(high, 0.0)) == 255
    assert (found.quantise(-math.inf), found.quantise(math.inf)) == (0, 255)


def test_values_are_rounded_to_the_nearest_code() -> None:
    """No value within the range is off by more than half a step."""
    found = quantiser_u8(-1.0, 1.55)
    for value in np.linspace(-1.0, 1.55, 1001):
        code = found.quantise(float(value))
        assert abs((code - found.zero_point) * found.scale - value) <= found.scale * 0.501
