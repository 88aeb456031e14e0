"""The summary printed after a run on several backends: each one's recommendation, one table, the config for all."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TextIO

from bitfront.core import write_text
from bitfront.report.comparison import Comparison
from bitfront.report.comparison_tables import (
    CELL_COLUMNS,
    FOR_ALL,
    LEGEND,
    TextRow,
    cell_columns,
    for_all_text,
    missing,
    text_rows,
)
from bitfront.report.render import render_comparison
from bitfront.report.summary import limit_texts, summarise_run
from bitfront.search.console.tables import Narrowing, write_table
from bitfront.search.console.terminal import write_lines, write_prose
from bitfront.search.results.summary import conditions

_MOST_REASONS = 6
_CONFIG = 1  # index of its column


def write_comparison(folder: Path, stream: TextIO, *, quiet: bool) -> None:
    """Write the comparison's files and ``summary.txt`` from what the run has saved, and print the summary.

    Raises:
        EngineError: If the folder's results cannot be read, or the files cannot be written.
    """
    comparison = render_comparison(folder)
    kept = StringIO()
    print_comparison(comparison, folder, kept, quiet=False)
    write_text(folder / "summary.txt", kept.getvalue().lstrip("\n"))
    print_comparison(comparison, folder, stream, quiet=quiet)


def print_comparison(comparison: Comparison, folder: Path, stream: TextIO, *, quiet: bool) -> None:
    """Print what was found; each run's sentences and the folder alone when ``quiet``."""
    if not quiet:
        write_lines(stream, "")
        _print_table(comparison, stream)
        write_lines(stream, "")
        for name, results in comparison.measured:
            write_prose(stream, f"{name}: {', '.join(limit_texts(results)) or 'no budget'}; {conditions(results)}")
        _print_missing(comparison, stream)
        write_lines(stream, "")
    for run in comparison.runs:
        if run.results is None:
            write_lines(stream, f"{run.name}: nothing was measured")
            continue
        found = summarise_run(run.results)
        write_prose(stream, f"{run.name}: {found.headline}", *(f"  {detail}" for detail in found.details))
    write_prose(stream, for_all_text(comparison))
    write_lines(stream, *([str(folder)] if quiet else ["", *_files(comparison, folder)]))
    stream.flush()


def _print_table(comparison: Comparison, stream: TextIO) -> None:
    rows = text_rows(comparison)
    if not rows:
        write_lines(stream, "no point was measured")
        return
    columns = ["", "config"]
    for run in comparison.runs:
        # The first column of each backend bears its name: a terminal's table has no headings over headings.
        columns += ["", f"{run.name}: latency", *cell_columns(run.results)[2:]]
    marked = frozenset(index for index, row in enumerate(rows) if row.for_all)
    headings = [*columns, "layers"]
    each = len(CELL_COLUMNS)
    # Layers first, then what each backend's own table says as well: budgets, size, accuracy.
    dropped = [len(headings) - 1]
    for behind in (each - 1, each - 2, each - 3):
        dropped += [2 + each * index + behind for index in range(len(comparison.runs))]
    narrowings = [Narrowing(column=column) for column in dropped]
    write_table(
        stream,
        headings,
        [_cells(row) for row in rows],
        wrapping=1,
        names=(_CONFIG,),
        narrowings=narrowings,
        marked=marked,
    )
    write_prose(stream, LEGEND)


def _cells(row: TextRow) -> tuple[str, ...]:
    cells = ["◆" if row.for_all else "", row.id]
    for cell in row.cells:
        # The reason is told below the table.
        cells += cell.texts or ("", "not had", *([""] * (len(CELL_COLUMNS) - 2)))
    return (*cells, row.text)


def _print_missing(comparison: Comparison, stream: TextIO) -> None:
    found = missing(comparison)
    for id_, backend, reason in found[:_MOST_REASONS]:
        write_prose(stream, f"not had: {id_} on {backend}: {reason}")
    if len(found) > _MOST_REASONS:
        write_lines(stream, f"not had: {len(found) - _MOST_REASONS} more, see comparison.html")


def _files(comparison: Comparison, folder: Path) -> list[str]:
    lines = [("comparison", folder / "comparison.html")]
    for run in comparison.runs:
        if run.results is None:
            continue
        lines.append((run.name, folder / run.folder / "report.html"))
        point = run.results.points.get(run.results.recommended or "")
        if point is not None and point.model:
            lines.append(("  model", folder / run.folder / point.model))
    if comparison.for_all is not None:
        cells = comparison.row(comparison.for_all).cells
        for run in comparison.runs:
            point = cells[run.name].point
            if point is not None and point.model:
                lines.append((f"{FOR_ALL} {run.name}", folder / run.folder / point.model))
    width = max(len(name) for name, _ in lines)
    return [f"{name.ljust(width)}  {path}" for name, path in lines]
