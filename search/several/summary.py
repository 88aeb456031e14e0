"""What is printed at the end of a run on several backends: what each recommends, one table, the config for all."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import TextIO

from precision import write_text
from report.comparison import Comparison
from report.comparison_tables import (
    CELL_COLUMNS,
    EVERYWHERE,
    LEGEND,
    TextRow,
    cell_columns,
    everywhere_text,
    missing,
    text_rows,
)
from report.render import render_comparison
from report.verdict import budget_texts, verdict
from search.results.summary import conditions
from search.tables import write_table

_MOST_REASONS = 6


def summarise(folder: Path, stream: TextIO, *, quiet: bool) -> None:
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
    """Print what was found; verdicts and the folder alone when ``quiet``."""
    if not quiet:
        stream.write("\n")
        _print_table(comparison, stream)
        stream.write("\n")
        for name, results in comparison.measured:
            stream.write(f"{name}: {', '.join(budget_texts(results)) or 'no budget'}; {conditions(results)}\n")
        _print_missing(comparison, stream)
        stream.write("\n")
    for party in comparison.parties:
        if party.results is None:
            stream.write(f"{party.name}: nothing was measured\n")
            continue
        found = verdict(party.results)
        stream.write(f"{party.name}: {found.headline}\n")
        for detail in found.details:
            stream.write(f"  {detail}\n")
    stream.write(f"{everywhere_text(comparison)}\n")
    stream.write(f"\n{_files(comparison, folder)}\n" if not quiet else f"{folder}\n")
    stream.flush()


def _print_table(comparison: Comparison, stream: TextIO) -> None:
    rows = text_rows(comparison)
    if not rows:
        stream.write("no point was measured\n")
        return
    columns = ["", "config"]
    for party in comparison.parties:
        # The first column of each backend bears its name: a terminal's table has no headings over headings.
        columns += ["", f"{party.name}: latency", *cell_columns(party.results)[2:]]
    marked = frozenset(index for index, row in enumerate(rows) if row.everywhere)
    write_table(stream, [*columns, "layers"], [_cells(row) for row in rows], wrapping=1, marked=marked)
    stream.write(f"{LEGEND}\n")


def _cells(row: TextRow) -> tuple[str, ...]:
    cells = ["◆" if row.everywhere else "", row.id]
    for cell in row.cells:
        # The reason is told below the table.
        cells += cell.texts or ("", "not had", *([""] * (len(CELL_COLUMNS) - 2)))
    return (*cells, row.text)


def _print_missing(comparison: Comparison, stream: TextIO) -> None:
    found = missing(comparison)
    for id_, backend, reason in found[:_MOST_REASONS]:
        stream.write(f"not had: {id_} on {backend}: {reason}\n")
    if len(found) > _MOST_REASONS:
        stream.write(f"not had: {len(found) - _MOST_REASONS} more, see comparison.html\n")


def _files(comparison: Comparison, folder: Path) -> str:
    lines = [("comparison", folder / "comparison.html")]
    for party in comparison.parties:
        if party.results is None:
            continue
        lines.append((party.name, folder / party.folder / "report.html"))
        point = party.results.points.get(party.results.recommended or "")
        if point is not None and point.model:
            lines.append(("  model", folder / party.folder / point.model))
    if comparison.everywhere is not None:
        cells = comparison.row(comparison.everywhere).cells
        for party in comparison.parties:
            point = cells[party.name].point
            if point is not None and point.model:
                lines.append((f"{EVERYWHERE} {party.name}", folder / party.folder / point.model))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name.ljust(width)}  {path}" for name, path in lines)
