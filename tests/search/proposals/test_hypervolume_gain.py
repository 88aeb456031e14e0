"""Hypervolume gains of many candidates at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.core.pareto import Objectives, hypervolume
from bitfront.search.proposals.hypervolume_gain import hypervolume_gains

REFERENCE = np.array([8.0, 8.0, 8.0])
POINT = st.tuples(*[st.integers(0, 9)] * 3)


def _volume(points: list[tuple[int, ...]]) -> float:
    """By the report's own sweep, which maximises accuracy."""
    as_objectives = [Objectives(accuracy=-x, latency_ms=y, size_bytes=z) for x, y, z in points]
    return hypervolume(as_objectives, Objectives(accuracy=-8.0, latency_ms=8.0, size_bytes=8.0))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(front=st.lists(POINT, max_size=6), candidates=st.lists(POINT, min_size=1, max_size=4))
def test_gain_is_the_difference_of_volumes(front: list[tuple[int, ...]], candidates: list[tuple[int, ...]]) -> None:
    """The gain of a candidate is the volume with it minus the volume without it."""
    got = hypervolume_gains(np.array(front, dtype=float).reshape(-1, 3), REFERENCE, np.array(candidates, dtype=float))
    expected = [_volume([*front, candidate]) - _volume(front) for candidate in candidates]
    assert got == pytest.approx(expected, abs=1e-9)


def test_by_hand() -> None:
    """One front point, three candidates: dominated, beside it, and beyond the reference."""
    front = np.array([[4.0, 4.0, 4.0]])
    candidates = np.array([[5.0, 5.0, 5.0], [6.0, 2.0, 6.0], [1.0, 9.0, 1.0]])
    assert hypervolume_gains(front, REFERENCE, candidates).tolist() == [0.0, 2 * 6 * 2 - 2 * 4 * 2, 0.0]


def test_oracle_rejects_a_swapped_axis() -> None:
    """Planted bug: gains in a box whose axes are swapped differ from the difference of volumes."""
    front, candidate = np.array([[4.0, 2.0, 5.0]]), np.array([[2.0, 3.0, 7.0]])
    right = _volume([(4, 2, 5), (2, 3, 7)]) - _volume([(4, 2, 5)])
    assert hypervolume_gains(front, REFERENCE, candidate)[0] == pytest.approx(right)
    assert hypervolume_gains(front[:, ::-1], REFERENCE, candidate)[0] != pytest.approx(right)
