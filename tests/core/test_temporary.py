"""Temporary folders are gone afterwards, those of killed processes too, and nobody else's are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from bitfront.core import OutputError
from bitfront.core.temporary import sweep, temporary_folder

MAKE = """\
import sys
from bitfront.core.temporary import temporary_folder
with temporary_folder() as folder:
    (folder / "large").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def aged(folder: Path) -> None:
    """As if made ten minutes ago."""
    os.utime(folder, (time.time() - 600,) * 2)


def test_it_is_gone_afterwards(place: Path) -> None:
    """After an error as well."""
    with temporary_folder() as folder:
        (folder / "a").write_text("x")
    with pytest.raises(KeyboardInterrupt, match="stop"), temporary_folder():
        raise KeyboardInterrupt("stop")
    assert list(place.iterdir()) == []


def test_what_a_killed_process_left_is_swept(place: Path) -> None:
    """Not while it lives, however long; after SIGKILL when it is a minute old."""
    with subprocess.Popen(
        [sys.executable, "-c", MAKE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        assert folder.parent == place
        aged(folder)
        sweep()
        assert (folder / "large").exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
    os.utime(folder)
    sweep()
    assert folder.exists()
    aged(folder)
    with temporary_folder():
        assert not folder.exists()


def test_what_somebody_else_made_stays(place: Path) -> None:
    """A run folder, a file, a link, whatever they are called."""
    (place / "bitfront-run" / "cache").mkdir(parents=True)
    (place / "bitfront-file").write_text("")
    (place / "bitfront-link").symlink_to(place / "bitfront-run")
    for path in place.iterdir():
        os.utime(path, (0, 0))
    sweep()
    assert len(list(place.iterdir())) == 3


def test_no_room_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of ours, with the system's word."""

    def full(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(OutputError, match=r"cannot write '.*bitfront-': No space left on device"), temporary_folder():
        pytest.fail("made")
    assert list(place.iterdir()) == []
