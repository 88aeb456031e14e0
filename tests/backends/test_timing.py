"""The timing protocol on simulated machines: what it finds, what it shrugs off, and what simpler ones get wrong."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bitfront.backends import QUICK, THOROUGH, TimingSettings, time_paired
from bitfront.backends.estimates import placement
from bitfront.core import BackendError, LatencyStats, UsageError
from tests.backends.simulated import Machine, SimulatedModel

_TRUE_RATIO = 0.5


def _drift(seconds: float) -> float:
    """A machine that gets 40 % slower within a second."""
    return 1 + 0.4 * min(seconds, 1.0)


def _steep(seconds: float) -> float:
    """A machine that gets slower all the time, by about 5 % in one round."""
    return 1 + 5 * seconds


def _spells(seconds: float) -> float:
    """A machine that others disturb for 0.3 s of every 0.5 s."""
    return 1.6 if seconds % 0.5 < 0.3 else 1.0


def _paired(machine: Machine, settings: TimingSettings = QUICK) -> dict[str, LatencyStats]:
    models = machine.models(fp32=1.0, int8=_TRUE_RATIO)
    return time_paired(models, "fp32", {}, settings, threads=1, batch_size=1, clock=machine.clock)


def _ratio_is_right(ratio: float) -> bool:
    """The oracle: within 1 % of the truth."""
    return abs(ratio / _TRUE_RATIO - 1) < 0.01


def _slot(machine: Machine, model: SimulatedModel, count: int) -> float:
    start = machine.clock()
    for _ in range(count):
        model.run({})
    return (machine.clock() - start) / count


def _one_after_the_other(machine: Machine) -> float:
    """Planted bug: time all of one model, then all of the other."""
    fp32, int8 = machine.models(fp32=1.0, int8=_TRUE_RATIO).values()
    reference = _slot(machine, fp32, 500)
    return _slot(machine, int8, 500) / reference


def _always_the_same_order(machine: Machine) -> float:
    """Planted bug: interleaved, but the reference always goes first."""
    fp32, int8 = machine.models(fp32=1.0, int8=_TRUE_RATIO).values()
    ratios = []
    for _ in range(8):
        reference = _slot(machine, fp32, 6)
        ratios.append(_slot(machine, int8, 6) / reference)
    return float(np.median(ratios))


def _mean_of_few_runs(machine: Machine) -> float:
    """Planted bug: means of slots that begin right after another model's."""
    fp32, int8 = machine.models(fp32=1.0, int8=_TRUE_RATIO).values()
    ratios = [_slot(machine, int8, 2) / _slot(machine, fp32, 2) for _ in range(30)]
    return float(np.mean(ratios))


@pytest.mark.parametrize(
    ("make", "planted"),
    [
        (lambda: Machine(_drift), _one_after_the_other),
        (lambda: Machine(_steep), _always_the_same_order),
        (lambda: Machine(cold_ms=0.1), _mean_of_few_runs),
        (lambda: Machine(hiccup_every=7), _mean_of_few_runs),
    ],
    ids=["drift", "drift within a round", "cold caches", "hiccups"],
)
def test_disturbances_cancel_where_simpler_protocols_fail(
    make: Callable[[], Machine], planted: Callable[[Machine], float]
) -> None:
    """On a disturbed machine the paired ratio is right, and the planted protocol is caught by the same oracle."""
    assert _ratio_is_right(_paired(make())["int8"].ratio)
    assert not _ratio_is_right(planted(make()))


def test_disturbed_rounds_do_not_count() -> None:
    """Spells of a slow machine leave latencies alone, even where most of the time is disturbed; p90 tells of them."""
    stats = _paired(Machine(_spells), THOROUGH)
    assert stats["fp32"].median_ms == pytest.approx(1.0, rel=0.01)
    assert stats["int8"].median_ms == pytest.approx(_TRUE_RATIO, rel=0.01)
    assert stats["fp32"].p90_ms == pytest.approx(1.6, rel=0.02)


def test_a_known_undisturbed_time_is_waited_for() -> None:
    """A timing that begins in a slow spell goes on until the known speed is back, and no longer than patience."""
    slow_start = Machine(lambda seconds: 1.6 if seconds < 1.0 else 1.0)
    settings = TimingSettings(max_seconds_per_model=0.3, max_rounds=400)
    assert _paired(slow_start, settings)["fp32"].median_ms == pytest.approx(1.6)
    slow_start = Machine(lambda seconds: 1.6 if seconds < 1.0 else 1.0)
    assert _paired(slow_start, replace(settings, undisturbed_ms=1.0))["fp32"].median_ms < 1.1
    slow_for_good = Machine(lambda _: 1.6)
    stats = _paired(slow_for_good, replace(settings, undisturbed_ms=1.0))
    assert stats["fp32"].median_ms == pytest.approx(1.6)
    # What slowed the reference by 1.6 may have left the other alone, or slowed it by more.
    assert stats["int8"].ratio_low == pytest.approx(_TRUE_RATIO / 1.6, rel=0.02)
    assert stats["int8"].ratio_high == pytest.approx(_TRUE_RATIO * 1.6, rel=0.02)


@pytest.mark.parametrize("settings", [QUICK, THOROUGH], ids=["quick", "thorough"])
def test_a_steady_machine_is_measured_exactly(settings: TimingSettings) -> None:
    """Without noise, latencies are the models' times, intervals those of placement, and the fewest rounds suffice."""
    stats = _paired(Machine(), settings)
    half = placement(1e6)
    assert stats["fp32"] == LatencyStats(
        median_ms=1.0,
        p90_ms=1.0,
        ci_low_ms=math.exp(-half),
        ci_high_ms=math.exp(half),
        ratio=1.0,
        ratio_low=1.0,
        ratio_high=1.0,
        rounds=settings.min_rounds,
        threads=1,
        batch_size=1,
    )
    assert (stats["int8"].median_ms, stats["int8"].ratio) == (0.5, 0.5)
    assert stats["int8"].ratio_high == pytest.approx(0.5 * math.exp(placement(0.5e6)))


def test_the_reference_alone_is_allowed() -> None:
    """One model is its own reference: ratio 1, and its median is still known closely."""
    machine = Machine(hiccup_every=9)
    stats = time_paired(machine.models(fp32=2.0), "fp32", {}, QUICK, threads=2, batch_size=8, clock=machine.clock)
    only = stats["fp32"]
    assert (only.ratio, only.ratio_low, only.ratio_high) == (1, 1, 1)
    assert (only.median_ms, only.threads, only.batch_size) == (2.0, 2, 8)


def test_a_slot_lasts_as_long_as_asked() -> None:
    """Each slot has one untimed run and as many timed ones as fill it, short ones in loops of 0.1 ms."""
    settings = TimingSettings(slot_ms=4.0, max_runs=6, warmup_runs=0, min_rounds=3, max_rounds=3)
    machine = Machine()
    models = machine.models(tiny=0.01, small=1.0, large=9.0)
    time_paired(models, "small", {}, settings, threads=1, batch_size=1, clock=machine.clock)
    pilot, rounds = 3, 3
    counts = {name: machine.log.count(name) for name in models}
    assert counts == {"tiny": pilot + rounds * (1 + 6 * 10), "small": pilot + rounds * 5, "large": pilot + rounds * 2}


def test_noise_uses_more_rounds_up_to_the_limit() -> None:
    """A ratio that doesn't finalize is timed until patience ends; one that does, for the fewest rounds."""
    rng = np.random.default_rng(0)
    noisy = _paired(Machine(lambda _: float(rng.lognormal(sigma=0.3))))
    assert noisy["int8"].rounds + noisy["int8"].rounds_left_out > QUICK.max_rounds
    assert noisy["int8"].ratio_low < _TRUE_RATIO < noisy["int8"].ratio_high
    assert _paired(Machine())["int8"].rounds == QUICK.min_rounds


def test_the_time_limit_ends_a_slow_comparison() -> None:
    """Seconds used up end the timing, after three rounds at the earliest."""
    machine = Machine()
    models = machine.models(fp32=1000.0, int8=400.0)
    stats = time_paired(models, "fp32", {}, QUICK, threads=1, batch_size=1, clock=machine.clock)
    assert stats["int8"].rounds == 3
    assert stats["int8"].ratio == pytest.approx(0.4)


def test_an_unknown_reference_is_refused() -> None:
    """The reference has to be among the models; the message names both."""
    with pytest.raises(UsageError, match="reference 'fp16' is not among the models: fp32"):
        time_paired(Machine().models(fp32=1.0), "fp16", {}, QUICK, threads=1, batch_size=1)


def test_a_failing_model_leaves_the_process_as_it_was() -> None:
    """A run's error comes through, with garbage collection and cores back to what they were."""
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    machine = Machine()
    with pytest.raises(BackendError, match="planted failure"):
        time_paired(
            machine.models(fp32=1.0),
            "fp32",
            {"broken": np.zeros(1)},
            QUICK,
            threads=1,
            batch_size=1,
            clock=machine.clock,
        )
    assert gc.isenabled()
    assert cores == (os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set())


def test_garbage_collection_stays_off_for_those_who_turned_it_off() -> None:
    """What was off before is off afterwards."""
    gc.disable()
    try:
        _paired(Machine())
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "change",
    [{"slot_ms": 0.0}, {"max_runs": 0}, {"min_rounds": 2}, {"min_rounds": 99}, {"max_seconds_per_model": math.nan}],
    ids=["slot", "runs", "few rounds", "more than most", "nan"],
)
def test_impossible_settings_are_refused(change: dict[str, Any]) -> None:
    """Settings that cannot be met are refused when made."""
    with pytest.raises(UsageError, match="timing settings"):
        replace(QUICK, **change)


@pytest.mark.parametrize("settings", [QUICK, THOROUGH], ids=["quick", "thorough"])
def test_settings_survive_json(settings: TimingSettings) -> None:
    """What is written is read back."""
    assert TimingSettings.from_json(settings.to_json()) == settings
