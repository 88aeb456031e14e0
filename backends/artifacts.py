"""Checks of artifacts for backends that read one ONNX file."""

from __future__ import annotations

from bitfront.core import Artifact, BackendError
from bitfront.core.artifact import ONNX


def single_onnx_file(artifact: Artifact, backend: str, *, settings: bool = False) -> bytes:
    """The file's bytes.

    Args:
        artifact: The artifact.
        backend: The backend's name, for messages.
        settings: Whether the backend applies session settings.

    Raises:
        BackendError: If it is of another format or of several files, or has settings that the backend would ignore.
    """
    if artifact.format != ONNX or len(artifact.files) != 1:
        raise BackendError(
            f"{backend} reads a single ONNX file, got {len(artifact.files)} of format '{artifact.format}'",
            "choose the --backend that the model was written for",
        )
    if artifact.settings and not settings:
        raise BackendError(
            f"{backend} has no session settings, and the model must be run with {', '.join(sorted(artifact.settings))}",
            "choose the --backend that the model was written for",
        )
    return artifact.data
