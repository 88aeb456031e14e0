"""Where a run's wall clock goes, split by kind of work.

Contexts nest: while an inner one is open, the outer one's clock stands still, so the kinds add up to the total.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum


class Kind(StrEnum):
    """Kinds of work."""

    INFERENCE = "inference"
    COMPILATION = "compilation"
    SOLVER = "solver"
    CALIBRATION = "calibration"
    TRAINING = "training"  # pruning, training and exporting networks
    LOWERING = "lowering"
    OTHER = "other"


class Stopwatch:
    """Splits the time since it was made.

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
        self._halted: float | None = None
        self._seconds = {kind: (before_s or {}).get(kind.value, 0.0) for kind in Kind}

    @contextmanager
    def timed(self, kind: Kind) -> Iterator[None]:
        """Count the time inside as ``kind``, less what an inner ``measure`` counts."""
        self._book()
        self._open.append(kind)
        try:
            yield
        finally:
            self._book()
            self._open.pop()

    def pause(self) -> None:
        """Stand still until ``go_on``: what happens meanwhile is somebody else's work."""
        self._book()
        self._halted = self._mark

    def resume(self) -> None:
        """Run on where ``halt`` stopped; nothing where it did not."""
        if self._halted is not None:
            self._mark = self._clock()
            self._start += self._mark - self._halted
            self._halted = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, without those it stood still."""
        return (self._clock() if self._halted is None else self._halted) - self._start

    def split_s(self) -> dict[str, float]:
        """Kind → seconds so far, with their ``total``."""
        self._book()
        seconds = {kind.value: self._seconds[kind] for kind in Kind}
        return {**seconds, "total": sum(seconds.values())}

    def _book(self) -> None:
        if self._halted is not None:
            return
        now = self._clock()
        self._seconds[self._open[-1] if self._open else Kind.OTHER] += now - self._mark
        self._mark = now
