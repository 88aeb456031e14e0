"""Files under their final names are whole, have the mode the umask allows, and leave nothing beside them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from bitfront.core import OutputError, sweep_parts, write_bytes, write_text


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_is_respected(tmp_path: Path, mask: int) -> None:
    """As for a file that any program makes."""
    earlier = os.umask(mask)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(earlier)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("name", ["x" * 255, "a?b#c%41", "é 'quoted' \"twice\"", "-dash", "new\nline", "{braces}"])
def test_any_name_that_the_system_takes(tmp_path: Path, name: str) -> None:
    """The longest there may be, too: the temporary file's name is not made of it."""
    write_bytes(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("error", "wanted", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), OutputError, r"cannot write '.*a': No space left"),
        (OSError(errno.EDQUOT, "Quota exceeded"), OutputError, r"cannot write '.*a': Quota exceeded"),
        (KeyboardInterrupt("stop"), KeyboardInterrupt, "stop"),
    ],
    ids=["full", "quota", "interrupted"],
)
def test_what_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, wanted: type[BaseException], message: str
) -> None:
    """A full disk or quota is an OutputError; an interruption stays one."""

    def fail(_: int) -> None:
        raise error

    write_text(tmp_path / "a", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(wanted, match=message):
            write_text(tmp_path / "a", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


@pytest.mark.parametrize("place", ["folder", "file/below", "x" * 300])
def test_places_that_cannot_be_written_are_named(tmp_path: Path, place: str) -> None:
    """A folder of that name, a file where a folder is needed, a name that is too long."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write '.*': \w+"):
        write_bytes(tmp_path / place, b"x")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_in_a_files_place_is_no_lack_of_space(tmp_path: Path) -> None:
    """It is left alone, and what to do with it is said."""
    (tmp_path / "table.csv" / "inside").mkdir(parents=True)
    with pytest.raises(OutputError, match="a folder stands in its place"):
        write_text(tmp_path / "table.csv", "a")
    assert (tmp_path / "table.csv" / "inside").is_dir()


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    """Devices and pipes stay what they are; a pipe that nobody reads is not waited for."""
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    with pytest.raises(OutputError, match=r"cannot write '.*pipe'"):
        write_bytes(pipe, b"nobody reads")
    reader.start()
    ended = time.monotonic() + 60
    while not got and time.monotonic() < ended:
        with contextlib.suppress(OutputError):  # until the reader has opened it
            write_bytes(pipe, b"through")
            break
        time.sleep(0.01)
    reader.join(60)
    assert got == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    """At any depth, and nothing else."""
    for name in (".bitfront-00.part", "cache/.bitfront-11.part", "cache/.bitfront-notes", "kept.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    sweep_parts(tmp_path)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert left == {"cache", "cache/.bitfront-notes", "kept.part"}
