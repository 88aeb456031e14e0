"""Limits: the stricter of two accuracy limits counts, each quantity is compared with its own limit; top-1."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from bitfront.core import METRICS, Constraints, Limit, UsageError, top1

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
        pytest.param({"latency_ms": 5.5}, (Limit.LATENCY,), id="latency"),
        pytest.param({"size_bytes": 9_000_000}, (Limit.SIZE,), id="size"),
        pytest.param({"accuracy": 0.5}, (Limit.ACCURACY,), id="accuracy"),
        pytest.param({"reference_accuracy": 0.95}, (Limit.ACCURACY,), id="drop"),
    ],
)
def test_each_quantity_is_compared_with_its_own_limit(measured: dict[str, float], missed: tuple[Limit, ...]) -> None:
    """And the excess is the difference, in the limit's unit, or that over the limit."""
    kept = {"latency_ms": 5.0, "size_bytes": 8_000_000, "accuracy": 0.8125, "reference_accuracy": 0.8125}
    found = WHOLE.check(**{**kept, **measured})
    assert tuple(limit for limit, check in found.items() if not check.met) == missed
    for limit, name, bound in ((Limit.LATENCY, "latency_ms", 5.0), (Limit.SIZE, "size_bytes", 8_000_000)):
        assert found[limit].excess == {**kept, **measured}[name] - bound
        assert found[limit].relative_excess == {**kept, **measured}[name] / bound - 1
    assert found[Limit.ACCURACY].relative_excess == found[Limit.ACCURACY].excess


def test_what_was_not_measured_is_not_compared() -> None:
    """Nor is what has no limit."""
    assert set(WHOLE.check(latency_ms=1.0)) == {Limit.LATENCY}
    assert set(Constraints(size_bytes=1.0).check(latency_ms=1.0, size_bytes=2.0, accuracy=0.5)) == {Limit.SIZE}


def test_a_limit_is_surely_missed_where_the_favourable_end_misses_it() -> None:
    """A value beyond its limit whose interval reaches it is not; without an interval the value alone counts."""
    found = WHOLE.check(latency_ms=5.5, latency_low_ms=4.9, accuracy=0.7, accuracy_high=0.76, reference_accuracy=0.7)
    assert not any(check.met or check.surely_missed for check in found.values())
    found = WHOLE.check(latency_ms=5.5, latency_low_ms=5.1, accuracy=0.7, accuracy_high=0.74, reference_accuracy=0.7)
    assert all(check.surely_missed for check in found.values())
    assert all(check.surely_missed for check in WHOLE.check(latency_ms=5.5, accuracy=0.7).values())


LOWER = Constraints(max_error=0.5, max_rise=0.25)


@pytest.mark.parametrize(("error", "given", "met"), [(0.25, 0.125, True), (0.5, 0.25, True), (0.5, 0.125, False)])
def test_limits_of_an_error_are_upper_ones(error: float, given: float, met: bool) -> None:
    """Values come negated, so that greater is better: the floor is the stricter limit's negative."""
    (check,) = LOWER.check(accuracy=-error, reference_accuracy=-given).values()
    assert check.met is met
    assert check.bound == -min(0.5, given + 0.25)
    assert LOWER.absolute(-given) == Constraints(min_accuracy=check.bound)
    assert LOWER.accuracy_alone


@pytest.mark.parametrize(
    ("budget", "metric", "message", "hint"),
    [
        (Constraints(min_accuracy=0.5), "mae", "--min-acc: metric 'mae' is better when lower", "--max-error 0.5"),
        (Constraints(max_drop=0.5), "mae", "--max-drop: metric 'mae' is better when lower", "--max-rise 0.5"),
        (Constraints(max_error=0.5), "top1", "--max-error: metric 'top1' is better when higher", "--min-acc 0.5"),
        (Constraints(max_rise=0.5), "top1", "--max-rise: metric 'top1' is better when higher", "--max-drop 0.5"),
    ],
)
def test_a_limit_of_the_other_direction_is_refused(budget: Constraints, metric: str, message: str, hint: str) -> None:
    """And the message names the one to use."""
    with pytest.raises(UsageError, match=message) as refused:
        budget.refuse_other_direction(METRICS[metric])
    assert hint in refused.value.hint
    other = "top1" if metric == "mae" else "mae"
    budget.refuse_other_direction(METRICS[other])


def test_a_drop_of_exactly_the_limit_is_kept() -> None:
    """0.9 − 0.01 and 0.89 differ in their last bits, which is no drop."""
    budget = Constraints(max_drop=0.01)
    assert budget.check(accuracy=0.89, reference_accuracy=0.9)[Limit.ACCURACY].met
    assert not budget.check(accuracy=0.8899, reference_accuracy=0.9)[Limit.ACCURACY].met


def test_no_limit_is_never_missed() -> None:
    """However bad the measurement."""
    assert Constraints().check(latency_ms=1e9, size_bytes=1e12, accuracy=-1e9, reference_accuracy=1) == {}


def test_limits_are_written_under_their_names() -> None:
    """Four limits, four names; those of an error only where they are set, as they were not there at first."""
    written = {"latency_ms": 5.0, "size_bytes": 8_000_000, "min_accuracy": 0.75, "max_drop": 0.01}
    assert json.loads(json.dumps(WHOLE.to_json())) == written
    assert Constraints.from_json(written) == Constraints(**written) == WHOLE
    assert LOWER.to_json() == {name: None for name in written} | {"max_error": 0.5, "max_rise": 0.25}
    assert Constraints.from_json(LOWER.to_json()) == LOWER


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
    assert np.asarray(top1((first, -first), labels)).tolist() == [1.0, 0.0, 1.0]
    assert np.asarray(top1((first[:, :, None, None],), labels)).tolist() == [1.0, 0.0, 1.0]
