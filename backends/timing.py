"""The timing protocol, the one place where a run is timed.

    for each model: warm up, then time a few runs to see how many fill a slot
    for each round: for each model, in an order that changes every round:
        one untimed run (it finds the caches as the previous model left them), then a slot of timed runs
    until every ratio to the reference is known well enough, or the rounds or the seconds are used up

Rounds in which the machine was disturbed do not count (``backends.estimates.undisturbed_rounds``). While too few count,
it goes on for up to ``_PATIENCE`` times the seconds: disturbances come in spells of a second or so.

A run is timed as its runtime times best (``CompiledModel.timer``): by the clock, or by events of its device. What is
read off the times is in ``backends.estimates``. While timing, garbage collection is off and the calling
thread is kept on as many cores as the models have threads. Stopping looks at the interval's width alone, never at
the ratio itself, so it favours no outcome; the interval is a little narrower than its 95 % for it.

The clock is an argument: a backend with simulated time, and tests, bring their own. This file doesn't check
outputs, nor that ``inputs`` hold ``batch_size`` samples; both are the caller's.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bitfront.backends.affinity import pinned
from bitfront.backends.base import Clock, CompiledModel, Timer
from bitfront.backends.estimates import (
    FEWEST_ROUNDS,
    Times,
    relative_half_width,
    round_order,
    runs_per_slot,
    summarise,
    undisturbed_rounds,
)
from bitfront.core import Inputs, LatencyStats, UsageError
from bitfront.core.document import JsonValue

_PILOT_RUNS = 3
_PATIENCE = 2
_ROUNDS_BETWEEN_CHECKS = 4
_NS_PER_S = 1e9
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSettings(JsonValue):
    """Durations, rounds and precision of a timing.

    Attributes:
        slot_ms: A model's timed runs in one round take about this long, at least one run.
        max_runs: Timed runs of one slot at most.
        warmup_runs: Untimed runs of each model before anything else.
        min_rounds: Rounds that count, before the target may end the timing.
        max_rounds: Rounds at most.
        max_seconds_per_model: Time-out, times the number of models; three rounds are always finished.
        target: Wanted half width of the 95 % interval of every ratio, relative to the ratio.
        undisturbed_ms: The reference model's latency on an undisturbed machine as known from earlier timings; None
            where nothing was timed yet.
    """

    slot_ms: float = 10.0
    max_runs: int = 32
    warmup_runs: int = 3
    min_rounds: int = 10
    max_rounds: int = 60
    max_seconds_per_model: float = 2.0
    target: float = 0.01
    undisturbed_ms: float | None = None

    def __post_init__(self) -> None:
        if not (
            self.slot_ms > 0
            and self.max_runs >= 1
            and self.warmup_runs >= 0
            and FEWEST_ROUNDS <= self.min_rounds <= self.max_rounds
            and self.max_seconds_per_model > 0
            and self.target >= 0
        ):
            raise UsageError(
                f"timing settings: {self} cannot be met",
                f"slots, runs and seconds are positive, {FEWEST_ROUNDS} <= min_rounds <= max_rounds",
            )


QUICK = TimingSettings(slot_ms=5.0, min_rounds=8, max_rounds=30, max_seconds_per_model=0.4)
"""For candidates of a search: about 0.3 s for a model of 1 ms."""
THOROUGH = TimingSettings(slot_ms=10.0, min_rounds=20, max_rounds=200, max_seconds_per_model=5.0, target=0.005)
"""For what is reported."""


def time_paired(
    models: Mapping[str, CompiledModel],
    reference: str,
    inputs: Inputs,
    settings: TimingSettings,
    *,
    threads: int,
    batch_size: int,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, LatencyStats]:
    """Time models against each other, interleaved, on the same inputs.

    Args:
        models: Name → model, compiled with ``threads`` threads; the reference among them, alone if need be.
        reference: Name of the model that ratios are taken to.
        inputs: What every run gets, one array per input.
        settings: How long and how closely.
        threads: Cores to use; noted in the result.
        batch_size: Samples in ``inputs``; noted in the result.
        clock: The backend's ``clock``.

    Returns:
        Name → statistics, in the order of ``models``.

    Raises:
        UsageError: If ``reference`` is not among the models.
        BackendError: If a model fails to run.
    """
    if reference not in models:
        raise UsageError(
            f"timing: reference '{reference}' is not among the models: {', '.join(models)}",
            "name one of them as the reference",
        )
    with pinned(threads), _no_garbage_collection():
        times = _collect(models, reference, inputs, settings, clock)
    return summarise(times, reference, threads=threads, batch_size=batch_size, known_ms=settings.undisturbed_ms)


def _collect(
    models: Mapping[str, CompiledModel], reference: str, inputs: Inputs, settings: TimingSettings, clock: Clock
) -> dict[str, Times]:
    names = tuple(models)
    timers = {name: model.timer(inputs, clock) for name, model in models.items()}
    runs = {name: _runs(timer, settings) for name, timer in timers.items()}
    rows: dict[str, list[Times]] = {name: [] for name in names}
    seconds = settings.max_seconds_per_model * len(names)
    start = clock()
    for number in range(_PATIENCE * settings.max_rounds):
        for index in round_order(len(names), number):
            name = names[index]
            timers[name](1)
            rows[name].append(timers[name](runs[name]))
        if _enough(rows, reference, settings, (clock() - start) / _NS_PER_S / seconds):
            break
    return _stack(rows)


def _enough(rows: Mapping[str, list[Times]], reference: str, settings: TimingSettings, share: float) -> bool:
    """Whether to stop after the rounds so far; ``share`` is the seconds used over those allowed."""
    done = len(rows[reference])
    if done < FEWEST_ROUNDS:
        return False
    times = _stack(rows)
    others = {name: matrix for name, matrix in times.items() if name != reference} or times
    masks = {
        name: undisturbed_rounds(matrix, times[reference], settings.undisturbed_ms) for name, matrix in others.items()
    }
    counting = min(int(mask.sum()) for mask in masks.values())
    if share >= 1 or done >= settings.max_rounds:
        wanted = min(settings.min_rounds // 2, done // 2 * 2)
        return counting >= wanted or share >= _PATIENCE
    if counting < settings.min_rounds or done % _ROUNDS_BETWEEN_CHECKS:
        return False
    widths = (
        relative_half_width(matrix[masks[name]], times[reference][masks[name]]) for name, matrix in others.items()
    )
    return max(widths) <= settings.target


def _runs(timer: Timer, settings: TimingSettings) -> int:
    if settings.warmup_runs:
        timer(settings.warmup_runs)
    pilot = float(np.median(timer(_PILOT_RUNS)))
    return runs_per_slot(pilot, settings.slot_ms * _NS_PER_MS, settings.max_runs)


def _stack(rows: Mapping[str, list[Times]]) -> dict[str, Times]:
    return {name: np.stack(slots) for name, slots in rows.items()}


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
