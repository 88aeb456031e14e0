"""The lock of a run folder: one process at a time works in it.

The lock is the operating system's on ``.lock`` (``filelock``: flock, or msvcrt on Windows), so it ends with its
process, however that ends; a file that a killed process left behind blocks nobody. Where a file system has no such
locks, a file that names its process takes their place; it blocks as long as that process lives, or is on another
machine. ``.owner`` says who holds the lock, for the message alone.
Reading a folder, as ``search report`` does, needs no lock.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from bitfront.core import UsageError, sweep_parts, unwritable

LOCK_FILE = ".lock"
OWNER_FILE = ".owner"
# What locking leaves in a folder: no results.
LOCKING = frozenset({LOCK_FILE, OWNER_FILE, ".lock.soft"})

_NO_LOCKS_HERE = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})


@contextlib.contextmanager
def hold_run_folders(*folders: Path) -> Iterator[None]:
    """Hold run folders, made if need be, and clear what killed processes left half-written there.

    Folders that were made here and in which nothing was written are gone afterwards.

    Raises:
        UsageError: If another process is at work in one of them.
        OutputError: If one cannot be written.
    """
    with contextlib.ExitStack() as held:
        for folder in folders:
            held.enter_context(_held(folder))
        yield


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    # The folder may be named relative to a working directory that changes, or by a link that is turned elsewhere.
    place = folder.resolve()
    missing = [path for path in (place, *place.parents) if not path.exists()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        lock = _acquired(place)
    except Timeout:
        raise UsageError(
            f"another process{_owner(place)} is at work in '{folder}'",
            "wait until it has ended, or give another --out; 'search report' may read the folder meanwhile",
        ) from None
    except OSError as error:
        raise unwritable(place / LOCK_FILE, error) from error
    try:
        with contextlib.suppress(OSError):  # without it the message says less
            (place / OWNER_FILE).write_text(f"{os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        sweep_parts(place)
        yield
    finally:
        # While the lock is held: who waits for the file that is unlinked here finds out, and makes a new one.
        _remove(place / name for name in (OWNER_FILE, LOCK_FILE))
        lock.release(force=True)
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()


def _acquired(folder: Path) -> BaseFileLock:
    lock: BaseFileLock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise
        lock = SoftFileLock(folder / ".lock.soft", timeout=0)
        lock.acquire()
    return lock


def _owner(folder: Path) -> str:
    try:
        told = (folder / OWNER_FILE).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    pid, _, host = told.partition(" on ")
    if not pid.isdecimal() or len(pid) > 10:
        return ""
    return f" (pid {pid})" if host == socket.gethostname() else f" (pid {pid} on {host[:64]!r})"


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
