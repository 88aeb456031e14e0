"""Summary printed at the end of a run: the front, the recommended point, where time went, where the files are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from bitfront.core.formatting import MISSING, duration
from bitfront.core.given_network import AS_GIVEN, GIVEN_ID
from bitfront.report.results import RunResults
from bitfront.report.summary import RunStatus, summarise_run
from bitfront.report.tables import (
    FOOTPRINT_COLUMNS,
    LIMITS,
    MET,
    NETWORK_COLUMN,
    NOT_REPRODUCED,
    UNTOLD,
    ZIP_COLUMN,
    columns,
    front_rows,
)
from bitfront.report.variant_details import training_text
from bitfront.search.console.tables import MARKED, Narrowing, write_table
from bitfront.search.console.terminal import write_lines, write_prose

_METRIC_CHANGE = 3  # index of its column
STYLES = {RunStatus.NOTHING_GAINED: "bold yellow"}
_SHORT = {MET: MET, MISSING: MISSING, NOT_REPRODUCED: "unstable"}


def print_summary(folder: Path, stream: TextIO, *, quiet: bool) -> None:
    """Print a finished run's results; the result's sentences and the folder alone when ``quiet``.

    Raises:
        EngineError: If the folder's results cannot be read.
    """
    results = RunResults.load(folder)
    found = summarise_run(results)
    if not quiet:
        write_lines(stream, "")
        _print_table(results, stream, STYLES.get(found.status, MARKED))
        write_prose(stream, "", conditions(results), time_split(results))
        if results.train is not None:
            write_prose(stream, training_text(results.train))
        write_lines(stream, "")
    write_prose(stream, found.headline, *found.details)
    write_lines(stream, *([str(folder)] if quiet else ["", *files(folder, results)]))
    stream.flush()


def _print_table(results: RunResults, stream: TextIO, style: str) -> None:
    rows = front_rows(results)
    if not rows:
        write_lines(stream, "no point was measured")
        return
    marked = frozenset(index for index, row in enumerate(rows) if row[0])
    headings = columns(results)
    write_table(stream, headings, rows, wrapping=1, narrowings=_narrowings(headings, rows), marked=marked, style=style)


def _narrowings(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Narrowing]:
    """Columns left out on a narrow terminal, in this order: first what the report and the lines below say too."""
    limits = headings.index(LIMITS)
    short = tuple(_SHORT.get(row[limits], "missed") for row in rows)
    plain = tuple(row[_METRIC_CHANGE].partition(" [")[0] for row in rows)
    bare = tuple(cell.removesuffix(" points") for cell in plain)
    dropped = ("layers", ZIP_COLUMN, *FOOTPRINT_COLUMNS, NETWORK_COLUMN)
    last = (headings[_METRIC_CHANGE], LIMITS)
    return [
        Narrowing(column=_METRIC_CHANGE, cells=plain),
        Narrowing(column=headings.index("p90")),
        Narrowing(column=limits, cells=short),
        *(Narrowing(column=headings.index(name)) for name in dropped if name in headings),
        Narrowing(column=_METRIC_CHANGE, cells=bare),
        *(Narrowing(column=headings.index(name)) for name in last),
    ]


def conditions(results: RunResults) -> str:
    """Line on what the numbers were measured on and compared with."""
    settings = results.settings
    threads, batch = settings["threads"], settings["batch_size"]
    # An interrupted run shows what the search saw, on its own part of the data.
    final = all(results.points[id_].accuracy for id_ in results.front)
    samples = f"{settings['holdout_samples']} held-out" if final else f"{settings['search_samples']} of the search's"
    metric, quantity = results.metric, results.metric.quantity
    paired = "the network as given" if results.versus == GIVEN_ID else results.versus
    untold = f" ({UNTOLD} cannot be told from none)" * any(point.shown_change for point in results.points.values())
    ranges = "; ranges from RANDOM data" * results.random_ranges
    return (
        f"{results.backend} on {results.device['device']}, {threads} thread{'s' * (threads != 1)}, batch {batch}; "
        f"latency: median, paired with {paired}; Δ and × are to it{untold}; {quantity}: {metric.text} on {samples} "
        f"samples{', lower is better' * metric.lower_is_better}{ranges}"
    )


def time_split(results: RunResults) -> str:
    """The wall clock's time and its split by kind of work, in one line."""
    split = dict(results.time_split_s)
    total = split.pop("total")
    parts = sorted(((seconds, part) for part, seconds in split.items() if seconds > 0), reverse=True)
    listed = ", ".join(f"{part} {100 * seconds / total:.0f} %" for seconds, part in parts) if total > 0 else ""
    return f"{duration(total)}: {listed}" if listed else duration(total)


def files(folder: Path, results: RunResults) -> list[str]:
    """Lines on where the report and the files to take away are."""
    lines = [f"report  {folder / 'report.html'}"]
    point = results.points.get(results.recommended) if results.recommended is not None else None
    if point is not None:
        lines += [f"model   {folder / point.model}"] if point.model else []
        lines += [f"config  {folder / point.config}"] if point.config else []
        lines += [f"config  none: {AS_GIVEN}"] if point.id == GIVEN_ID else []
        lines += [f"network {folder / point.network.file}"] if point.network and point.network.file else []
    return lines
