"""ONNX Runtime's processor provider as an interpreter of graphs: what networks answer, never how fast."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from bitfront.core import Array


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A graph ready to be run.

    Attributes:
        session: ONNX Runtime's session.
        errors: What its runs may raise.
    """

    session: Any
    errors: tuple[type[Exception], ...]

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str] | None = None) -> list[Array]:
        """The values of the outputs named, all by default; raises one of ``errors`` where the graph fails."""
        found: list[Array] = self.session.run(outputs, dict(feeds))
        return found


def runtime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises where it refuses a graph, or fails on its inputs."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.EPFail,
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
        ValueError,
    )


def runtime_version() -> str:
    """ONNX Runtime's version, on which what networks answer depends."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return str(onnxruntime.__version__)


def interpret(model: onnx.ModelProto | bytes, *, optimised: bool = True) -> Interpreter:
    """A session for a model; raises one of ``runtime_errors()`` where ONNX Runtime refuses it.

    Args:
        model: The model, or its file's bytes.
        optimised: Whether the runtime may rewrite the graph before it runs it.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4  # what fails is raised, and said by the caller
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    return Interpreter(ort.InferenceSession(data, options, providers=["CPUExecutionProvider"]), runtime_errors())
