"""The comparison's page, in the style of a run's own: the table by backend, and latency on one against another."""

from __future__ import annotations

from urllib.parse import quote

import plotly.graph_objects as go

from bitfront.core import formatting
from bitfront.core.given_network import FP32_ID, GIVEN_ID
from bitfront.report import plots
from bitfront.report.comparison import Comparison, Row
from bitfront.report.comparison_tables import (
    CELL_COLUMNS,
    LEGEND,
    cell_columns,
    for_all_text,
    missing,
    rule,
    text_rows,
)
from bitfront.report.html import Plot, as_plot, facts, fill
from bitfront.report.summary import limit_texts, summarise_run
from bitfront.report.tooltips import escape
from bitfront.report.view_models import PlotPoint

_REFERENCES = (GIVEN_ID, FP32_ID)  # the first that was measured on both
_FAR = 2.0  # times the slowest mark


def comparison_page(comparison: Comparison) -> str:
    """The whole page as text."""
    return fill(
        "comparison.html.j2",
        comparison=comparison,
        headline=for_all_text(comparison),
        summaries={name: summarise_run(results) for name, results in comparison.measured},
        limits={name: limit_texts(results) for name, results in comparison.measured},
        addresses={run.name: f"./{quote(run.folder)}/report.html" for run in comparison.runs},
        columns={run.name: cell_columns(run.results) for run in comparison.runs},
        width=len(CELL_COLUMNS),
        rows=text_rows(comparison),
        legend=LEGEND,
        rule=rule(comparison),
        missing=missing(comparison),
        plots=latency_plots(comparison),
        facts={name: facts(results) for name, results in comparison.measured},
    )


def latency_plots(comparison: Comparison) -> tuple[Plot, ...]:
    """Latency on the first backend against each other one; none where nothing was measured on both."""
    names = [name for name, _ in comparison.measured]
    made = []
    for index, other in enumerate(names[1:]):
        marks = latency_marks(comparison, names[0], other)
        if any(marks.values()):
            title = f"Latency on {other} against {names[0]}"
            made.append(as_plot(f"latency-{index}", title, "", _draw(marks, names[0], other, comparison)))
    return tuple(made)


def latency_marks(comparison: Comparison, first: str, second: str) -> dict[str, tuple[PlotPoint, ...]]:
    """Legend entry → marks: every config that both measured, in one entry each."""
    kinds: dict[str, list[PlotPoint]] = {
        "baselines": [], "on no front": [], f"on {first}'s front": [], f"on {second}'s front": [], "on both fronts": [],
        "for all backends": [],
    }  # fmt: skip
    for row in comparison.rows:
        mark = _mark(comparison, row, first, second)
        if mark is None:
            continue
        here, there = row.cells[first].on_front, row.cells[second].on_front
        if row.id == comparison.for_all:
            kinds["for all backends"].append(mark)
        elif row.baseline:
            kinds["baselines"].append(mark)
        elif here and there:
            kinds["on both fronts"].append(mark)
        elif here or there:
            kinds[f"on {first if here else second}'s front"].append(mark)
        else:
            kinds["on no front"].append(mark)
    return {kind: tuple(marks) for kind, marks in kinds.items()}


def _mark(comparison: Comparison, row: Row, first: str, second: str) -> PlotPoint | None:
    points = [row.cells[name].point for name in (first, second)]
    latencies = [point.shown_latency if point else None for point in points]
    if latencies[0] is None or latencies[1] is None:
        return None
    results = dict(comparison.measured)
    lines = [f"<b>{escape(row.id)}</b>", escape(row.text)]
    for name, point, latency in zip((first, second), points, latencies, strict=True):
        if point is not None and latency is not None:
            accuracy = point.shown_accuracy
            parts = (
                formatting.latency(latency.median_ms),
                f"{formatting.ratio(latency.ratio)} {results[name].versus}",
                formatting.metric_value(accuracy.value if accuracy else None, results[name].metric),
                formatting.size(point.size_bytes),
            )
            lines.append(f"{escape(name)}: {', '.join(parts)}")
    return PlotPoint(
        x=latencies[0].median_ms, y=latencies[1].median_ms, label=escape(row.id), tooltip="<br>".join(lines)
    )


def _draw(marks: dict[str, tuple[PlotPoint, ...]], first: str, second: str, comparison: Comparison) -> go.Figure:
    looks = (
        {"color": plots.BASELINE_COLOUR, "size": 11, "symbol": "diamond"},
        {"color": "#8a8f98", "size": 8, "symbol": "circle-open"},
        {"color": plots.FRONT_COLOUR, "size": 10, "symbol": "triangle-right"},
        {"color": "#e69f00", "size": 10, "symbol": "triangle-up"},
        {"color": "#56b4e9", "size": 11, "symbol": "circle"},
        {"color": plots.RECOMMENDED_COLOUR, "size": 17, "symbol": "star"},
    )
    figure = go.Figure()
    labelled = {mark.label: mark for found in marks.values() for mark in found}
    reference = next((labelled[label] for label in _REFERENCES if label in labelled), None)
    if reference is not None:
        line = {"color": "#8a8f98", "width": 1, "dash": "dot"}
        ends = {"x": [0.0, reference.x], "y": [0.0, reference.y]}
        figure.add_trace(go.Scatter(name="the same gain on both", mode="lines", line=line, hoverinfo="skip", **ends))
    for (kind, found), look in zip(marks.items(), looks, strict=True):
        trace = plots.scatter(escape(kind), found, dict(look))
        if kind in ("baselines", "for all backends"):
            # Alternating sides keep the labels of neighbours apart: FP16 is often as fast as FP32.
            sides = ["top center" if index % 2 == 0 else "bottom center" for index in range(len(found))]
            sides = sides if kind == "baselines" else ["middle right"] * len(found)
            trace.update(mode="markers+text", text=[mark.label for mark in found], textposition=sides)
        figure.add_trace(trace)
    figure.update_layout(**plots.layout(470), legend=plots.LEGEND_ABOVE, hovermode="closest")
    limits = {name: results.budget.latency_ms for name, results in comparison.measured}
    every = [mark for found in marks.values() for mark in found]
    across = _limit(first, limits[first], max(mark.x for mark in every))
    up = _limit(second, limits[second], max(mark.y for mark in every))
    figure.update_xaxes(title=across[0], rangemode="tozero", zeroline=False)
    figure.update_yaxes(title=up[0], rangemode="tozero", zeroline=False)
    if across[1] is not None:
        figure.add_vline(x=across[1], line=plots.LIMIT_LINE)
    if up[1] is not None:
        figure.add_hline(y=up[1], line=plots.LIMIT_LINE)
    return figure


def _limit(backend: str, limit: float | None, slowest: float) -> tuple[str, float | None]:
    """An axis' title, and the limit to draw: one far beyond every mark would press them into a corner, and is told."""
    title = f"median latency on {escape(backend)} (ms)"
    if limit is None or limit <= _FAR * slowest:
        return title, limit
    return f"{title}, limit {limit:.4g} is beyond", None
