"""The little of CUDA that the backend needs, through torch: device buffers, streams, events, captured graphs.

Kept thin, since it runs only where there is a GPU: what decides anything is elsewhere and goes through ``Cuda``.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bitfront.core import Array, BackendUnavailableError

_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The device that runs.

    Attributes:
        name: As its maker calls it.
        capability: Compute capability, (9, 0) for example.
        driver: Version of the driver; ``unknown`` where the system does not tell.
        cuda: Version of the CUDA runtime that torch was built with.
    """

    name: str
    capability: tuple[int, int]
    driver: str
    cuda: str

    @property
    def architecture(self) -> str:
        """Compute capability as compilers write it, ``sm_90``."""
        return f"sm_{self.capability[0]}{self.capability[1]}"


class Cuda(Protocol):
    """CUDA as the backend uses it; buffers, streams and events are opaque."""

    def gpu(self) -> Gpu:
        """The current device."""
        ...

    def stream(self) -> Any:
        """A new stream, not the default one."""
        ...

    def handle(self, stream: Any) -> int:
        """The stream's pointer, as TensorRT wants it."""
        ...

    def on(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        """Makes the stream the current one, which ``capture``, its replays and ``record`` work on."""
        ...

    def upload(self, array: Array) -> Any:
        """A buffer with a copy of the array, complete on return."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """A buffer; ``dtype`` is numpy's name."""
        ...

    def address(self, buffer: Any) -> int:
        """The buffer's device pointer."""
        ...

    def download(self, buffer: Any) -> Array:
        """A copy that belongs to the caller; the work that fills the buffer must be done."""
        ...

    def synchronise(self, stream: Any) -> None:
        """Wait until the stream's work is done."""
        ...

    def record(self) -> Any:
        """A timed event behind what the current stream has been given."""
        ...

    def wait(self, event: Any) -> None:
        """Wait until the event has happened."""
        ...

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have happened."""
        ...

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Capture what ``enqueue`` gives the stream; what comes back replays it on the current stream.

        Raises:
            RuntimeError: If something in it cannot be captured.
        """
        ...


def load_cuda() -> Cuda:
    """CUDA through torch.

    Raises:
        BackendUnavailableError: If torch is missing, was built without CUDA, or finds no GPU.
    """
    install = "install a CUDA build of torch (its site's selector names the command for your CUDA version)"
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailableError(
            f"TensorRT's device buffers go through torch, which cannot be imported: {error}", install
        ) from error
    if torch.version.cuda is None:
        raise BackendUnavailableError(f"torch {torch.__version__} was built without CUDA", install)
    if not torch.cuda.is_available():
        raise BackendUnavailableError(
            f"torch {torch.__version__} (CUDA {torch.version.cuda}) finds no usable GPU",
            "check with nvidia-smi that there is an NVIDIA GPU, and that its driver is new enough for that CUDA",
        )
    return TorchCuda()


def driver_version(text: str) -> str:
    """The driver's version out of what the kernel tells of it; ``unknown`` where it is not there."""
    found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else "unknown"


class TorchCuda:
    """``torch.cuda`` on the current device."""

    def gpu(self) -> Gpu:
        """Current device, by torch."""
        import torch

        try:
            text = _DRIVER.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        return Gpu(
            name=torch.cuda.get_device_name(),
            capability=torch.cuda.get_device_capability(),
            driver=driver_version(text),
            cuda=str(torch.version.cuda),
        )

    def stream(self) -> Any:
        """New stream, not the default one."""
        import torch

        return torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def handle(self, stream: Any) -> int:
        """Pointer of the stream."""
        return int(stream.cuda_stream)

    def on(self, stream: Any) -> contextlib.AbstractContextManager[Any]:
        """Make the stream torch's current one."""
        import torch

        context: contextlib.AbstractContextManager[Any] = torch.cuda.stream(stream)
        return context

    def upload(self, array: Array) -> Any:
        """Buffer with a copy of the array, complete on return."""
        import torch

        # A copy, for torch warns of arrays that may not be written to.
        return torch.from_numpy(np.array(array, order="C")).cuda()

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Buffer of the shape, not filled."""
        import torch

        return torch.empty(shape, dtype=getattr(torch, dtype), device="cuda")

    def address(self, buffer: Any) -> int:
        """Device pointer of the buffer."""
        return int(buffer.data_ptr())

    def download(self, buffer: Any) -> Array:
        """Copy of the buffer on the host."""
        array: Array = buffer.cpu().numpy()
        return array

    def synchronise(self, stream: Any) -> None:
        """Wait until the stream's work is done."""
        stream.synchronize()

    def record(self) -> Any:
        """Timed event behind what the current stream has been given."""
        import torch

        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def wait(self, event: Any) -> None:
        """Wait until the event has happened."""
        event.synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events that have happened."""
        return float(start.elapsed_time(end))

    def capture(self, stream: Any, enqueue: Callable[[], None]) -> Callable[[], None]:
        """Capture what ``enqueue`` gives the stream as a CUDA graph; the result replays it."""
        import torch

        graph = torch.cuda.CUDAGraph()
        # Other threads may go on using CUDA: only what this one gives the stream is captured.
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            enqueue()
        replay: Callable[[], None] = graph.replay
        return replay
