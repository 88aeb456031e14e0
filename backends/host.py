"""Base of backends that time runs from the host, tell nothing of memory or layers, and profit from every precision."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
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
        """A timer that reads the clock after every run, one run at a time."""

        def timed(count: int) -> NDArray[np.int64]:
            run = self.run
            stamps = np.empty(count + 1, dtype=np.int64)
            stamps[0] = clock()
            for index in range(1, count + 1):
                run(inputs)
                stamps[index] = clock()
            return np.diff(stamps)

        return timed

    def profile(self, inputs: Inputs) -> tuple[ExecutedLayer, ...]:  # noqa: ARG002 (the protocol's signature)
        """Empty: the runtime does not tell its layers."""
        return ()

    def memory_usage(self) -> MemoryUsage:
        """Empty: the runtime does not tell its memory."""
        return MemoryUsage()

    def engine(self) -> bytes | None:
        """Bytes of the compiled model; None, as the runtime has no file of it."""
        return None


class HostBackend:
    """A base for backends that compile quickly, are timed by the clock and gain by every precision they write."""

    @property
    def clock(self) -> Clock:
        """The host's monotonic clock, in nanoseconds."""
        return time.perf_counter_ns

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        """Precisions that do not pay on the runtime: none."""
        return {}

    def proxy_backend(self: Backend) -> Backend:
        """Backend on which sensitivities are scored: this one itself."""
        return self
