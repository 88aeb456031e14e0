"""A backend with simulated time, for tests of what stands above: exact outputs, latencies known in advance.

A run takes Σ cost(operator) · samples of simulated time, by a table operator type → ms, over the operators that a
simplified fusion leaves: constants are folded; a layer between DequantizeLinear and QuantizeLinear becomes one
integer operator (with its Relu or Clip); whatever Q/DQ is left at a boundary is paid for. So a lone 8-bit layer is
slower than none, as on real runtimes. Outputs come from ONNX Runtime with graph optimisation off.

Time passes on ``clock`` alone, and only in runs: with it, ``time_paired`` finds exactly ``latency_ms``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import onnx

from bitfront.backends.artifacts import single_onnx_file
from bitfront.backends.base import Capabilities, Clock, CompiledModel, DeviceFingerprint
from bitfront.backends.fake_fusion import fused_operators
from bitfront.backends.host import HostBackend, HostModel
from bitfront.backends.ort.cpu import cpu_setup, open_session
from bitfront.backends.ort.session import SessionModel
from bitfront.backends.probes import run_probes
from bitfront.core import Array, Artifact, BackendError, Inputs, UsageError, digest

DEFAULT_COSTS_MS: Mapping[str, float] = MappingProxyType(
    {
        "Conv": 1.0,
        "ConvTranspose": 1.0,
        "Gemm": 0.5,
        "MatMul": 0.5,
        "QLinearConv": 0.3,
        "QGemm": 0.2,
        "QLinearMatMul": 0.2,
        "MatMulNBits": 0.2,
        "QuantizeLinear": 0.4,
        "DequantizeLinear": 0.4,
    }
)
_OTHER_COST_MS = 0.02
_NS_PER_MS = 1e6


def _accept(_: onnx.ModelProto) -> str:
    return ""


class SimulatedClock:
    """Nanoseconds that pass only when told to."""

    def __init__(self) -> None:
        self._now_ns = 0

    def __call__(self) -> int:
        """Nanoseconds since the clock was made."""
        return self._now_ns

    def advance(self, milliseconds: float) -> None:
        """Let time pass."""
        self._now_ns += round(milliseconds * _NS_PER_MS)


class FakeModel(HostModel):
    """A model with a known latency.

    Args:
        inner: What computes its outputs.
        operators: Operator types after the simulated fusion.
        latency_ms: What one sample takes.
        clock: Whose time passes.
    """

    def __init__(
        self, inner: SessionModel, operators: tuple[str, ...], latency_ms: float, clock: SimulatedClock
    ) -> None:
        self._inner = inner
        self._operators = operators
        self._latency_ms = latency_ms
        self._clock = clock

    @property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        return self._inner.input_shapes

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the model's order."""
        return self._inner.output_names

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """The outputs of one run; simulated time passes in proportion to the first input's leading axis.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        outputs = self._inner.run(inputs)
        first = next(iter(inputs.values()), None)
        samples = len(first) if first is not None and first.ndim else 1
        self._clock.advance(self._latency_ms * samples)
        return outputs

    def operators(self) -> tuple[str, ...]:
        """Operator types after the simulated fusion, in execution order."""
        return self._operators


class FakeBackend(HostBackend):
    """Backend that compiles artifacts as the fake runtime would.

    Args:
        costs_ms: Operator type (after fusion) → milliseconds; others take 0.02 ms.
        refuse: Looks at a model and says why it does not compile; empty text compiles it.
    """

    name = "fake"
    dialect = "ort-cpu"

    def __init__(
        self, costs_ms: Mapping[str, float] = DEFAULT_COSTS_MS, refuse: Callable[[onnx.ModelProto], str] = _accept
    ) -> None:
        self._costs_ms = dict(costs_ms)
        self._refuse = refuse
        self._clock = SimulatedClock()

    @property
    def clock(self) -> Clock:
        """Simulated time, shared by all models of this backend."""
        return self._clock

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:  # noqa: ARG002
        """Make a model; more threads make it no faster.

        Raises:
            BackendError: If ``refuse`` or ONNX Runtime refuses it.
            UsageError: If ``threads`` is not positive.
        """
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}", "as in --threads 1")
        model = single_onnx_file(artifact, self.name)
        session = open_session(model, threads=1, level="ORT_DISABLE_ALL")
        proto = onnx.load_model_from_string(model)
        if reason := self._refuse(proto):
            raise BackendError(
                f"{self.name} refused a model of {len(model)} bytes: {reason}",
                "the fake backend reads ONNX files alone: give another model",
            )
        operators = fused_operators(proto.graph)
        return FakeModel(
            SessionModel(session, model, self.name, cpu_setup()), operators, self._cost(operators), self._clock
        )

    def latency_ms(self, model: bytes) -> float:
        """Simulated latency of one sample, in milliseconds."""
        return self._cost(fused_operators(onnx.load_model_from_string(model).graph))

    def fingerprint(self) -> DeviceFingerprint:
        """The same on every machine, and different for other costs."""
        return DeviceFingerprint(
            device="simulated",
            cores=1,
            instructions=(),
            system="simulated",
            runtime=f"fake {digest(self._costs_ms)[:12]}",
            python="any",
        )

    def capabilities(self) -> Capabilities:
        """The same probes as a real runtime's, seen through the simulated fusion."""
        return run_probes(self)

    def _cost(self, operators: tuple[str, ...]) -> float:
        return sum(self._costs_ms.get(operator, _OTHER_COST_MS) for operator in operators)
