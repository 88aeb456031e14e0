"""One process at a time in a run folder, and none kept out by a dead one."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from bitfront.core import OutputError, UsageError
from bitfront.search.run_folder import folder as run_folder
from bitfront.search.run_folder.lock import hold_run_folders
from tests.search.command_line import enter, outcome, write_files

HOLD = """\
import sys
from pathlib import Path
from bitfront.search.run_folder.lock import hold_run_folders
with hold_run_folders(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(place: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder until it is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_another_process_is_kept_out_until_the_first_is_dead(tmp_path: Path) -> None:
    """By name of its process; after SIGKILL what it left blocks nobody."""
    place = tmp_path / "run"
    with holder(place) as process:
        refused = pytest.raises(UsageError, match=rf"another process \(pid {process.pid}\) is at work in '.*run'")
        with refused, hold_run_folders(place):
            pytest.fail("let in")
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (place / ".lock").exists()
        with hold_run_folders(place):
            assert (place / ".owner").read_text().startswith(f"{os.getpid()} on ")


def test_every_command_on_a_run_folder_is_kept_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh search, one that resumes, several backends over the folder of one, sensitivity; a report may read."""
    files = write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "run"
    (out / "fake").mkdir(parents=True)
    (out / "fake" / "something").write_text("")
    scoring = ["sensitivity", "--model", str(files.net), "--calib", str(files.calib), "--out", str(out)]
    searching = files.argv("--backend", "fake", "--trials", "1")
    several = files.argv("--backend", "ort-cpu,fake", "--resume", "--out", str(out))
    with hold_run_folders(out, out / "fake"):
        for argv in ([*searching, "--out", str(out), "--resume"], several, scoring):
            assert outcome(argv) == 2
            assert f"another process (pid {os.getpid()}) is at work in" in capsys.readouterr().err
    with hold_run_folders(out / "fake"):
        assert outcome(several) == 2
        assert "is at work in" in capsys.readouterr().err
        assert outcome(["report", str(out)]) == 2
        assert "is at work" not in capsys.readouterr().err


def test_a_folder_in_which_nothing_happened_is_gone(tmp_path: Path) -> None:
    """With the folders above it that were made for it; what was written stays."""
    with hold_run_folders(tmp_path / "a" / "b", tmp_path / "c"):
        (tmp_path / "c" / "kept").write_text("")
        (tmp_path / "c" / ".bitfront-0.part").write_text("")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    with hold_run_folders(tmp_path / "c"):
        assert not (tmp_path / "c" / ".bitfront-0.part").exists()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["kept"]


def test_the_lock_is_on_the_folder_not_on_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a link, relatively, and when the working directory changes meanwhile."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    with hold_run_folders(Path("link")):
        monkeypatch.chdir("/")
        with pytest.raises(UsageError, match="is at work in"), hold_run_folders(tmp_path / "real"):
            pytest.fail("let in")
    assert list((tmp_path / "real").iterdir()) == []


def test_what_locking_leaves_is_no_run(tmp_path: Path) -> None:
    """A folder of a killed process that had not begun can be started in."""
    for name in (".lock", ".owner", ".lock.soft"):
        (tmp_path / name).write_text("")
    (tmp_path / "cache").mkdir()
    assert run_folder.choose_run_folder(tmp_path, "", resume=False) == tmp_path


def test_a_file_system_without_locks_has_a_file_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which blocks as long as its process lives, and no longer."""

    def unsupported(_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "_acquire", unsupported)
    with hold_run_folders(tmp_path), pytest.raises(UsageError, match="is at work in"), hold_run_folders(tmp_path):
        pytest.fail("let in")
    with hold_run_folders(tmp_path):
        pass


@pytest.mark.parametrize("owner", ["", "x", "1 on elsewhere", "\0\x1b[31m on \x1b", "9" * 400])
def test_whatever_the_owner_file_says(tmp_path: Path, owner: str) -> None:
    """It is for the message alone, and has no control characters there."""
    with hold_run_folders(tmp_path):
        (tmp_path / ".owner").write_text(owner)
        with pytest.raises(UsageError, match=r"another process.* is at work") as caught, hold_run_folders(tmp_path):
            pytest.fail("let in")
        assert caught.value.message.isprintable()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot write '.*file/run/\.lock'"),
        hold_run_folders(tmp_path / "file" / "run"),
    ):
        pytest.fail("let in")


def test_a_relative_folder_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the metric changes the working directory; by a link, into the folder it leads to."""
    write_files(tmp_path)
    enter(tmp_path, monkeypatch)
    for name in ("away", "real"):
        (tmp_path / name).mkdir()
    (tmp_path / "run").symlink_to("real")
    lines = ("import os", "def own(outputs, labels):", f"    os.chdir({str(tmp_path / 'away')!r})", "    return 1.0")
    (tmp_path / "mine.py").write_text("\n".join(lines))
    source = ["--model", "net.onnx", "--calib", "calib.npz", "--eval", "eval.npz", "--metric", "mine:own"]
    short = ["--backend", "fake", "--trials", "2", "--precisions", "int8", "--quiet", "--out", "run"]
    assert outcome([*source, *short]) == 0
    assert list((tmp_path / "away").iterdir()) == []
    assert {"study.db", "report.html", "measurement.json"} <= {path.name for path in (tmp_path / "real").iterdir()}
