"""Standard streams that cannot take what is written: other encodings, full disks, closed pipes, hostile names."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bitfront.core import OutputError
from bitfront.search.cli import main
from bitfront.search.console.terminal import Stream, standard_streams, write_lines, write_message, write_prose
from tests.search.command_line import write_files
from tests.search.console.test_progress import Terminal


def encoded(text: str, encoding: str) -> str:
    """What ``text`` becomes on a stream of an encoding."""
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding=encoding), "standard output", fatal=True)
    assert stream.write(text) == len(text)
    stream.flush()
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-8", "★ 0.41 × −0.10 ±0 µs ü 日 –"),
        ("ascii", "* 0.41 x -0.10 +0 us ? ? -"),
        ("latin-1", "* 0.41 × -0.10 ±0 µs ü ? -"),
        ("cp1252", "* 0.41 × -0.10 ±0 µs ü ? –"),
        ("cp437", "* 0.41 x -0.10 ±0 µs ü ? -"),
    ],
)
def test_an_encoding_without_a_character_gets_one_alike(encoding: str, expected: str) -> None:
    """One for one, so that columns stay aligned; what the encoding has is kept."""
    assert encoded("★ 0.41 × −0.10 ±0 µs ü 日 –", encoding) == expected


def test_undecodable_names_can_be_written() -> None:
    """Half characters, which no encoding has, stop nothing."""
    assert encoded("a\udcff\ud800b", "utf-8") == "a??b"


def test_a_stream_has_what_the_process_has() -> None:
    """Code of others that writes bytes finds where to."""
    raw = io.BytesIO()
    stream = Stream(io.TextIOWrapper(raw, encoding="ascii", errors="replace"), "standard output", fatal=True)
    stream.buffer.write(b"bytes")
    stream.buffer.flush()
    assert raw.getvalue() == b"bytes"
    with pytest.raises(AttributeError, match="nothing"):
        _ = stream.nothing


class Failing(io.StringIO):
    """A stream whose writes fail."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def write(self, text: str) -> int:
        del text
        raise OSError(self.code, os.strerror(self.code))


def test_full_output_is_an_error_once() -> None:
    """The first write that fails is told; later ones have nowhere to go and are dropped."""
    stream = Stream(Failing(errno.ENOSPC), "standard output", fatal=True)
    with pytest.raises(OutputError, match="cannot write to standard output: No space left on device") as raised:
        stream.write("text")
    assert "search report RUN" in raised.value.hint
    assert stream.write("more") == 4
    stream.flush()


@pytest.mark.parametrize(("fatal", "code"), [(False, errno.ENOSPC), (False, errno.EPIPE), (True, errno.EPIPE)])
def test_a_stream_that_nobody_reads_goes_silent(fatal: bool, code: int) -> None:
    """Standard error that fails, and a pipe whose reader has gone, stop no work."""
    stream = Stream(Failing(code), "a stream", fatal=fatal)
    stream.write("text")
    stream.flush()
    assert not stream.isatty()


def test_a_closed_stream_takes_anything() -> None:
    """One that was closed before the start swallows what is written."""
    stream = Stream(None, "standard output", fatal=True)
    assert stream.write("×") == 1
    stream.flush()
    with pytest.raises(OSError, match="standard output is closed"):
        stream.fileno()


def test_the_streams_are_as_before_afterwards() -> None:
    """Whatever happens inside."""
    before = sys.stdout, sys.stderr
    with standard_streams():
        assert isinstance(sys.stdout, Stream)
        assert isinstance(sys.stderr, Stream)
    assert (sys.stdout, sys.stderr) == before
    with pytest.raises(ZeroDivisionError, match="division"), standard_streams():
        _ = 1 / 0
    assert (sys.stdout, sys.stderr) == before


def test_full_output_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Output, help and version alike: a sentence on standard error."""
    files = write_files(tmp_path)
    for argv in (["inspect", str(files.net)], ["--version"], ["--help"], ["inspect", "--help"]):
        monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
        assert main(argv) == 2, argv
        assert capsys.readouterr().err.startswith("error: cannot write to standard output"), argv


SHELL: dict[str, tuple[str, int, Callable[[str], bool]]] = {
    "full": ("{search} inspect net.onnx >/dev/full", 2, lambda said: "cannot write to standard output" in said),
    "both full": ("{search} inspect net.onnx >/dev/full 2>/dev/full", 2, lambda said: said == ""),
    "closed": ("{search} inspect net.onnx >&-", 0, lambda said: said == ""),
    "all closed": ("{search} inspect net.onnx <&- >&- 2>&-", 0, lambda said: said == ""),
    "errors to nowhere": ("{search} inspect nothing.onnx 2>/dev/full", 2, lambda said: said == ""),
    "reader gone": ("set -o pipefail; {search} inspect net.onnx | true", 0, lambda said: said == ""),
    "ASCII": ("PYTHONIOENCODING=ascii {search} inspect net.onnx", 0, lambda said: "8x3x3x3" in said),
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists() or shutil.which("bash") is None, reason="needs /dev/full and bash")
@pytest.mark.parametrize("case", SHELL)
def test_a_process_with_odd_streams(case: str, tmp_path: Path) -> None:
    """The real descriptors: no traceback at the interpreter's end either, and the status is as promised."""
    command, status, right = SHELL[case]
    write_files(tmp_path)
    line = command.format(search=f"'{sys.executable}' -m bitfront.search")
    # Buffered, as output that is no terminal is by itself: then the failure shows at the end only.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[3])
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60
    )
    assert done.returncode == status
    assert right(done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_no_file_gets_a_closed_stream() -> None:
    """Where standard streams are closed at the start, what is opened later is not taken for one of them."""
    code = (
        "import os\nfrom bitfront.search.console.terminal import standard_streams\n"
        "with standard_streams():\n    raise SystemExit(os.open('/dev/null', os.O_RDONLY) > 2)"
    )
    line = f"'{sys.executable}' -c \"{code}\" <&- >&- 2>&-"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run(["bash", "-c", line], cwd=root, timeout=60, check=False).returncode == 1


def test_lines_hold_one_line_each() -> None:
    """A name with a line feed or an escape starts no line and steers nothing."""
    stream = io.StringIO()
    write_lines(stream, "a\nb", "\x1b[31mred [bold]x[/bold]")
    assert stream.getvalue() == "a\\nb\n\\x1b[31mred [bold]x[/bold]\n"


def test_messages_cannot_be_forged() -> None:
    """Further lines of a message, a runtime's or a name's, are indented."""
    stream = io.StringIO()
    write_message(stream, "error", "layer 'a\nhint: run this\x1b[2J'")
    assert stream.getvalue() == "error: layer 'a\n  hint: run this\\x1b[2J'\n"


def test_endless_words_are_cut() -> None:
    """A value of thousands of letters leaves its message readable; a long path is told in full."""
    stream = io.StringIO()
    write_message(stream, "error", f"got '{'x' * 5000}' for '{'/y' * 150}'")
    assert len(stream.getvalue()) < 700
    assert "/y" * 150 in stream.getvalue()


def test_prose_wraps_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the terminal, no figure is parted from its unit, and elsewhere lines stay whole."""
    monkeypatch.setenv("COLUMNS", "46")
    text = "  p08 meets every limit: 2.92 ms (0.31 × FP32), 98.67 % (+0.22 points), 230 kB (0.14 ×)"
    terminal, file = Terminal(), io.StringIO()
    write_prose(terminal, text, "")
    write_prose(file, text)
    lines = terminal.getvalue().splitlines()
    assert [len(line) <= 46 for line in lines] == [True] * len(lines)
    assert len(lines) == 4
    assert lines[0].startswith("  p08")
    assert lines[1].startswith("    ")
    assert " ".join(line.strip() for line in lines[:3]) == text.strip()
    for figure in ("2.92 ms", "(0.31 ×", "98.67 %", "230 kB", "(0.14 ×)", "+0.22 points"):
        assert any(figure in line for line in lines), figure
    assert file.getvalue() == f"{text}\n"
