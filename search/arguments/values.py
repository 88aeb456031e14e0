"""Conversion of the words behind options to values; each error says what was expected and what came.

Numbers are written in ASCII digits, without Python's underscores; whole numbers fit into 64 bits.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bitfront.core import Precision, UsageError

Limit = float | Mapping[str, float]
"""A limit for all backends, or backend → its own."""
MOST_WHOLE = 2**63 - 1
MOST_THREADS_PER_CORE = 4
LONGEST_S = 1e9  # thirty years
_SHOWN = 80
_UNITS_S = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def quoted(text: str) -> str:
    """A value as messages quote it, cut where it is long."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def number(text: str) -> float:
    """A float, not NaN.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    try:
        # A negative zero is a zero that prints oddly.
        value = float(text) + 0.0 if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise argparse.ArgumentTypeError(f"expected a number, got '{quoted(text)}'")
    return value


def limit(text: str) -> Limit:
    """A limit: ``5`` for all backends, or ``ort-cpu=5,openvino=4``.

    Raises:
        argparse.ArgumentTypeError: If it is neither, or names a backend twice.
    """
    if "=" not in text and "," not in text:
        return number(text)
    limits: dict[str, float] = {}
    for part in text.split(","):
        name, separator, value = (word.strip() for word in part.partition("="))
        if not (name and separator and value):
            raise argparse.ArgumentTypeError(
                f"expected one number for all backends, or BACKEND=NUMBER for each, got '{quoted(text)}'"
            )
        if name in limits:
            raise argparse.ArgumentTypeError(f"backend '{quoted(name)}' has two limits in '{quoted(text)}'")
        limits[name] = number(value)
    return limits


def whole(text: str) -> int:
    """A whole number of at most 64 bits.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    digits = re.fullmatch(r"([+-]?)0*([0-9]+)", text.strip(), re.ASCII)
    if digits is None:
        raise argparse.ArgumentTypeError(f"expected a whole number, got '{quoted(text)}'")
    # Counted before converting: Python takes long over thousands of digits, and refuses more.
    value = int(digits[1] + digits[2]) if len(digits[2]) <= len(str(MOST_WHOLE)) else MOST_WHOLE + 1
    if abs(value) > MOST_WHOLE:
        raise argparse.ArgumentTypeError(f"expected a whole number of at most {MOST_WHOLE}, got '{quoted(text)}'")
    return value


def positive(text: str) -> int:
    """A whole number above zero.

    Raises:
        argparse.ArgumentTypeError: If it is none.
    """
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {value}")
    return value


def threads(text: str) -> int:
    """A number of threads that this machine can start.

    Raises:
        argparse.ArgumentTypeError: If it is none, or far beyond the cores there are.
    """
    value = positive(text)
    if value == 1:
        return value
    from bitfront.backends.affinity import available_cores

    cores = available_cores()
    if value > MOST_THREADS_PER_CORE * cores:
        raise argparse.ArgumentTypeError(
            f"expected at most {MOST_THREADS_PER_CORE * cores} threads on the {cores} core{'s' * (cores != 1)} that "
            f"this process may use, got {value}"
        )
    return value


def duration_s(text: str) -> float:
    """Seconds from ``90``, ``90s``, ``5m`` or ``1h``.

    Raises:
        argparse.ArgumentTypeError: If it is no duration, or one of decades.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+)(s|m|min|h)?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a duration as in 90, 90s, 5m or 1h, got '{quoted(text)}'")
    seconds = float(found[1]) * _UNITS_S[found[2] or ""]
    if seconds > LONGEST_S:
        raise argparse.ArgumentTypeError(f"expected at most {LONGEST_S:.0f} seconds, got '{quoted(text)}'")
    return seconds


def precisions(text: str) -> tuple[Precision, ...]:
    """Precisions from ``fp32,int8``; from high to low, each once.

    Raises:
        argparse.ArgumentTypeError: If one is unknown.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [precision.value for precision in Precision]
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown precision '{quoted(name)}', expected some of {','.join(known)}")
    if not names:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got nothing")
    return tuple(precision for precision in Precision if precision.value in names)


def key_value(text: str) -> tuple[str, str]:
    """Key and value from ``KEY=VALUE``.

    Raises:
        argparse.ArgumentTypeError: If it is no pair.
    """
    key, _, value = (part.strip() for part in text.partition("="))
    if not key or not value:
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, got '{quoted(text)}'")
    return key, value


def batch_axis(text: str) -> tuple[str, int | None]:
    """An input's or output's name and its batch axis from ``NAME=AXIS``; None for ``NAME=none``.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    name, _, axis = (part.strip() for part in text.rpartition("="))
    if name and axis.lower() == "none":
        return name, None
    if not name or not (axis.isascii() and axis.isdigit() and len(axis) < 4):
        raise argparse.ArgumentTypeError(f"expected NAME=AXIS, an axis counted from 0 or none, got '{quoted(text)}'")
    return name, int(axis)


def data(text: str) -> str:
    """Name of calibration or evaluation data: a path, ``NAME=FILE,…``, or a word; paths are checked like ``path``.

    Raises:
        argparse.ArgumentTypeError: If the file system refuses a name.
    """
    for part in text.split(",") if "=" in text else [text]:
        path(part.partition("=")[2] or part)
    return text


def path(text: str) -> Path:
    """A path that the file system takes; whether anything is there shows when it is used.

    Raises:
        argparse.ArgumentTypeError: If the file system refuses the name, or a folder on the way to it.
    """
    if text == "-":
        raise argparse.ArgumentTypeError("expected a path, got '-': standard input and output cannot be used here")
    try:
        os.stat(text)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise argparse.ArgumentTypeError(f"cannot use the path '{quoted(text)}': {error.strerror}") from None
    return Path(text)


def check_words(argv: Sequence[str]) -> None:
    """Refuse what no option can mean: nothing, ``--``, bytes that are no text.

    Raises:
        UsageError: If there is such a word; names its option.
    """
    for option, value in _given(argv):
        where = option or "command line"
        if "\0" in value or any(0xD800 <= ord(char) <= 0xDFFF for char in value):
            what = "a NUL character" if "\0" in value else "bytes that are no UTF-8"
            raise UsageError(f"{where}: expected text, got {what} in '{quoted(value)}'", "rename it, or give another")
        if not value.strip():
            raise UsageError(f"{where}: got an empty value", f"give one, or leave {option or 'it'} out")
        if value == "--":
            raise UsageError(f"{where}: expected a value, got '--'", f"give one, or leave {where} out")


def _given(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(option, value) of everything on a command line; an empty option for what stands alone."""
    option = ""
    for word in argv:
        if word == "--":
            option = ""
            continue
        if word.startswith("-") and len(word) > 1:
            name, separator, value = word.partition("=")
            option = name if not separator else ""
            yield (name, value) if separator else ("", word)
        else:
            yield option, word
            option = ""
