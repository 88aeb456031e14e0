"""Cells of CSV files that no spreadsheet takes for a formula.

Spreadsheets compute a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, quoted or not
(OWASP, "CSV Injection"), and a layer's name may begin so. An apostrophe before it makes it text; reading takes it away
again. Numbers are not touched: a negative loss stays a number.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_GUARD = "'"
# The last four are the full-width forms, which some spreadsheets read as the plain ones.
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")


def guard(text: str) -> str:
    """Escape ``text`` so that no spreadsheet takes it for a formula; ``unguard`` gives ``text`` back."""
    return _GUARD + text if text[:1] in _FORMULA or _is_guarded(text) else text


def unguard(text: str) -> str:
    """Undo ``guard``."""
    return text[1:] if _is_guarded(text) else text


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file's text: headings, then rows; None is an empty cell, texts are guarded."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows(map(_cell, row) for row in rows)
    return buffer.getvalue()


def frame_text(frame: pd.DataFrame) -> str:
    """A frame as a CSV file's text, without its index; numbers as pandas writes them, texts guarded."""
    guarded = frame.copy()
    for position, kind in enumerate(frame.dtypes):
        if kind.kind not in "biufc":
            guarded.isetitem(position, [_cell(value) for value in frame.iloc[:, position]])
    guarded.columns = guarded.columns.map(_cell)
    text: str = guarded.to_csv(index=False, lineterminator="\n")
    return text


def _cell(value: object) -> object:
    return guard(value) if isinstance(value, str) else value


def _is_guarded(text: str) -> bool:
    return text[:1] == _GUARD and (text[1:2] in _FORMULA or text[1:2] == _GUARD) and len(text) > 1
