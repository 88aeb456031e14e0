"""A stand-in for CUDA: arrays for buffers, and a log that tells in which order things happened."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.tensorrt.cuda import Gpu
from bitfront.core import Array

RUN_MS = 0.25
"""What a run takes on the pretended device."""


class FakeCuda:
    """Buffers are arrays, streams are numbers, events read a clock that runs alone move."""

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.capability = capability
        self.log: list[str] = []
        self.buffers: dict[int, NDArray[Any]] = {}
        self.now, self.streams, self.events = 0.0, 0, 0
        self.capture_fails = ""
        self._captured: list[Callable[[], None]] | None = None

    def gpu(self) -> Gpu:
        return Gpu(name="Test GPU", capability=self.capability, driver="580.1", cuda="13.0")

    def stream(self) -> int:
        self.streams += 1
        return self.streams

    def handle(self, stream: int) -> int:
        return stream

    def on(self, stream: int) -> contextlib.AbstractContextManager[Any]:
        self.log.append(f"on {stream}")
        return contextlib.nullcontext()

    def upload(self, array: Array) -> NDArray[Any]:
        self.log.append("upload")
        return self._kept(np.array(array, order="C"))

    def empty(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        return self._kept(np.empty(shape, dtype))

    def address(self, buffer: NDArray[Any]) -> int:
        return id(buffer)

    def download(self, buffer: NDArray[Any]) -> Array:
        return buffer.copy()

    def synchronise(self, stream: int) -> None:
        self.log.append(f"synchronise {stream}")

    def record(self) -> tuple[int, float]:
        self.events += 1
        self.log.append(f"record {self.events}")
        return self.events, self.now

    def wait(self, event: tuple[int, float]) -> None:
        self.log.append(f"wait {event[0]}")

    def elapsed_ms(self, start: tuple[int, float], end: tuple[int, float]) -> float:
        return end[1] - start[1]

    def capture(self, stream: int, enqueue: Callable[[], None]) -> Callable[[], None]:  # noqa: ARG002
        self._captured = []
        try:
            enqueue()
            if self.capture_fails:
                raise RuntimeError(self.capture_fails)
            captured = self._captured
        finally:
            self._captured = None

        def replay() -> None:
            self.log.append("replay")
            for work in captured:
                work()

        return replay

    def launch(self, work: Callable[[], None]) -> None:
        """What the runtime gives the device: done at once, unless it is being captured."""

        def run() -> None:
            work()
            self.now += RUN_MS

        if self._captured is not None:
            self._captured.append(run)
        else:
            self.log.append("launch")
            run()

    def _kept(self, array: NDArray[Any]) -> NDArray[Any]:
        self.buffers[id(array)] = array
        return array
