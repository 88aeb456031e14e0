"""What each plot shows, as plain values computed before anything is drawn, so that tests compare them by equality.

Texts that end up in a plot are escaped here, because plotly reads a subset of HTML in labels and layer names are the
user's.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from bitfront.core import BYTES_PER_MB, Precision
from bitfront.report import wording
from bitfront.report.front import staircase
from bitfront.report.given import GIVEN_ID
from bitfront.report.hovers import escape, layer_hover, point_hover, score_hover, trial_hover
from bitfront.report.network import GIVEN
from bitfront.report.results import Point, RunResults
from bitfront.report.rows import Score
from bitfront.report.tables import table

# Parts of a run that are the work itself; the rest is ours to keep small.
USEFUL_PARTS = ("inference", "compilation", "solver", "calibration", "training")


class Cost(Enum):
    """The horizontal axis of a front plot."""

    LATENCY = "latency"
    SIZE = "size"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One mark of a front plot: position in the axes' units, short label, hover text, and what network it is of."""

    x: float
    y: float
    label: str
    hover: str
    network: str = GIVEN
    qat: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontInfo:
    """Accuracy against one cost.

    Attributes:
        x_title, y_title: With units.
        tried: Every trial of the given network whose accuracy was scored, as the search saw it.
        tried_made: The same of networks made from it.
        finalists: Points that were kept and are neither on the front nor baselines.
        front: Points of the front in all three objectives, by rising cost.
        steps: (x, y) of those no other beats in these two objectives alone: what the line connects.
        baselines: Uniform points, and the network as given where it is a point of its own.
        recommended: The recommended point, if any.
        x_limit, y_limit: The budgets on these axes, if any.
    """

    x_title: str
    y_title: str
    tried: tuple[Mark, ...]
    tried_made: tuple[Mark, ...]
    finalists: tuple[Mark, ...]
    front: tuple[Mark, ...]
    steps: tuple[tuple[float, float], ...]
    baselines: tuple[Mark, ...]
    recommended: Mark | None
    x_limit: float | None
    y_limit: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatmapInfo:
    """Precision per layer and front point.

    Attributes:
        layers: Rows, in the network's order.
        points: Columns, fastest first.
        precisions: One tuple a row: the precision in each column, None where that network has no such layer.
        hovers: The same shape: the full scheme in words.
        recommended: Column of the recommended point, None without one.
        strangers: Points without a column, whose network has none of these layers.
    """

    layers: tuple[str, ...]
    points: tuple[str, ...]
    precisions: tuple[tuple[Precision | None, ...], ...]
    hovers: tuple[tuple[str, ...], ...]
    recommended: int | None
    strangers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivitySeries:
    """One precision in one context.

    Attributes:
        precision: Of the schemes scored.
        context: ``alone`` or ``restored``.
        groups: Groups with a score.
        values: What is drawn: the score, raised to ``SensitivityInfo.floor`` where a log axis could not show it.
        hovers: The scheme and the score as measured.
    """

    precision: Precision
    context: str
    groups: tuple[str, ...]
    values: tuple[float, ...]
    hovers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityInfo:
    """Divergence per group and precision.

    Attributes:
        groups: In the network's order.
        ranked: The same, most sensitive first, by the largest ``alone`` score.
        series: One an integer or reduced precision and context.
        floor: The lowest value that can be drawn; scores at or below zero are drawn here.
    """

    groups: tuple[str, ...]
    ranked: tuple[str, ...]
    series: tuple[SensitivitySeries, ...]
    floor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeInfo:
    """Where the wall clock went.

    Attributes:
        parts: (name, seconds), in the order written, without the total.
        total_s: Wall clock in seconds.
        useful: Share of the total in ``USEFUL_PARTS``; 0 to 1.
    """

    parts: tuple[tuple[str, float], ...]
    total_s: float
    useful: float


def front_info(results: RunResults, cost: Cost) -> FrontInfo:
    """Accuracy against latency or size."""
    unit_bytes, unit = _size_unit(results)
    in_percent = results.metric in wording.PERCENT_METRICS
    y_scale = 100.0 if in_percent else 1.0
    floor = results.accuracy_floor

    def position(latency_ms: float | None, size_bytes: float | None, accuracy: float | None) -> tuple[float, float]:
        x = latency_ms if cost is Cost.LATENCY else (None if size_bytes is None else size_bytes / unit_bytes)
        return (math.nan if x is None else x, math.nan if accuracy is None else accuracy * y_scale)

    def mark(point: Point) -> Mark:
        latency, accuracy = point.shown_latency, point.shown_accuracy
        x, y = position(latency.median_ms if latency else None, point.size_bytes, accuracy.value if accuracy else None)
        kind, qat = (point.network.kind, bool(point.network.artifact_trained)) if point.network else (GIVEN, False)
        return Mark(x=x, y=y, label=escape(point.id), hover=point_hover(results, point), network=kind, qat=qat)

    def marks(ids: tuple[str, ...]) -> tuple[Mark, ...]:
        return tuple(sorted(filter(_is_drawable, (mark(results.points[id_]) for id_ in ids)), key=lambda m: m.x))

    tried: dict[bool, list[Mark]] = {False: [], True: []}  # by whether the network was made
    for trial in results.trials:
        x, y = position(trial.latency_ms, trial.size_bytes, trial.accuracy)
        seen = Mark(x=x, y=y, label=f"trial {trial.number}", hover=trial_hover(results, trial))
        tried[bool(trial.network)] += filter(_is_drawable, (seen,))
    front = marks(results.front)
    others = tuple(id_ for id_ in results.points if id_ not in results.front and id_ not in results.baselines)
    recommended = marks((results.recommended,)) if results.recommended is not None else ()
    budget_x = results.budget.latency_ms if cost is Cost.LATENCY else results.budget.size_bytes
    return FrontInfo(
        x_title="median latency (ms)" if cost is Cost.LATENCY else f"file size ({unit})",
        y_title=f"{results.metric} (%)" if in_percent else escape(results.metric),
        tried=tuple(tried[False]),
        tried_made=tuple(tried[True]),
        finalists=marks(others),
        front=front,
        steps=staircase((m.x, m.y) for m in front),
        baselines=marks(results.baselines),
        recommended=recommended[0] if recommended else None,
        x_limit=budget_x if cost is Cost.LATENCY or budget_x is None else budget_x / unit_bytes,
        y_limit=None if floor is None else floor * y_scale,
    )


def heatmap_info(results: RunResults) -> HeatmapInfo:
    """Precision per layer of the front's points; without a front, of the baselines'.

    A made network may lack layers of the given one; of a student that shares none of them there is no column. Nor is
    there one of the network as given, whose layers nobody decided about.
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
        hovers=tuple(tuple(layer_hover(layer, point) for point in points) for layer in shown),
        recommended=next((column for column, p in enumerate(points) if p.id == results.recommended), None),
        strangers=tuple(point.id for point in listed if point not in points),
    )


def sensitivity_info(scores: Sequence[Score]) -> SensitivityInfo:
    """Scores per group; where a precision has several schemes in a group, the one that hurts least."""
    best: dict[tuple[Precision, str], Score] = {}
    for score in scores:
        key = (score.scheme.precision, score.group)
        if score.scheme.precision is Precision.FP32 or not math.isfinite(score.alone):
            continue
        if key not in best or (bool(score.dropped), score.alone) < (bool(best[key].dropped), best[key].alone):
            best[key] = score
    drawable = [v for score in best.values() for v in (score.alone, score.restored) if math.isfinite(v) and v > 0]
    floor = min(drawable, default=1e-9) / 2
    groups = tuple(dict.fromkeys(score.group for score in scores))
    worst = {group: max((s.alone for (_, g), s in best.items() if g == group), default=-math.inf) for group in groups}
    series = []
    for precision in Precision:
        chosen = [best[precision, group] for group in groups if (precision, group) in best]
        for context, read in (("alone", _alone), ("restored", _restored)):
            scored = [score for score in chosen if math.isfinite(read(score))]
            if scored:
                series.append(
                    SensitivitySeries(
                        precision=precision,
                        context=context,
                        groups=tuple(escape(score.group) for score in scored),
                        values=tuple(max(read(score), floor) for score in scored),
                        hovers=tuple(score_hover(score, context, read(score)) for score in scored),
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
    """How many trials ended in each state, most frequent first."""
    return tuple(Counter(trial.state for trial in results.trials).most_common())


def _precision(point: Point, layer: str) -> Precision | None:
    scheme = point.layers.get(layer)
    return scheme.precision if scheme else None


def _alone(score: Score) -> float:
    return score.alone


def _restored(score: Score) -> float:
    return score.restored


def _is_drawable(mark: Mark) -> bool:
    return math.isfinite(mark.x) and math.isfinite(mark.y)


def _size_unit(results: RunResults) -> tuple[int, str]:
    sizes = [point.size_bytes for point in results.points.values()]
    sizes += [trial.size_bytes for trial in results.trials if trial.size_bytes is not None]
    large = max(sizes, default=0) >= BYTES_PER_MB
    return (BYTES_PER_MB, "MB") if large else (wording.BYTES_PER_KB, "kB")
