from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.core import DataError
from bitfront.core.pareto import Objectives, hypervolume, pareto_front, step_line

Front = Callable[[Sequence[Objectives]], tuple[int, ...]]
Volume = Callable[[Sequence[Objectives], Objectives], float]

# Few values, so that ties and duplicates are common.
POINT = st.builds(
    lambda a, t, s: Objectives(accuracy=a, latency_ms=t, size_bytes=s),
    st.integers(0, 5),
    st.integers(0, 5),
    st.integers(0, 5),
)
REFERENCE = Objectives(accuracy=0, latency_ms=6, size_bytes=6)


def brute_front(points: Sequence[Objectives]) -> tuple[int, ...]:
    """Straight from the definition, comparing all pairs field by field."""
    kept = []
    for index, p in enumerate(points):
        beaten = False
        for q in points:
            no_worse = q.accuracy >= p.accuracy and q.latency_ms <= p.latency_ms and q.size_bytes <= p.size_bytes
            better = q.accuracy > p.accuracy or q.latency_ms < p.latency_ms or q.size_bytes < p.size_bytes
            beaten = beaten or (no_worse and better)
        if not beaten:
            kept.append(index)
    return tuple(kept)


def brute_volume(points: Sequence[Objectives], reference: Objectives) -> float:
    """Unit cubes of the integer grid that some point dominates."""
    return sum(
        any(p.accuracy > a and p.latency_ms <= t and p.size_bytes <= s for p in points)
        for a in range(int(reference.accuracy), 6)
        for t in range(int(reference.latency_ms))
        for s in range(int(reference.size_bytes))
    )


def agrees_on_front(front: Front, points: Sequence[Objectives]) -> bool:
    return front(points) == brute_front(points)


@given(points=st.lists(POINT, max_size=12))
@settings(max_examples=150, deadline=None)
def test_front_is_the_definition(points: list[Objectives]) -> None:
    """The front equals the one found by comparing all pairs, in the order given, duplicates kept."""
    assert agrees_on_front(pareto_front, points)


@given(points=st.lists(POINT, max_size=8))
@settings(max_examples=100, deadline=None)
def test_hypervolume_counts_cubes(points: list[Objectives]) -> None:
    """On a grid the hypervolume is the number of dominated unit cubes."""
    assert hypervolume(points, REFERENCE) == pytest.approx(brute_volume(points, REFERENCE))


def _without_size(points: Sequence[Objectives]) -> tuple[int, ...]:
    flat = [Objectives(accuracy=p.accuracy, latency_ms=p.latency_ms, size_bytes=0) for p in points]
    return pareto_front(flat)


def _drops_duplicates(points: Sequence[Objectives]) -> tuple[int, ...]:
    return tuple(index for index in pareto_front(points) if points[index] not in points[:index])


def _accuracy_upside_down(points: Sequence[Objectives]) -> tuple[int, ...]:
    flipped = [Objectives(accuracy=-p.accuracy, latency_ms=p.latency_ms, size_bytes=p.size_bytes) for p in points]
    return pareto_front(flipped)


def _strictly_better_everywhere(points: Sequence[Objectives]) -> tuple[int, ...]:
    return tuple(
        i
        for i, p in enumerate(points)
        if not any(
            q.accuracy > p.accuracy and q.latency_ms < p.latency_ms and q.size_bytes < p.size_bytes for q in points
        )
    )


@pytest.mark.parametrize(
    "broken", [_without_size, _drops_duplicates, _accuracy_upside_down, _strictly_better_everywhere]
)
def test_front_oracle_rejects_planted_bugs(broken: Front) -> None:
    """The oracle sees each of these mistakes on a handful of points."""
    points = [
        Objectives(accuracy=a, latency_ms=t, size_bytes=s)
        for a, t, s in ((3, 2, 2), (3, 2, 2), (3, 2, 3), (4, 4, 1), (1, 1, 5), (2, 3, 4), (2, 1, 5))
    ]
    assert agrees_on_front(pareto_front, points)
    assert not agrees_on_front(broken, points)


def test_hypervolume_oracle_rejects_planted_bugs() -> None:
    """The oracle sees a doubled volume, a forgotten point, and boxes that are added without their overlap."""
    points = [Objectives(accuracy=a, latency_ms=t, size_bytes=s) for a, t, s in ((5, 4, 4), (2, 1, 2), (4, 3, 1))]

    def sum_of_boxes(points: Sequence[Objectives], reference: Objectives) -> float:
        return sum(hypervolume([point], reference) for point in points)

    truth = brute_volume(points, REFERENCE)
    assert hypervolume(points, REFERENCE) == truth
    assert 2 * hypervolume(points, REFERENCE) != truth
    assert hypervolume(points[1:], REFERENCE) != truth
    assert sum_of_boxes(points, REFERENCE) != truth


@pytest.mark.parametrize(
    "outside",
    [
        Objectives(accuracy=-1, latency_ms=1, size_bytes=1),
        Objectives(accuracy=0.5, latency_ms=7, size_bytes=1),
        Objectives(accuracy=0.5, latency_ms=1, size_bytes=7),
    ],
    ids=["accuracy", "latency", "size"],
)
def test_what_is_worse_than_the_reference_anywhere_adds_nothing(outside: Objectives) -> None:
    """Nor does it take anything away, beside another point or alone."""
    inside = Objectives(accuracy=1, latency_ms=3, size_bytes=3)
    assert hypervolume([outside], REFERENCE) == 0
    assert hypervolume([inside, outside], REFERENCE) == hypervolume([inside], REFERENCE) == 9


def test_hypervolume_by_hand() -> None:
    """Two boxes: 0.5 × 2 × 10 and 0.25 × 4 × 5, overlapping in 0.25 × 2 × 5."""
    points = [
        Objectives(accuracy=0.5, latency_ms=3, size_bytes=10),
        Objectives(accuracy=0.25, latency_ms=1, size_bytes=15),
    ]
    reference = Objectives(accuracy=0, latency_ms=5, size_bytes=20)
    assert hypervolume(points, reference) == pytest.approx(10 + 5 - 2.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["accuracy", "latency_ms", "size_bytes"])
def test_values_without_order_are_refused(field: str, bad: float) -> None:
    """NaN and infinities raise a DataError that names the field."""
    values = {"accuracy": 0.5, "latency_ms": 1.0, "size_bytes": 1.0, field: bad}
    with pytest.raises(DataError, match=f"{field} of a point: expected a finite number"):
        Objectives(**values)


def test_staircase_keeps_the_undominated_pairs() -> None:
    """Costs and accuracies rise strictly; of pairs with equal cost the best stays, equal pairs are one."""
    pairs = [(2.0, 0.5), (1.0, 0.4), (1.0, 0.3), (3.0, 0.5), (4.0, 0.9), (4.0, 0.9)]
    assert step_line(pairs) == ((1.0, 0.4), (2.0, 0.5), (4.0, 0.9))
    assert step_line([]) == ()
