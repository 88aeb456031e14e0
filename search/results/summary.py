"""What is printed at the end of a run: the front, the recommended point, where time went, where the files are."""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from report.given import AS_GIVEN, GIVEN_ID
from report.network_details import training_text
from report.results import RunResults
from report.tables import columns, front_rows
from report.verdict import verdict
from report.wording import duration
from search.tables import write_table


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
        if results.train is not None:
            stream.write(f"{training_text(results.train)}\n")
    stream.write(f"\n{found.headline}\n" if not quiet else f"{found.headline}\n")
    for detail in found.details:
        stream.write(f"{detail}\n")
    stream.write(f"\n{files(folder, results)}\n" if not quiet else f"{folder}\n")
    stream.flush()


def _print_table(results: RunResults, stream: TextIO) -> None:
    rows = front_rows(results)
    if not rows:
        stream.write("no point was measured\n")
        return
    marked = frozenset(index for index, row in enumerate(rows) if row[0])
    write_table(stream, columns(results), rows, wrapping=2, marked=marked)


def conditions(results: RunResults) -> str:
    """What the numbers were measured with: without it a latency means nothing."""
    settings = results.settings
    threads, batch = settings["threads"], settings["batch_size"]
    # An interrupted run shows what the search saw, on its own part of the data.
    final = all(results.points[id_].accuracy for id_ in results.front)
    samples = f"{settings['holdout_samples']} held-back" if final else f"{settings['search_samples']} of the search's"
    paired = "the network as given" if results.versus == GIVEN_ID else results.versus
    return (
        f"{results.backend} on {results.device['device']}, {threads} thread{'s' * (threads != 1)}, batch {batch}; "
        f"latency: median, paired with {paired}; accuracy: {results.metric} on {samples} samples"
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
        lines += [f"config  none: {AS_GIVEN}"] if point.id == GIVEN_ID else []
        lines += [f"network {folder / point.network.file}"] if point.network and point.network.file else []
    return "\n".join(lines)
