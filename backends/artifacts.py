"""What backends take of an artifact: a single ONNX file, or one with external data; anything else is refused."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bitfront.core import Artifact, BackendError
from bitfront.core.artifact import ONNX
from bitfront.core.blob import Blob, FileRange
from bitfront.core.files import write_bytes
from bitfront.core.temporary import temporary_folder


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
            "choose the --backend that the model was written for; beyond 2 GB that is ort-cpu",
        )
    if artifact.settings and not settings:
        raise BackendError(
            f"{backend} has no session settings, and the model must be run with {', '.join(sorted(artifact.settings))}",
            "choose the --backend that the model was written for",
        )
    return artifact.data


def external_data_folder(artifact: Artifact, backend: str, kept: ExitStack) -> Path | None:
    """Where the external data of an ONNX model lies; None of a single file.

    Args:
        artifact: The artifact.
        backend: The backend's name, for messages.
        kept: Closed when the folder is not needed any longer: data that is no file yet is written to a temporary one.

    Raises:
        BackendError: If it is of another format.
        OutputError: If there is no room for the data.
    """
    if artifact.format != ONNX:
        raise BackendError(
            f"{backend} reads ONNX files, got the format '{artifact.format}'",
            "choose the --backend that the model was written for",
        )
    others = {name: data for name, data in artifact.files.items() if name != artifact.main}
    if not others:
        return None
    folders = {_folder_of(name, data) for name, data in others.items()}
    if len(folders) == 1 and (found := folders.pop()) is not None:
        return found
    folder = kept.enter_context(temporary_folder())
    for name, data in others.items():
        write_bytes(folder / name, data)
    return folder


def _folder_of(name: str, data: bytes | Blob) -> Path | None:
    """The folder in which a file of this name and content lies; None where that is not known."""
    if isinstance(data, bytes) or len(data.parts) != 1 or not isinstance(part := data.parts[0], FileRange):
        return None
    whole = part.offset == 0 and part.path.is_file() and part.path.stat().st_size == part.length
    folder = Path(*part.path.parts[: -len(Path(name).parts)])
    return folder if whole and folder / name == part.path else None
