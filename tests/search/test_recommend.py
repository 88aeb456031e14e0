"""The verdict on measured points, against brute force."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precision import FP32, AccuracyStats, Budget, LatencyStats
from report.given import GivenNetwork
from report.results import Point
from search.results.recommend import Judgement, judge


def point(id_: str, accuracy: float, latency_ms: float, size_bytes: int, held: bool | None = True) -> Point:
    """A finalist."""
    latency = LatencyStats(
        median_ms=latency_ms, p90_ms=latency_ms, ci_low_ms=latency_ms, ci_high_ms=latency_ms, ratio=latency_ms,
        ratio_low=latency_ms, ratio_high=latency_ms, rounds=9, threads=1, batch_size=1,
    )  # fmt: skip
    stats = AccuracyStats(value=accuracy, ci_low=accuracy, ci_high=accuracy, samples=100)
    return Point(
        id=id_, origin="test", text="", config=None, model=None, size_bytes=size_bytes, latency=latency,
        search_latency=latency, accuracy=stats, search_accuracy=stats, feasible=False, violations=(), held=held,
        layers=MappingProxyType({"fc": FP32}),
    )  # fmt: skip


def verdict(points: list[Point], budget: Budget, baselines: tuple[str, ...] = ("fp32",)) -> Judgement:
    """Judge with what FP32 measured as the given network."""
    fp32 = FP32_POINT
    given = GivenNetwork(size_bytes=fp32.size_bytes, latency=fp32.latency, accuracy=fp32.accuracy)
    return judge(points, budget, given=given, baselines=baselines, metric="top1")


FP32_POINT = point("fp32", 0.9, 10.0, 4000)

levels = st.sampled_from([0.5, 0.7, 0.8, 0.9])
several = st.lists(
    st.tuples(levels, st.sampled_from([2.0, 5.0, 8.0]), st.sampled_from([1000, 2000, 3000]), st.booleans()), max_size=7
)
budgets = st.builds(
    lambda latency, size, drop: Budget(latency_ms=latency, size_bytes=size, max_drop=drop),
    st.sampled_from([None, 1.0, 5.0]),
    st.sampled_from([None, 2000.0]),
    st.sampled_from([None, 0.0, 0.1, 0.2]),
)


@given(several, budgets, st.integers(0, 3))
def test_verdict_agrees_with_brute_force(
    values: list[tuple[float, float, int, bool]], budget: Budget, baselines: int
) -> None:
    """Recommended is the first of all points that hold, are within budget and beaten by no baseline."""
    points = [FP32_POINT, *(point(f"p{i}", *value) for i, value in enumerate(values))]
    names = ("fp32", *(f"p{i}" for i in range(min(baselines, len(values)))))
    found = verdict(points, budget, names)

    def key(p: Point) -> tuple[float, float, float]:
        assert p.accuracy is not None
        assert p.latency is not None
        return -p.accuracy.value, float(p.size_bytes), p.latency.median_ms

    def within(p: Point) -> bool:
        negative, size, latency = key(p)
        return (
            (budget.latency_ms is None or latency <= budget.latency_ms)
            and (budget.size_bytes is None or size <= budget.size_bytes)
            and (budget.max_drop is None or -negative >= 0.9 - budget.max_drop - 1e-9)
        )

    def beaten(p: Point) -> bool:
        return any(
            all(a <= b for a, b in zip(key(q), key(p), strict=True)) and key(q) != key(p)
            for q in points
            if q.id in names
        )

    speed_first = budget.max_drop is not None and budget.latency_ms is None and budget.size_bytes is None

    def preferred(p: Point) -> tuple[float, float, float]:
        negative, size, latency = key(p)
        return (latency, size, negative) if speed_first else (negative, size, latency)

    good = [p for p in points if p.held and within(p) and not beaten(p)]
    expected = min(good, key=preferred).id if good else None
    assert (found.recommended is None) == (expected is None)
    if expected and found.recommended:
        assert key(found.points[found.recommended]) == key(found.points[expected])
        assert not found.nearest
    for p in points:
        assert found.points[p.id].feasible == within(p)
        assert bool(found.points[p.id].violations) != within(p)
        on_front = p.held and not any(
            all(a <= b for a, b in zip(key(q), key(p), strict=True)) and key(q) != key(p) for q in points if q.held
        )
        assert (p.id in found.front) == bool(on_front)


def test_ties_go_to_the_smaller_then_the_faster() -> None:
    """Equal accuracy: size decides, then latency."""
    smaller, faster = point("s", 0.9, 6.0, 1000), point("f", 0.9, 2.0, 2000)
    assert verdict([FP32_POINT, faster, smaller], Budget()).recommended == "s"
    assert verdict([FP32_POINT, smaller, replace(faster, size_bytes=1000)], Budget()).recommended == "f"


def test_sizes_within_one_per_cent_are_equal() -> None:
    """A few bytes are no reason to recommend the slower of two equally accurate points; two per cent are."""
    slower, faster = point("s", 0.9, 6.0, 1000), point("f", 0.9, 2.0, 1009)
    assert verdict([FP32_POINT, slower, faster], Budget()).recommended == "f"
    assert verdict([FP32_POINT, slower, replace(faster, size_bytes=1020)], Budget()).recommended == "s"


def test_accuracy_limited_alone_asks_for_speed() -> None:
    """With a drop allowed and nothing else limited, the fastest within it; of about equally fast ones the smaller."""
    accurate, fast, faster = point("a", 0.9, 6.0, 500), point("f", 0.85, 2.02, 1000), point("g", 0.85, 2.0, 2000)
    points = [FP32_POINT, accurate, fast, faster, point("h", 0.7, 1.0, 100)]
    assert verdict(points, Budget(max_drop=0.1)).recommended == "f"
    assert verdict(points, Budget(min_accuracy=0.8)).recommended == "f"
    assert verdict(points, Budget(max_drop=0.1, size_bytes=3000)).recommended == "a"


def test_point_that_did_not_hold_is_neither_recommended_nor_on_the_front() -> None:
    """The best numbers count for nothing when they could not be reproduced."""
    found = verdict([FP32_POINT, point("p1", 0.95, 1.0, 500, held=False)], Budget())
    assert found.recommended == "fp32"
    assert found.front == ("fp32",)


def test_nearest_keeps_the_other_limits_where_it_can() -> None:
    """By latency: the fastest of those within size; by size: nobody is within latency, so the smallest."""
    points = [FP32_POINT, point("p1", 0.8, 3.0, 3000), point("p2", 0.8, 5.0, 1500), point("p3", 0.8, 4.0, 1000)]
    found = verdict(points, Budget(latency_ms=1.0, size_bytes=2000))
    assert found.recommended is None
    assert found.nearest == {"latency": "p3", "size": "p2"} or found.nearest == {"latency": "p3", "size": "p3"}
    assert found.points["p3"].violations == ("latency 4 ms > 1 ms",)


@pytest.mark.parametrize(("drop", "feasible"), [(0.02, True), (0.019, False)])
def test_drop_counts_from_the_measured_fp32(drop: float, feasible: bool) -> None:
    """A drop of exactly the limit is within it."""
    found = verdict([FP32_POINT, point("p1", 0.88, 1.0, 500)], Budget(max_drop=drop))
    assert found.points["p1"].feasible is feasible
