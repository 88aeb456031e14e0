"""The front as a table: rows of text for the terminal and the page, and ``pareto.csv`` for everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bitfront.core import MemoryUsage, MetricInfo, formatting
from bitfront.core.point import Point
from bitfront.core.variant_info import VariantInfo
from bitfront.report import variant_format
from bitfront.report.results import RunResults

LATENCY_RATIO, SIZE_RATIO = "lat. ratio", "size ratio"
"""Of what points are compared with, as is the change of the metric."""
LIMITS = "limits"
COLUMNS = ("", "id", "accuracy", "Δ accuracy", "latency", "p90", LATENCY_RATIO, "size", SIZE_RATIO, LIMITS, "layers")
"""Of a metric that is better when lower ``accuracy`` is called ``error``."""
NOT_REPRODUCED = "latency not reproduced"
"""Of a point that was timed otherwise in a fresh process, whatever limits it seems to meet."""

FOOTPRINT_COLUMNS = ("engine", "weights", "activations")
"""Beside the sizes, where a runtime told any of them."""
ZIP_COLUMN = "zip size"
"""Beside the sizes, where there are other networks and a file shrinks by more than a tenth when it is compressed."""
NETWORK_COLUMN = "network"
"""Before the limits, where a point has another network than the given one."""
NETWORK_COLUMNS = ("training", "accuracy recovered")
"""After ``NETWORK_COLUMN`` on the page, which has the room."""
_BESIDE = COLUMNS.index(LIMITS)
MET = "met"
"""The cell in ``LIMITS`` of a point that misses none."""
_SHRUNK = 0.9
UNTOLD = "≈"
"""Before a difference that cannot be told from none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """Point as the tables show it.

    Attributes:
        id: The point's.
        recommended, on_front, baseline, feasible: What it is.
        cells: Its text, one a column; the first is ``★`` for the recommended point.
        variant_cells: One each of ``NETWORK_COLUMNS``; empty where every point has the given network.
    """

    id: str
    recommended: bool
    on_front: bool
    baseline: bool
    feasible: bool
    cells: tuple[str, ...]
    variant_cells: tuple[str, ...] = ()


def columns(results: RunResults) -> tuple[str, ...]:
    """Headings of ``table``: ``COLUMNS``, with those of what only some runs have."""
    named = [column.replace("accuracy", results.metric.quantity) for column in COLUMNS]
    return (
        *named[:_BESIDE],
        *((ZIP_COLUMN,) if _compresses(results) else ()),
        *(FOOTPRINT_COLUMNS if _tells_memory(results) else ()),
        *((NETWORK_COLUMN,) if _has_variants(results) else ()),
        *named[_BESIDE:],
    )


def _tells_memory(results: RunResults) -> bool:
    return any(point.footprint for point in results.points.values())


def _has_variants(results: RunResults) -> bool:
    return any(point.network for point in results.points.values())


def _compresses(results: RunResults) -> bool:
    return _has_variants(results) and any(zip_bytes(point) is not None for point in results.points.values())


def zip_bytes(point: Point) -> int | None:
    """Size of the compressed file; None where unknown, or hardly less than that of the file."""
    known = point.compressed_bytes
    return known if known is not None and known < _SHRUNK * point.size_bytes else None


def size_ratio(results: RunResults, point: Point) -> float | None:
    """Size over that of what points are compared with; None where that was not measured."""
    base = results.base
    return point.size_bytes / base.size_bytes if base else None


def accuracy_difference(results: RunResults, point: Point) -> float | None:
    """The metric minus that of what points are compared with, on the same data; None where one was not scored on it."""
    base = results.base
    if base is None:
        return None
    pairs = ((point.accuracy, base.accuracy), (point.search_accuracy, base.search_accuracy))
    for mine, theirs in pairs:
        if mine is not None and theirs is not None:
            return mine.value - theirs.value
    return None


def change_cell(results: RunResults, point: Point, *, interval: bool) -> str:
    """Difference to what points are compared with, ``≈`` before it where it cannot be told from none."""
    change, metric = point.shown_change, results.metric
    if change is None or point.id == results.reference:
        return formatting.metric_change(accuracy_difference(results, point), metric)
    text = formatting.paired_change(change, metric) if interval else formatting.metric_change(change.value, metric)
    return text if change.measurable else f"{UNTOLD} {text}"


def table(results: RunResults) -> tuple[TableRow, ...]:
    """The front, the baselines and the recommended, fastest first; points that were not timed come last."""
    shown = dict.fromkeys((*results.front, *results.baselines, *filter(None, (results.recommended,))))
    points = [results.points[id_] for id_ in shown]
    points.sort(key=lambda point: point.shown_latency.median_ms if point.shown_latency else float("inf"))
    return tuple(_row(results, point) for point in points)


def front_rows(results: RunResults) -> tuple[tuple[str, ...], ...]:
    """``table`` as plain text, for a terminal: one tuple a row, one string one of ``columns``."""
    return tuple(row.cells for row in table(results))


def _row(results: RunResults, point: Point) -> TableRow:
    recommended = point.id == results.recommended
    latency, accuracy = point.shown_latency, point.shown_accuracy
    limited = results.budget.limits_anything
    footprint = (point.footprint or MemoryUsage()).to_json().values() if _tells_memory(results) else ()
    made = _has_variants(results)
    return TableRow(
        id=point.id,
        recommended=recommended,
        on_front=point.id in results.front,
        baseline=point.id in results.baselines,
        feasible=point.feasible,
        cells=(
            "★" if recommended else "",
            point.id,
            formatting.metric_value(accuracy.value if accuracy else None, results.metric),
            change_cell(results, point, interval=True),
            formatting.latency(latency.median_ms if latency else None),
            formatting.latency(latency.p90_ms if latency else None),
            formatting.ratio(latency.ratio if latency else None),
            formatting.size(point.size_bytes),
            formatting.ratio(size_ratio(results, point)),
            *((formatting.size(zip_bytes(point)),) if _compresses(results) else ()),
            *map(formatting.size, footprint),
            *((variant_format.name(point.network),) if made else ()),
            standing(point, limited=limited),
            point.text or formatting.MISSING,
        ),
        variant_cells=_variant_cells(point.network, results.metric) if made else (),
    )


def standing(point: Point, *, limited: bool) -> str:
    """Sentence on the limits: which a point misses, that it meets all, or that its latency was not reproduced.

    Args:
        point: The point.
        limited: Whether there is any limit.
    """
    against = [*point.violations, *((NOT_REPRODUCED,) if point.latency_reproduced is False else ())]
    return "; ".join(against) or (MET if point.feasible and limited else formatting.MISSING)


def _variant_cells(network: VariantInfo | None, metric: MetricInfo) -> tuple[str, ...]:
    if network is None:
        return (formatting.MISSING, formatting.MISSING)
    return (variant_format.training(network), variant_format.recovered(network, metric))


def pareto_frame(results: RunResults) -> pd.DataFrame:
    """Contents of ``pareto.csv``, a row a point of the front and the recommended, with what only some runs have."""
    told, made = _tells_memory(results), _has_variants(results)
    extra = (*(MemoryUsage().to_json() if told else ()), *(NETWORK_CSV_COLUMNS if made else ()))
    rows = []
    for entry in table(results):
        if not entry.on_front and not entry.recommended:
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
                **_change_values(point),
                "latency_ms": latency.median_ms if latency else None,
                "latency_p90_ms": latency.p90_ms if latency else None,
                "ratio": latency.ratio if latency else None,
                "size_bytes": point.size_bytes,
                "size_ratio": size_ratio(results, point),
                "feasible": point.feasible,
                "config": point.config,
                "model": point.model,
                "compressed_bytes": point.compressed_bytes,
                **(point.footprint or MemoryUsage()).to_json(),
                **_variant_values(point.network),
            }
        )
    frame = pd.DataFrame(rows, columns=[*PARETO_COLUMNS, *extra])
    return frame.astype({name: "Int64" for name in _WHOLE_COLUMNS if name in frame})


def _change_values(point: Point) -> dict[str, Any]:
    change = point.shown_change
    return {
        "accuracy_change": change and change.value,
        "accuracy_change_ci_low": change and change.ci_low,
        "accuracy_change_ci_high": change and change.ci_high,
        "samples_better": change and change.better,
        "samples_worse": change and change.worse,
        "samples": change and change.samples,
    }


def _variant_values(network: VariantInfo | None) -> dict[str, Any]:
    if network is None:
        return {"network": variant_format.GIVEN, "macs_share": 1.0, "parameters_share": 1.0, "train_s": 0.0}
    return {
        "network": network.label,
        "pruned": " ".join(f"{group.name}:{group.kept}/{group.channels}" for group in network.pruned),
        "passes": " ".join(step.name for step in network.steps),
        "macs": network.macs,
        "macs_share": network.macs_share,
        "parameters": network.parameters,
        "parameters_share": network.parameters_share,
        "train_s": network.train_s,
        "train_steps": network.trained_steps,
        "untrained_accuracy": network.untrained_accuracy,
        "fp32_accuracy": network.fp32_accuracy,
        "network_file": network.file,
    }


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
    "accuracy_change",
    "accuracy_change_ci_low",
    "accuracy_change_ci_high",
    "samples_better",
    "samples_worse",
    "samples",
)
NETWORK_CSV_COLUMNS = (
    "compressed_bytes",
    "network",
    "pruned",
    "passes",
    "macs",
    "macs_share",
    "parameters",
    "parameters_share",
    "train_s",
    "train_steps",
    "untrained_accuracy",
    "fp32_accuracy",
    "network_file",
)
# Else pandas makes them float for gaps.
_WHOLE_COLUMNS = (
    "samples_better",
    "samples_worse",
    "samples",
    "compressed_bytes",
    "macs",
    "parameters",
    "train_steps",
)
