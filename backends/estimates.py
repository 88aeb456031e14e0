"""The maths of paired timing, without a clock: latencies, ratios to the reference, and their intervals.

    symbol        meaning                                                     shape
    t[m]          times of model m's runs, in ns                              (rounds, runs of m)
    c[m]          processor time of a run, each round's mean, in ns           (rounds,)
    x[m]          each round's shortest: min(t[m], c[m])                      (rounds,)
    q[m, d]       10 % quantile of x[m] over the rounds of direction d        (2,)
    L[m]          latency: geometric mean of q[m, forwards], q[m, backwards]  scalar

``ratio`` is L[m] / L[reference], so it is always that of the latencies it is reported beside. Other programs only ever
add to a run's time, and they add much more than kernels vary: the shortest run of a round is the least disturbed, and
the lowest tenth of the rounds are those in which nobody was in the way. Medians need half of the rounds undisturbed,
which a machine with more programs than cores does not give. Rounds alternate in direction (``round_order``); with the
directions apart, drift within a round lengthens one model in one direction and the other in the other, and cancels.

Where one thread does all of the work on the processor (c is told), a run that was preempted took no more than the
processor spent on it. With several threads that is no measure of the run, but a round whose share of processor time is
below that of the model's best was preempted, and does not count.

Intervals are of log L[m] − log L[reference], symmetric: Student's t of n − 2 degrees times the root mean square
deviation of a bootstrap over rounds (Efron & Tibshirani, An Introduction to the Bootstrap, ch. 13), both models drawn
in the same rounds, from the estimate itself, times √(n/(n − 2)). Percentiles alone cover too little of a low quantile
of few rounds. Drawing single runs would claim a precision that is not there: runs of a round share disturbances.

A model compiled twice is not equally fast twice: where its weights and buffers come to lie differs. That repeats in
every round, so no number of them shows it. Ratios of a network to itself, compiled anew each time, had a standard
deviation of 0.3 to 2 % at 55 µs and of 0.6 to 1.2 % at 7 µs (``bitfront.experiments.timing_study``): hence the two
terms of ``placement``, which intervals hold as well, added as squares. Some networks vary by more than that.

What all rounds share can't be told from within. So if the reference was slower than it is known to be undisturbed by
more than ``QUIET``, integer and floating kernels may have suffered unequally: intervals are stretched by that factor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.core import LatencyStats

Times = NDArray[np.int64]
Floats = NDArray[np.float64]

_SEED = 0
_RESAMPLES = 300
_CONFIDENCE = 0.95
_NS_PER_MS = 1e6
_LOOP_NS = 100_000.0
_TIMED_ALONE_NS = 50_000.0
_LOWEST = 0.1
_UNPREEMPTED = 0.95
_PLACEMENT = 0.005
_PLACEMENT_NS = 70.0
_NORMAL = 1.96

QUIET = 1.1
FEWEST_ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """Times of one model, a slot of runs in each round.

    Attributes:
        times: Of its runs in ns, (rounds, runs).
        processor: Mean processor time of a run in ns, (rounds,); None where it is not told.
    """

    times: Times
    processor: Floats | None = None


def runs_per_slot(pilot_ns: float, slot_ns: float, most: int) -> tuple[int, int]:
    """Number of measurements that fill a slot, and of runs in each.

    A run of 50 µs or more is measured alone; of shorter ones, whose length reading a clock would change, so many that
    they take 100 µs.

    Args:
        pilot_ns: A run's time.
        slot_ns: The slot's.
        most: Measurements at most; there is at least one.
    """
    pilot_ns = max(pilot_ns, 1.0)
    loop = 1 if pilot_ns >= _TIMED_ALONE_NS else math.ceil(_LOOP_NS / pilot_ns)
    return max(1, min(most, math.ceil(slot_ns / (pilot_ns * loop)))), loop


def round_order(count: int, number: int) -> tuple[int, ...]:
    """The order of ``count`` models in round ``number``.

    Every second round runs backwards, which cancels a linear drift within rounds; each pair of rounds starts one
    model later, so that none always goes first or always follows the same one.
    """
    start = (number // 2) % count
    order = tuple((start + index) % count for index in range(count))
    return order[::-1] if number % 2 else order


def shortest_runs(slots: Slots, threads: int) -> Floats:
    """x: the shortest run of each round, preemption apart where one thread did the work; at least 1 ns, (rounds,)."""
    shortest = slots.times.min(axis=1).astype(np.float64)
    if slots.processor is not None and threads == 1:
        shortest = np.minimum(shortest, slots.processor)
    return np.asarray(np.maximum(shortest, 1.0), dtype=np.float64)


def unpreempted_rounds(slots: Slots, threads: int) -> NDArray[np.bool_]:
    """Mask of the rounds in which no thread of several waited for a core, (rounds,); all where that is not told."""
    if slots.processor is None or threads == 1:
        return np.ones(len(slots.times), np.bool_)
    share = slots.processor / np.maximum(slots.times.mean(axis=1), 1.0)
    return np.asarray(share >= _UNPREEMPTED * share.max(), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class PairedRounds:
    """Rounds that count for a model and the reference.

    Attributes:
        model, reference: x of each, (n,).
        backwards: Whether a round ran backwards, (n,).
    """

    model: Floats
    reference: Floats
    backwards: NDArray[np.bool_]

    @classmethod
    def of(cls, model: Slots, reference: Slots, threads: int) -> PairedRounds:
        """Pair them; where fewer than three rounds were not preempted, all count."""
        mask = unpreempted_rounds(model, threads) & unpreempted_rounds(reference, threads)
        if mask.sum() < FEWEST_ROUNDS:
            mask = np.ones(len(mask), np.bool_)
        backwards = np.arange(len(mask)) % 2 == 1
        mine, theirs = shortest_runs(model, threads), shortest_runs(reference, threads)
        return cls(mine[mask], theirs[mask], backwards[mask])

    def __len__(self) -> int:
        """Number of rounds that count."""
        return len(self.model)

    @property
    def latencies_ns(self) -> tuple[float, float]:
        """L of the model and of the reference."""
        every = np.arange(len(self))[None]
        return float(self._latency(self.model, every)[0]), float(self._latency(self.reference, every)[0])

    @property
    def ratio_half_width(self) -> float:
        """Half the 95 % interval of the logarithm of the ratio."""
        if np.array_equal(self.model, self.reference):
            return 0.0
        drawn, (mine, theirs) = self._drawn(), self.latencies_ns
        return self._half_width(self._latency(self.model, drawn) / self._latency(self.reference, drawn), mine / theirs)

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the logarithm of the model's own latency."""
        return self._half_width(self._latency(self.model, self._drawn()), self.latencies_ns[0])

    def _half_width(self, bootstrap: Floats, found: float) -> float:
        from scipy.special import stdtrit  # half a second, and every command imports the backends

        deviation = float(np.sqrt(np.mean(np.log(bootstrap / found) ** 2)))
        free = max(len(self) - 2, 1)
        return float(stdtrit(free, (1 + _CONFIDENCE) / 2)) * deviation * math.sqrt(len(self) / free)

    def _drawn(self) -> NDArray[np.intp]:
        """Rounds drawn with replacement, (resamples, n), each direction as often as it is there."""
        rng = np.random.default_rng(_SEED)
        parts = [np.flatnonzero(self.backwards == way) for way in (False, True)]
        return np.concatenate([p[rng.integers(0, len(p), (_RESAMPLES, len(p)))] for p in parts if len(p)], axis=1)

    def _latency(self, values: Floats, rounds: NDArray[np.intp]) -> Floats:
        """L of ``values`` over each row of ``rounds``, (rows,)."""
        ways = self.backwards[rounds[0]]
        parts = [values[rounds[:, ways == way]] for way in (False, True) if (ways == way).any()]
        lowest = [np.quantile(part, _LOWEST, axis=1) for part in parts]
        return np.asarray(np.sqrt(lowest[0] * lowest[-1]))


def precision_of(model: Slots, reference: Slots, threads: int) -> float:
    """Half the interval of a model's ratio, relative to it; for the reference itself, of its own latency."""
    rounds = PairedRounds.of(model, reference, threads)
    return math.expm1(rounds.half_width if model is reference else rounds.ratio_half_width)


def placement(latency_ns: float) -> float:
    """Half the 95 % interval of the logarithm of a ratio between two compilations of one model."""
    return _NORMAL * math.hypot(_PLACEMENT, _PLACEMENT_NS / latency_ns)


def slowdown(reference: Slots, threads: int, known_ms: float | None) -> float:
    """Factor by which the reference was slower than it is known to be undisturbed; 1 up to ``QUIET``."""
    if known_ms is None or known_ms <= 0:
        return 1.0
    found_ms = PairedRounds.of(reference, reference, threads).latencies_ns[0] / _NS_PER_MS
    factor = found_ms / known_ms
    return factor if factor > QUIET else 1.0


def summarise(
    slots: Mapping[str, Slots], reference: str, *, threads: int, batch_size: int, known_ms: float | None = None
) -> dict[str, LatencyStats]:
    """Statistics of every model.

    Args:
        slots: Model → its times; the same rounds for all.
        reference: The model that ratios are taken to.
        threads: What they ran with.
        batch_size: Likewise; only noted down.
        known_ms: The reference's undisturbed latency as known from before.
    """
    stretch = math.log(slowdown(slots[reference], threads, known_ms))
    base_ms = PairedRounds.of(slots[reference], slots[reference], threads).latencies_ns[0] / _NS_PER_MS
    summaries = {}
    for name, own in slots.items():
        rounds = PairedRounds.of(own, slots[reference], threads)
        mine, theirs = rounds.latencies_ns
        ratio = mine / theirs
        placed = placement(mine)
        half = 0.0 if name == reference else math.hypot(rounds.ratio_half_width, placed) + stretch
        own_half = math.hypot(rounds.half_width, placed)
        latency_ms = base_ms * ratio
        summaries[name] = LatencyStats(
            median_ms=latency_ms,
            p90_ms=float(np.quantile(own.times, 0.9)) / _NS_PER_MS,
            ci_low_ms=latency_ms * math.exp(-own_half),
            ci_high_ms=latency_ms * math.exp(own_half),
            ratio=ratio,
            ratio_low=ratio * math.exp(-half),
            ratio_high=ratio * math.exp(half),
            rounds=len(rounds),
            threads=threads,
            batch_size=batch_size,
            rounds_left_out=len(own.times) - len(rounds),
        )
    return summaries
