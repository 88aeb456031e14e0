"""Importing ONNX Runtime: telemetry off first, one flavour only, and a clear word where that is not so."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from bitfront.core import BackendUnavailableError

# Each of these distributions installs the same import package and overwrites the others' files.
FLAVOURS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-qnn",
)


def load_onnxruntime(extra: str) -> Any:
    """The ``onnxruntime`` module, quiet and with telemetry off.

    Args:
        extra: The extra that installs the flavour wanted, for the hint.

    Raises:
        BackendUnavailableError: If it is missing, broken, or installed in several flavours at once.
    """
    # ONNX Runtime reads it when it is imported; a tool that people run on private models sends nothing.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    check_flavours(_installed, extra)
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f"ONNX Runtime cannot be imported: {error}", f"install it with: pip install 'bitfront[{extra}]'"
        ) from error
    return onnxruntime


def check_flavours(installed: Callable[[str], bool], extra: str) -> None:
    """Refuse an environment with several flavours of ONNX Runtime.

    Args:
        installed: Tells whether a distribution is there.
        extra: The extra that installs the flavour wanted, for the hint.

    Raises:
        BackendUnavailableError: If several are.
    """
    found = [name for name in FLAVOURS if installed(name)]
    if len(found) > 1:
        raise BackendUnavailableError(
            f"several flavours of ONNX Runtime are installed: {', '.join(found)}; they overwrite each other's files, "
            "so either may be broken",
            f"pip uninstall {' '.join(found)}, then pip install 'bitfront[{extra}]'",
        )


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def ort_errors() -> tuple[type[Exception], ...]:
    """Exception types that ONNX Runtime raises; they have no common base but ``Exception``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    members = (getattr(state, name) for name in dir(state))
    own = tuple(item for item in members if isinstance(item, type) and issubclass(item, Exception))
    # RuntimeError: what its bindings raise themselves; ValueError: missing inputs; TypeError: inputs of no tensor type.
    return (*own, RuntimeError, ValueError, TypeError)
