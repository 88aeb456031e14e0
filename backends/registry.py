"""Backends by name; one of another package goes by ``module:attribute``. A runtime is imported when first used."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from backends.base import Backend
from precision import EngineError, UsageError
from precision.naming import failed, load_attribute

_RUNTIMES: Mapping[str, str] = {
    "ort-cpu": "backends.ort.cpu:OrtCpuBackend",
    "openvino": "backends.openvino.backend:OpenVinoBackend",
    "ort-cuda": "backends.ort.cuda:OrtCudaBackend",
    "ort-tensorrt": "backends.ort.tensorrt:OrtTensorrtBackend",
    "tensorrt": "backends.tensorrt.backend:TensorRtBackend",
    "tensorrt-tf32": "backends.tensorrt.backend:TensorRtTf32Backend",
}
# Found by name, so that a fresh process can open them, but never offered.
_HIDDEN: Mapping[str, str] = {
    "fake": "backends.fake:FakeBackend",
}
_NEEDED = ("name", "dialect", "clock", "compile", "fingerprint", "capabilities", "withheld", "stand_in")


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
    try:
        backend: Backend = make()
    except EngineError:
        raise
    except Exception as error:  # a person's own code may raise anything
        raise UsageError(
            failed(f"backend: making '{place}'", error), "name a class or function without arguments"
        ) from error
    missing = [name for name in _NEEDED if not hasattr(backend, name)]
    if missing:
        raise UsageError(
            f"backend: '{place}' makes a {type(backend).__name__}, expected a backend; it lacks {', '.join(missing)}",
            "see docs/adding-a-backend.md",
        )
    return backend
