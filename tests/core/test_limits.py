"""Limits: the stricter of two accuracy limits counts, each quantity is compared with its own limit; top-1."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bitfront.core import Constraints, top1

WHOLE = Constraints(latency_ms=5.0, size_bytes=8_000_000, min_accuracy=0.75, max_drop=0.01)


@pytest.mark.parametrize(
    ("budget", "reference", "floor"),
    [
        pytest.param(Constraints(), 0.9, -math.inf, id="none"),
        pytest.param(Constraints(min_accuracy=0.75), 0.9, 0.75, id="absolute"),
        pytest.param(Constraints(max_drop=0.25), 0.75, 0.5, id="relative"),
        pytest.param(Constraints(min_accuracy=0.75, max_drop=0.25), 0.75, 0.75, id="absolute is stricter"),
        pytest.param(Constraints(min_accuracy=0.25, max_drop=0.25), 0.75, 0.5, id="relative is stricter"),
    ],
)
def test_the_stricter_accuracy_limit_is_the_floor(budget: Constraints, reference: float, floor: float) -> None:
    assert budget.accuracy_floor(reference) == floor


@pytest.mark.parametrize(
    ("measured", "missed"),
    [
        pytest.param({}, (), id="all kept"),
        pytest.param({"latency_ms": 5.5}, (0,), id="latency"),
        pytest.param({"size_bytes": 9_000_000}, (1,), id="size"),
        pytest.param({"accuracy": 0.5}, (2,), id="accuracy"),
        pytest.param({"reference_accuracy": 0.95}, (2,), id="drop"),
    ],
)
def test_each_quantity_is_compared_with_its_own_limit(measured: dict[str, float], missed: tuple[int, ...]) -> None:
    """And the miss is the difference, in the limit's unit."""
    kept = {"latency_ms": 5.0, "size_bytes": 8_000_000, "accuracy": 0.8125, "reference_accuracy": 0.8125}
    found = WHOLE.violations(**{**kept, **measured})
    assert tuple(index for index, miss in enumerate(found) if miss > 0) == missed
    limits = (5.0, 8_000_000)
    for index, name in enumerate(("latency_ms", "size_bytes")):
        assert found[index] == {**kept, **measured}[name] - limits[index]


def test_a_drop_of_exactly_the_limit_is_kept() -> None:
    """0.9 − 0.01 and 0.89 differ in their last bits, which is no drop."""
    budget = Constraints(max_drop=0.01)
    kept = budget.violations(latency_ms=1, size_bytes=1, accuracy=0.89, reference_accuracy=0.9)
    assert max(kept) <= 0
    missed = budget.violations(latency_ms=1, size_bytes=1, accuracy=0.8899, reference_accuracy=0.9)
    assert missed[2] > 0


def test_no_limit_is_never_missed() -> None:
    """However bad the measurement."""
    found = Constraints().violations(latency_ms=1e9, size_bytes=1e12, accuracy=-1e9, reference_accuracy=1)
    assert found == (-math.inf, -math.inf, -math.inf)


def test_limits_are_written_under_their_names() -> None:
    """Four limits, four names, nothing else."""
    written = {"latency_ms": 5.0, "size_bytes": 8_000_000, "min_accuracy": 0.75, "max_drop": 0.01}
    assert json.loads(json.dumps(WHOLE.to_json())) == written
    assert Constraints(**written) == WHOLE


@pytest.mark.parametrize(
    ("budget", "alone"),
    [
        (Constraints(), False),
        (Constraints(min_accuracy=0.5), True),
        (Constraints(max_drop=0.1), True),
        (Constraints(max_drop=0.1, latency_ms=1), False),
        (Constraints(min_accuracy=0.5, size_bytes=1), False),
        (Constraints(latency_ms=1), False),
    ],
)
def test_accuracy_is_alone_where_nothing_else_is_limited(budget: Constraints, alone: bool) -> None:
    """Then the fastest point is wanted."""
    assert budget.accuracy_alone is alone


def test_top1_reads_the_first_output() -> None:
    """One hit a sample, whatever further outputs say; trailing axes of one count as classes."""
    first = np.array([[1.0, 2.0, 0.0], [3.0, 2.0, 1.0], [0.0, 1.0, 5.0]])
    labels = np.array([1, 1, 2])
    assert list(top1((first, -first), labels)) == [1.0, 0.0, 1.0]
    assert list(top1((first[:, :, None, None],), labels)) == [1.0, 0.0, 1.0]
