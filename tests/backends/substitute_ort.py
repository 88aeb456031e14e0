"""A stand-in for ``onnxruntime`` with GPU providers: sessions compute on the processor, the device is pretended."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


class Value:
    """A tensor on the pretended device."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class Binding:
    """Records what is bound; outputs bound to a device alone are made by a run, others are written in place."""

    def __init__(self) -> None:
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value | None] = {}
        self.synchronised = 0

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        self.inputs[name] = value

    def bind_output(self, name: str, device: str, device_id: int) -> None:
        assert (device, device_id) == ("cuda", 0)
        self.outputs[name] = None

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value

    def clear_binding_outputs(self) -> None:
        self.outputs.clear()

    def get_outputs(self) -> list[Value | None]:
        return list(self.outputs.values())

    def synchronize_inputs(self) -> None:
        pass

    def synchronize_outputs(self) -> None:
        self.synchronised += 1


class Session:
    """A session on the processor that says it runs on the first provider asked for."""

    def __init__(self, model: bytes, options: Any, providers: list[tuple[str, dict[str, str]]], log: Log) -> None:
        self.inner = onnxruntime.InferenceSession(model, options, providers=[CPU])
        self.providers = [name for name, _ in providers if name in log.starting] + [CPU]
        self.bindings: list[Binding] = []
        self.bound_runs = 0

    def get_providers(self) -> list[str]:
        return self.providers

    def get_inputs(self) -> Any:
        return self.inner.get_inputs()

    def get_outputs(self) -> Any:
        return self.inner.get_outputs()

    def run(self, names: Any, inputs: Any) -> Any:
        return self.inner.run(names, inputs)

    def end_profiling(self) -> Any:
        return self.inner.end_profiling()

    def io_binding(self) -> Binding:
        self.bindings.append(Binding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: Binding) -> None:
        self.bound_runs += 1
        results = self.inner.run(None, {name: value.array for name, value in binding.inputs.items()})
        for name, result in zip(list(binding.outputs), results, strict=True):
            if binding.outputs[name] is None:
                binding.outputs[name] = Value(result)


class Log:
    """What was asked of the stand-in.

    Args:
        starting: Providers that start when asked for; others are left out silently, as the real one does.
    """

    def __init__(self, *starting: str) -> None:
        self.starting = starting
        self.requests: list[tuple[tuple[tuple[str, dict[str, str]], ...], int]] = []
        self.left_out: list[tuple[str, ...]] = []
        self.sessions: list[Session] = []
        self.uploads: list[tuple[str, int]] = []


def substitute(log: Log, folder: Path, available: tuple[str, ...] = (TENSORRT, CUDA, CPU)) -> Any:
    """The module: real options and errors, pretended sessions and device values."""

    def open_one(
        model: bytes, options: Any, *, providers: Any, disabled_optimizers: list[str], enable_fallback: int
    ) -> Session:
        log.left_out.append(tuple(disabled_optimizers))
        log.requests.append((tuple(providers), enable_fallback))
        log.sessions.append(Session(model, options, providers, log))
        return log.sessions[-1]

    def upload(array: np.ndarray, device: str, device_id: int) -> Value:
        log.uploads.append((device, device_id))
        return Value(array)

    return SimpleNamespace(
        __version__="1.31.0",
        __file__=str(folder / "onnxruntime" / "__init__.py"),
        cuda_version="13.0",
        SessionOptions=onnxruntime.SessionOptions,
        ExecutionMode=onnxruntime.ExecutionMode,
        GraphOptimizationLevel=onnxruntime.GraphOptimizationLevel,
        InferenceSession=open_one,
        OrtValue=SimpleNamespace(ortvalue_from_numpy=upload),
        get_available_providers=lambda: list(available),
    )


def install(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """Let the backends find the stand-in, and a device beside it."""
    for place in ("session", "libraries", "cuda"):
        monkeypatch.setattr(f"bitfront.backends.ort.{place}.load_onnxruntime", lambda _: module)
    for place in ("cuda", "tensorrt"):
        monkeypatch.setattr(f"bitfront.backends.ort.{place}.load_provider", lambda _: module)
    monkeypatch.setattr("bitfront.backends.ort.gpu._ask", lambda _: "GPU X, 9.0, 550.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
