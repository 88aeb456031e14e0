"""Draws the front: the metric against latency or size, with the part of the plane that is shown at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from bitfront.core.variant_info import DISTILLED, GIVEN, PRUNED, SPARSE, STUDENT
from bitfront.report.plots import (
    BASELINE_COLOUR,
    FRONT_COLOUR,
    LEGEND_ABOVE,
    LIMIT_LINE,
    RECOMMENDED_COLOUR,
    layout,
    scatter,
)
from bitfront.report.view_models import FrontInfo, PlotPoint

NETWORK_LOOKS = {
    GIVEN: (FRONT_COLOUR, "circle"),
    PRUNED: ("#009e73", "triangle-down"),
    SPARSE: ("#56b4e9", "hexagon"),
    STUDENT: ("#e69f00", "square"),
    DISTILLED: ("#7570b3", "pentagon"),
}
"""Colour and shape; a dot inside stands for quantisation-aware training."""
OTHER_LOOK = ("#cc79a7", "cross")  # of what passes of other packages make
BELOW_LIMIT = 3.0  # of the distance from the limit of the metric to the best point
LABEL_ROOM = 0.08  # of a plot's width and height
BELOW_BEST = 0.05  # at least this part of the best value is shown beyond the limit
SHADE_COLOUR = "rgba(213, 94, 0, 0.07)"
FAINT_COLOUR = "rgba(138, 143, 152, 0.45)"


def draw_front(info: FrontInfo) -> go.Figure:
    """The metric against one cost: trials faint, the front with its step line, baselines, limits, the recommended."""
    figure = go.Figure()
    view = _view(info)
    figure.add_trace(scatter("trials", info.tried, {"color": FAINT_COLOUR, "size": 6}))
    if info.tried_variants:
        faint = {"color": FAINT_COLOUR, "size": 6, "symbol": "triangle-down"}
        figure.add_trace(scatter("trials on model variants", info.tried_variants, faint))
    figure.add_trace(_finalist_trace(info.finalists))
    figure.add_trace(_step_line_trace(info))
    for trace in _front_traces(info.front):
        figure.add_trace(trace)
    figure.add_trace(_baseline_trace(info, view))
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


def _finalist_trace(finalists: tuple[PlotPoint, ...]) -> go.Scatter:
    shapes = [f"{_look(mark.network)[1]}-open{'-dot' * mark.qat}" for mark in finalists]
    look = {"color": [_look(mark.network)[0] for mark in finalists], "opacity": 0.5, "size": 7}
    return scatter("other finalists", finalists, {**look, "symbol": shapes})


def _step_line_trace(info: FrontInfo) -> go.Scatter:
    return go.Scatter(
        name="best so far along the axis",
        x=[x for x, _ in info.step_line],
        y=[y for _, y in info.step_line],
        mode="lines",
        line={"shape": "hv", "color": FRONT_COLOUR, "width": 1.8},
        hoverinfo="skip",
        showlegend=False,
    )


def _baseline_trace(info: FrontInfo, view: _View) -> go.Scatter:
    baselines = scatter(
        "baselines",
        info.baselines,
        {"color": BASELINE_COLOUR, "size": 11, "symbol": "diamond", "line": {"width": 1, "color": "white"}},
    )
    # Alternating sides keep the labels of fp16 and fp32 apart, which are about as fast as each other; the recommended
    # point's own label is above it.
    below = [index % 2 == 0 or _near(mark, info.recommended, view) for index, mark in enumerate(info.baselines)]
    baselines.update(
        mode="markers+text",
        text=[mark.label for mark in info.baselines],
        textposition=["bottom center" if low else "top center" for low in below],
    )
    return baselines


def _front_traces(marks: tuple[PlotPoint, ...]) -> tuple[go.Scatter, ...]:
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
    """The colour and shape of a kind of network."""
    return NETWORK_LOOKS.get(network, OTHER_LOOK)


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """Ranges that a front plot shows at first, and how far its marks reach on the sides that limits rule out."""

    x: tuple[float, float]
    y: tuple[float, float]
    far_x: float
    worst_y: float


def _view(info: FrontInfo) -> _View:
    """The part of the plane where decisions fall.

    Kept points set it; limits widen it unless they are far off, and what misses the limit of the metric by much is left
    to zooming out: a useless 4-bit network at 10 % would press everything else into one line.
    """
    kept = [*info.front, *info.finalists, *info.baselines] or list(info.tried)
    everything = [*kept, *info.tried]
    sign = -1.0 if info.lower_is_better else 1.0
    limit = None if info.y_limit is None else sign * info.y_limit
    xs, ys = [mark.x for mark in kept], [sign * mark.y for mark in kept]  # greater is better
    if not kept:
        xs, ys = [0.0, info.x_limit or 1.0], [0.0, limit or 1.0]
    best = max(ys)
    if limit is not None and limit < best:
        reach = max(BELOW_LIMIT * (best - limit), BELOW_BEST * abs(best))
        ys = [max(y, limit - reach) for y in ys]
    xs, ys = _widened(xs, info.x_limit), _widened(ys, limit)
    x_pad = 0.08 * (max(xs) - min(xs)) or 0.1 * abs(xs[0]) or 1.0
    y_pad = 0.10 * (max(ys) - min(ys)) or 0.1 * abs(ys[0]) or 1.0
    worst = min(ys) - y_pad
    low, high = sorted((sign * min(ys), sign * max(ys)))
    x, y = (max(0.0, min(xs) - x_pad), max(xs) + x_pad), (low - y_pad, high + 1.5 * y_pad)
    return _View(
        x=x,
        y=y,
        far_x=max([x[1], *(mark.x + x_pad for mark in everything)]),
        worst_y=sign * min([worst, *(sign * mark.y - y_pad for mark in everything)]),
    )


def _near(mark: PlotPoint, other: PlotPoint | None, view: _View) -> bool:
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
    return f"{title}, limit {limit:.4g} is {'below' if limit < shown[0] else 'beyond'}"


def _draw_limits(figure: go.Figure, info: FrontInfo, view: _View) -> None:
    """A dashed line a limit, and light shade over what it rules out."""
    shade = {"type": "rect", "fillcolor": SHADE_COLOUR, "line": {"width": 0}, "layer": "below"}
    if info.x_limit is not None and info.x_limit < view.far_x:
        figure.add_shape(shade, x0=info.x_limit, x1=view.far_x, y0=0, y1=1, yref="paper")
        figure.add_vline(x=info.x_limit, line=LIMIT_LINE)
    if info.y_limit is not None and (
        info.y_limit < view.worst_y if info.lower_is_better else info.y_limit > view.worst_y
    ):
        figure.add_shape(shade, x0=0, x1=1, xref="paper", y0=view.worst_y, y1=info.y_limit)
        figure.add_hline(y=info.y_limit, line=LIMIT_LINE)
