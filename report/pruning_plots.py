"""Draws the plots of ``report.pruning`` in the style of ``report.plots``."""

from __future__ import annotations

import plotly.graph_objects as go

from bitfront.report import plots
from bitfront.report.pruning import KeptInfo, SparsityInfo

# From gone over narrow to nearly whole, all of it opaque for the sake of the text in it; whole is quiet and has none.
WHOLE_COLOUR = "rgba(138, 143, 152, 0.3)"
KEPT_SCALE = (
    (0.0, "#d55e00"),
    (0.001, "#d55e00"),
    (0.002, "#e69f00"),
    (0.998, "#f2e3bd"),
    (0.999, WHOLE_COLOUR),
    (1.0, WHOLE_COLOUR),
)
LEVEL_COLOURS = ("#56b4e9", "#009e73", "#e69f00", "#d55e00", "#0072b2")
BRANCH_LOOK = {"color": "#cc79a7", "size": 10, "symbol": "x"}


def draw_kept(info: KeptInfo) -> go.Figure:
    """Fraction of channels kept per group (rows) and point (columns); the recommended column is framed."""
    columns, rows = list(range(len(info.points))), list(range(len(info.groups)))
    figure = go.Figure(
        go.Heatmap(
            x=columns,
            y=rows,
            z=[list(row) for row in info.kept],
            zmin=0,
            zmax=1,
            colorscale=[list(stop) for stop in KEPT_SCALE],
            showscale=False,
            xgap=2,
            ygap=1,
            text=[[_kept_text(kept) for kept in row] for row in info.kept],
            texttemplate="%{text}" if len(columns) <= plots.MAX_TEXT_COLUMNS else None,
            textfont={"size": 10, "color": "rgba(0, 0, 0, 0.75)"},
            hovertext=[list(row) for row in info.tooltips],
            hovertemplate=plots.HOVER,
        )
    )
    plots.lay_out_heatmap(figure, info.points, info.groups, info.recommended)
    return figure


def _kept_text(kept: float) -> str:
    return "" if kept == 1 else "removed" if kept == 0 else f"{kept:.0%}"


def draw_sparsity(info: SparsityInfo) -> go.Figure:
    """Divergence per prune group on a log axis, one mark a level; crosses are branches, open marks are trained."""
    figure = go.Figure()
    levels = sorted({series.sparsity for series in info.series})
    for series in info.series:
        colour = LEVEL_COLOURS[levels.index(series.sparsity) % len(LEVEL_COLOURS)]
        look = {"color": colour, "size": 9, "symbol": "circle"} if series.sparsity < 1 else BRANCH_LOOK
        name = f"{series.sparsity:.0%} of channels removed" if series.sparsity < 1 else "branch removed"
        figure.add_trace(
            go.Scatter(
                name=f"{name}, trained" if series.trained else name,
                x=list(series.groups),
                y=list(series.values),
                mode="markers",
                showlegend=not series.trained,  # the words above the plot say what open marks are
                marker={**look, "symbol": f"{look['symbol']}-open"} if series.trained else look,
                hovertext=list(series.tooltips),
                hovertemplate=plots.HOVER,
            )
        )
    plots.lay_out_groups(figure, info.groups, info.ranked, "divergence from the whole network")
    figure.update_yaxes(dtick="D2")  # its few decades would be crowded with the digits between powers of ten
    return figure
