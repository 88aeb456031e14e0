"""Draws the heat map, the sensitivities and the time split of ``report.view_models``, in the style of all plots.

Colours are those of Okabe and Ito ("Color universal design", 2008), which colour-blind readers tell apart, and shapes
differ too. Backgrounds are transparent and texts have no colour of their own: the page sets both for light, dark and
print.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from bitfront.core import Precision
from bitfront.report.view_models import SINGLE_LAYER, HeatmapInfo, PlotPoint, SensitivityInfo, TimeInfo

PRECISION_COLOURS = {
    Precision.FP32: "#8a8f98",
    Precision.FP16: "#56b4e9",
    Precision.INT8: "#009e73",
    Precision.INT4: "#e69f00",
}
FRONT_COLOUR = "#0072b2"
BASELINE_COLOUR = "#cc79a7"
RECOMMENDED_COLOUR = "#d55e00"
LIMIT_LINE = {"color": RECOMMENDED_COLOUR, "width": 1.5, "dash": "dash"}
LEGEND_ABOVE = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
PART_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#8a8f98", "#d55e00")
ROW_PX = 17
MAX_TEXT_COLUMNS = 24
COLUMN_PX = 64
HOVER = "%{hovertext}<extra></extra>"


def draw_heatmap(info: HeatmapInfo) -> go.Figure:
    """Precision per layer (rows) and front point (columns); the recommended column is framed."""
    levels = list(Precision)
    scale: list[tuple[float, str]] = []
    for index, precision in enumerate(levels):
        colour = PRECISION_COLOURS[precision]
        scale += [(index / len(levels), colour), ((index + 1) / len(levels), colour)]
    columns = list(range(len(info.points)))
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=list(range(len(info.layers))),
            z=[[levels.index(precision) if precision else None for precision in row] for row in info.precisions],
            zmin=-0.5,
            zmax=len(levels) - 0.5,
            colorscale=scale,
            xgap=2,
            ygap=1,
            text=[[str(precision.bits) if precision else "" for precision in row] for row in info.precisions],
            texttemplate="%{text}" if len(columns) <= MAX_TEXT_COLUMNS else None,
            textfont={"size": 10, "color": "rgba(0, 0, 0, 0.75)"},
            hovertext=[list(row) for row in info.tooltips],
            hovertemplate=HOVER,
            colorbar={
                "tickvals": list(range(len(levels))),
                "ticktext": [precision.value for precision in levels],
                "thickness": 12,
                "outlinewidth": 0,
                "lenmode": "pixels",
                "len": 140,
                "y": 1,
                "yanchor": "top",
            },
        )
    )
    lay_out_heatmap(figure, info.points, info.layers, info.recommended)
    return figure


def lay_out_heatmap(
    figure: go.Figure, points: tuple[str, ...], names: tuple[str, ...], recommended: int | None
) -> None:
    """Names at the rows, points at the columns, the recommended one framed."""
    columns, rows = list(range(len(points))), list(range(len(names)))
    labels = [f"<b>★ {name}</b>" if column == recommended else name for column, name in enumerate(points)]
    figure.update_layout(**layout(70 + ROW_PX * max(len(rows), 8)))
    figure.update_layout(margin_b=10)
    if len(columns) <= MAX_TEXT_COLUMNS // 2:
        figure.update_layout(width=260 + COLUMN_PX * len(columns))  # a few points need no whole line each
    figure.update_xaxes(
        tickvals=columns,
        ticktext=labels,
        side="top",
        showgrid=False,
        zeroline=False,
        tickangle=-45 if len(columns) > 8 else 0,
    )
    figure.update_yaxes(
        tickvals=rows, ticktext=list(names), autorange="reversed", showgrid=False, zeroline=False, automargin=True
    )
    if recommended is not None:
        figure.add_shape(
            type="rect",
            x0=recommended - 0.5,
            x1=recommended + 0.5,
            y0=-0.5,
            y1=len(rows) - 0.5,
            line={"color": RECOMMENDED_COLOUR, "width": 2.5},
        )


def draw_sensitivity(info: SensitivityInfo) -> go.Figure:
    """Divergence per group on a log axis: filled marks single-layer, open ones leave-one-out."""
    figure = go.Figure()
    for series in info.series:
        figure.add_trace(
            go.Scatter(
                name=f"{series.precision.value} {series.context}",
                x=list(series.groups),
                y=list(series.values),
                mode="markers",
                marker={
                    "color": PRECISION_COLOURS[series.precision],
                    "size": 9,
                    "symbol": "circle" if series.context == SINGLE_LAYER else "diamond-open",
                },
                hovertext=list(series.tooltips),
                hovertemplate=HOVER,
            )
        )
    lay_out_groups(figure, info.groups, info.ranked, "divergence from FP32")
    return figure


def lay_out_groups(figure: go.Figure, groups: tuple[str, ...], ranked: tuple[str, ...], title: str) -> None:
    """Groups along the axis, in two orders to choose from; a log axis for what is scored."""
    orders = (("network order", groups), ("most sensitive first", ranked))
    figure.update_layout(
        **layout(430),
        legend=LEGEND_ABOVE,
        updatemenus=[
            {
                "type": "buttons",
                "showactive": False,  # the colour of an active button cannot be read on a dark page
                "direction": "right",
                "x": 1,
                "xanchor": "right",
                "y": 1.12,  # above the legend
                "yanchor": "bottom",
                "bgcolor": "rgba(0, 0, 0, 0)",
                "bordercolor": "#8a8f98",
                "buttons": [
                    {"label": label, "method": "relayout", "args": [{"xaxis.categoryarray": list(order)}]}
                    for label, order in orders
                ],
            }
        ],
    )
    figure.update_layout(margin_t=90)
    figure.update_xaxes(
        categoryorder="array", categoryarray=list(groups), type="category", tickangle=-50, automargin=True
    )
    figure.update_yaxes(title=title, type="log", exponentformat="power", zeroline=False)


def draw_time(info: TimeInfo) -> go.Figure:
    """Plot of where the wall clock went, as one stacked bar."""
    figure = go.Figure()
    for index, (part, seconds) in enumerate(info.parts):
        share = seconds / info.total_s if info.total_s > 0 else 0.0
        figure.add_trace(
            go.Bar(
                name=part,
                x=[seconds],
                y=[""],
                orientation="h",
                marker={"color": PART_COLOURS[index % len(PART_COLOURS)]},
                text=[f"{share:.0%}" if share >= 0.04 else ""],
                textposition="inside",
                insidetextanchor="middle",
                textangle=0,
                hovertext=[f"{part}: {seconds:.1f} s ({share:.1%})"],
                hovertemplate=HOVER,
            )
        )
    figure.update_layout(
        **layout(150),
        barmode="stack",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.05, "x": 0, "traceorder": "normal"},
    )
    figure.update_xaxes(title="seconds", zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False)
    return figure


def layout(height_px: int) -> dict[str, Any]:
    """Layout with which every plot's begins."""
    return {
        "height": height_px,
        "margin": {"l": 60, "r": 44, "t": 50, "b": 50},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "template": "none",
        "modebar": {"orientation": "v", "bgcolor": "rgba(0, 0, 0, 0)", "color": "#8a8f98", "activecolor": FRONT_COLOUR},
    }


def scatter(name: str, marks: tuple[PlotPoint, ...], marker: dict[str, Any]) -> go.Scatter:
    """Marks with their tooltip texts; no legend entry without any."""
    return go.Scatter(
        name=name,
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        marker=marker,
        hovertext=[mark.tooltip for mark in marks],
        hovertemplate=HOVER,
        showlegend=bool(marks),
    )
