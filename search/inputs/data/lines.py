"""Text files of one entry a line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitfront.core import DataError
from bitfront.core.files import check_readable


def read_lines(path: Path, expected: str) -> list[str]:
    """The lines of a UTF-8 file, without empty ones at its end.

    Args:
        path: The file.
        expected: What should be there, with its article.

    Raises:
        DataError: If it cannot be read, is no UTF-8, or has no lines.
    """
    check_readable(path, DataError, expected)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"'{path}': expected {expected} in UTF-8 ({error})", "save it as UTF-8 text") from error
    lines = [line.removesuffix("\r") for line in lines]
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        raise DataError(f"'{path}': expected {expected}, but it holds empty lines alone", "write an entry a line")
    return lines


def whole_labels(texts: Sequence[str], where: str) -> list[int]:
    """Class numbers written as text.

    Raises:
        DataError: If one is no whole number.
    """
    labels = []
    for number, text in enumerate(texts, 1):
        try:
            labels.append(int(text))
        except ValueError:
            raise DataError(
                f"'{where}': label {number}: expected a whole number, got '{text.strip()[:80]}'",
                "write class numbers, from 0 on",
            ) from None
    return labels
