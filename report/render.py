"""Renders a run folder from its saved results alone: ``pareto.csv`` and ``report.html``; of several, a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bitfront.core import write_text
from bitfront.core.cells import frame_text
from bitfront.report.comparison import Comparison
from bitfront.report.comparison_page import comparison_page
from bitfront.report.comparison_tables import comparison_frame, comparison_json
from bitfront.report.html import page, plot_page
from bitfront.report.plots import draw_sensitivity
from bitfront.report.results import RunResults
from bitfront.report.rows import Score
from bitfront.report.tables import pareto_frame
from bitfront.report.view_models import sensitivity_info


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
    write_text(folder / "pareto.csv", frame_text(pareto_frame(results)))
    path = folder / "report.html"
    write_text(path, page(results))
    return path


def render_comparison(folder: Path) -> Comparison:
    """Write ``comparison.csv``, ``comparison.json`` and ``comparison.html`` of a run on several backends.

    Returns:
        What they show.

    Raises:
        UsageError: If ``folder`` holds no such run, or one of another schema version.
        DataError: If one of the run's files is unreadable or damaged.
        OutputError: If the folder cannot be written.
    """
    comparison = Comparison.load(folder)
    write_text(folder / "comparison.csv", frame_text(comparison_frame(comparison)))
    data = json.dumps(comparison_json(comparison), indent=1, allow_nan=False)
    write_text(folder / "comparison.json", data + "\n")
    write_text(folder / "comparison.html", comparison_page(comparison))
    return comparison


def render_sensitivity(scores: Sequence[Score], path: Path, *, notices: Sequence[str] = ()) -> None:
    """Write the sensitivity chart alone, as a page that works offline.

    Args:
        scores: What it shows.
        path: The page.
        notices: What has to be known of the data, shown above the chart.

    Raises:
        OutputError: If ``path`` cannot be written.
    """
    write_text(path, plot_page("Sensitivity", draw_sensitivity(sensitivity_info(scores)), notices))
