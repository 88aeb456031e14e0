"""Files: whether one can be read at all, and writing so that nothing half-written stands under its final name.

A process that is killed while it writes leaves a file named ``.bitfront-….part`` behind; ``sweep_parts`` removes those.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

from bitfront.core.blob import Blob
from bitfront.core.errors import EngineError, OutputError

_KINDS = {
    stat.S_IFDIR: "is a folder",
    stat.S_IFIFO: "is a pipe",
    stat.S_IFSOCK: "is a socket",
    stat.S_IFCHR: "is a device",
    stat.S_IFBLK: "is a device",
}


def check_readable(
    path: Path, failure: type[EngineError], expected: str, hint: str = "check the path", *, option: str = ""
) -> None:
    """Refuse a path at which there is no ordinary file with something in it, without waiting for a pipe or a device.

    Args:
        path: The file.
        failure: The error to raise.
        expected: What should be there, with its article.
        hint: What to do where there is nothing.
        option: What named it on the command line; empty for nothing.

    Raises:
        EngineError: ``failure``, if it cannot be read.
    """
    found = f"{option}: '{path}': expected {expected}" if option else f"'{path}': expected {expected}"
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise failure(f"{found}, but it does not exist", hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise failure(f"{found}, but it cannot be opened: {reason}", "check the path") from error
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "is no file")
        raise failure(f"{found}, but it {kind}", "give an ordinary file")
    if not status.st_size:
        raise failure(f"{found}, but it is empty", "copy it again, or write it anew")
    if not os.access(path, os.R_OK):
        raise failure(f"{found}, but it may not be read", "check the file's permissions")


# Not made of the final name: a name may be as long as the file system allows already.
_PART_PREFIX, _PART_SUFFIX = ".bitfront-", ".part"


def write_bytes(path: Path, data: bytes | Blob) -> None:
    """Write ``data`` beside ``path``, then move it there in one step; its mode is what the umask leaves of 0666.

    What is no regular file, such as ``/dev/stdout`` or a pipe, is written to as it stands: it cannot be replaced. A
    pipe that nobody reads is refused.

    Raises:
        OutputError: If the folder cannot be written or the disk is full; ``path`` is left as it was.
    """
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            _write_through(path, data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.parent / f"{_PART_PREFIX}{secrets.token_hex(8)}{_PART_SUFFIX}"
        try:
            _write_new(part, data)
            part.replace(path)
        except BaseException:  # an interruption leaves nothing behind either
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, as ``write_bytes`` writes bytes."""
    write_bytes(path, text.encode())


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error for a file or folder that cannot be written: no permission, no space, no such device."""
    return OutputError(
        f"cannot write '{path}': {error.strerror or error}",
        "a folder stands in its place: move it away, then repeat the command"
        if isinstance(error, IsADirectoryError)
        else "free some space or choose another folder with --out; what was finished before is kept",
    )


def sweep_parts(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder`` and its subfolders; nobody may be writing there."""
    for part in folder.rglob(f"{_PART_PREFIX}*{_PART_SUFFIX}"):
        with contextlib.suppress(OSError):
            part.unlink()


def _write_through(path: Path, data: bytes | Blob) -> None:
    # Not blocking while it is opened: a pipe that nobody reads would be waited for without end.
    handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as file:
        file.writelines([data] if isinstance(data, bytes) else data.blocks())


def _write_new(path: Path, data: bytes | Blob) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    with os.fdopen(handle, "wb") as file:
        file.writelines([data] if isinstance(data, bytes) else data.blocks())
        file.flush()
        os.fsync(file.fileno())
