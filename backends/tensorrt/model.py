"""A compiled model of TensorRT: an engine that runs, is timed, and tells what it takes and what is in it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from bitfront.backends.base import Clock, ExecutedLayer, MemoryUsage, Timer
from bitfront.backends.host import HostModel
from bitfront.backends.inputs import InputSpec, wrong_input
from bitfront.backends.tensorrt.build import MOST_SAMPLES, Plan
from bitfront.backends.tensorrt.cuda import Cuda
from bitfront.backends.tensorrt.inspect import engine_layers, operator_names, with_times
from bitfront.backends.tensorrt.messages import open_log
from bitfront.backends.tensorrt.session import (
    Session,
    captured,
    device_errors,
    event_timer,
    input_specs,
    wrong_batch,
)
from bitfront.core import Array, BackendError, Inputs

if TYPE_CHECKING:
    import tensorrt as trt

_LOG = logging.getLogger(__name__)
_PROFILED_RUNS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """An engine on the device.

    Attributes:
        plan: What it was made from.
        engine: TensorRT's.
        runtime: Kept alive as long as the engine.
        batch: What a dynamic batch was fixed to; None if it was left open or there is none.
        inputs: Its inputs by name, a fixed batch filled in.
    """

    plan: Plan
    engine: trt.ICudaEngine
    runtime: trt.Runtime
    batch: int | None
    inputs: Mapping[str, InputSpec]


def load_engine(plan: Plan, batch: int | None) -> Engine:
    """Put a plan on the device.

    Raises:
        BackendError: If it was made by another version of TensorRT or for another architecture, or takes too much.
    """
    import tensorrt as trt

    log, messages = open_log()
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan.data)
    if engine is None:
        raise BackendError(
            f"TensorRT: a plan of {len(plan.data)} bytes cannot be loaded: {messages.last()}",
            "a plan runs on the GPU architecture and the exact TensorRT version that it was built with",
        )
    inputs = input_specs(engine, batch if plan.dynamic else None)
    return Engine(plan=plan, engine=engine, runtime=runtime, batch=batch, inputs=inputs)


class TensorRtModel(HostModel):
    """An engine with one session for ``run``; each timer has a session of its own.

    Args:
        engine: The engine.
        cuda: The device.
        name: The backend's name, for messages.
    """

    def __init__(self, engine: Engine, cuda: Cuda, name: str) -> None:
        self._engine = engine
        self._cuda = cuda
        self._name = name

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a batch that was left open."""
        return {name: spec.shape for name, spec in self._engine.inputs.items()}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        return self._engine.plan.outputs

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of one synchronous run: to the device, through the engine, and back.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        self._check(inputs)
        with device_errors(self._name):
            self._session.bind(inputs, self._engine.plan.outputs)
            self._session.enqueue()
            self._session.finish()
            results = self._session.results()
        return tuple(results[name] for name in self._engine.plan.outputs)

    def timer(self, inputs: Inputs, clock: Clock) -> Timer:  # noqa: ARG002 (events of the device tell the time)
        """A timer of the device alone, inputs lying on it, by events around replays of a captured graph.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        self._check(inputs)
        with device_errors(self._name):
            session = self._bound(inputs)
            launch, note = captured(session, self._cuda)
        if note:
            _LOG.warning("%s: %s", self._name, note)
        return event_timer(session, launch, self._cuda, self._name)

    def operators(self) -> tuple[str, ...]:
        """Kinds of the engine's layers with the ONNX operators fused in each: ``CaskConvolution(Conv+Relu)``."""
        return operator_names(self.layers, self._engine.plan.op_types)

    @cached_property
    def layers(self) -> tuple[ExecutedLayer, ...]:
        """The layers that the engine runs, without times; of a batch that was left open, at one sample."""
        import tensorrt as trt

        inspector = self._engine.engine.create_engine_inspector()
        if inspector is None:
            raise BackendError(
                f"{self._name}: no engine inspector could be made",
                "measure without --profile, or repeat with another version of the runtime",
            )
        # With a context whose shapes are known the inspector tells the tensors' types of dynamic engines too.
        session = Session(self._engine.engine, self._cuda, self._name)
        for name, spec in self._engine.inputs.items():
            session.context.set_input_shape(name, tuple(1 if size is None else size for size in spec.shape))
        inspector.execution_context = session.context
        text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
        return engine_layers(text, self._engine.plan.op_types)

    def profile(self, inputs: Inputs) -> tuple[ExecutedLayer, ...]:
        """Each layer of the engine with its nodes, tactic, type and mean time.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        self._check(inputs)
        with device_errors(self._name):
            session = self._bound(inputs)
            reported: list[tuple[str, float]] = []
            profiler = _profiler(reported)
            session.context.profiler = profiler
            runs = []
            for _ in range(_PROFILED_RUNS):
                session.enqueue()
                session.finish()
                runs.append(tuple(reported))
                reported.clear()
        return with_times(self.layers, runs)

    def memory_usage(self) -> MemoryUsage:
        """Bytes of the plan, of all weights as the engine holds them, and of a context's activation memory."""
        import tensorrt as trt

        engine = self._engine.engine
        weights = int(engine.get_engine_stat(trt.EngineStat.TOTAL_WEIGHTS_SIZE))
        return MemoryUsage(
            engine_bytes=len(self._engine.plan.data),
            weight_bytes=weights if weights >= 0 else None,
            activation_bytes=int(engine.device_memory_size_v2),
        )

    def engine(self) -> bytes | None:
        """Bytes of the plan."""
        return self._engine.plan.data

    @cached_property
    def _session(self) -> Session:
        return Session(self._engine.engine, self._cuda, self._name)

    def _bound(self, inputs: Inputs) -> Session:
        """A new session that has run once: TensorRT puts off some of its setting up to the first run."""
        session = Session(self._engine.engine, self._cuda, self._name)
        session.bind(inputs, self._engine.plan.outputs)
        session.enqueue()
        session.finish()
        return session

    def _check(self, inputs: Inputs) -> None:
        specs = self._engine.inputs
        if reason := wrong_input(specs, inputs) or wrong_batch(inputs, specs, MOST_SAMPLES):
            raise BackendError(
                f"{self._name}: {reason}", "give one array per input of the network, in its type and shape"
            )


def _profiler(reported: list[tuple[str, float]]) -> trt.IProfiler:
    import tensorrt as trt

    # Of unknown type where TensorRT has no stubs, which the type checker then tells.
    class Profiler(trt.IProfiler):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            reported.append((layer_name, ms))

    return Profiler()
