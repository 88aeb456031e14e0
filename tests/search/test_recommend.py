"""The verdict on measured points, against brute force."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core import FP32, AccuracyStats, Constraints, LatencyStats, Prefer, Preference, top1
from bitfront.core.given_network import GivenNetwork
from bitfront.core.point import Point
from bitfront.search.results.evidence import Evidence
from bitfront.search.results.recommend import Rule, Selection, select


def point(
    id_: str,
    accuracy: float,
    latency_ms: float,
    size_bytes: int,
    latency_reproduced: bool | None = True,
    error: tuple[float, float] = (0.0, 0.0),
) -> Point:
    """A finalist; ``error`` is half the interval of its accuracy, and of its latency relative to it."""
    wide, low, high = error[0], latency_ms * (1 - error[1]), latency_ms * (1 + error[1])
    latency = LatencyStats(
        median_ms=latency_ms, p90_ms=latency_ms, ci_low_ms=low, ci_high_ms=high, ratio=latency_ms, ratio_low=low,
        ratio_high=high, rounds=9, threads=1, batch_size=1,
    )  # fmt: skip
    stats = AccuracyStats(value=accuracy, ci_low=accuracy - wide, ci_high=accuracy + wide, samples=100)
    return Point(
        id=id_, origin="test", text="", config=None, model=None, size_bytes=size_bytes, latency=latency,
        search_latency=latency, accuracy=stats, search_accuracy=stats, feasible=False, violations=(),
        latency_reproduced=latency_reproduced,
        layers=MappingProxyType({"fc": FP32}),
    )  # fmt: skip


def summarise_run(
    points: list[Point],
    budget: Constraints,
    baselines: tuple[str, ...] = ("fp32",),
    prefer: Prefer | None = None,
) -> Selection:
    """Judge with what FP32 measured as the given network."""
    fp32 = FP32_POINT
    given = GivenNetwork(size_bytes=fp32.size_bytes, latency=fp32.latency, accuracy=fp32.accuracy)
    rule = Rule(budget=budget, preference=Preference(prefer=prefer), baselines=baselines, metric=top1)
    return select(points, rule, given=given)


def beats(point: Point, other: Point) -> bool:
    """The rule's, by the points' values alone."""
    rule = Rule(budget=Constraints(), baselines=(), metric=top1)
    return rule.beats(point, other, {p.id: Evidence.of_values(p, top1) for p in (point, other)})


FP32_POINT = point("fp32", 0.9, 10.0, 4000)

levels = st.sampled_from([0.5, 0.7, 0.8, 0.9])
several = st.lists(
    st.tuples(levels, st.sampled_from([2.0, 5.0, 8.0]), st.sampled_from([1000, 2000, 3000]), st.booleans()), max_size=7
)
budgets = st.builds(
    lambda latency, size, drop: Constraints(latency_ms=latency, size_bytes=size, max_drop=drop),
    st.sampled_from([None, 1.0, 5.0]),
    st.sampled_from([None, 2000.0]),
    st.sampled_from([None, 0.0, 0.1, 0.2]),
)


@given(several, budgets, st.integers(0, 3), st.sampled_from([None, *Prefer]))
def test_summary_agrees_with_brute_force(
    values: list[tuple[float, float, int, bool]], budget: Constraints, baselines: int, prefer: Prefer | None
) -> None:
    """Recommended is the first of all points that may be within budget, or a baseline that is nowhere worse."""
    points = [FP32_POINT, *(point(f"p{i}", *value) for i, value in enumerate(values))]
    names = ("fp32", *(f"p{i}" for i in range(min(baselines, len(values)))))
    found = summarise_run(points, budget, names, prefer)

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

    def nowhere_worse(p: Point, other: Point) -> bool:
        return all(a <= b for a, b in zip(key(p), key(other), strict=True)) and (
            bool(p.latency_reproduced) or not other.latency_reproduced
        )

    alone = budget.max_drop is not None and budget.latency_ms is None and budget.size_bytes is None
    wanted = prefer or (Prefer.LATENCY if alone else Prefer.ACCURACY)
    costs = (1, 2) if wanted is Prefer.SIZE else (2, 1)
    order = (0, *costs) if wanted is Prefer.ACCURACY or budget.max_drop is None else (*costs, 0)
    left = good = [p for p in points if within(p) and (p.latency_reproduced or budget.latency_ms is None)]
    for quantity in order:
        if quantity == 2:
            left = [p for p in left if p.latency_reproduced] or left
        left = [p for p in left if key(p)[quantity] == min(key(q)[quantity] for q in left)]
    assert (found.recommended is None) == (not good)
    if found.recommended:
        simple = [
            p
            for p in good
            if p.id in names
            and nowhere_worse(p, left[0])
            and not any(nowhere_worse(q, p) and key(q) != key(p) for q in good)
        ]
        assert key(found.points[found.recommended]) == key((simple or left)[0])
        assert not found.nearest
    for p in points:
        assert found.points[p.id].feasible == within(p)
        assert bool(found.points[p.id].violations) != within(p)
        on_front = p.latency_reproduced and not any(
            all(a <= b for a, b in zip(key(q), key(p), strict=True)) and key(q) != key(p)
            for q in points
            if q.latency_reproduced
        )
        assert (p.id in found.front) == bool(on_front)


def test_ties_go_to_the_faster_then_the_smaller_or_as_is_preferred() -> None:
    """Equal accuracy: latency decides, then size; the other way round where size is wanted."""
    smaller, faster = point("s", 0.9, 6.0, 1000), point("f", 0.9, 2.0, 2000)
    assert summarise_run([FP32_POINT, smaller, faster], Constraints()).recommended == "f"
    assert summarise_run([FP32_POINT, smaller, faster], Constraints(), prefer=Prefer.SIZE).recommended == "s"
    assert (
        summarise_run([FP32_POINT, faster, replace(smaller, latency=faster.latency)], Constraints()).recommended == "s"
    )


def test_sizes_within_one_per_cent_are_equal() -> None:
    """A few bytes are no reason to recommend the slower of two equally accurate points; two per cent are."""
    slower, faster = point("s", 0.9, 6.0, 1000), point("f", 0.9, 2.0, 1009)
    size = Prefer.SIZE
    assert summarise_run([FP32_POINT, slower, faster], Constraints(), prefer=size).recommended == "f"
    larger = replace(faster, size_bytes=1020)
    assert summarise_run([FP32_POINT, slower, larger], Constraints(), prefer=size).recommended == "s"


def test_accuracy_limited_alone_asks_for_speed() -> None:
    """With a drop allowed and nothing else limited, the fastest within it; of about equally fast ones the smaller."""
    accurate, fast, faster = point("a", 0.9, 6.0, 500), point("f", 0.85, 2.02, 1000), point("g", 0.85, 2.0, 2000)
    points = [FP32_POINT, accurate, fast, faster, point("h", 0.7, 1.0, 100)]
    assert summarise_run(points, Constraints(max_drop=0.1)).recommended == "f"
    assert summarise_run(points, Constraints(min_accuracy=0.8)).recommended == "f"
    assert summarise_run(points, Constraints(max_drop=0.1, size_bytes=3000)).recommended == "a"


def test_point_that_did_not_hold_is_not_on_the_front_nor_recommended_where_time_is_limited() -> None:
    """Where it is not, size and accuracy count all the same: they have nothing to do with the machine's mood."""
    points = [FP32_POINT, point("p1", 0.95, 1.0, 500, latency_reproduced=False)]
    assert summarise_run(points, Constraints(latency_ms=20)).recommended == "fp32"
    assert summarise_run(points, Constraints(latency_ms=20)).front == ("fp32",)
    found = summarise_run(points, Constraints(size_bytes=600, min_accuracy=0.9))
    assert (found.recommended, found.front) == ("p1", ("fp32",))


def test_nearest_is_the_one_that_misses_least() -> None:
    """0.4 points short, it is named though FP32 misses the accuracy by nothing, and first; timed in doubt or not."""
    close = point("p1", 0.896, 3.0, 1005)
    tight = summarise_run([FP32_POINT, close], Constraints(size_bytes=1000, latency_ms=2.9, min_accuracy=0.9))
    assert dict(tight.nearest) == {"latency": "p1", "size": "p1", "accuracy": "p1"}
    doubtful = replace(close, size_bytes=900, latency_reproduced=False)
    found = summarise_run([FP32_POINT, doubtful], Constraints(size_bytes=1000, min_accuracy=0.9))
    assert list(found.nearest.items()) == [("accuracy", "p1"), ("size", "fp32")]


def test_nearest_keeps_the_other_limits_where_it_can() -> None:
    """By latency: the fastest of those within size; by size: nobody is within latency, so the nearest to both."""
    points = [FP32_POINT, point("p1", 0.8, 3.0, 3000), point("p2", 0.8, 5.0, 1500), point("p3", 0.8, 4.0, 1000)]
    found = summarise_run(points, Constraints(latency_ms=1.0, size_bytes=2000))
    assert found.recommended is None
    assert list(found.nearest.items()) == [("size", "p1"), ("latency", "p3")]
    assert found.points["p3"].violations == ("latency 4 ms > 1 ms",)


@pytest.mark.parametrize(("drop", "feasible"), [(0.02, True), (0.019, False)])
def test_drop_counts_from_the_measured_fp32(drop: float, feasible: bool) -> None:
    """A drop of exactly the limit is within it."""
    found = summarise_run([FP32_POINT, point("p1", 0.88, 1.0, 500)], Constraints(max_drop=drop))
    assert found.points["p1"].feasible is feasible


noisy = st.builds(
    lambda *values: values,
    st.floats(0.5, 0.9), st.floats(2.0, 12.0), st.integers(900, 1100), st.sampled_from([True, False, None]),
    st.tuples(st.floats(0, 0.3), st.floats(0, 0.5)),
)  # fmt: skip
near = st.builds(
    lambda *values: values,
    st.sampled_from([0.8, 0.81]), st.sampled_from([5.0, 5.05, 5.2]), st.sampled_from([1000, 1005, 1015, 1030]),
    st.sampled_from([True, False]), st.tuples(st.sampled_from([0.0, 0.02]), st.sampled_from([0.0, 0.005, 0.02])),
)  # fmt: skip
measured = st.lists(noisy | near, min_size=1, max_size=8)
limits = st.builds(
    lambda latency, size, floor, drop: Constraints(
        latency_ms=latency, size_bytes=size, min_accuracy=floor, max_drop=drop
    ),
    st.none() | st.floats(1.0, 12.0), st.none() | st.integers(900, 1100), st.none() | st.floats(0.4, 0.95),
    st.none() | st.floats(0.0, 0.4),
)  # fmt: skip


def named(values: list[tuple[Any, ...]]) -> list[Point]:
    """The file as given and two uniform points first, as far as there are any."""
    names = ("given", "fp32", "int8")
    return [point(names[i] if i < len(names) else f"p{i}", *value) for i, value in enumerate(values)]


BASELINES = ("given", "fp32", "int8")


def surely_worse(one: Point, other: Point) -> bool:
    """Oracle: less accurate, slower and larger, with intervals that do not meet."""
    assert one.accuracy is not None
    assert other.accuracy is not None
    assert one.latency is not None
    assert other.latency is not None
    return (
        one.accuracy.ci_high < other.accuracy.ci_low
        and one.latency.ci_low_ms > other.latency.ci_high_ms
        and one.latency.median_ms > 1.02 * other.latency.median_ms
        and one.size_bytes > 1.01 * other.size_bytes
    )


@given(measured, limits)
def test_a_point_within_every_limit_that_holds_means_a_recommendation(
    values: list[tuple[Any, ...]], budget: Constraints
) -> None:
    """Nothing is recommended only where no point that holds is within every limit, and then the nearest are named."""
    found = summarise_run(named(values), budget, BASELINES)
    free = budget.latency_ms is None
    sound = {id_ for id_, p in found.points.items() if free or p.latency_reproduced is not False}
    good = {id_ for id_ in sound if found.points[id_].feasible}
    assert (found.recommended is None) == (not good)
    limited = (budget.latency_ms, budget.size_bytes, budget.min_accuracy or budget.max_drop)
    if found.recommended is None:
        assert len(found.nearest) == sum(limit is not None for limit in limited)
        assert not sound or set(found.nearest.values()) <= sound
    else:
        assert found.recommended in good
        assert not found.nearest
        chosen = found.points[found.recommended]
        assert not any(surely_worse(chosen, found.points[id_]) for id_ in sound & set(BASELINES))


@given(measured, limits)
def test_baseline_that_did_not_hold_stands_in_nobodys_way(values: list[tuple[Any, ...]], budget: Constraints) -> None:
    """Without the points that did not hold the recommendation is the same, where latency is limited."""
    points, budget = named(values), replace(budget, latency_ms=budget.latency_ms or 11.0)
    without = [p for p in points if p.latency_reproduced is not False]
    assert summarise_run(points, budget, BASELINES).recommended == summarise_run(without, budget, BASELINES).recommended


def test_the_case_of_a_busy_machine() -> None:
    """FP16 seems faster and smaller and did not hold: FP32, the fastest of those that did, is recommended."""
    points = [
        point("fp32", 1.0, 0.0250, 4000),
        point("fp16", 1.0, 0.0240, 2000, latency_reproduced=False),
        point("int8", 1.0, 0.0260, 1000),
        point("int4", 1.0, 0.0270, 600),
    ]
    names = ("fp32", "fp16", "int8", "int4")
    assert summarise_run(points, Constraints(min_accuracy=0.99), names).recommended == "fp32"
    assert (
        summarise_run(
            [replace(p, latency_reproduced=True) for p in points], Constraints(min_accuracy=0.99), names
        ).recommended
        == "fp16"
    )


@pytest.mark.parametrize(
    ("baseline", "beaten"),
    [
        pytest.param(point("int8", 0.9, 4.95, 1005, error=(0.0, 0.02)), False, id="within noise"),
        pytest.param(point("int8", 0.9, 4.95, 1005), False, id="told apart, but by 1 %"),
        pytest.param(point("int8", 0.9, 4.5, 1005), True, id="faster"),
        pytest.param(point("int8", 0.9, 5.05, 900, error=(0.0, 0.02)), True, id="smaller, no slower but by noise"),
        pytest.param(point("int8", 0.9, 5.5, 900), False, id="smaller and slower"),
        pytest.param(point("int8", 0.9, 4.5, 1020), False, id="faster and larger"),
        pytest.param(point("int8", 0.89, 4.5, 900), False, id="less accurate"),
        pytest.param(point("int8", 0.91, 5.0, 1000), True, id="more accurate"),
    ],
)
def test_baseline_stands_in_the_way_where_it_is_told_apart(baseline: Point, beaten: bool) -> None:
    """A baseline that is as accurate keeps a point out by latency, size or accuracy, never by noise."""
    assert beats(baseline, point("p1", 0.9, 5.0, 1000)) is beaten


def test_faster_is_told_apart_by_milliseconds_and_by_ratios() -> None:
    """Where either interval overlaps the other point's, the lead may be the machine's."""
    baseline, other = point("int8", 0.9, 4.5, 1005), point("p1", 0.9, 5.0, 1000)
    assert baseline.latency is not None
    assert beats(baseline, other)
    for wide in (replace(baseline.latency, ci_high_ms=5.5), replace(baseline.latency, ratio_high=5.5)):
        assert not beats(replace(baseline, latency=wide), other)


def test_baseline_beyond_a_limit_keeps_nobody_out() -> None:
    """No slower but by noise, it is over the limit all the same."""
    points = [point("p1", 0.9, 5.0, 1000), point("p2", 0.8, 4.0, 400), point("int8", 0.9, 5.01, 500, error=(0.0, 0.02))]
    assert beats(points[2], points[0])
    assert summarise_run(points, Constraints(latency_ms=5.0), ("int8",)).recommended == "p1"
    assert summarise_run(points, Constraints(latency_ms=5.1), ("int8",)).recommended == "int8"


def test_baselines_that_beat_each_other_in_a_circle_are_all_left() -> None:
    """Medians and ratios that disagree, and sizes almost 1 % apart can close one: something is recommended still."""

    def timed(id_: str, median: float, ratio: float, size_bytes: int) -> Point:
        made = point(id_, 0.9, median, size_bytes)
        assert made.latency is not None
        return replace(made, latency=replace(made.latency, ratio=ratio, ratio_low=ratio, ratio_high=ratio))

    points = [
        timed("given", 1.0, 1.0, 10110),
        timed("fp32", 1.05, 1.05, 10050),
        timed("fp16", 1.1, 1.1, 10000),
        timed("int8", 1.12, 0.8, 10102),
        timed("int4", 1.2, 0.9, 10003),
    ]
    assert all(beats(one, other) for one, other in zip(points, [*points[1:], points[0]], strict=True))
    assert summarise_run(points, Constraints(), tuple(p.id for p in points)).recommended is not None


def test_file_as_given_is_preferred_for_its_simplicity() -> None:
    """Where it is as good as what would be recommended, and not where that is told apart."""
    given_file = point("given", 0.9, 5.0, 100, error=(0.01, 0.01))
    larger = [point(id_, 0.9, 4.99, size, error=(0.01, 0.01)) for id_, size in (("fp32", 2600), ("int4", 2500))]
    assert summarise_run([given_file, *larger], Constraints(max_drop=0.1), BASELINES).recommended == "given"
    half = point("int8", 0.9, 2.5, 50, error=(0.01, 0.01))
    assert summarise_run([given_file, *larger, half], Constraints(latency_ms=6.0), BASELINES).recommended == "int8"
    worse = point("int8", 0.8, 2.5, 50, error=(0.01, 0.01))
    assert summarise_run([given_file, *larger, worse], Constraints(latency_ms=6.0), BASELINES).recommended == "given"
    assert summarise_run([given_file, *larger, worse], Constraints(latency_ms=4.0), BASELINES).recommended == "int8"
    mixed = point("p7", 0.9, 4.85, 100, error=(0.0, 0.05))
    assert summarise_run([given_file, mixed], Constraints(latency_ms=6.0), BASELINES).recommended == "given"


@pytest.mark.parametrize("size", [980, 800])
def test_a_slower_file_that_is_hardly_smaller_is_left(size: int) -> None:
    """FP32 of a network that was quantised already is no gain beside the file, unless sizes are what is wanted."""
    points = [point("given", 0.9, 5.0, 1000), point("fp32", 0.9, 6.0, size)]
    budget = Constraints(size_bytes=2000)
    assert summarise_run(points, budget, BASELINES).recommended == "given"
    assert summarise_run(points, budget, BASELINES, Prefer.SIZE).recommended == "fp32"


@pytest.mark.parametrize(("slower", "recommended"), [(1.5, "given"), (1.01, "p1")])
def test_where_accuracy_alone_is_limited_a_slower_network_is_no_gain(slower: float, recommended: str) -> None:
    """Smaller and slower than the file as given is not what was asked for; as fast is."""
    points = [point("given", 0.9, 5.0, 1000), point("p1", 0.9, 5.0 * slower, 500)]
    assert summarise_run(points, Constraints(max_drop=0.1), ("given",)).recommended == recommended
    assert summarise_run(points, Constraints(max_drop=0.1), ("given",), Prefer.SIZE).recommended == "p1"


def test_nothing_that_holds_leaves_the_nearest_of_all() -> None:
    """On a machine too noisy for any point to hold nothing is recommended, and the points are still named."""
    points = [
        point("fp32", 0.9, 5.0, 1000, latency_reproduced=False),
        point("p1", 0.9, 2.0, 500, latency_reproduced=False),
    ]
    found = summarise_run(points, Constraints(latency_ms=3.0))
    assert (found.recommended, found.front, dict(found.nearest)) == (None, (), {"latency": "p1"})
