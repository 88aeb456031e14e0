"""Tables for the command line: drawn by rich on a terminal, padded text elsewhere; ids and numbers are never cut."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

MIN_COLUMNS = 100

Row = tuple[str, ...]


def write_table(
    stream: TextIO,
    columns: Sequence[str],
    rows: Sequence[Row],
    *,
    wrapping: int = 0,
    marked: frozenset[int] = frozenset(),
) -> None:
    """Write a table.

    Args:
        stream: Where to.
        columns: Headings.
        rows: One cell a column each.
        wrapping: How many of the last columns hold words, which may wrap on a terminal.
        marked: Indices of rows to stand out on a terminal.
    """
    if stream.isatty():
        _write_rich(stream, columns, rows, wrapping, marked)
    else:
        stream.write(plain_table(columns, rows))


def plain_table(columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns padded to their widest cell, nothing cut off."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (tuple(columns), *rows)
    ]
    return "\n".join(lines) + "\n"


def _write_rich(
    stream: TextIO, columns: Sequence[str], rows: Sequence[Row], wrapping: int, marked: frozenset[int]
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        table.add_column(name, no_wrap=index < len(columns) - wrapping, overflow="fold")
    for index, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style="bold green" if index in marked else None)
    console = Console(file=stream)
    console.print(table, width=max(console.width, MIN_COLUMNS))
