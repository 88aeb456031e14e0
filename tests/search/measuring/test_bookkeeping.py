"""A run's bookkeeping: the stopwatch, the measurement cache, the choice of finalists."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core import FP32, AccuracyStats, Constraints, ContentStore, LatencyStats, Preference
from bitfront.search.measuring.accuracy import Scored
from bitfront.search.measuring.measurement_cache import Lowered, MeasurementCache
from bitfront.search.measuring.stopwatch import Kind, Stopwatch
from bitfront.search.results.choice import MOST, choose_finalists
from bitfront.search.results.finalists import reproduced
from bitfront.search.results.ranking import Ranking
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus, summarise
from tests.search.toy import INT4, INT8


def latency(ratio: float) -> LatencyStats:
    """A timing against an FP32 of 10 ms."""
    return LatencyStats(
        median_ms=10 * ratio, p90_ms=11 * ratio, ci_low_ms=9.9 * ratio, ci_high_ms=10.1 * ratio, ratio=ratio,
        ratio_low=ratio, ratio_high=ratio, rounds=9, threads=1, batch_size=1,
    )  # fmt: skip


def trial(
    number: int,
    accuracy: float | None,
    ratio: float,
    size_bytes: int,
    name: str = "",
    status: TrialStatus = TrialStatus.COMPLETE,
    misses: Mapping[str, float] | None = None,
) -> Trial:
    """A finished trial."""
    stats = None if accuracy is None else AccuracyStats(value=accuracy, ci_low=0, ci_high=1, samples=9)
    return Trial(
        number=number, candidate=Candidate(origin=Origin.PRUNED, schemes={"fc": FP32}, name=name), status=status,
        artifact=str(number), size_bytes=size_bytes, latency=latency(ratio), latency_ms=10 * ratio, accuracy=stats,
        misses=misses or {}, seconds=0.1,
    )  # fmt: skip


def test_stopwatch_splits_nested_work_without_counting_twice() -> None:
    """Kinds add up to the total; an inner clock stops the outer one."""
    now = [100.0]
    watch = Stopwatch(clock=lambda: now[0])
    now[0] += 1
    with watch.timed(Kind.LOWERING):
        now[0] += 2
        with watch.timed(Kind.INFERENCE):
            now[0] += 4
        now[0] += 8
    now[0] += 16
    split = watch.split_s()
    assert split == {
        "inference": 4, "compilation": 0, "solver": 0, "calibration": 0, "training": 0, "lowering": 10, "other": 17,
        "total": 31,
    }  # fmt: skip
    assert watch.elapsed_s == 31
    resumed = Stopwatch(clock=lambda: now[0], before_s=split)
    now[0] += 1
    assert resumed.split_s() == {**split, "other": 18, "total": 32}
    assert resumed.elapsed_s == 1


def test_stopwatch_closes_what_an_error_leaves() -> None:
    """Time after an exception is not the failed work's."""
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])

    def fail() -> None:
        with watch.timed(Kind.SOLVER):
            now[0] += 1
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        fail()
    now[0] += 5
    assert watch.split_s()["solver"] == 1


def test_the_cache_gives_back_what_was_put(tmp_path: Path) -> None:
    """Another cache over the same folder finds a measurement, unless it is about something else."""
    layers = {"fc": INT8}
    store = ContentStore(tmp_path)
    scored = Scored(np.array([1.0, 0.0, 1.0]), 3)
    first = MeasurementCache(store, lowering="l", timing="t", scoring="s")
    first.put_lowered(layers, Lowered(artifact="a", size_bytes=9))
    first.put_latency("a", latency(0.5))
    first.put_scored("a", "search", scored)
    first.put_joint_latencies("here", {"a": latency(0.5), "b": latency(1.0)})

    again = MeasurementCache(store, lowering="l", timing="t", scoring="s")
    assert again.lowered(layers) == Lowered(artifact="a", size_bytes=9)
    assert again.latency("a") == latency(0.5)
    kept = again.scored("a", "search")
    assert kept is not None
    np.testing.assert_array_equal(kept.scores, scored.scores)
    assert again.joint_latencies("here", ["b", "a"]) == {"a": latency(0.5), "b": latency(1.0)}

    other = MeasurementCache(store, lowering="L", timing="T", scoring="S")
    assert other.lowered(layers) is None
    assert other.latency("a") is None
    assert other.scored("a", "search") is None
    assert again.scored("a", "held back") is None
    assert again.lowered({"fc": INT4}) is None
    assert again.joint_latencies("here", ["a"]) is None


ORDER = Ranking.of(Constraints(), Preference())


def test_finalists_hold_baselines_the_best_and_a_spread_front() -> None:
    """Of many, at most a dozen: all baselines, the best within budget, and the front's far end."""
    front = [
        trial(10 + i, 0.5 + 0.01 * i, 0.2 + 0.02 * i, 1000 + 10 * i, misses={"latency": 0.1 * (i - 3)})
        for i in range(30)
    ]
    baselines = [
        trial(i, 0.4, 1.0, 4000, name=name, misses={"latency": 1.0}) for i, name in enumerate(("fp32", "fp16", "int8"))
    ]
    dominated = trial(50, 0.3, 1.5, 9000, misses={"latency": 1.0})
    repeated = trial(51, 0.99, 0.1, 10, status=TrialStatus.REPEATED, misses={"latency": -1.0})
    chosen = choose_finalists([*baselines, *front, dominated, repeated], ORDER)
    numbers = [t.number for t in chosen]
    assert len(chosen) == MOST
    assert numbers == sorted(numbers)
    assert {0, 1, 2, 11, 12, 13, 39} <= set(numbers)
    assert 50 not in numbers
    assert 51 not in numbers


def test_finalists_of_a_hopeless_run_are_the_nearest() -> None:
    """What was not scored comes along where it came nearest to a limit."""
    reference = trial(0, 0.9, 1.0, 4000, name="fp32", misses={"latency": 9.0, "accuracy": -0.1})
    nearest = trial(1, None, 0.2, 1000, status=TrialStatus.OVER_BUDGET, misses={"latency": 1.0})
    middling = trial(2, None, 0.4, 2000, status=TrialStatus.OVER_BUDGET, misses={"latency": 3.0})
    assert [t.number for t in choose_finalists([reference, nearest, middling], ORDER)] == [0, 1]


def test_finalists_are_not_hopelessly_inaccurate() -> None:
    """Below a floor of 0.7 the front goes down as far as the best exceeds it, unless nothing is feasible."""
    best = trial(0, 0.9, 1.0, 4000, misses={"accuracy": -0.2})
    near = trial(1, 0.55, 0.5, 2000, misses={"accuracy": 0.15})
    useless = trial(2, 0.1, 0.1, 100, misses={"accuracy": 0.6})
    assert [t.number for t in choose_finalists([best, near, useless], ORDER)] == [0, 1]
    assert [t.number for t in choose_finalists([near, useless], ORDER)] == [1, 2]


def test_finalists_of_a_hopeless_run_may_have_been_stopped() -> None:
    """Faster than what was scored to its end, and nearly as accurate; where something is feasible it is no finalist."""
    reference = trial(0, 0.9, 1.0, 4000, misses={"accuracy": -0.1, "latency": 1.0})
    slower = trial(1, 0.75, 0.5, 2000, misses={"accuracy": 0.05, "latency": -0.1})
    stopped = trial(2, 0.74, 0.2, 1500, status=TrialStatus.STOPPED, misses={"accuracy": 0.06, "latency": -0.4})
    feasible = trial(3, 0.85, 0.45, 3000, misses={"accuracy": -0.05, "latency": -0.1})
    assert [t.number for t in choose_finalists([reference, slower, stopped], ORDER)] == [0, 1, 2]
    assert 2 not in [t.number for t in choose_finalists([reference, slower, stopped, feasible], ORDER)]


@given(st.floats(0.05, 5), st.floats(0.8, 1.25))
def test_holding_is_within_five_per_cent(ratio: float, factor: float) -> None:
    """Both directions count: a point that is faster elsewhere was not measured well either."""
    if abs(abs(factor - 1) - 0.05) > 1e-6:
        assert reproduced(latency(ratio), latency(ratio * factor)) == (abs(factor - 1) <= 0.05)


def test_summary_counts_layers() -> None:
    """The commonest first."""
    assert summarise({"a": INT8, "b": INT4, "c": INT8}) == "int8 ×2, int4 ×1"
