"""Base of backends that time runs from the host, tell nothing of memory or layers, and profit from every precision."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.base import Clock, ExecutedLayer, MemoryUsage, Timer
from bitfront.core import Array, Inputs, Precision

if TYPE_CHECKING:
    from bitfront.backends.base import Backend


class HostModel(ABC):
    """A base for compiled models; what a runtime can tell or time better, its model overrides."""

    @abstractmethod
    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """Run the model once; see ``CompiledModel.run``."""

    def timer(self, inputs: Inputs, clock: Clock) -> Timer:
        """A timer of runs by the clock."""
        return host_timer(lambda: self.run(inputs), clock)

    def profile(self, inputs: Inputs) -> tuple[ExecutedLayer, ...]:  # noqa: ARG002 (the protocol's signature)
        """Empty: the runtime does not tell its layers."""
        return ()

    def memory_usage(self) -> MemoryUsage:
        """Empty: the runtime does not tell its memory."""
        return MemoryUsage()

    def engine(self) -> bytes | None:
        """Bytes of the compiled model; None, as the runtime has no file of it."""
        return None


def host_timer(run: Callable[[], object], clock: Clock) -> Timer:
    """A timer that reads the clock after every loop of runs; ``run`` returns when the run is over."""

    def timed(count: int, loop: int = 1) -> NDArray[np.int64]:
        stamps = np.empty(count + 1, dtype=np.int64)
        stamps[0] = clock()
        for index in range(1, count + 1):
            for _ in range(loop):
                run()
            stamps[index] = clock()
        return np.asarray(np.diff(stamps) // loop)

    return timed


class HostBackend:
    """A base for backends that compile quickly, are timed by the clock and gain by every precision they write."""

    @property
    def clock(self) -> Clock:
        """The host's monotonic clock, in nanoseconds."""
        return time.perf_counter_ns

    @property
    def processor_clock(self) -> Clock | None:
        """Clock of the processor time that runs take; None, as another device may do the work."""
        return None

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        """Precisions that do not pay on the runtime: none."""
        return {}

    def proxy_backend(self: Backend) -> Backend:
        """Backend on which sensitivities are scored: this one itself."""
        return self
