"""Draws the plots of ``report.infos`` with plotly.

Colours are those of Okabe and Ito ("Color universal design", 2008), which colour-blind readers tell apart, and shapes
differ too. Backgrounds are transparent and texts have no colour of their own: the page sets both for light, dark and
print.
"""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from precision import Precision
from report.infos import FrontInfo, HeatmapInfo, Mark, SensitivityInfo, TimeInfo

PRECISION_COLOURS = {
    Precision.FP32: "#8a8f98",
    Precision.FP16: "#56b4e9",
    Precision.INT8: "#009e73",
    Precision.INT4: "#e69f00",
}
FRONT_COLOUR = "#0072b2"
FINALIST_COLOUR = "rgba(0, 114, 178, 0.5)"
BASELINE_COLOUR = "#cc79a7"
RECOMMENDED_COLOUR = "#d55e00"
FAINT_COLOUR = "rgba(138, 143, 152, 0.45)"
SHADE_COLOUR = "rgba(213, 94, 0, 0.07)"
LIMIT_LINE = {"color": RECOMMENDED_COLOUR, "width": 1.5, "dash": "dash"}
LEGEND_ABOVE = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
PART_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#8a8f98", "#d55e00")
ROW_PX = 17
MAX_TEXT_COLUMNS = 24
_HOVER = "%{hovertext}<extra></extra>"


def draw_front(info: FrontInfo) -> go.Figure:
    """Accuracy against one cost: trials faint, the front as a staircase, baselines, budgets and the recommended."""
    figure = go.Figure()
    figure.add_trace(_marks("tried", info.tried, {"color": FAINT_COLOUR, "size": 6}))
    figure.add_trace(
        _marks(
            "other finalists", info.finalists, {"color": "rgba(0, 114, 178, 0.5)", "size": 7, "symbol": "circle-open"}
        )
    )
    figure.add_trace(
        go.Scatter(
            name="best so far along the axis",
            x=[x for x, _ in info.steps],
            y=[y for _, y in info.steps],
            mode="lines",
            line={"shape": "hv", "color": FRONT_COLOUR, "width": 1.8},
            hoverinfo="skip",
            showlegend=False,
        )
    )
    figure.add_trace(_marks("Pareto front", info.front, {"color": FRONT_COLOUR, "size": 10}))
    baselines = _marks(
        "baselines",
        info.baselines,
        {"color": BASELINE_COLOUR, "size": 11, "symbol": "diamond", "line": {"width": 1, "color": "white"}},
    )
    baselines.update(mode="markers+text", text=[mark.label for mark in info.baselines])
    # Alternating sides keep the labels of fp16 and fp32 apart, which are about as fast as each other.
    baselines.update(
        textposition=["bottom center" if index % 2 == 0 else "top center" for index in range(len(info.baselines))]
    )
    figure.add_trace(baselines)
    if info.recommended is not None:
        star = {"color": RECOMMENDED_COLOUR, "size": 19, "symbol": "star", "line": {"width": 1, "color": "white"}}
        recommended = _marks("recommended", (info.recommended,), star)
        recommended.update(mode="markers+text", text=[f"<b>{info.recommended.label}</b>"], textposition="top center")
        figure.add_trace(recommended)
    x_range, y_range = _ranges(info)
    figure.update_layout(
        **_layout(430),
        legend=LEGEND_ABOVE,
        hovermode="closest",
    )
    figure.update_xaxes(title=info.x_title, range=x_range, zeroline=False)
    figure.update_yaxes(title=info.y_title, range=y_range, zeroline=False)
    _draw_limits(figure, info, x_range, y_range)
    return figure


def draw_heatmap(info: HeatmapInfo) -> go.Figure:
    """Precision per layer (rows) and front point (columns); the recommended column is framed."""
    levels = list(Precision)
    scale: list[tuple[float, str]] = []
    for index, precision in enumerate(levels):
        colour = PRECISION_COLOURS[precision]
        scale += [(index / len(levels), colour), ((index + 1) / len(levels), colour)]
    columns, rows = list(range(len(info.points))), list(range(len(info.layers)))
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=rows,
            z=[[levels.index(precision) for precision in row] for row in info.precisions],
            zmin=-0.5,
            zmax=len(levels) - 0.5,
            colorscale=scale,
            xgap=2,
            ygap=1,
            text=[[str(precision.bits) for precision in row] for row in info.precisions],
            texttemplate="%{text}" if len(columns) <= MAX_TEXT_COLUMNS else None,
            textfont={"size": 10, "color": "rgba(0, 0, 0, 0.75)"},
            hovertext=[list(row) for row in info.hovers],
            hovertemplate=_HOVER,
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
    labels = [f"<b>★ {name}</b>" if column == info.recommended else name for column, name in enumerate(info.points)]
    figure.update_layout(**_layout(110 + ROW_PX * max(len(rows), 8)))
    figure.update_xaxes(
        tickvals=columns,
        ticktext=labels,
        side="top",
        showgrid=False,
        zeroline=False,
        tickangle=-45 if len(columns) > 8 else 0,
    )
    figure.update_yaxes(
        tickvals=rows, ticktext=list(info.layers), autorange="reversed", showgrid=False, zeroline=False, automargin=True
    )
    if info.recommended is not None:
        figure.add_shape(
            type="rect",
            x0=info.recommended - 0.5,
            x1=info.recommended + 0.5,
            y0=-0.5,
            y1=len(rows) - 0.5,
            line={"color": RECOMMENDED_COLOUR, "width": 2.5},
        )
    return figure


def draw_sensitivity(info: SensitivityInfo) -> go.Figure:
    """Divergence per group on a log axis: filled marks alone, open marks restored; two orders to choose from."""
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
                    "symbol": "circle" if series.context == "alone" else "diamond-open",
                },
                hovertext=list(series.hovers),
                hovertemplate=_HOVER,
            )
        )
    orders = (("network order", info.groups), ("most sensitive first", info.ranked))
    figure.update_layout(
        **_layout(430),
        legend=LEGEND_ABOVE,
        updatemenus=[
            {
                "type": "buttons",
                "direction": "right",
                "x": 1,
                "xanchor": "right",
                "y": 1.02,
                "yanchor": "bottom",
                "pad": {"b": 4},
                "buttons": [
                    {"label": label, "method": "relayout", "args": [{"xaxis.categoryarray": list(order)}]}
                    for label, order in orders
                ],
            }
        ],
    )
    figure.update_xaxes(
        categoryorder="array", categoryarray=list(info.groups), type="category", tickangle=-50, automargin=True
    )
    figure.update_yaxes(title="divergence from FP32", type="log", exponentformat="power", zeroline=False)
    return figure


def draw_time(info: TimeInfo) -> go.Figure:
    """Where the wall clock went, as one stacked bar."""
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
                hovertemplate=_HOVER,
            )
        )
    figure.update_layout(
        **_layout(150),
        barmode="stack",
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.05, "x": 0, "traceorder": "normal"},
    )
    figure.update_xaxes(title="seconds", zeroline=False)
    figure.update_yaxes(showticklabels=False, showgrid=False)
    return figure


def _layout(height_px: int) -> dict[str, Any]:
    return {
        "height": height_px,
        "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "template": "none",
        "modebar": {"bgcolor": "rgba(0, 0, 0, 0)", "color": "#8a8f98", "activecolor": FRONT_COLOUR},
    }


def _marks(name: str, marks: tuple[Mark, ...], marker: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        name=name,
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        marker=marker,
        hovertext=[mark.hover for mark in marks],
        hovertemplate=_HOVER,
        showlegend=bool(marks),
    )


def _ranges(info: FrontInfo) -> tuple[list[float], list[float]]:
    """Axis ranges around everything that matters: kept points and budgets. Far worse trials may fall outside."""
    kept = [*info.front, *info.finalists, *info.baselines] or list(info.tried)
    xs = [mark.x for mark in kept] + ([info.x_limit] if info.x_limit is not None else [])
    ys = [mark.y for mark in kept] + ([info.y_limit] if info.y_limit is not None else [])
    if not kept:
        xs, ys = [0.0, *xs], [0.0, *ys]
    x_pad = 0.08 * (max(xs) - min(xs)) or 0.1 * abs(xs[0]) or 1.0
    y_pad = 0.10 * (max(ys) - min(ys)) or 0.1 * abs(ys[0]) or 1.0
    return [max(0.0, min(xs) - x_pad), max(xs) + x_pad], [min(ys) - y_pad, max(ys) + 1.5 * y_pad]


def _draw_limits(figure: go.Figure, info: FrontInfo, x_range: list[float], y_range: list[float]) -> None:
    """A dashed line a budget, and light shade over what it rules out, reaching beyond what zooming out shows."""
    shade = {"type": "rect", "fillcolor": SHADE_COLOUR, "line": {"width": 0}, "layer": "below"}
    if info.x_limit is not None:
        far = x_range[1] + 10 * (x_range[1] - x_range[0])
        figure.add_shape(shade, x0=info.x_limit, x1=far, y0=0, y1=1, yref="paper")
        figure.add_vline(x=info.x_limit, line=LIMIT_LINE, layer="between")
    if info.y_limit is not None:
        far = y_range[0] - 10 * (y_range[1] - y_range[0])
        figure.add_shape(shade, x0=0, x1=1, xref="paper", y0=far, y1=info.y_limit)
        figure.add_hline(y=info.y_limit, line=LIMIT_LINE, layer="between")
