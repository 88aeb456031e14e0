"""The maths of paired timing, against values worked out by hand, and simulated machines whose truth is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.backends.estimates import (
    PairedRounds,
    Slots,
    placement,
    precision_of,
    round_order,
    runs_per_slot,
    shortest_runs,
    slowdown,
    summarise,
    unpreempted_rounds,
)
from bitfront.core import LatencyStats

_REFERENCE = Slots(times=np.array([[10, 12, 11], [20, 22, 21], [40, 44, 42], [30, 33, 36]], np.int64))
_MODEL = Slots(times=np.array([[5, 6, 90], [11, 10, 9], [21, 20, 22], [16, 15, 99]], np.int64))
_TRUTH = 0.5
Noise = Callable[[np.random.Generator, int], np.ndarray]
"""Generator and rounds → factors on the reference's and the model's time in each round, (rounds, 2)."""


def test_latencies_are_low_quantiles_of_each_direction() -> None:
    """Round minima 10, 20, 40, 30: forwards 10 % of the way from 10 to 40, backwards from 20 to 30; 13 and 21."""
    rounds = PairedRounds.of(_MODEL, _REFERENCE, 1)
    mine, theirs = rounds.latencies_ns
    assert theirs == pytest.approx(np.sqrt(13 * 21))
    assert mine == pytest.approx(np.sqrt(6.5 * 9.6))  # 5, 21 and 9, 15


def test_ratio_is_that_of_the_latencies_beside_it() -> None:
    """Not that of medians, which most of disturbed rounds would decide; and it is within its own interval."""
    stats = summarise({"fp32": _REFERENCE, "m": _MODEL}, "fp32", threads=1, batch_size=1)
    found = stats["m"]
    assert found.ratio == pytest.approx(found.median_ms / stats["fp32"].median_ms, rel=1e-12)
    assert found.ratio_low <= found.median_ms / stats["fp32"].median_ms <= found.ratio_high
    assert float(np.median(_MODEL.times) / np.median(_REFERENCE.times)) != pytest.approx(found.ratio, rel=0.01)


def test_summary_is_in_milliseconds() -> None:
    """From ns to ms; the 90th percentile is of all runs."""
    times = np.arange(1, 12, dtype=np.int64).reshape(11, 1) * 1_000_000
    stats = summarise({"m": Slots(times=times)}, "m", threads=3, batch_size=4)["m"]
    assert stats.median_ms == pytest.approx(np.sqrt(2.0 * 2.8))
    assert (stats.p90_ms, stats.rounds) == (10.0, 11)
    assert (stats.ratio, stats.ratio_low, stats.ratio_high, stats.threads, stats.batch_size) == (1.0, 1.0, 1.0, 3, 4)


def test_models_may_have_different_numbers_of_runs() -> None:
    """Only rounds are shared; a fast model has more runs in each."""
    fast = Slots(times=np.full((4, 7), 10, np.int64))
    assert PairedRounds.of(fast, _REFERENCE, 1).latencies_ns == pytest.approx((10.0, np.sqrt(13 * 21)))


def test_a_clock_that_stands_still_divides_by_nothing() -> None:
    """Runs of 0 ns count as 1 ns."""
    zero = Slots(times=np.zeros((3, 2), np.int64))
    assert summarise({"a": zero, "b": zero}, "a", threads=1, batch_size=1)["b"].ratio == 1


def test_preempted_runs_took_what_the_processor_spent() -> None:
    """With one thread the processor's time replaces the clock's where that is longer; with several it is none."""
    slots = Slots(times=np.array([[100], [250], [100]], np.int64), processor=np.array([101.0, 104.0, 100.0]))
    assert shortest_runs(slots, 1).tolist() == [100, 104, 100]
    assert shortest_runs(slots, 2).tolist() == [100, 250, 100]


def test_rounds_whose_threads_waited_do_not_count() -> None:
    """Two threads were busy for all of a run but in round 1, where one waited; if too few are left, all count."""
    times = np.array([[100], [160], [100], [100]], np.int64)
    slots = Slots(times=times, processor=np.array([199.0, 220.0, 200.0, 198.0]))
    assert unpreempted_rounds(slots, 2).tolist() == [True, False, True, True]
    assert unpreempted_rounds(slots, 1).all()
    assert unpreempted_rounds(Slots(times=times), 2).all()
    stats = summarise({"r": Slots(times=times), "m": slots}, "r", threads=2, batch_size=1)["m"]
    assert (stats.rounds, stats.rounds_left_out) == (3, 1)
    waiting = Slots(times=times, processor=np.array([199.0, 100.0, 100.0, 198.0]))
    assert len(PairedRounds.of(waiting, slots, 2)) == 4


def test_what_slowed_every_round_stretches_the_interval() -> None:
    """A reference 1.5 × as slow as known makes the ratio uncertain by that factor; below ``QUIET`` it does not."""
    steady = {"r": Slots(times=np.full((6, 1), 1_500_000)), "m": Slots(times=np.full((6, 1), 600_000))}
    assert slowdown(steady["r"], 1, 1.0) == pytest.approx(1.5)
    assert slowdown(steady["r"], 1, 1.4) == slowdown(steady["r"], 1, None) == 1
    found = summarise(steady, "r", threads=1, batch_size=1, known_ms=1.0)["m"]
    assert (found.ratio_low, found.ratio, found.ratio_high) == pytest.approx((0.4 / 1.5, 0.4, 0.4 * 1.5), rel=0.02)
    assert found.ratio_error == pytest.approx((1.5 - 1 / 1.5) / 2, rel=0.04)


def test_no_number_of_rounds_tells_placement_from_speed() -> None:
    """Two compilations of one model differ by 0.5 %, of a short one by 70 ns: no interval is narrower."""
    assert placement(1e6) == pytest.approx(1.96 * 0.005, rel=0.01)
    assert placement(7_000.0) == pytest.approx(1.96 * np.hypot(0.005, 0.01))
    steady = {"r": Slots(times=np.full((200, 1), 1_000_000)), "m": Slots(times=np.full((200, 1), 500_000))}
    found = summarise(steady, "r", threads=1, batch_size=1)["m"]
    assert found.ratio_error == pytest.approx(placement(500_000), rel=1e-3)


def _quiet(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return np.exp(rng.normal(0, 0.01, (rounds, 2)))


def _bursts(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Three slots of ten are disturbed, each model's by itself."""
    return _quiet(rng, rounds) * np.where(rng.random((rounds, 2)) < 0.3, 1 + rng.exponential(0.5, (rounds, 2)), 1)


def _unequal(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Six rounds of ten are disturbed, floating kernels twice as much as integer ones."""
    slow = (rng.random(rounds) < 0.6) * rng.exponential(0.5, rounds)
    return _quiet(rng, rounds) * np.stack([1 + slow, 1 + slow / 2], axis=1)


def _drifting(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return _quiet(rng, rounds) * np.exp(np.cumsum(rng.normal(0, 0.03, rounds)))[:, None]


_MACHINES = {"quiet": _quiet, "bursts": _bursts, "unequal": _unequal, "drifting": _drifting}


def _timed(noise: Noise, seed: int, rounds: int, truth: float = _TRUTH) -> LatencyStats:
    rng = np.random.default_rng(seed)
    factors = noise(rng, rounds)[:, :, None] * np.exp(rng.normal(0, 0.005, (rounds, 2, 5)))
    slots = [(factors[:, index] * base * 1e6).astype(np.int64) for index, base in enumerate((1.0, truth))]
    made = {name: Slots(times=times) for name, times in zip(("r", "m"), slots, strict=True)}
    return summarise(made, "r", threads=1, batch_size=1)["m"]


@pytest.mark.parametrize("name", _MACHINES)
def test_ratio_is_unbiased_and_its_interval_covers(name: str) -> None:
    """Within 0.3 % on average, and at least 92 % of the 95 % intervals hold the truth; half as wide ones would not."""
    found = [_timed(_MACHINES[name], seed, 24) for seed in range(200)]
    errors = np.array([stats.ratio / _TRUTH - 1 for stats in found])
    assert abs(errors.mean()) < 0.003
    covered = np.mean([stats.ratio_low <= _TRUTH <= stats.ratio_high for stats in found])
    assert covered >= 0.92
    if name == "quiet":
        halved = np.abs(errors) <= [stats.ratio_error / 2 for stats in found]
        assert halved.mean() < 0.92
        assert np.median([stats.ratio_error for stats in found]) < 0.02


@pytest.mark.parametrize("name", _MACHINES)
def test_two_copies_of_one_model_rarely_differ(name: str) -> None:
    """A/A: the interval of their ratio leaves out 1 in 5 % of tries at most, also of few rounds."""
    for rounds in (8, 24):
        tries = [_timed(_MACHINES[name], seed, rounds, truth=1.0) for seed in range(1000, 1200)]
        apart = [stats for stats in tries if not stats.ratio_low <= 1 <= stats.ratio_high]
        assert len(apart) <= 0.05 * len(tries)


def test_medians_of_paired_rounds_would_be_wrong() -> None:
    """Planted estimator: where six rounds of ten are disturbed unequally, the median of round ratios is 3 % off."""
    rng = np.random.default_rng(0)
    factors = _unequal(rng, 1000)
    assert float(np.median(factors[:, 1] / factors[:, 0])) < 0.97


def test_rounds_are_drawn_whole() -> None:
    """Runs of a round that share one disturbance count as one observation: many runs don't shrink the interval."""
    levels = np.random.default_rng(1).integers(1000, 2000, size=(20, 1))
    steady = Slots(times=np.full((20, 1), 1000))
    few, many = (Slots(times=levels.repeat(count, axis=1)) for count in (2, 50))
    assert precision_of(many, steady, 1) == precision_of(few, steady, 1) > 0.05


def test_precision_is_that_of_the_ratio() -> None:
    """A disturbance that both share leaves the ratio alone; of the reference itself, its own latency counts."""
    steady = Slots(times=np.full((12, 1), 100, np.int64))
    shaky = Slots(times=np.array([[80], [85], [120], [110]] * 3, np.int64))
    doubled = Slots(times=shaky.times * 2)
    assert precision_of(steady, steady, 1) == 0
    assert precision_of(shaky, steady, 1) > 0.02
    assert precision_of(doubled, shaky, 1) == pytest.approx(0, abs=1e-9)
    assert precision_of(shaky, shaky, 1) > 0.02


@pytest.mark.parametrize(
    ("pilot_ns", "slot_ns", "most", "expected"),
    [
        (1e6, 5e6, 32, (5, 1)),
        (1e6, 5.1e6, 32, (6, 1)),
        (9e6, 5e6, 32, (1, 1)),
        (5e4, 5e6, 32, (32, 1)),
        (4e4, 5e6, 100, (42, 3)),
        (1e3, 5e6, 32, (32, 100)),
        (0.0, 5e6, 32, (32, 100_000)),
    ],
)
def test_slots_are_filled(pilot_ns: float, slot_ns: float, most: int, expected: tuple[int, int]) -> None:
    """Measurements that fill the slot, rounded up, within the limits; below 50 µs each is a loop of 0.1 ms."""
    assert runs_per_slot(pilot_ns, slot_ns, most) == expected


@given(count=st.integers(1, 7), start=st.integers(0, 20))
def test_every_model_takes_every_place(count: int, start: int) -> None:
    """Each round runs every model once; over 2 · count rounds each model takes each place twice."""
    rounds = [round_order(count, 2 * start + number) for number in range(2 * count)]
    assert all(sorted(order) == list(range(count)) for order in rounds)
    for place in range(count):
        taken = sorted(order[place] for order in rounds)
        assert taken == sorted([*range(count), *range(count)])


def test_results_repeat() -> None:
    """The bootstrap is seeded: the same times give the same statistics."""
    first, second = (summarise({"r": _REFERENCE, "m": _MODEL}, "r", threads=1, batch_size=1) for _ in range(2))
    assert first == second
