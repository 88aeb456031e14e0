"""The seam every runtime implements: a ``Backend`` compiles an artifact's bytes, a ``CompiledModel`` runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from precision import Array, Inputs

Clock = Callable[[], int]
"""Nanoseconds since some fixed moment; never goes back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFingerprint:
    """What a measurement is tied to: the machine and the runtime.

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

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return {
            "device": self.device,
            "cores": self.cores,
            "instructions": list(self.instructions),
            "system": self.system,
            "runtime": self.runtime,
            "python": self.python,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a runtime really does on this machine, found by compiling and running small graphs.

    Attributes:
        supported: Name of what was probed (``int8-conv``, ``int4-conv``, ``int4-matmul-block``, ``fp16-storage``, …)
            → whether it compiled, ran correctly and fused as its dialect expects.
        notes: Name → what was seen, for those that are unsupported or slow.
    """

    supported: Mapping[str, bool]
    notes: Mapping[str, str]


class CompiledModel(Protocol):
    """A model ready to run on a runtime."""

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        ...

    @property
    def output_names(self) -> tuple[str, ...]:
        """In the model's order."""
        ...

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """Run once, synchronously.

        Raises:
            BackendError: If the runtime fails.
        """
        ...

    def operators(self) -> tuple[str, ...]:
        """Operator types left after the runtime's own optimisation, in execution order."""
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
        """What runs of this backend are timed by: ``time.perf_counter_ns``, unless its time is simulated."""
        ...

    def compile(self, model: bytes, *, threads: int) -> CompiledModel:
        """Compile exactly the bytes that are handed over, with the runtime's default graph optimisation.

        Raises:
            BackendError: If the runtime refuses the model.
        """
        ...

    def fingerprint(self) -> DeviceFingerprint:
        """Machine and runtime, for cache keys and reports."""
        ...

    def capabilities(self) -> Capabilities:
        """Probe what the runtime does here; takes seconds at most, cached by the backend."""
        ...
