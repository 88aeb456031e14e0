"""The comparison of several backends as text: rows for the terminal and the page, and frames for the files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from bitfront.core import formatting
from bitfront.report.choice_text import speed_first
from bitfront.report.comparison import Cell, Comparison, Row
from bitfront.report.results import RunResults
from bitfront.report.summary import limit_texts, point_text
from bitfront.report.tables import LATENCY_RATIO, LIMITS, MET, NOT_REPRODUCED

CELL_COLUMNS = ("", "latency", LATENCY_RATIO, "accuracy", "size", LIMITS)
RECOMMENDED, ON_FRONT, FOR_ALL = "★", "●", "◆"
LEGEND = (
    f"{RECOMMENDED} recommended on that backend, {ON_FRONT} on its front, {FOR_ALL} the one to take where a single "
    "config has to serve all"
)
RULE_ACCURACY = (
    "of the configs within every limit on every backend, the one whose worst {quantity} is best; of equals the one "
    "whose worst slowdown against the fastest of them is least"
)
RULE_SPEED = (
    "of the configs within every limit on every backend, the one whose worst slowdown against the fastest of them is "
    "least"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCell:
    """Standing of a config on a backend as tables show it.

    Attributes:
        texts: One a column of ``CELL_COLUMNS``; empty where nothing was measured.
        reason: Why nothing was; empty otherwise.
        recommended, on_front, feasible: Its standing there.
    """

    texts: tuple[str, ...]
    reason: str
    recommended: bool
    on_front: bool
    feasible: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRow:
    """Config as tables show it: its standing everywhere, its ids, its schemes, and a cell a backend."""

    id: str
    text: str
    for_all: bool
    baseline: bool
    cells: tuple[TextCell, ...]


def cell_columns(results: RunResults | None) -> tuple[str, ...]:
    """``CELL_COLUMNS`` of one backend, ``accuracy`` as its metric is called."""
    quantity = results.metric.quantity if results is not None else "accuracy"
    return tuple(name.replace("accuracy", quantity) for name in CELL_COLUMNS)


def text_rows(comparison: Comparison) -> tuple[TextRow, ...]:
    """The comparison's rows as text."""
    results = {run.name: run.results for run in comparison.runs}
    return tuple(
        TextRow(
            id=" = ".join((row.id, *row.aliases)),
            text=row.text,
            for_all=row.id == comparison.for_all,
            baseline=row.baseline,
            cells=tuple(_cell(results[name], cell) for name, cell in row.cells.items()),
        )
        for row in comparison.rows
    )


def _cell(results: RunResults | None, cell: Cell) -> TextCell:
    texts: tuple[str, ...] = ()
    point = cell.point
    if results is not None and point is not None:
        latency, accuracy = point.shown_latency, point.shown_accuracy
        mark = RECOMMENDED if cell.recommended else ON_FRONT if cell.on_front else ""
        texts = (
            mark,
            formatting.latency(latency.median_ms if latency else None),
            formatting.ratio(cell.ratio),
            formatting.metric_value(accuracy.value if accuracy else None, results.metric),
            formatting.size(point.size_bytes),
            _standing(results, cell),
        )
    return TextCell(
        texts=texts,
        reason=cell.reason,
        recommended=cell.recommended,
        on_front=cell.on_front,
        feasible=point is not None and point.feasible,
    )


def _standing(results: RunResults, cell: Cell) -> str:
    """Limits that are missed, in a few words: the numbers are beside it."""
    assert cell.point is not None
    if cell.point.latency_reproduced is False:
        return NOT_REPRODUCED
    missed = [violation.split(" ", 1)[0] for violation in cell.point.violations]
    if missed:
        return f"{'/'.join(missed)} missed"
    return MET if limit_texts(results) and cell.point.feasible else formatting.MISSING


def rule(comparison: Comparison) -> str:
    """The rule by which ``for_all`` was chosen, in words."""
    speed = all(speed_first(results) for _, results in comparison.measured)
    quantity = comparison.metric.quantity if comparison.measured else "accuracy"
    return RULE_SPEED if speed else RULE_ACCURACY.format(quantity=quantity)


def for_all_text(comparison: Comparison) -> str:
    """The config for all backends in one sentence."""
    names = " and ".join(run.name for run in comparison.runs)
    if comparison.for_all is None:
        return f"No single config meets every limit on {names}."
    row = comparison.row(comparison.for_all)
    parts = []
    for name, results in comparison.measured:
        point = row.cells[name].point
        assert point is not None
        parts.append(f"{name} {point_text(results, point)}")
    return f"{FOR_ALL} {row.id} serves {names}: {'; '.join(parts)}"


def missing(comparison: Comparison) -> tuple[tuple[str, str, str], ...]:
    """(config, backend, reason) of everything that a backend could not measure."""
    return tuple(
        (row.id, name, cell.reason) for row in comparison.rows for name, cell in row.cells.items() if cell.reason
    )


def comparison_frame(comparison: Comparison) -> pd.DataFrame:
    """Contents of ``comparison.csv``, a row a config; a backend's columns start with its name."""
    return pd.DataFrame(
        [
            {
                "config": row.id,
                "layers": row.text,
                "everywhere": row.id == comparison.for_all,
                **{f"{name}:{key}": value for name, cell in row.cells.items() for key, value in _values(cell).items()},
            }
            for row in comparison.rows
        ]
    )


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The contents of ``comparison.json``, numbers as measured."""
    return {
        "schema_version": 1,
        "name": comparison.name,
        "command": comparison.command,
        "everywhere": comparison.for_all,
        "everywhere_rule": rule(comparison),
        "backends": {run.name: _party(run.folder, run.results) for run in comparison.runs},
        "configs": {row.id: _config(row) for row in comparison.rows},
    }


def _party(folder: str, results: RunResults | None) -> dict[str, Any]:
    if results is None:
        return {"folder": folder, "measured": False}
    return {
        "folder": folder,
        "measured": True,
        "complete": results.complete,
        "stopped": results.stopped,
        "budget": results.budget.to_json(),
        "device": dict(results.device),
        "recommended": results.recommended,
        "front": list(results.front),
        "nearest": dict(results.nearest),
    }


def _config(row: Row) -> dict[str, Any]:
    return {
        "aliases": list(row.aliases),
        "text": row.text,
        "layers": dict(row.layers),
        "backends": {name: _values(cell) for name, cell in row.cells.items()},
    }


def _values(cell: Cell) -> dict[str, Any]:
    point = cell.point
    latency, accuracy = (point.shown_latency, point.shown_accuracy) if point else (None, None)
    return {
        "point": point.id if point else None,
        "recommended": cell.recommended,
        "on_front": cell.on_front,
        "feasible": point.feasible if point else None,
        "held": point.latency_reproduced if point else None,
        "latency_ms": latency.median_ms if latency else None,
        "latency_p90_ms": latency.p90_ms if latency else None,
        "ratio": latency.ratio if latency else None,
        "accuracy": accuracy.value if accuracy else None,
        "size_bytes": point.size_bytes if point else None,
        "reason": cell.reason,
    }
