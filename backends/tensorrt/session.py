"""Execution context with its buffers and stream, and runs of it timed by events of the device.

Timing keeps a queue of two: the next run is given to the device before the last one is waited for, so that no run waits
for the host (TensorRT documentation, "Performance Best Practices"; ``trtexec`` does the same). Inputs lie on the device
beforehand, and a run is one replay of a captured CUDA graph where it can be captured.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitfront.backends.base import Timer
from bitfront.backends.inputs import InputSpec
from bitfront.backends.tensorrt.cuda import Cuda
from bitfront.backends.tensorrt.messages import open_log
from bitfront.core import Array, BackendError, Inputs
from bitfront.core.formatting import first_line

if TYPE_CHECKING:
    import tensorrt as trt

QUEUE = 2
_NS_PER_MS = 1e6
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def input_specs(engine: trt.ICudaEngine, fixed_batch: int | None) -> dict[str, InputSpec]:
    """Inputs by name, in the model's order.

    Args:
        engine: The engine.
        fixed_batch: What the dynamic batch was fixed to when it was built, if it was.

    Raises:
        BackendError: If a type has no counterpart in numpy.
    """
    import tensorrt as trt

    inputs: dict[str, InputSpec] = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            sizes = [None if size < 0 else int(size) for size in engine.get_tensor_shape(name)]
            if sizes and sizes[0] is None:
                sizes[0] = fixed_batch
            inputs[name] = InputSpec(dtype=_dtype(engine, name), shape=tuple(sizes))
    return inputs


def wrong_batch(inputs: Inputs, specs: Mapping[str, InputSpec], most: int) -> str:
    """Reason why the number of samples is wrong; empty if it is not.

    Args:
        inputs: What came, of the right rank.
        specs: What is expected.
        most: Largest batch where it is dynamic.
    """
    for name, spec in specs.items():
        if spec.shape and spec.shape[0] is None and not 1 <= len(inputs[name]) <= most:
            return f"input '{name}': expected 1 to {most} samples, got {len(inputs[name])}"
    return ""


@contextlib.contextmanager
def device_errors(name: str) -> Iterator[None]:
    """Turns what torch raises for the device (no memory, a kernel that failed) into an error that names the backend."""
    try:
        yield
    except RuntimeError as error:
        raise BackendError(
            f"{name}: the device failed: {first_line(error)}",
            "if it has no memory left, free some or use a smaller batch",
        ) from error


class Session:
    """An execution context bound to inputs on the device.

    A context takes one run at a time and a captured graph keeps its addresses, so each timer has a session of its own.

    Args:
        engine: The engine.
        cuda: The device.
        name: The backend's name, for messages.

    Raises:
        BackendError: If there is no memory for it.
    """

    def __init__(self, engine: trt.ICudaEngine, cuda: Cuda, name: str) -> None:
        context = engine.create_execution_context()
        if context is None:
            needed = engine.device_memory_size_v2 / 1e6
            raise BackendError(
                f"{name}: no execution context could be made; it takes {needed:.1f} MB of device memory",
                "free some memory of the GPU, or use a smaller batch",
            )
        self.context = context
        self.stream = cuda.stream()
        self._engine, self._cuda, self._name = engine, cuda, name
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def bind(self, inputs: Inputs, outputs: tuple[str, ...]) -> None:
        """Copy the inputs to the device and make room for the outputs.

        Raises:
            BackendError: If an output's shape depends on the data, or TensorRT refuses an address.
        """
        shapes = {name: tuple(np.shape(array)) for name, array in inputs.items()}
        for name, array in inputs.items():
            if not self.context.set_input_shape(name, shapes[name]):
                raise BackendError(
                    f"{self._name}: input '{name}': the engine takes no shape {shapes[name]}",
                    "give inputs of the shape and batch that the engine was built for",
                )
            self._inputs[name] = self._cuda.upload(np.asarray(array))
            self._address(name, self._inputs[name])
        if shapes != self._shapes:
            self._outputs = {name: self._room(name) for name in outputs}
            self._shapes = shapes
        for name, buffer in self._outputs.items():
            self._address(name, buffer)

    def enqueue(self) -> None:
        """Give one run to the stream.

        Raises:
            BackendError: If TensorRT refuses it.
        """
        if not self.context.execute_async_v3(self._cuda.handle(self.stream)):
            raise BackendError(
                f"{self._name}: running the engine failed: {open_log()[1].last()}",
                "the runtime's log says more; a smaller --batch-size takes less memory",
            )

    def finish(self) -> None:
        """Wait for everything given to the stream."""
        self._cuda.synchronise(self.stream)

    def results(self) -> Mapping[str, Array]:
        """Copies of the outputs, on the host."""
        return {name: self._cuda.download(buffer) for name, buffer in self._outputs.items()}

    def _room(self, name: str) -> Any:
        shape = tuple(int(size) for size in self.context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise BackendError(
                f"{self._name}: output '{name}': its shape depends on the data, which this backend cannot run",
                "cut the network before the operator that makes it so (NonZero, NonMaxSuppression …)",
            )
        return self._cuda.empty(shape, _dtype(self._engine, name))

    def _address(self, name: str, buffer: Any) -> None:
        if not self.context.set_tensor_address(name, self._cuda.address(buffer)):
            raise BackendError(
                f"{self._name}: tensor '{name}': its address on the device was refused",
                "free memory of the device, or give a smaller --batch-size",
            )


def captured(session: Session, cuda: Cuda) -> tuple[Callable[[], None], str]:
    """Function that launches one run on the current stream, and why it is no captured graph, empty if it is.

    The session has run once before: TensorRT puts off some of its setting up to the first run with new shapes.
    """
    try:
        return cuda.capture(session.stream, session.enqueue), ""
    except (RuntimeError, BackendError) as error:
        session.finish()
        return session.enqueue, f"not captured as a CUDA graph, so launching counts: {first_line(error)}"


def event_timer(session: Session, launch: Callable[[], None], cuda: Cuda, name: str) -> Timer:
    """Times runs by events around each loop of them, with a queue of two.

    Args:
        session: Bound to its inputs.
        launch: Gives one run to the current stream.
        cuda: The device.
        name: The backend's name, for messages.
    """

    def timed(count: int, loop: int = 1) -> NDArray[np.int64]:
        times: list[int] = []
        waiting: deque[tuple[Any, Any]] = deque()

        def take() -> None:
            start, end = waiting.popleft()
            cuda.wait(end)
            # Events resolve half a microsecond: a run that falls below has not taken no time.
            times.append(max(1, round(cuda.elapsed_ms(start, end) * _NS_PER_MS / loop)))

        with device_errors(name), cuda.on(session.stream):
            launch()  # not counted: the first one counted should find the device as busy as the others do
            for _ in range(count):
                start = cuda.record()
                for _ in range(loop):
                    launch()
                waiting.append((start, cuda.record()))
                if len(waiting) == QUEUE:
                    take()
            while waiting:
                take()
            session.finish()
        return np.array(times, dtype=np.int64)

    return timed


def _dtype(engine: trt.ICudaEngine, name: str) -> str:
    told = engine.get_tensor_dtype(name).name
    if told not in _DTYPES:
        raise BackendError(
            f"TensorRT: tensor '{name}': type {told} cannot be exchanged with numpy",
            f"give the network inputs and outputs of type {', '.join(_DTYPES.values())}",
        )
    return _DTYPES[told]
