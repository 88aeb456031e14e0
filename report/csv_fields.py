"""Tables of a run, read row by row and refused where a cell is not what it should be: file and row are named."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from bitfront.core import DataError, EngineError, MalformedError
from bitfront.core.cells import unguard
from bitfront.core.json_text import read_text, shown
from bitfront.core.measurement_file import DAMAGED

MAX_TABLE_BYTES = 256 * 2**20
_MAX_CELL = 16 * 2**20  # the schemes of a hundred thousand layers; Python's own limit, 131,072, is that of a thousand
_WHOLE = re.compile(r"[0-9]{1,18}")
_Row = TypeVar("_Row")


def damaged(path: Path, error: Exception) -> DataError:
    """The error for a file that does not fit the format."""
    what = f"no entry {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return DataError(f"'{path}' is damaged: {what}", DAMAGED)


def cell(text: str) -> float | None:
    """A cell's number, which may be infinite; None for an empty cell or NaN: what was not measured.

    Raises:
        ValueError: If it is no number.
    """
    value = float(text) if text else math.nan
    return None if math.isnan(value) else value


def number_or_none(text: str) -> float | None:
    """A cell's finite number; None where nothing was measured.

    Raises:
        ValueError: If it is no number, or infinite.
    """
    value = cell(text)
    if value is not None and not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {shown(text)}")
    return value


def whole(text: str) -> int:
    """A cell's whole number of 0 or more, of up to 18 digits.

    Raises:
        ValueError: If it is none.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"expected a whole number of 0 or more, got {shown(text)}")
    return int(text)


def whole_or_none(text: str) -> int | None:
    """Read a whole number; None for an empty cell."""
    return whole(text) if text else None


def share(text: str) -> float:
    """A cell's number from 0 to 1.

    Raises:
        ValueError: If it is none.
    """
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {shown(text)}")
    return value


def read_csv(
    path: Path, parse: Callable[[Mapping[str, str]], _Row], columns: Sequence[str], *, required: bool
) -> tuple[_Row, ...]:
    """A table's rows; none where the file is missing and not ``required``.

    Args:
        path: The table.
        parse: Reads one row.
        columns: What must be there; there may be more.
        required: Whether the file must be there.

    Raises:
        DataError: If the file is missing, unreadable or damaged; names it, and the row.
    """
    if not required and not path.exists():
        return ()
    try:
        rows = _rows(read_text(path, MAX_TABLE_BYTES), columns)
    except (MalformedError, ValueError, csv.Error) as error:
        what = error.message if isinstance(error, MalformedError) else str(error)
        raise DataError(f"'{path}' is damaged: {what}", DAMAGED) from error
    parsed = []
    for line, row in enumerate(rows, start=2):
        try:
            parsed.append(parse(row))
        except (KeyError, ValueError, EngineError) as error:
            raise DataError(f"{damaged(path, error).message} (row {line})", DAMAGED) from error
    return tuple(parsed)


def _rows(text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    limit = csv.field_size_limit(_MAX_CELL)
    try:
        found = csv.reader(io.StringIO(text, newline=""), strict=True)
        cells = [[unguard(cell) for cell in row] for row in found if row]
    finally:
        csv.field_size_limit(limit)
    if not cells:
        raise ValueError("it is empty, without even a first row of names")
    names = cells[0]
    if len(set(names)) < len(names):
        raise ValueError(f"two columns have the name '{next(name for name in names if names.count(name) > 1)}'")
    if missing := [column for column in columns if column not in names]:
        raise ValueError(f"there is no column '{missing[0]}'")
    for line, row in enumerate(cells, start=1):
        if len(row) != len(names):
            raise ValueError(f"expected {len(names)} cells, as in the first row, got {len(row)} (row {line})")
    return [dict(zip(names, row, strict=True)) for row in cells[1:]]
