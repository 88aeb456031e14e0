"""The seam every runtime implements: a ``Backend`` compiles an artifact, a ``CompiledModel`` runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array, Artifact, Inputs, Precision
from bitfront.core import MemoryUsage as MemoryUsage  # part of this seam, and of reports
from bitfront.core.document import JsonValue

Clock = Callable[[], int]
"""Nanoseconds since some fixed moment; never goes back."""


class Timer(Protocol):
    """Runs a model again and again."""

    def __call__(self, count: int, loop: int = 1) -> NDArray[np.int64]:
        """Nanoseconds of a run, (count,): each the mean of ``loop`` runs, one after the other, timed as one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFingerprint(JsonValue):
    """The machine and the runtime that a measurement is tied to.

    Attributes:
        device: Processor or accelerator in words.
        cores: Processor cores that this process may use.
        instructions: Instruction sets that decide which kernels run (``avx512_vnni``, …), sorted.
        system: Operating system and architecture.
        runtime: Runtime's name and exact version.
        python: Python version.
    """

    device: str
    cores: int
    instructions: tuple[str, ...]
    system: str
    runtime: str
    python: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Abilities of a runtime on this machine, found by compiling and running small graphs.

    Attributes:
        supported: Name of what was probed (``int8-conv``, ``int4-conv``, ``int4-matmul-block``, ``fp16-storage``, …)
            → whether it compiled, ran correctly and fused as its dialect expects.
        notes: Name → what was seen, for those that are unsupported or slow.
    """

    supported: Mapping[str, bool]
    notes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedLayer:
    """Operator of a compiled model: what the runtime made of the nodes of the artifact.

    Attributes:
        name: The runtime's name for it.
        kind: Operator type, in the runtime's words.
        precision: What it computes in, in the runtime's words; empty where it does not tell.
        nodes: Names of the artifact's nodes in it, as far as known; a layer's node bears the layer's name.
        detail: Kernel or tactic; empty where the runtime does not tell.
        latency_us: Mean time of one run in microseconds, None where the runtime does not tell. Profiling slows a
            model down: these are shares, not the latency.
    """

    name: str
    kind: str
    precision: str
    nodes: tuple[str, ...]
    detail: str
    latency_us: float | None


class CompiledModel(Protocol):
    """A model ready to run on a runtime; ``backends.host.HostModel`` has the parts that most runtimes share."""

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        ...

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of one run, in order; the run is synchronous.

        Raises:
            BackendError: If the runtime fails.
        """
        ...

    def timer(self, inputs: Inputs, clock: Clock) -> Timer:
        """A timer of runs on ``inputs``; whatever is done once (copying to a device, capturing) is done here.

        Args:
            inputs: What every run gets.
            clock: The backend's clock; a runtime that times by events of its device leaves it aside.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        ...

    def operators(self) -> tuple[str, ...]:
        """Operator types left after the runtime's own optimisation, in execution order."""
        ...

    def profile(self, inputs: Inputs) -> tuple[ExecutedLayer, ...]:
        """The operators that run, with precision and time, in execution order; empty where the runtime does not tell.

        Raises:
            BackendError: If the runtime fails.
        """
        ...

    def memory_usage(self) -> MemoryUsage:
        """Memory that the compiled model takes, as far as the runtime tells."""
        ...

    def engine(self) -> bytes | None:
        """The compiled model as the runtime's own file, to be loaded without compiling; None where it has none."""
        ...


class Backend(Protocol):
    """A runtime on this machine."""

    @property
    def name(self) -> str:
        """Name on the command line, ``ort-cpu`` for example."""
        ...

    @property
    def dialect(self) -> str:
        """Name of the dialect (``lowering.dialect``) its artifacts are written in."""
        ...

    @property
    def clock(self) -> Clock:
        """The clock that runs are timed by: ``time.perf_counter_ns``, unless time is simulated."""
        ...

    @property
    def processor_clock(self) -> Clock | None:
        """Processor time of whatever computes, which stands still while a run waits for a core; None: not told.

        ``time.process_time_ns`` where the processor does all of the work. Where a device does it, the processor waits.
        """
        ...

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Compile exactly the files handed over, with their settings and the runtime's default graph optimisation.

        Args:
            artifact: The model's files and settings (``backends.artifacts`` has what most backends take of it).
            threads: Threads on the processor; accelerators leave it aside.
            batch_size: Samples a run, which a dynamic batch may be fixed to where that makes the model faster. None
                is for results alone: the model may be run with any batch, or has one fixed as its runtime likes, and
                its speed does not matter.

        Raises:
            BackendError: If the runtime refuses the model, its format or its settings.
            BackendUnavailableError: If the runtime is missing or cannot start here.
            UsageError: If ``threads`` is not positive.
        """
        ...

    def fingerprint(self) -> DeviceFingerprint:
        """The machine and the runtime, for cache keys and reports."""
        ...

    def capabilities(self) -> Capabilities:
        """Abilities that probes show of the runtime here; takes seconds at most, cached by the backend."""
        ...

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        """Precisions that gain nothing here though the dialect can write them, with the reason; never FP32."""
        ...

    def proxy_backend(self) -> Backend:
        """The backend that scores sensitivities: this one, unless it compiles slowly and another reads its dialect.

        Latency and accuracy of candidates are always measured on the backend itself.
        """
        ...
