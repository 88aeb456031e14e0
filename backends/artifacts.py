"""Checks of artifacts for backends, which read one ONNX file or one with external data."""

from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import onnx

from bitfront.core import Artifact, BackendError
from bitfront.core.artifact import ONNX
from bitfront.core.blob import Blob, FileRange, Part
from bitfront.lowering.weight_files import ROOT, WeightFile, is_detached, refer


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


def onnx_with_data(artifact: Artifact, backend: str, kept: ExitStack) -> tuple[bytes, Path | None]:
    """An ONNX model's bytes, and the folder that locations of its external data are relative to; None of a single file.

    External data that lies in files already is referred to there; the rest is written to a temporary folder.

    Args:
        artifact: The artifact.
        backend: The backend's name, for messages.
        kept: Closed when the model is not needed any longer.

    Raises:
        BackendError: If it is of another format, or its data is not where it says.
        OutputError: If there is no room for the data.
    """
    if artifact.format != ONNX:
        raise BackendError(
            f"{backend} reads ONNX files, got {len(artifact.files)} of format '{artifact.format}'",
            "choose the --backend that the model was written for",
        )
    others = {name: data for name, data in artifact.files.items() if name != artifact.main}
    if not others:
        return artifact.data, None
    model = onnx.load_model_from_string(artifact.data)
    written: WeightFile | None = None
    used: set[str] = set()
    places = {name: _places(data) for name, data in others.items()}
    for tensor in filter(is_detached, model.graph.initializer):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location, offset, length = entries.get("location", ""), int(entries.get("offset", "0")), int(entries["length"])
        part = _part_at(places.get(location, []), offset, length)
        if part is None:
            raise BackendError(
                f"{backend}: tensor '{tensor.name}' keeps its data in '{location}', which is not with the model",
                "copy the model with all files beside it",
            )
        if not isinstance(part, FileRange):
            if written is None:
                written = WeightFile()
                kept.callback(written.close)
            part = written.append(Blob([part]))
        refer(tensor, part)
        used.add(location)
    if used != set(others):
        raise BackendError(
            f"{backend} reads an ONNX file and what it refers to, got {len(artifact.files)} of format "
            f"'{artifact.format}', and nothing refers to {', '.join(sorted(set(others) - used))}",
            "choose the --backend that the model was written for",
        )
    return bytes(model.SerializeToString()), ROOT


def _places(data: bytes | Blob) -> list[tuple[int, bytes | Part]]:
    """The offset of each part of a file, with the part, in order."""
    parts = (data,) if isinstance(data, bytes) else data.parts
    return list(zip(accumulate((len(part) for part in parts), initial=0), parts, strict=False))


def _part_at(places: list[tuple[int, bytes | Part]], offset: int, length: int) -> bytes | Part | None:
    """The bytes from ``offset`` on; None where no single part holds them."""
    place = bisect_right(places, offset, key=lambda entry: entry[0]) - 1
    if place < 0:
        return None
    start, part = places[place]
    inside = offset - start
    if inside + length > len(part):
        return None
    if isinstance(part, FileRange):
        return FileRange(path=part.path, offset=part.offset + inside, length=length)
    if isinstance(part, bytes):
        return part[inside : inside + length]
    return part if len(part) == length else None
