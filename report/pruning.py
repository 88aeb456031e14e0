"""View models of pruning: the channels that each point's network kept, and the divergence at each sparsity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitfront.core.point import Point
from bitfront.core.variant_info import PrunedGroup
from bitfront.report.results import RunResults
from bitfront.report.rows import SparsityScore
from bitfront.report.tables import table
from bitfront.report.tooltips import escape, kept_tooltip, sparsity_tooltip


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptInfo:
    """Kept channels, per prune group and point.

    Attributes:
        groups: Rows: groups that some point's network lost channels of.
        points: Columns, fastest first: points whose network was pruned.
        kept: One tuple a row: the fraction kept in each column, 1 where the group was left whole.
        tooltips: The same shape.
        recommended: Column of the recommended point, None without one.
    """

    groups: tuple[str, ...]
    points: tuple[str, ...]
    kept: tuple[tuple[float, ...], ...]
    tooltips: tuple[tuple[str, ...], ...]
    recommended: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsitySeries:
    """Scores at one sparsity, before or after training.

    Attributes:
        sparsity: The fraction removed; 1 for branches, which go as a whole.
        trained: Whether it is what a short training leaves.
        groups: Groups with a score.
        values: What is drawn: the score, raised to ``SparsityInfo.floor`` where a log axis could not show it.
        tooltips: The score as measured.
    """

    sparsity: float
    trained: bool
    groups: tuple[str, ...]
    values: tuple[float, ...]
    tooltips: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityInfo:
    """Divergence per prune group and sparsity.

    Attributes:
        groups: In the order written.
        ranked: The same, most sensitive first, by the largest score.
        series: One a level, ascending; where there are scores after training, that of the level before them.
        floor: The lowest value that can be drawn; scores at or below zero are drawn here.
    """

    groups: tuple[str, ...]
    ranked: tuple[str, ...]
    series: tuple[SparsitySeries, ...]
    floor: float


def kept_info(results: RunResults) -> KeptInfo:
    """Groups and points of the table's pruned networks; empty without any."""
    pruned = [
        (point, {group.name: group for group in point.network.pruned})
        for row in table(results)
        if (point := results.points[row.id]).network is not None and point.network.pruned
    ]
    sample = {group.name: group for _, groups in pruned for group in groups.values()}
    names = sorted(sample, key=_order(results))

    def cell(point: Point, groups: dict[str, PrunedGroup], name: str) -> str:
        return kept_tooltip(point, groups.get(name), sample[name])

    return KeptInfo(
        groups=tuple(escape(name) for name in names),
        points=tuple(escape(point.id) for point, _ in pruned),
        kept=tuple(
            tuple(groups[name].kept_fraction if name in groups else 1.0 for _, groups in pruned) for name in names
        ),
        tooltips=tuple(tuple(cell(point, groups, name) for point, groups in pruned) for name in names),
        recommended=next((column for column, (p, _) in enumerate(pruned) if p.id == results.recommended), None),
    )


def _order(results: RunResults) -> Callable[[str], tuple[int, str]]:
    """A group's place: that of the first layer which it is named after, or which lies in it; a branch before those."""
    layers = [layer.name for layer in results.layers]

    def place(name: str) -> tuple[int, str]:
        inside = (index for index, layer in enumerate(layers) if layer == name or layer.startswith(f"{name}."))
        return (next(inside, len(layers)), name)

    return place


def sparsity_info(scores: Sequence[SparsityScore]) -> SparsityInfo:
    """Scores per group and level; what was not scored is left out."""
    known = [score for score in scores if math.isfinite(score.loss) and score.sparsity > 0]
    losses = [loss for score in known for loss in (score.loss, score.trained)]
    floor = min((loss for loss in losses if loss > 0), default=1e-9) / 2
    groups = tuple(dict.fromkeys(score.group for score in scores))
    worst = {group: max((s.loss for s in known if s.group == group), default=-math.inf) for group in groups}
    series = []
    for level in sorted({score.sparsity for score in known}):
        for trained in (False, True):
            scored = {s: s.trained if trained else s.loss for s in known if s.sparsity == level}
            shown = {score: loss for score, loss in scored.items() if math.isfinite(loss)}
            if shown:
                series.append(
                    SparsitySeries(
                        sparsity=level,
                        trained=trained,
                        groups=tuple(escape(score.group) for score in shown),
                        values=tuple(max(loss, floor) for loss in shown.values()),
                        tooltips=tuple(sparsity_tooltip(score) for score in shown),
                    )
                )
    return SparsityInfo(
        groups=tuple(escape(group) for group in groups),
        ranked=tuple(escape(group) for group in sorted(groups, key=lambda group: -worst[group])),
        series=tuple(series),
        floor=floor,
    )
