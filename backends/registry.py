"""Backends by name; one of another package goes by ``module:attribute``. A runtime is imported when first used."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping

from bitfront.backends.base import Backend
from bitfront.backends.ort.interpreter import OrtInterpreter
from bitfront.core import EngineError, UsageError
from bitfront.core.naming import failed, load_attribute
from bitfront.lowering.interpreter import Interpreter

_RUNTIMES: Mapping[str, str] = {
    "ort-cpu": "bitfront.backends.ort.cpu:OrtCpuBackend",
    "openvino": "bitfront.backends.openvino.backend:OpenVinoBackend",
    "ort-cuda": "bitfront.backends.ort.cuda:OrtCudaBackend",
    "ort-tensorrt": "bitfront.backends.ort.tensorrt:OrtTensorrtBackend",
    "tensorrt": "bitfront.backends.tensorrt.backend:TensorRtBackend",
    "tensorrt-tf32": "bitfront.backends.tensorrt.backend:TensorRtTf32Backend",
}
# Found by name, so that a subprocess can open them, but never offered.
_HIDDEN: Mapping[str, str] = {
    "fake": "bitfront.backends.fake:FakeBackend",
}
_PARTS = ("name", "dialect", "clock", "compile", "fingerprint", "unprofitable_precisions", "proxy_backend")


def backend_names() -> tuple[str, ...]:
    """Names to offer, the default first."""
    return tuple(_RUNTIMES)


def get_backend(name: str) -> Backend:
    """A new backend; whether its runtime is installed shows at its first use.

    Args:
        name: One of the table's, or ``module:attribute`` of a class or function that makes one.

    Raises:
        UsageError: If there is none of that name.
    """
    place = _RUNTIMES.get(name) or _HIDDEN.get(name) or name
    if ":" not in place:
        close = difflib.get_close_matches(name, _RUNTIMES, n=1, cutoff=0.4)
        raise UsageError(
            f"unknown backend '{name}'; known: {', '.join(_RUNTIMES)}",
            f"did you mean '{close[0]}'?" if close else "name one of the known backends with --backend",
        )
    make = load_attribute(place, "backend")
    if not callable(make):
        raise UsageError(
            f"backend: '{place}' is of type {type(make).__name__}, expected a class or function that makes a backend",
            "name the class itself",
        )
    try:
        backend: Backend = make()
    except (EngineError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UsageError(failed(f"backend: '{place}'", error), "run it alone in Python to see why") from error
    # Looked up without evaluating it: a property may start the runtime.
    missing, loose = object(), hasattr(type(backend), "__getattr__")
    lacks = [part for part in _PARTS if not loose and inspect.getattr_static(backend, part, missing) is missing]
    if lacks:
        raise UsageError(
            f"backend: '{place}' made something of type {type(backend).__name__} without {', '.join(lacks)}",
            "see backends/base.py for what a backend has",
        )
    return backend


def default_interpreter() -> Interpreter:
    """Interpreter of networks that are lowered: ONNX Runtime on the processor, whatever the backend."""
    return OrtInterpreter()
