"""Files: whether one can be read at all, and writing so that nothing half-written stands under its final name."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from precision.errors import EngineError, OutputError

_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


def check_readable(path: Path, failure: type[EngineError], expected: str, hint: str = "check the path") -> None:
    """Refuse a path at which there is no ordinary file with something in it, without waiting for a pipe or a device.

    Args:
        path: The file.
        failure: The error to raise.
        expected: What should be there, with its article.
        hint: What to do where there is nothing.

    Raises:
        EngineError: ``failure``, if it cannot be read.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise failure(f"'{path}': expected {expected}, but it does not exist", hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise failure(f"'{path}': expected {expected}, but it cannot be opened: {reason}", "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "is no file")
        raise failure(f"'{path}': expected {expected}, but it {kind}", "give an ordinary file")
    if not status.st_size:
        raise failure(f"'{path}': expected {expected}, but it is empty", "copy it again, or write it anew")
    if not os.access(path, os.R_OK):
        raise failure(f"'{path}': expected {expected}, but it may not be read", "check the file's permissions")


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
