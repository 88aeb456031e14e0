"""ONNX Runtime on the processor: ``CPUExecutionProvider``, default graph optimisation, sequential execution.

``run`` hands inputs straight to the runtime, so that timing sees the runtime; only after a failure are they looked
at, to say which one was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from backends.affinity import pinned
from backends.base import Capabilities, CompiledModel, DeviceFingerprint
from backends.device import DOT_PRODUCT_INSTRUCTIONS, cpu_fingerprint
from backends.host import HostBackend, HostModel
from backends.ort_package import load_onnxruntime, ort_errors
from backends.probes import run_probes
from precision import Array, BackendError, Inputs, UsageError

_EXTRA = "cpu"
_PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3
_NUMPY_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class OrtCpuModel(HostModel):
    """A session of ONNX Runtime.

    Args:
        session: The session.
        model: The bytes it was made from, for ``operators``.
        name: The backend's name, for messages.
    """

    def __init__(self, session: Any, model: bytes, name: str) -> None:
        self._session = session
        self._model = model
        self._name = name
        self._errors = ort_errors()

    @cached_property
    def input_shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        """Input name → shape; None for a dynamic axis."""
        return {
            value.name: tuple(size if isinstance(size, int) else None for size in value.shape)
            for value in self._session.get_inputs()
        }

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """In the model's order."""
        return tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Inputs) -> tuple[Array, ...]:
        """Run once, synchronously.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        try:
            return tuple(self._session.run(None, dict(inputs)))
        except self._errors as error:
            reason = self._wrong_input(inputs) or f"running the model failed: {_first_line(error)}"
            raise BackendError(
                f"{self._name}: {reason}", "give one array per input of the network, in its type and shape"
            ) from error

    def operators(self) -> tuple[str, ...]:
        """Operator types left after the runtime's own optimisation, in execution order; bodies follow their owner."""
        return self._operators

    @cached_property
    def _operators(self) -> tuple[str, ...]:
        with TemporaryDirectory(prefix="bitfront-") as folder:
            path = Path(folder) / "optimised.onnx"
            open_session(self._model, threads=1, optimised=path)
            return tuple(_operator_types(onnx.load_model(path, load_external_data=False).graph))

    def _wrong_input(self, inputs: Inputs) -> str:
        expected = {value.name: value for value in self._session.get_inputs()}
        if set(inputs) != set(expected):
            return f"inputs: expected {', '.join(expected)}; got {', '.join(inputs) or 'none'}"
        for name, value in expected.items():
            array, shape = np.asarray(inputs[name]), self.input_shapes[name]
            dtype = _NUMPY_TYPES.get(value.type, value.type.removeprefix("tensor(").removesuffix(")"))
            if array.dtype.name != dtype:
                return f"input '{name}': expected type {dtype}, got {array.dtype}"
            fits = len(shape) == array.ndim and all(
                size in (None, got) for size, got in zip(shape, array.shape, strict=True)
            )
            if not fits:
                wanted = ", ".join("any" if size is None else str(size) for size in shape)
                return f"input '{name}': expected shape ({wanted}), got {array.shape}"
        return ""


class OrtCpuBackend(HostBackend):
    """ONNX Runtime's CPU execution provider on this machine; FP16 and INT4 make files smaller at no cost in latency."""

    name = "ort-cpu"
    dialect = "ort-cpu"

    def compile(self, model: bytes, *, threads: int, batch_size: int | None = None) -> CompiledModel:  # noqa: ARG002
        """Make a session from the bytes; a dynamic batch stays so, since it costs this runtime nothing.

        Raises:
            BackendError: If the runtime refuses the model.
            BackendUnavailableError: If ONNX Runtime is missing.
            UsageError: If ``threads`` is not positive.
        """
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}")
        # The session starts its worker threads here, and they keep the cores it is on.
        with pinned(threads):
            session = open_session(model, threads=threads)
        return OrtCpuModel(session, model, self.name)

    def fingerprint(self) -> DeviceFingerprint:
        """This processor and ONNX Runtime's version.

        Raises:
            BackendUnavailableError: If ONNX Runtime is missing.
        """
        return cpu_fingerprint(f"onnxruntime {load_onnxruntime(_EXTRA).__version__}")

    def capabilities(self) -> Capabilities:
        """Probe once, then remember."""
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


def open_session(model: bytes, *, threads: int, level: str = "ORT_ENABLE_ALL", optimised: Path | None = None) -> Any:
    """A session on the processor.

    Args:
        model: The bytes.
        threads: Intra-operator threads.
        level: Name of the graph optimisation level; the default is the runtime's own.
        optimised: Where the runtime writes the graph it made, if anywhere.

    Raises:
        BackendError: If the runtime refuses the model.
        BackendUnavailableError: If ONNX Runtime is missing.
    """
    onnxruntime = load_onnxruntime(_EXTRA)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = _ERRORS_ONLY
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[_PROVIDER])
    except ort_errors() as error:
        raise BackendError(
            f"ONNX Runtime refused a model of {len(model)} bytes: {_first_line(error)}",
            "check the model with onnx.checker; operators this runtime lacks cannot be run here",
        ) from error
    # A provider that cannot start is replaced silently, so what was asked for says nothing.
    if session.get_providers() != [_PROVIDER]:
        raise BackendError(f"ONNX Runtime: expected to run on {_PROVIDER}, got {', '.join(session.get_providers())}")
    return session


def _operator_types(graph: onnx.GraphProto) -> list[str]:
    types = []
    for node in graph.node:
        types.append(node.op_type)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                types.extend(_operator_types(body))
    return types


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
