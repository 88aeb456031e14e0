"""A stopwatch that splits a run's wall-clock time by kind of work.

Contexts nest: while an inner one is open, the outer one's clock stands still, so the kinds add up to the total.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum


class Kind(StrEnum):
    """A kind of work that time is spent on."""

    INFERENCE = "inference"
    COMPILATION = "compilation"
    SOLVER = "solver"
    CALIBRATION = "calibration"
    TRAINING = "training"  # pruning, training and exporting networks
    LOWERING = "lowering"
    OTHER = "other"


class Stopwatch:
    """A clock that splits the time since it was made by kind of work.

    Args:
        clock: Seconds on a clock that never goes back.
        before_s: An earlier split to go on from: that of a run that is resumed.
    """

    def __init__(
        self, clock: Callable[[], float] = time.perf_counter, before_s: Mapping[str, float] | None = None
    ) -> None:
        self._clock = clock
        self._start = clock()
        self._mark = self._start
        self._open: list[Kind] = []
        self._paused_at: float | None = None
        self._seconds = {kind: (before_s or {}).get(kind.value, 0.0) for kind in Kind}

    @contextmanager
    def timed(self, kind: Kind) -> Iterator[None]:
        """Count the time inside as ``kind``, less what an inner ``timed`` counts."""
        self._book()
        self._open.append(kind)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def pause(self) -> None:
        """Stop the clock until ``resume``: the time in between is another search's."""
        self._book()
        self._paused_at = self._mark

    def resume(self) -> None:
        """Start the clock again after ``pause``; without effect where it runs."""
        if self._paused_at is not None:
            self._mark = self._clock()
            self._start += self._mark - self._paused_at
            self._paused_at = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, pauses left out."""
        return (self._clock() if self._paused_at is None else self._paused_at) - self._start

    def split_s(self) -> dict[str, float]:
        """Kind → seconds so far, with their ``total``."""
        self._book()
        seconds = {kind.value: self._seconds[kind] for kind in Kind}
        return {**seconds, "total": sum(seconds.values())}

    def _book(self) -> None:
        if self._paused_at is not None:
            return
        now = self._clock()
        self._seconds[self._open[-1] if self._open else Kind.OTHER] += now - self._mark
        self._mark = now
