"""Importing OpenVINO: when first used, with telemetry off, and a clear word where it is missing.

``import openvino`` by itself reports that it was imported (``openvino.tools.ovc``). Where its telemetry package is
missing it uses a stand-in that sends nothing, so that package is hidden: a tool that people run on private models sends
nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from bitfront.core import BackendUnavailableError

EXTRA = "openvino"
_TELEMETRY = "openvino_telemetry"
# The bindings raise all of the runtime's exceptions as RuntimeError; the others are for arguments they cannot convert.
OPENVINO_ERRORS = (RuntimeError, ValueError, TypeError)


def load_openvino() -> Any:
    """The ``openvino`` module.

    Raises:
        BackendUnavailableError: If it is missing or broken.
    """
    sys.modules.setdefault(_TELEMETRY, None)  # type: ignore[arg-type] # Python's own way to make an import fail
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f"OpenVINO cannot be imported: {error}", f"install it with: pip install 'bitfront[{EXTRA}]'"
        ) from error
    return openvino


def reason(error: Exception) -> str:
    """Message of one of OpenVINO's exceptions, without the places in its source that come first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from ", "Check '"))]
    return (told or lines or [type(error).__name__])[0]
