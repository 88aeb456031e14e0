"""What standard output and error do with text that they cannot take: other encodings, full disks, closed pipes.

- A character that the stream's encoding lacks is written as one that looks like it, or as ``?``: one for one, so that
  columns stay aligned.
- Standard output that cannot be written (a full disk) ends the command with an error. One whose reader has gone
  (``head``, a pager) goes silent, and the command keeps its own exit status.
- Standard error that cannot be written goes silent: nobody can be told, and the work is worth more.
- A stream that was closed before the start is one that nobody reads.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from io import TextIOBase
from typing import TextIO, cast

from precision import OutputError
from precision.display import visible, visible_lines

_ALIKE = str.maketrans(
    {
        "×": "x", "★": "*", "◆": "#", "–": "-", "—": "-", "−": "-", "±": "+", "·": "-", "…": ".", "≤": "<", "≥": ">",
        "µ": "u", "μ": "u", "→": ">", "“": '"', "”": '"', "‘": "'", "’": "'", "─": "-", "━": "-", "│": "|", "┃": "|",
        "╸": "-", "╺": "-", "\u00a0": " ",
    }
)  # fmt: skip # noqa: RUF001 - the characters that this program writes
_STANDARD = (0, 1, 2)


class Stream(TextIOBase):
    """A standard stream that takes any text.

    Args:
        inner: The process's own stream; None for one that was closed before the start.
        name: As messages call it.
        fatal: Whether a failed write is an error, or the stream goes silent.
    """

    def __init__(self, inner: TextIO | None, name: str, *, fatal: bool) -> None:
        self._inner = inner
        self._name = name
        self._fatal = fatal

    @property
    def encoding(self) -> str:  # type: ignore[override] # a plain attribute there
        """The stream's own; UTF-8 where it has none."""
        return getattr(self._inner, "encoding", None) or "utf-8"

    def writable(self) -> bool:
        """Always: what cannot be written is dropped or refused."""
        return True

    def isatty(self) -> bool:
        """Whether a terminal shows it."""
        return self._inner is not None and self._inner.isatty()

    def fileno(self) -> int:
        """Its file descriptor.

        Raises:
            OSError: If it has none.
        """
        if self._inner is None:
            raise OSError(f"{self._name} is closed")
        return self._inner.fileno()

    def write(self, text: str) -> int:
        """Write what the encoding has of ``text``.

        Raises:
            OutputError: If a write failed, and that matters here.
        """
        if self._inner is not None:
            with self._kept():
                self._inner.write(_encodable(text, self.encoding))
        return len(text)

    def flush(self) -> None:
        """Have what was written arrive.

        Raises:
            OutputError: If it cannot, and that matters here.
        """
        if self._inner is not None:
            with self._kept():
                self._inner.flush()

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: closed meanwhile
            inner, self._inner = self._inner, None
            _silence(inner)
            if self._fatal and isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
                raise OutputError(
                    f"cannot write to {self._name}: {error.strerror or error}",
                    "free some space, or send it elsewhere; what a search found is in its run folder, "
                    "'search report RUN' prints it again",
                ) from error


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """``sys.stdout`` and ``sys.stderr`` as ``Stream`` inside, as they were afterwards."""
    _open_closed()
    before = sys.stdout, sys.stderr
    out = Stream(before[0], "standard output", fatal=True)
    sys.stdout = cast(TextIO, out)
    sys.stderr = cast(TextIO, Stream(before[1], "standard error", fatal=False))
    try:
        yield
    finally:
        with contextlib.suppress(OutputError):  # the command has flushed what it wrote, and told of a failure
            out.flush()
        sys.stdout, sys.stderr = before


def write_lines(stream: TextIO, *lines: str) -> None:
    """Write texts, a line each: no name in them starts another line or steers the terminal."""
    stream.write("".join(f"{visible(line)}\n" for line in lines))


def write_message(stream: TextIO, kind: str, text: str) -> None:
    """Write ``kind: text``; further lines of the text are indented, so that none passes for another message."""
    first, *rest = visible_lines(text)
    stream.write("".join(f"{line}\n" for line in (f"{kind}: {first}", *(f"  {line}" for line in rest))))


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(char if _has(encoding, char) else _alike(char, encoding) for char in text)
    return text


def _alike(char: str, encoding: str) -> str:
    found = char.translate(_ALIKE)
    return found if found != char and _has(encoding, found) else "?"


def _has(encoding: str, char: str) -> bool:
    try:
        char.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _open_closed() -> None:
    """Give the descriptors of standard streams that are closed to nothing, before a result's file gets one of them."""
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _silence(stream: TextIO | None) -> None:
    """Point a stream's descriptor at nothing, or the interpreter would try to write what is left of it at its end."""
    # Streams without one, and closed ones, have nothing left to write.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        descriptor = stream.fileno() if stream is not None else -1
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
