"""Draws the plots of ``report.infos`` with plotly.

Colours are those of Okabe and Ito ("Color universal design", 2008), which colour-blind readers tell apart, and shapes
differ too. Backgrounds are transparent and texts have no colour of their own: the page sets both for light, dark and
print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from bitfront.core import Precision
from bitfront.report.infos import FrontInfo, HeatmapInfo, Mark, SensitivityInfo, TimeInfo
from bitfront.report.network import DISTILLED, GIVEN, PRUNED, SPARSE, STUDENT

PRECISION_COLOURS = {
    Precision.FP32: "#8a8f98",
    Precision.FP16: "#56b4e9",
    Precision.INT8: "#009e73",
    Precision.INT4: "#e69f00",
}
FRONT_COLOUR = "#0072b2"
BASELINE_COLOUR = "#cc79a7"
RECOMMENDED_COLOUR = "#d55e00"
NETWORK_LOOKS = {
    GIVEN: (FRONT_COLOUR, "circle"),
    PRUNED: ("#009e73", "triangle-down"),
    SPARSE: ("#56b4e9", "hexagon"),
    STUDENT: ("#e69f00", "square"),
    DISTILLED: ("#7570b3", "pentagon"),
}
"""Colour and shape; a dot inside stands for quantisation-aware training."""
OTHER_LOOK = ("#cc79a7", "cross")  # of what passes of other packages make
FAINT_COLOUR = "rgba(138, 143, 152, 0.45)"
SHADE_COLOUR = "rgba(213, 94, 0, 0.07)"
LIMIT_LINE = {"color": RECOMMENDED_COLOUR, "width": 1.5, "dash": "dash"}
LEGEND_ABOVE = {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0}
PART_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#cc79a7", "#8a8f98", "#d55e00")
ROW_PX = 17
MAX_TEXT_COLUMNS = 24
COLUMN_PX = 64
BELOW_LIMIT = 3.0  # of the distance from the accuracy budget to the best point
LABEL_ROOM = 0.08  # of a plot's width and height
BELOW_TOP = 0.05  # at least this part of the best accuracy is shown below the accuracy budget
HOVER = "%{hovertext}<extra></extra>"


def draw_front(info: FrontInfo) -> go.Figure:
    """Accuracy against one cost: trials faint, the front as a staircase, baselines, budgets and the recommended."""
    figure = go.Figure()
    figure.add_trace(scatter("tried", info.tried, {"color": FAINT_COLOUR, "size": 6}))
    if info.tried_made:
        faint = {"color": FAINT_COLOUR, "size": 6, "symbol": "triangle-down"}
        figure.add_trace(scatter("tried on other networks", info.tried_made, faint))
    shapes = [f"{_look(mark.network)[1]}-open{'-dot' * mark.qat}" for mark in info.finalists]
    look = {"color": [_look(mark.network)[0] for mark in info.finalists], "opacity": 0.5, "size": 7}
    figure.add_trace(scatter("other finalists", info.finalists, {**look, "symbol": shapes}))
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
    for trace in _front_traces(info.front):
        figure.add_trace(trace)
    baselines = scatter(
        "baselines",
        info.baselines,
        {"color": BASELINE_COLOUR, "size": 11, "symbol": "diamond", "line": {"width": 1, "color": "white"}},
    )
    baselines.update(mode="markers+text", text=[mark.label for mark in info.baselines])
    view = _view(info)
    # Alternating sides keep the labels of fp16 and fp32 apart, which are about as fast as each other; the recommended
    # point's own label is above it.
    below = [index % 2 == 0 or _near(mark, info.recommended, view) for index, mark in enumerate(info.baselines)]
    baselines.update(textposition=["bottom center" if low else "top center" for low in below])
    figure.add_trace(baselines)
    if info.recommended is not None:
        star = {"color": RECOMMENDED_COLOUR, "size": 19, "symbol": "star", "line": {"width": 1, "color": "white"}}
        recommended = scatter("recommended", (info.recommended,), star)
        recommended.update(mode="markers+text", text=[f"<b>{info.recommended.label}</b>"], textposition="top center")
        figure.add_trace(recommended)
    figure.update_layout(
        **layout(430),
        legend=LEGEND_ABOVE,
        hovermode="closest",
    )
    figure.update_xaxes(title=_axis_title(info.x_title, info.x_limit, view.x), range=view.x, zeroline=False)
    figure.update_yaxes(title=_axis_title(info.y_title, info.y_limit, view.y), range=view.y, zeroline=False)
    _draw_limits(figure, info, view)
    return figure


def _front_traces(marks: tuple[Mark, ...]) -> tuple[go.Scatter, ...]:
    """The front's marks, one trace a kind of network, so that the legend tells the kinds."""
    present = {(mark.network, mark.qat) for mark in marks}
    order = [*NETWORK_LOOKS, *sorted({mark.network for mark in marks} - NETWORK_LOOKS.keys())]
    kinds = [kind for network in order for qat in (False, True) if (kind := (network, qat)) in present]
    if kinds in ([], [(GIVEN, False)]):
        return (scatter("Pareto front", marks, {"color": FRONT_COLOUR, "size": 10}),)
    traces = []
    for network, qat in kinds:
        colour, shape = _look(network)
        look: dict[str, Any] = {"color": colour, "size": 10, "symbol": shape}
        if qat:
            look.update(size=13, symbol=f"{shape}-dot", line={"width": 1, "color": "white"})
        traces.append(
            scatter(
                f"front: {network}{', QAT' * qat}",
                tuple(mark for mark in marks if (mark.network, mark.qat) == (network, qat)),
                look,
            )
        )
    return tuple(traces)


def _look(network: str) -> tuple[str, str]:
    """Colour and shape of a kind of network."""
    return NETWORK_LOOKS.get(network, OTHER_LOOK)


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
            hovertext=[list(row) for row in info.hovers],
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
                "y": 1.02,
                "yanchor": "bottom",
                "pad": {"b": 4},
                "bgcolor": "rgba(0, 0, 0, 0)",
                "bordercolor": "#8a8f98",
                "buttons": [
                    {"label": label, "method": "relayout", "args": [{"xaxis.categoryarray": list(order)}]}
                    for label, order in orders
                ],
            }
        ],
    )
    figure.update_xaxes(
        categoryorder="array", categoryarray=list(groups), type="category", tickangle=-50, automargin=True
    )
    figure.update_yaxes(title=title, type="log", exponentformat="power", zeroline=False)


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
    """What every plot's layout begins with."""
    return {
        "height": height_px,
        "margin": {"l": 60, "r": 44, "t": 50, "b": 50},
        "paper_bgcolor": "rgba(0, 0, 0, 0)",
        "plot_bgcolor": "rgba(0, 0, 0, 0)",
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "template": "none",
        "modebar": {"orientation": "v", "bgcolor": "rgba(0, 0, 0, 0)", "color": "#8a8f98", "activecolor": FRONT_COLOUR},
    }


def scatter(name: str, marks: tuple[Mark, ...], marker: dict[str, Any]) -> go.Scatter:
    """Marks with their hover texts; no legend entry without any."""
    return go.Scatter(
        name=name,
        x=[mark.x for mark in marks],
        y=[mark.y for mark in marks],
        mode="markers",
        marker=marker,
        hovertext=[mark.hover for mark in marks],
        hovertemplate=HOVER,
        showlegend=bool(marks),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What a front plot shows at first, and how far its marks really reach."""

    x: tuple[float, float]
    y: tuple[float, float]
    far_x: float
    far_y: float


def _view(info: FrontInfo) -> _View:
    """The part of the plane where decisions fall.

    Kept points set it; budgets widen it unless they are far off, and what misses the accuracy budget by much is left
    to zooming out: a useless 4-bit network at 10 % would press everything else into one line.
    """
    kept = [*info.front, *info.finalists, *info.baselines] or list(info.tried)
    everything = [*kept, *info.tried]
    xs, ys = [mark.x for mark in kept], [mark.y for mark in kept]
    if not kept:
        xs, ys = [0.0, info.x_limit or 1.0], [0.0, info.y_limit or 1.0]
    top = max(ys)
    if info.y_limit is not None and info.y_limit < top:
        reach = max(BELOW_LIMIT * (top - info.y_limit), BELOW_TOP * abs(top))
        ys = [max(y, info.y_limit - reach) for y in ys]
    xs, ys = _widened(xs, info.x_limit), _widened(ys, info.y_limit)
    x_pad = 0.08 * (max(xs) - min(xs)) or 0.1 * abs(xs[0]) or 1.0
    y_pad = 0.10 * (max(ys) - min(ys)) or 0.1 * abs(ys[0]) or 1.0
    x, y = (max(0.0, min(xs) - x_pad), max(xs) + x_pad), (min(ys) - y_pad, max(ys) + 1.5 * y_pad)
    return _View(
        x=x,
        y=y,
        far_x=max([x[1], *(mark.x + x_pad for mark in everything)]),
        far_y=min([y[0], *(mark.y - y_pad for mark in everything)]),
    )


def _near(mark: Mark, other: Mark | None, view: _View) -> bool:
    """Whether labels on the same side of two marks would lie upon each other."""
    if other is None:
        return False
    across, up = view.x[1] - view.x[0], view.y[1] - view.y[0]
    return abs(mark.x - other.x) < LABEL_ROOM * across and abs(mark.y - other.y) < LABEL_ROOM * up


def _widened(values: list[float], limit: float | None) -> list[float]:
    span = max(values) - min(values) or 0.1 * abs(values[0]) or 1.0
    if limit is None or not min(values) - span <= limit <= max(values) + span:
        return values
    return [*values, limit]


def _axis_title(title: str, limit: float | None, shown: tuple[float, float]) -> str:
    if limit is None or shown[0] <= limit <= shown[1]:
        return title
    return f"{title}, budget {limit:.4g} is {'below' if limit < shown[0] else 'beyond'}"


def _draw_limits(figure: go.Figure, info: FrontInfo, view: _View) -> None:
    """A dashed line a budget, and light shade over what it rules out."""
    shade = {"type": "rect", "fillcolor": SHADE_COLOUR, "line": {"width": 0}, "layer": "below"}
    if info.x_limit is not None and info.x_limit < view.far_x:
        figure.add_shape(shade, x0=info.x_limit, x1=view.far_x, y0=0, y1=1, yref="paper")
        figure.add_vline(x=info.x_limit, line=LIMIT_LINE)
    if info.y_limit is not None and info.y_limit > view.far_y:
        figure.add_shape(shade, x0=0, x1=1, xref="paper", y0=view.far_y, y1=info.y_limit)
        figure.add_hline(y=info.y_limit, line=LIMIT_LINE)
