"""View models of the plots: plain values computed before anything is drawn, so that tests compare them by equality.

Texts that end up in a plot are escaped here, because plotly reads a subset of HTML in labels and layer names are the
user's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from bitfront.core import BYTES_PER_MB, MetricInfo, Precision, formatting
from bitfront.core.given_network import GIVEN_ID
from bitfront.core.pareto import step_line
from bitfront.core.point import Point
from bitfront.core.variant_info import GIVEN
from bitfront.report.origins import state_text
from bitfront.report.results import RunResults
from bitfront.report.rows import Score
from bitfront.report.tables import table
from bitfront.report.tooltips import escape, layer_tooltip, point_tooltip, score_tooltip, trial_tooltip

# Parts of a run that are the work itself; the rest is ours to keep small.
USEFUL_PARTS = ("inference", "compilation", "solver", "calibration", "training")


# The contexts in which a group is scored, as the legend calls them.
SINGLE_LAYER, LEAVE_ONE_OUT = "single-layer", "leave-one-out"


class Cost(Enum):
    """The horizontal axis of a front plot."""

    LATENCY = "latency"
    SIZE = "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotPoint:
    """Point of a front plot: position in the axes' units, label, tooltip, and the kind of its network."""

    x: float
    y: float
    label: str
    tooltip: str
    network: str = GIVEN
    qat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontInfo:
    """Accuracy against one cost.

    Attributes:
        x_title, y_title: With units.
        tried: Every trial of the given network whose accuracy was scored, as the search saw it.
        tried_variants: The same of model variants.
        finalists: Points that were kept and are neither on the front nor baselines.
        front: Points of the front in all three objectives, by rising cost.
        step_line: (x, y) of those no other beats in these two objectives alone: what the line connects.
        baselines: Uniform points, and the network as given where it is a point of its own.
        recommended: The recommended point, if any.
        x_limit, y_limit: The limits on these axes, if any.
        lower_is_better: Whether points further down are better.
    """

    x_title: str
    y_title: str
    tried: tuple[PlotPoint, ...]
    tried_variants: tuple[PlotPoint, ...]
    finalists: tuple[PlotPoint, ...]
    front: tuple[PlotPoint, ...]
    step_line: tuple[tuple[float, float], ...]
    baselines: tuple[PlotPoint, ...]
    recommended: PlotPoint | None
    x_limit: float | None
    y_limit: float | None
    lower_is_better: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatmapInfo:
    """Precision per layer and front point.

    Attributes:
        layers: Rows, in the network's order.
        points: Columns, fastest first.
        precisions: One tuple a row: the precision in each column, None where that network has no such layer.
        tooltips: The same shape: the full scheme in words.
        recommended: Column of the recommended point, None without one.
        without_layers: Ids of points without a column, whose network has none of these layers.
    """

    layers: tuple[str, ...]
    points: tuple[str, ...]
    precisions: tuple[tuple[Precision | None, ...], ...]
    tooltips: tuple[tuple[str, ...], ...]
    recommended: int | None
    without_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivitySeries:
    """Sensitivities of one precision in one context.

    Attributes:
        precision: Of the schemes scored.
        context: ``single-layer``: only this group is changed; or ``leave-one-out``: everything else is at its lowest
            precision, and the damage that this group adds is scored.
        groups: Groups with a score.
        values: What is drawn: the score, raised to ``SensitivityInfo.floor`` where a log axis could not show it.
        tooltips: The scheme and the score as measured.
    """

    precision: Precision
    context: str
    groups: tuple[str, ...]
    values: tuple[float, ...]
    tooltips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityInfo:
    """Divergence per group and precision.

    Attributes:
        groups: In the network's order.
        ranked: The same, most sensitive first, by the largest single-layer score.
        series: One an integer or reduced precision and context.
        floor: The lowest value that can be drawn; scores at or below zero are drawn here.
    """

    groups: tuple[str, ...]
    ranked: tuple[str, ...]
    series: tuple[SensitivitySeries, ...]
    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeInfo:
    """Parts of the wall clock.

    Attributes:
        parts: (name, seconds), in the order written, without the total.
        total_s: Wall clock in seconds.
        useful: Share of the total in ``USEFUL_PARTS``; 0 to 1.
    """

    parts: tuple[tuple[str, float], ...]
    total_s: float
    useful: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """Axes of a front plot: the horizontal quantity, and the units of both."""

    cost: Cost
    unit_bytes: int
    y_scale: float

    def position(
        self, latency_ms: float | None, size_bytes: float | None, accuracy: float | None
    ) -> tuple[float, float]:
        """(x, y) in the axes' units; NaN of what was not measured."""
        x = latency_ms if self.cost is Cost.LATENCY else (None if size_bytes is None else size_bytes / self.unit_bytes)
        return (math.nan if x is None else x, math.nan if accuracy is None else accuracy * self.y_scale)

    def points(self, results: RunResults, ids: Iterable[str]) -> tuple[PlotPoint, ...]:
        """Points among ``ids`` that were measured, by rising cost."""
        found = (self._point(results, results.points[id_]) for id_ in ids)
        return tuple(sorted(filter(_is_drawable, found), key=lambda point: point.x))

    def _point(self, results: RunResults, point: Point) -> PlotPoint:
        latency, accuracy = point.shown_latency, point.shown_accuracy
        x, y = self.position(
            latency.median_ms if latency else None, point.size_bytes, accuracy.value if accuracy else None
        )
        kind, qat = (point.network.kind, bool(point.network.artifact_trained)) if point.network else (GIVEN, False)
        return PlotPoint(x=x, y=y, label=escape(point.id), tooltip=point_tooltip(results, point), network=kind, qat=qat)

    def tried(self, results: RunResults, *, variants: bool) -> tuple[PlotPoint, ...]:
        """Trials that were scored, of model variants or of the given network."""
        found = []
        for trial in results.trials:
            if bool(trial.variant) == variants:
                x, y = self.position(trial.latency_ms, trial.size_bytes, trial.accuracy)
                label, tooltip = f"trial {trial.number}", trial_tooltip(results, trial)
                found.append(PlotPoint(x=x, y=y, label=label, tooltip=tooltip))
        return tuple(filter(_is_drawable, found))


def front_info(results: RunResults, cost: Cost) -> FrontInfo:
    """View model of the plot of the metric against latency or size."""
    unit_bytes, unit = _size_unit(results)
    metric, limit = results.metric, results.accuracy_limit
    axes = _Axes(cost=cost, unit_bytes=unit_bytes, y_scale=100.0 if metric.in_percent else 1.0)
    front = axes.points(results, results.front)
    others = tuple(id_ for id_ in results.points if id_ not in results.front and id_ not in results.baselines)
    recommended = axes.points(results, filter(None, (results.recommended,)))
    budget_x = results.budget.latency_ms if cost is Cost.LATENCY else results.budget.size_bytes
    return FrontInfo(
        x_title="median latency (ms)" if cost is Cost.LATENCY else f"file size ({unit})",
        y_title=_y_title(metric),
        tried=axes.tried(results, variants=False),
        tried_variants=axes.tried(results, variants=True),
        finalists=axes.points(results, others),
        front=front,
        step_line=tuple((x, metric.oriented(y)) for x, y in step_line((p.x, metric.oriented(p.y)) for p in front)),
        baselines=axes.points(results, results.baselines),
        recommended=recommended[0] if recommended else None,
        x_limit=budget_x if cost is Cost.LATENCY or budget_x is None else budget_x / unit_bytes,
        y_limit=None if limit is None else limit * axes.y_scale,
        lower_is_better=metric.lower_is_better,
    )


def _y_title(metric: MetricInfo) -> str:
    unit = f" ({metric.unit})" if metric.unit else ""
    return escape(f"{metric.name}{unit}{', lower is better' * metric.lower_is_better}")


def heatmap_info(results: RunResults) -> HeatmapInfo:
    """Precision per layer of the front's points; without a front, of the baselines'.

    A model variant may lack layers of the given network; of a student that shares none of them there is no column.
    Nor is there one of the network as given, whose layers nobody decided about.
    """
    names = {layer.name for layer in results.layers}
    rows = [row for row in table(results) if row.on_front or not results.front]
    listed = [results.points[row.id] for row in rows if row.id != GIVEN_ID]
    points = [point for point in listed if point.network is None or names & point.layers.keys()]
    whole = [point for point in points if point.network is None]
    shown = [
        layer
        for layer in results.layers
        if all(layer.name in point.layers for point in whole) and any(layer.name in point.layers for point in points)
    ]
    return HeatmapInfo(
        layers=tuple(escape(layer.name) for layer in shown),
        points=tuple(escape(point.id) for point in points),
        precisions=tuple(tuple(_precision(point, layer.name) for point in points) for layer in shown),
        tooltips=tuple(tuple(layer_tooltip(layer, point) for point in points) for layer in shown),
        recommended=next((column for column, p in enumerate(points) if p.id == results.recommended), None),
        without_layers=tuple(point.id for point in listed if point not in points),
    )


def sensitivity_info(scores: Sequence[Score]) -> SensitivityInfo:
    """Scores per group; where a precision has several schemes in a group, the one that hurts least."""
    best: dict[tuple[Precision, str], Score] = {}
    for score in scores:
        key = (score.scheme.precision, score.group)
        if score.scheme.precision is Precision.FP32 or not math.isfinite(score.single_layer):
            continue
        if key not in best or (bool(score.dropped), score.single_layer) < (
            bool(best[key].dropped),
            best[key].single_layer,
        ):
            best[key] = score
    drawable = [
        v for score in best.values() for v in (score.single_layer, score.leave_one_out) if math.isfinite(v) and v > 0
    ]
    floor = min(drawable, default=1e-9) / 2
    groups = tuple(dict.fromkeys(score.group for score in scores))
    worst = {
        group: max((s.single_layer for (_, g), s in best.items() if g == group), default=-math.inf) for group in groups
    }
    series = []
    for precision in Precision:
        chosen = [best[precision, group] for group in groups if (precision, group) in best]
        for context, read in ((SINGLE_LAYER, _single_layer), (LEAVE_ONE_OUT, _leave_one_out)):
            scored = [score for score in chosen if math.isfinite(read(score))]
            if scored:
                series.append(
                    SensitivitySeries(
                        precision=precision,
                        context=context,
                        groups=tuple(escape(score.group) for score in scored),
                        values=tuple(max(read(score), floor) for score in scored),
                        tooltips=tuple(score_tooltip(score, context, read(score)) for score in scored),
                    )
                )
    return SensitivityInfo(
        groups=tuple(escape(group) for group in groups),
        ranked=tuple(escape(g) for g in sorted(groups, key=lambda g: -worst[g])),
        series=tuple(series),
        floor=floor,
    )


def time_info(results: RunResults) -> TimeInfo:
    """The split of the wall clock."""
    split = results.time_split_s
    total_s = split["total"]
    useful_s = sum(split.get(part, 0.0) for part in USEFUL_PARTS)
    return TimeInfo(
        parts=tuple((escape(part), seconds) for part, seconds in split.items() if part != "total"),
        total_s=total_s,
        useful=min(1.0, useful_s / total_s) if total_s > 0 else 0.0,
    )


def trial_states(results: RunResults) -> tuple[tuple[str, int], ...]:
    """Number of trials that ended in each state, in words, most frequent first."""
    return tuple(Counter(state_text(trial.state) for trial in results.trials).most_common())


def _precision(point: Point, layer: str) -> Precision | None:
    scheme = point.layers.get(layer)
    return scheme.precision if scheme else None


def _single_layer(score: Score) -> float:
    return score.single_layer


def _leave_one_out(score: Score) -> float:
    return score.leave_one_out


def _is_drawable(point: PlotPoint) -> bool:
    return math.isfinite(point.x) and math.isfinite(point.y)


def _size_unit(results: RunResults) -> tuple[int, str]:
    sizes = [point.size_bytes for point in results.points.values()]
    sizes += [trial.size_bytes for trial in results.trials if trial.size_bytes is not None]
    large = max(sizes, default=0) >= BYTES_PER_MB
    return (BYTES_PER_MB, "MB") if large else (formatting.BYTES_PER_KB, "kB")
