"""Temporary folders that do not outlive their process for long, however that process ends.

Each holds a file that is locked while the folder is in use (``filelock``: the lock ends with its process). What a
killed process left behind is removed by the next one of the same user that is about to make one. A folder without that
file is somebody's own, whatever it is called, and stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from bitfront.core.files import unwritable

PREFIX = "bitfront-"
_LOCK_FILE = ".in-use"
_OLD_S = 60.0  # a younger folder may be one whose lock is just about to be taken


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A new folder that is gone afterwards.

    Raises:
        OutputError: If there is no room for it.
    """
    sweep()
    try:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    except OSError as error:
        raise unwritable(Path(tempfile.tempdir or "") / PREFIX, error) from error
    lock = FileLock(folder / _LOCK_FILE, timeout=0)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: nobody can sweep there either
            lock.acquire()
        yield folder
    finally:
        lock.release(force=True)
        shutil.rmtree(folder, ignore_errors=True)


def sweep() -> None:
    """Remove what killed processes of this user left behind: made here, not in use, older than a minute."""
    try:
        found = list(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    except OSError:
        return
    for folder in found:
        with contextlib.suppress(OSError, Timeout):
            if _is_left_over(folder):
                with FileLock(folder / _LOCK_FILE, timeout=0):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_left_over(folder: Path) -> bool:
    """Whether a folder was made here, by this user and some time ago; it may be in use."""
    status = folder.lstat()
    ours = stat.S_ISDIR(status.st_mode) and (folder / _LOCK_FILE).is_file()
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return ours and own and time.time() - status.st_mtime > _OLD_S
