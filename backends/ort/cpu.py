"""ONNX Runtime on the processor: ``CPUExecutionProvider``, default graph optimisation, sequential execution."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from typing import Any

from bitfront.backends.affinity import pinned
from bitfront.backends.artifacts import onnx_with_data
from bitfront.backends.base import Backend, Capabilities, Clock, CompiledModel, DeviceFingerprint
from bitfront.backends.device import DOT_PRODUCT_INSTRUCTIONS, cpu_clock, cpu_fingerprint
from bitfront.backends.host import HostBackend
from bitfront.backends.ort.package import load_onnxruntime
from bitfront.backends.ort.session import CPU_PROVIDER, SessionModel, SessionSetup, start_session
from bitfront.backends.probes import run_probes
from bitfront.core import Artifact, UsageError

_EXTRA = "cpu"
FLOAT_BIAS = ("WeightBiasQuantization",)


class OrtCpuBackend(HostBackend):
    """ONNX Runtime's CPU execution provider on this machine; FP16 and INT4 make files smaller at no cost in latency.

    Args:
        left_out: Graph optimisations that are not made; part of the fingerprint.
        in_place: Whether weights beside a model are computed on where they are mapped, instead of copies that are laid
            out for the kernels: a session then takes no time to make and little memory, and runs slower.
    """

    name = "ort-cpu"
    dialect = "ort-cpu"

    def __init__(self, left_out: tuple[str, ...] = (), *, in_place: bool = False) -> None:
        self._left_out = left_out
        self._in_place = in_place

    def proxy_backend(self) -> Backend:
        """The same runtime, computing on weights beside a model where they are mapped."""
        return OrtCpuBackend(self._left_out, in_place=True)

    @property
    def processor_clock(self) -> Clock | None:
        """Clock of the processor time of this process, which does all of the work."""
        return cpu_clock()

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:  # noqa: ARG002
        """Make a session from the file; a dynamic batch stays so, since it costs this runtime nothing.

        Raises:
            BackendError: If the runtime refuses the model.
            BackendUnavailableError: If ONNX Runtime is missing.
            UsageError: If ``threads`` is not positive.
        """
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}", "as in --threads 1")
        kept = ExitStack()
        model, folder = onnx_with_data(artifact, self.name, kept)
        in_place = {"session.disable_prepacking": "1"} if self._in_place and folder is not None else {}
        setup = cpu_setup(threads=threads, left_out=self._left_out, settings={**artifact.settings, **in_place})
        setup = replace(setup, folder=folder)
        # The session starts its worker threads here, and they keep the cores it is on.
        try:
            with pinned(threads):
                session = start_session(model, setup)
        except BaseException:
            kept.close()
            raise
        # What tells of operators and profiles does so on one thread.
        return SessionModel(session, model, self.name, replace(setup, threads=1), kept)

    def fingerprint(self) -> DeviceFingerprint:
        """Return this processor and ONNX Runtime's version.

        Raises:
            BackendUnavailableError: If ONNX Runtime is missing.
        """
        without = f" without {', '.join(self._left_out)}" if self._left_out else ""
        return cpu_fingerprint(f"onnxruntime {load_onnxruntime(_EXTRA).__version__}{without}")

    def capabilities(self) -> Capabilities:
        """Abilities that probes show of the runtime here; probed once."""
        return self._capabilities

    @cached_property
    def _capabilities(self) -> Capabilities:
        found = run_probes(self)
        if DOT_PRODUCT_INSTRUCTIONS.isdisjoint(self.fingerprint().instructions):
            note = (
                "this processor has no 8-bit dot-product instructions (VNNI): 8-bit layers gain less, and sums of two "
                "products saturate at 16 bits; see int8-full-range"
            )
            return Capabilities(supported=found.supported, notes={**found.notes, "dot-product": note})
        return found


def float_bias_proxy() -> OrtCpuBackend:
    """The backend that scores graphs of the ``tensorrt`` dialect: FP16 biases beside quantised weights stay floating.

    Made INT32 by ``WeightBiasQuantization``, they overflow: the pass divides by s_x·s_w in FP16.
    """
    return OrtCpuBackend(left_out=FLOAT_BIAS)


def open_session(model: bytes, *, threads: int, level: str = "ORT_ENABLE_ALL", left_out: tuple[str, ...] = ()) -> Any:
    """A session on the processor.

    Args:
        model: The bytes.
        threads: Intra-operator threads.
        level: Name of the graph optimisation level; the default is the runtime's own.
        left_out: Graph optimisations that are not made.

    Raises:
        BackendError: If the runtime refuses the model.
        BackendUnavailableError: If ONNX Runtime is missing.
    """
    return start_session(model, cpu_setup(threads=threads, left_out=left_out), level=level)


def cpu_setup(
    *, threads: int = 1, left_out: tuple[str, ...] = (), settings: Mapping[str, str] | None = None
) -> SessionSetup:
    """The set-up of a session on the processor; arguments as in ``SessionSetup``."""
    providers: tuple[tuple[str, Mapping[str, str]], ...] = ((CPU_PROVIDER, {}),)
    return SessionSetup(extra=_EXTRA, providers=providers, threads=threads, left_out=left_out, settings=settings or {})
