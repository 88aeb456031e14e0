"""The timing protocol, the one place where a run is timed.

    for each model: warm up, then time a few runs to see how many fill a slot
    for each round: for each model, in an order that changes every round:
        one untimed run (it finds the caches as the previous model left them), then a slot of timed runs
    until every ratio to the reference is known well enough, or the rounds or the seconds are used up

While an interval is much wider than wanted, or the reference slower than it is known to be, it goes on for up to
``_PATIENCE`` times the seconds: disturbances come in spells of a second or so.

A run is timed as its runtime times best (``CompiledModel.timer``): by the clock, or by events of its device; short ones
in loops. Beside each slot stands the processor time it took, which tells a run that waited for a core from one that
ran. What is read off the times is in ``backends.estimates``. While timing, garbage collection is off and the calling
thread is kept on as many cores as the models have threads. Stopping looks at the interval's width alone, never at
the ratio itself, so it favours no outcome.

The clocks are arguments: a backend with simulated time, and tests, bring their own. This file doesn't check
outputs, nor that ``inputs`` hold ``batch_size`` samples; both are the caller's.
"""

from __future__ import annotations

import contextlib
import gc
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from bitfront.backends.affinity import pinned
from bitfront.backends.base import Clock, CompiledModel, Timer
from bitfront.backends.estimates import (
    FEWEST_ROUNDS,
    Slots,
    Times,
    precision_of,
    round_order,
    runs_per_slot,
    slowdown,
    summarise,
)
from bitfront.core import Inputs, LatencyStats, UsageError
from bitfront.core.document import JsonValue

_PILOT_RUNS = 3
_PATIENCE = 2
_ROUNDS_BETWEEN_CHECKS = 4
_MUCH_WIDER = 2
_NS_PER_S = 1e9
_NS_PER_MS = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingSettings(JsonValue):
    """Durations, rounds and precision of a timing.

    Attributes:
        slot_ms: A model's timed runs in one round take about this long, at least one run.
        max_runs: Measurements of one slot at most; of a run each, or of a loop of short ones.
        warmup_runs: Untimed runs of each model before anything else.
        min_rounds: Rounds before the target may end the timing.
        max_rounds: Rounds at most, unless the machine is disturbed.
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
    processor_clock: Clock | None = None,
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
        processor_clock: The backend's ``processor_clock``.

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
        slots = _collect(models, reference, inputs, settings, threads, _Clocks(clock, processor_clock))
    return summarise(slots, reference, threads=threads, batch_size=batch_size, known_ms=settings.undisturbed_ms)


@dataclass(frozen=True, slots=True)
class _Clocks:
    wall: Clock
    processor: Clock | None

    def busy_ns(self) -> float:
        """Processor time so far; NaN where it is not told."""
        return math.nan if self.processor is None else self.processor()


def _collect(
    models: Mapping[str, CompiledModel],
    reference: str,
    inputs: Inputs,
    settings: TimingSettings,
    threads: int,
    clocks: _Clocks,
) -> dict[str, Slots]:
    names = tuple(models)
    timers = {name: model.timer(inputs, clocks.wall) for name, model in models.items()}
    runs = {name: _runs(timer, settings) for name, timer in timers.items()}
    rows: dict[str, list[tuple[Times, float]]] = {name: [] for name in names}
    seconds = settings.max_seconds_per_model * len(names)
    start = clocks.wall()
    for number in range(_PATIENCE * settings.max_rounds):
        for index in round_order(len(names), number):
            name = names[index]
            count, loop = runs[name]
            timers[name](1)
            before = clocks.busy_ns()
            times = timers[name](count, loop)
            rows[name].append((times, (clocks.busy_ns() - before) / (count * loop)))
        if _enough(rows, reference, settings, threads, (clocks.wall() - start) / _NS_PER_S / seconds):
            break
    return _stack(rows)


def _enough(
    rows: Mapping[str, list[tuple[Times, float]]],
    reference: str,
    settings: TimingSettings,
    threads: int,
    share: float,
) -> bool:
    """Whether to stop after the rounds so far; ``share`` is the seconds used over those allowed."""
    done = len(rows[reference])
    if done < FEWEST_ROUNDS:
        return False
    ended = share >= 1 or done >= settings.max_rounds
    if share >= _PATIENCE:
        return True
    if not ended and (done < settings.min_rounds or done % _ROUNDS_BETWEEN_CHECKS):
        return False
    slots = _stack(rows)
    if slowdown(slots[reference], threads, settings.undisturbed_ms) > 1:
        return False
    others = [own for name, own in slots.items() if name != reference] or [slots[reference]]
    width = max(precision_of(own, slots[reference], threads) for own in others)
    return width <= settings.target * (_MUCH_WIDER if ended else 1)


def _runs(timer: Timer, settings: TimingSettings) -> tuple[int, int]:
    if settings.warmup_runs:
        timer(settings.warmup_runs)
    pilot = float(np.median(timer(_PILOT_RUNS)))
    return runs_per_slot(pilot, settings.slot_ms * _NS_PER_MS, settings.max_runs)


def _stack(rows: Mapping[str, list[tuple[Times, float]]]) -> dict[str, Slots]:
    return {name: _slots(slots) for name, slots in rows.items()}


def _slots(rows: list[tuple[Times, float]]) -> Slots:
    processor = np.array([busy for _, busy in rows])
    told = None if np.isnan(processor).any() else processor
    return Slots(times=np.stack([times for times, _ in rows]), processor=told)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
