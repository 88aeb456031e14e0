"""Tables for the command line: drawn by rich on a terminal, padded text elsewhere; ids and figures are never cut.

On a narrow terminal columns become shorter or go, in the order the caller gives; then names are folded onto further
lines. A table that still does not fit is written wider than the terminal, which wraps its lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

from bitfront.core.display import visible
from bitfront.search.console.terminal import write_prose

MIN_WORDS = 21  # columns that words are left: int4:gptq:weight-only is one
MIN_NAME = 12  # and a name
MARKED = "bold green"
_GAP = 2

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowing:
    """A way to make a table narrower: shorten or leave out one column.

    Attributes:
        column: Its index.
        cells: Shorter ones, a row each; None leaves the column out.
        name: What a column that is left out is called, where its heading alone does not tell it from another.
    """

    column: int
    cells: tuple[str, ...] | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    """A column: ``least`` is the narrowest it may be drawn before names fold, ``folded`` after."""

    name: str
    cells: tuple[str, ...]
    least: int
    folded: int


def write_table(
    stream: TextIO,
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    wrapping: int = 0,
    names: Sequence[int] = (),
    narrowings: Sequence[Narrowing] = (),
    marked: frozenset[int] = frozenset(),
    style: str = MARKED,
) -> None:
    """Write a table.

    Args:
        stream: Where to.
        columns: Headings.
        rows: One cell a column each; control characters are shown as escapes.
        wrapping: How many of the last columns hold words, which may wrap on a terminal.
        names: Indices of columns of names, which may be folded on a narrow terminal.
        narrowings: What is done to columns on a narrow terminal, one after another until the table fits.
        marked: Indices of rows to stand out on a terminal.
        style: How they do, in rich's words.
    """
    if stream.isatty():
        _write_rich(stream, _columns(columns, rows, wrapping, names), narrowings, marked, style)
    else:
        stream.write(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """A table as text: columns padded to their widest cell, nothing cut off."""
    lines = [tuple(map(visible, line)) for line in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(padded) + "\n"


def _columns(columns: Sequence[str], rows: Sequence[Row], wrapping: int, names: Sequence[int]) -> list[_Column]:
    from rich.cells import cell_len

    found = []
    for index, name in enumerate(columns):
        cells = tuple(visible(row[index]) for row in rows)
        natural = max(map(cell_len, (name, *cells)))
        least = min(natural, MIN_WORDS) if index >= len(columns) - wrapping else natural
        folded = min(least, max(MIN_NAME, cell_len(name))) if index in names else least
        found.append(_Column(name, cells, least, folded))
    return found


def _write_rich(
    stream: TextIO,
    columns: Sequence[_Column],
    narrowings: Sequence[Narrowing],
    marked: frozenset[int],
    style: str,
) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=stream)
    shown = dict(enumerate(columns))
    left_out = []
    for narrowing in narrowings:
        if _width([column.least for column in shown.values()]) <= console.width:
            break
        old = shown[narrowing.column]
        if narrowing.cells is None:
            heading = shown.pop(narrowing.column).name
            left_out.append(narrowing.name or heading)
        else:
            width = max(map(cell_len, (old.name, *narrowing.cells)))
            shown[narrowing.column] = _Column(old.name, narrowing.cells, width, width)
    fits = _width([column.least for column in shown.values()]) <= console.width
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    for column in shown.values():
        natural = max(map(cell_len, (column.name, *column.cells)))
        least = column.least if fits else column.folded
        table.add_column(Text(column.name), no_wrap=least == natural, min_width=least, overflow="fold")
    for index, row in enumerate(zip(*(column.cells for column in shown.values()), strict=True)):
        table.add_row(*(Text(cell) for cell in row), style=style if index in marked else None)
    needed = _width([column.folded for column in shown.values()])
    wide = console if needed <= console.width else Console(file=stream, width=needed)
    wide.print(table)
    if left_out:
        write_prose(stream, f"left out at {console.width} columns: {', '.join(dict.fromkeys(left_out))}")


def _width(columns: Sequence[int]) -> int:
    return sum(columns) + _GAP * (len(columns) - 1)
