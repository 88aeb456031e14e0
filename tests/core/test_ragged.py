"""Samples of different shapes: cut into runs of one shape, and never run together otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.core import Array, DataError, digest
from bitfront.core.batching import Batching, median_batch, take_rows
from bitfront.core.ragged import equal_shapes, is_ragged, joined, median_sample, ragged, rows_like, stacked

LENGTHS = (3, 3, 5, 3, 1, 1, 1)


def samples(lengths: tuple[int, ...] = LENGTHS) -> Array:
    return ragged([np.full(length, index) for index, length in enumerate(lengths)])


def test_slices_and_rows() -> None:
    """Samples are taken as of any array, and stay samples even where they have one shape."""
    array = samples()
    assert len(array) == 7
    assert is_ragged(array[:2])
    np.testing.assert_array_equal(stacked(array[:2]), [[0, 0, 0], [1, 1, 1]])
    np.testing.assert_array_equal(stacked(take_rows(array, np.array([3, 0]))), [[3, 3, 3], [0, 0, 0]])
    dense = np.zeros((2, 3))
    assert stacked(dense) is dense
    with pytest.raises(DataError, match=r"samples of shapes \(3,\), \(5,\) cannot be run together"):
        stacked(array[1:3])


def test_runs_of_one_shape() -> None:
    """Runs are neighbours of one shape, no longer than asked for; arrays of one shape are cut by size alone."""
    inputs = {"ids": samples(), "shared": np.zeros((7, 2))}
    assert equal_shapes(inputs, 7, 2) == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 7)]
    assert equal_shapes(inputs, 3, 64) == [(0, 2), (2, 3)]
    assert equal_shapes({"x": np.zeros((7, 2))}, 7, 3) == [(0, 3), (3, 6), (6, 7)]


def test_samples_alike() -> None:
    """The sample of median size, and others of its shape, over and over where there are too few."""
    inputs = {"ids": samples()}
    assert median_sample(inputs) in (0, 1, 3)
    assert rows_like(inputs, 0, 5).tolist() == [0, 1, 3, 0, 1]
    assert rows_like({"x": np.zeros((3, 2))}, 0, 4).tolist() == [0, 1, 2, 0]
    assert median_sample({"x": np.zeros((3, 2))}) == 0


def test_joined_samples() -> None:
    """Those of one shape are one array, others an array of them; a batch to time on is of the median size."""
    assert joined([np.zeros(3), np.ones(3)]).shape == (2, 3)
    assert is_ragged(joined([np.zeros(3), np.ones(2)]))
    found = median_batch({"ids": samples((1, 1, 1, 3, 5, 3, 5)), "shared": np.arange(7)}, 2)
    assert [len(sample) for sample in found["ids"]] == [3, 3]
    assert found["shared"].tolist() == [3, 5]


def test_fed_to_any_layout() -> None:
    """A run of samples is laid out as the network reads it."""
    fed = Batching(inputs={"ids": 1}).feed({"ids": samples()[:2]})
    np.testing.assert_array_equal(fed["ids"], [[0, 1], [0, 1], [0, 1]])


def test_digests_are_of_the_content() -> None:
    """The same samples have one digest; others, their order and their grouping another."""
    assert digest(samples()) == digest(samples())
    others = [samples()[::-1], samples((3, 3, 5, 3, 1, 1, 2)), ragged([np.full(3, 0)]), np.full((1, 3), 0)]
    assert len({digest(other) for other in [samples(), *others]}) == 5
    with pytest.raises(TypeError, match="cannot digest an array of Python objects"):
        digest(np.array([{}, 1], object))
