"""The front as a table: rows of text for the terminal and the page, and ``pareto.csv`` for everything else."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from precision import Footprint
from report import wording
from report.results import Point, RunResults

COLUMNS = (
    "",
    "id",
    "accuracy",
    "vs FP32",
    "latency",
    "p90",
    "vs FP32",
    "size",
    "vs FP32",
    "budgets",
    "layers",
)

FOOTPRINT_COLUMNS = ("engine", "weights", "activations")
"""Beside the sizes, where a runtime told any of them."""
_BESIDE = COLUMNS.index("budgets")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One point as the tables show it.

    Attributes:
        id: The point's.
        recommended, on_front, baseline, feasible: What it is.
        cells: Its text, one a column; the first is ``★`` for the recommended point.
    """

    id: str
    recommended: bool
    on_front: bool
    baseline: bool
    feasible: bool
    cells: tuple[str, ...]


def columns(results: RunResults) -> tuple[str, ...]:
    """Headings of ``table``: ``COLUMNS``, with those of footprints where any is known."""
    return (*COLUMNS[:_BESIDE], *(FOOTPRINT_COLUMNS if _told(results) else ()), *COLUMNS[_BESIDE:])


def _told(results: RunResults) -> bool:
    return any(point.footprint for point in results.points.values())


def size_ratio(results: RunResults, point: Point) -> float | None:
    """Size over FP32's; None where FP32 was not measured."""
    reference = results.reference_point
    return point.size_bytes / reference.size_bytes if reference else None


def accuracy_difference(results: RunResults, point: Point) -> float | None:
    """Accuracy minus FP32's on the same data; None where one of them was not scored on it."""
    reference = results.reference_point
    if reference is None:
        return None
    pairs = ((point.accuracy, reference.accuracy), (point.search_accuracy, reference.search_accuracy))
    for mine, theirs in pairs:
        if mine is not None and theirs is not None:
            return mine.value - theirs.value
    return None


def table(results: RunResults) -> tuple[TableRow, ...]:
    """The front and the baselines, fastest first; points that were not timed come last."""
    shown = dict.fromkeys((*results.front, *results.baselines))
    points = [results.points[id_] for id_ in shown]
    points.sort(key=lambda point: point.shown_latency.median_ms if point.shown_latency else float("inf"))
    return tuple(_row(results, point) for point in points)


def front_rows(results: RunResults) -> tuple[tuple[str, ...], ...]:
    """``table`` as plain text, for a terminal: one tuple a row, one string one of ``columns``."""
    return tuple(row.cells for row in table(results))


def _row(results: RunResults, point: Point) -> TableRow:
    recommended = point.id == results.recommended
    latency, accuracy = point.shown_latency, point.shown_accuracy
    limited = any(limit is not None for limit in results.budget.to_json().values())
    footprint = (point.footprint or Footprint()).to_json().values() if _told(results) else ()
    return TableRow(
        id=point.id,
        recommended=recommended,
        on_front=point.id in results.front,
        baseline=point.id in results.baselines,
        feasible=point.feasible,
        cells=(
            "★" if recommended else "",
            point.id,
            wording.accuracy(accuracy.value if accuracy else None, results.metric),
            wording.accuracy_change(accuracy_difference(results, point), results.metric),
            wording.latency(latency.median_ms if latency else None),
            wording.latency(latency.p90_ms if latency else None),
            wording.ratio(latency.ratio if latency else None),
            wording.size(point.size_bytes),
            wording.ratio(size_ratio(results, point)),
            *map(wording.size, footprint),
            "; ".join(point.violations) or ("met" if point.feasible and limited else wording.MISSING),
            point.text,
        ),
    )


def pareto_frame(results: RunResults) -> pd.DataFrame:
    """One row a point of the front, fastest first: the contents of ``pareto.csv``; footprints where any is known."""
    told = _told(results)
    rows = []
    for entry in table(results):
        if not entry.on_front:
            continue
        point = results.points[entry.id]
        latency, accuracy = point.shown_latency, point.shown_accuracy
        rows.append(
            {
                "id": point.id,
                "recommended": entry.recommended,
                "origin": point.origin,
                "accuracy": accuracy.value if accuracy else None,
                "accuracy_ci_low": accuracy.ci_low if accuracy else None,
                "accuracy_ci_high": accuracy.ci_high if accuracy else None,
                "latency_ms": latency.median_ms if latency else None,
                "latency_p90_ms": latency.p90_ms if latency else None,
                "ratio": latency.ratio if latency else None,
                "size_bytes": point.size_bytes,
                "size_ratio": size_ratio(results, point),
                "feasible": point.feasible,
                "config": point.config,
                "model": point.model,
                **((point.footprint or Footprint()).to_json() if told else {}),
            }
        )
    return pd.DataFrame(rows, columns=[*PARETO_COLUMNS, *(Footprint().to_json() if told else ())])


PARETO_COLUMNS = (
    "id",
    "recommended",
    "origin",
    "accuracy",
    "accuracy_ci_low",
    "accuracy_ci_high",
    "latency_ms",
    "latency_p90_ms",
    "ratio",
    "size_bytes",
    "size_ratio",
    "feasible",
    "config",
    "model",
)
