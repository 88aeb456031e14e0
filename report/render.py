"""Renders a run folder: ``pareto.csv`` and ``report.html``, from its saved results alone."""

from __future__ import annotations

from pathlib import Path

from precision import write_text
from report.html import page
from report.results import RunResults
from report.tables import pareto_frame


def render(folder: Path) -> Path:
    """Write ``pareto.csv`` and ``report.html`` into a run folder, each in one step.

    Returns:
        The page's path.

    Raises:
        UsageError: If ``folder`` holds no run, or one of another schema version.
        DataError: If one of the run's files is missing, unreadable or damaged.
        OutputError: If the folder cannot be written.
    """
    results = RunResults.load(folder)
    write_text(folder / "pareto.csv", pareto_frame(results).to_csv(index=False, lineterminator="\n"))
    path = folder / "report.html"
    write_text(path, page(results))
    return path
