"""Whether TensorRT can be used here, and exactly why where it cannot; what differs between its major versions.

TensorRT 11 has only strongly typed networks, so precision is what the ONNX graph says; in TensorRT 10 that is a flag of
the network. Enum values differ between the two, so no mask is written down here (TensorRT documentation, "Migrating
from TensorRT 10.x to 11.x").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitfront.backends.tensorrt.messages import open_log
from bitfront.core import BackendUnavailableError

if TYPE_CHECKING:
    import tensorrt as trt

OLDEST = (10, 0)
_INSTALL = "pip install 'bitfront[tensorrt]', on a machine with an NVIDIA GPU"


def tensorrt_version() -> str:
    """The exact version, to which a plan is tied.

    Raises:
        BackendUnavailableError: If TensorRT is missing, broken or too old.
    """
    try:
        import tensorrt as trt
    except (ImportError, OSError) as error:  # OSError: one of its own libraries is missing or damaged
        raise BackendUnavailableError(
            f"TensorRT cannot be imported: {error}", f"install it with: {_INSTALL}"
        ) from error
    version = str(trt.__version__)
    if version_numbers(version) < OLDEST:
        wanted = ".".join(str(number) for number in OLDEST)
        raise BackendUnavailableError(f"TensorRT: expected version {wanted} or newer, got {version}", _INSTALL)
    return version


def version_numbers(version: str) -> tuple[int, int]:
    """Major and minor number; zeros where the text has none."""
    parts = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    return (parts[0], parts[1]) if len(parts) == 2 else (parts[0], 0)


def open_builder() -> trt.Builder:
    """A builder on the current device.

    Raises:
        BackendUnavailableError: If TensorRT is missing, or CUDA cannot start.
    """
    tensorrt_version()
    import tensorrt as trt

    log, messages = open_log()
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # its factory gave a null pointer: the binding says no more, the log may
        reason = messages.last() if messages.errors() else str(error)
        raise BackendUnavailableError(
            f"TensorRT {trt.__version__} cannot start: {reason}",
            "check with nvidia-smi that there is an NVIDIA GPU, and that its driver is new enough for this TensorRT",
        ) from error
    trt.init_libnvinfer_plugins(log, "")
    return builder


def network_flags() -> int:
    """Flags of a strongly typed network in the installed version."""
    import tensorrt as trt

    if version_numbers(str(trt.__version__))[0] >= 11:
        return 0
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
