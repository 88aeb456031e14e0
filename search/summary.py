"""What is printed at the end of a run: the front, the recommended point, where time went, where the files are."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from report.results import RunResults
from report.tables import COLUMNS, front_rows
from report.verdict import verdict
from report.wording import duration

MIN_TABLE_COLUMNS = 100


def print_summary(folder: Path, stream: TextIO, *, quiet: bool) -> None:
    """Print a finished run's results; the verdict and the folder alone when ``quiet``.

    Raises:
        EngineError: If the folder's results cannot be read.
    """
    results = RunResults.load(folder)
    found = verdict(results)
    if not quiet:
        stream.write("\n")
        _print_table(results, stream)
        stream.write(f"\n{conditions(results)}\n{time_split(results)}\n")
    stream.write(f"\n{found.headline}\n" if not quiet else f"{found.headline}\n")
    for detail in found.details:
        stream.write(f"{detail}\n")
    stream.write(f"\n{files(folder, results)}\n" if not quiet else f"{folder}\n")
    stream.flush()


def _print_table(results: RunResults, stream: TextIO) -> None:
    rows = front_rows(results)
    if not rows:
        stream.write("no point was measured\n")
    elif stream.isatty():
        _print_rich(rows, stream)
    else:
        stream.write(plain_table(COLUMNS, rows))


def _print_rich(rows: tuple[tuple[str, ...], ...], stream: TextIO) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(COLUMNS):
        # Words may wrap; ids and numbers never do.
        table.add_column(name, no_wrap=index < len(COLUMNS) - 2, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row), style="bold green" if row[0] else None)
    console = Console(file=stream)
    console.print(table, width=max(console.width, MIN_TABLE_COLUMNS))


def plain_table(columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    """Columns padded to their widest cell, nothing cut off."""
    widths = [max(len(cell) for cell in column) for column in zip(columns, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (columns, *rows)
    ]
    return "\n".join(lines) + "\n"


def conditions(results: RunResults) -> str:
    """What the numbers were measured with: without it a latency means nothing."""
    settings = results.settings
    threads, batch = settings["threads"], settings["batch_size"]
    return (
        f"{results.backend} on {results.device['device']}, {threads} thread{'s' * (threads != 1)}, batch {batch}; "
        f"latency: median, paired with FP32; accuracy: {results.metric} on {settings['holdout_samples']} held-back "
        "samples"
    )


def time_split(results: RunResults) -> str:
    """Where the wall clock went."""
    split = dict(results.time_split_s)
    total = split.pop("total")
    parts = sorted(((seconds, part) for part, seconds in split.items() if seconds > 0), reverse=True)
    listed = ", ".join(f"{part} {100 * seconds / total:.0f} %" for seconds, part in parts) if total > 0 else ""
    return f"{duration(total)}: {listed}" if listed else duration(total)


def files(folder: Path, results: RunResults) -> str:
    """Where the report is, and the files to take away."""
    lines = [f"report  {folder / 'report.html'}"]
    point = results.points.get(results.recommended) if results.recommended is not None else None
    if point is not None:
        lines += [f"model   {folder / point.model}"] if point.model else []
        lines += [f"config  {folder / point.config}"] if point.config else []
    return "\n".join(lines)
