"""Writing results so that nothing half-written ever stands under its final name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from precision.errors import OutputError


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` beside ``path``, then move it there in one step.

    Raises:
        OutputError: If the folder cannot be written or the disk is full; ``path`` is left as it was.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise OutputError(
            f"cannot write '{path}': {error.strerror or error}",
            "free some space or choose another folder with --out; what was finished before is kept",
        ) from error


def write_text(path: Path, text: str) -> None:
    """Like ``write_bytes``, in UTF-8."""
    write_bytes(path, text.encode())
