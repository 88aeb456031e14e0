"""A run on several backends, read back: one row a config, one cell a backend, and the best config for all of them.

Two points are the same config where every layer has the same scheme. The network as given is a row of its own where a
backend lists it; on one where its FP32 form makes no difference that stands for it. A config that a backend measured
under another one's id (two configs may be written as the same file) is found through ``backends.json``.

``for_all`` is the config to take where one has to serve all backends. Of those that meet every limit on every
backend, and whose latency was reproduced, it is

    where accuracy alone is limited, on all backends   the one whose worst slowdown is least: on each backend its
                                                       latency over that of the fastest such config there
    otherwise                                          the one whose worst accuracy is best; of equals the one whose
                                                       worst slowdown is least

and of equals still the smallest. The worst backend decides, not the sum: a config that is good on average can be
useless on one of them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitfront.core import FP32, MetricInfo
from bitfront.core.backends_file import BACKENDS_FILE, BACKENDS_FORM
from bitfront.core.given_network import GIVEN_ID
from bitfront.core.measurement_file import MEASUREMENT_FILE
from bitfront.core.point import Point
from bitfront.report.choice_text import speed_first
from bitfront.report.csv_fields import damaged
from bitfront.report.results import RunResults

IMPORTED = "exchange"  # origin of points that another backend's search found

Key = frozenset[tuple[str, str]]
_AS_GIVEN: Key = frozenset({(GIVEN_ID, "")})  # the file as given, of which nobody decided a layer


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRun:
    """Backend of the run, with its results.

    Attributes:
        name: The backend's, as asked for.
        folder: Its run folder, relative to the whole run's.
        results: What was measured; None where an interruption came first.
    """

    name: str
    folder: str
    results: RunResults | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Standing of a config on a backend.

    Attributes:
        point: What was measured; None where nothing was.
        on_front, recommended: Its standing there.
        reason: Why nothing was measured; empty otherwise.
    """

    point: Point | None
    on_front: bool = False
    recommended: bool = False
    reason: str = ""

    @property
    def ratio(self) -> float | None:
        """Latency over that of the given network there."""
        latency = self.point.shown_latency if self.point else None
        return latency.ratio if latency else None

    @property
    def sound(self) -> bool:
        """Whether it meets every limit there and its latency was reproduced."""
        return self.point is not None and self.point.feasible and self.point.latency_reproduced is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Config with its standing on every backend.

    Attributes:
        id: ``BACKEND.ID`` where one search found it, the plain id where all have it under the same.
        aliases: ``BACKEND.ID`` of each other search that found it too, under an id of its own.
        text: Its schemes in short.
        layers: Layer name → scheme's short form.
        baseline: Whether it is uniform.
        cells: Backend → what it is there, every backend.
    """

    id: str
    aliases: tuple[str, ...]
    text: str
    layers: Mapping[str, str]
    baseline: bool
    cells: Mapping[str, Cell]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything the comparison shows.

    Attributes:
        name: The workload's.
        command: What was typed.
        runs: The backends, in the order searched.
        rows: Every config on some front, recommended, nearest or uniform; by falling worst-case speed.
        for_all: Id of the row to take for all backends; None where none meets every limit everywhere.
    """

    name: str
    command: str
    runs: tuple[BackendRun, ...]
    rows: tuple[Row, ...]
    for_all: str | None

    @property
    def measured(self) -> tuple[tuple[str, RunResults], ...]:
        """(name, results) of the backends that have any."""
        return tuple((run.name, run.results) for run in self.runs if run.results is not None)

    @property
    def metric(self) -> MetricInfo:
        """The metric, which is the same on all backends that have measured any."""
        return self.measured[0][1].metric

    def row(self, id_: str) -> Row:
        """The row called ``id_``."""
        return next(row for row in self.rows if row.id == id_)

    @classmethod
    def load(cls, folder: Path) -> Comparison:
        """Read the folder of a run on several backends.

        Raises:
            UsageError: If it is none, or of another schema version.
            DataError: If one of its files is unreadable or damaged.
        """
        path = folder / BACKENDS_FILE
        file = BACKENDS_FORM.load(path)
        for field, listed in (("name", [b.name for b in file.backends]), ("folder", [b.folder for b in file.backends])):
            if len(set(listed)) < len(listed):
                raise damaged(path, ValueError(f"backends: two have the {field} '{max(listed, key=listed.count)}'"))
        measured_elsewhere = {
            (entry.source, entry.id, entry.target): (entry.point, entry.reason) for entry in file.exchange
        }
        runs = tuple(
            BackendRun(name=entry.name, folder=entry.folder, results=_results(folder, entry.folder))
            for entry in file.backends
        )
        rows = _rows(runs, measured_elsewhere)
        return cls(name=file.name, command=file.command, runs=runs, rows=rows, for_all=_for_all(runs, rows))


def is_comparison(folder: Path) -> bool:
    """Whether a folder holds a run on several backends."""
    return os.path.exists(folder / BACKENDS_FILE)


def _results(folder: Path, place: str) -> RunResults | None:
    if not (folder / place).resolve().is_relative_to(folder.resolve()):
        raise damaged(folder / BACKENDS_FILE, ValueError(f"folder '{place}' is a link out of the run's own"))
    return RunResults.load(folder / place) if os.path.exists(folder / place / MEASUREMENT_FILE) else None


def _key(point: Point) -> Key:
    if point.id == GIVEN_ID:
        return _AS_GIVEN
    return frozenset((layer, scheme.text) for layer, scheme in point.layers.items() if scheme != FP32)


def _shown(results: RunResults) -> Iterable[str]:
    recommended = () if results.recommended is None else (results.recommended,)
    return dict.fromkeys((*results.front, *results.baselines, *recommended, *results.nearest.values()))


def _rows(
    runs: Sequence[BackendRun], measured_elsewhere: Mapping[tuple[str, str, str], tuple[str | None, str]]
) -> tuple[Row, ...]:
    """Every config that is shown, each with a cell for every backend."""
    by_key: dict[str, dict[Key, Point]] = {}
    shown: dict[Key, None] = {}
    for run in runs:
        results = run.results
        points = results.points.values() if results else ()
        # A search's own point stands before another backend's of the same config.
        ordered = sorted(points, key=lambda point: point.origin == IMPORTED, reverse=True)
        by_key[run.name] = {_key(point): point for point in ordered}
        shown |= {_key(results.points[id_]): None for id_ in _shown(results)} if results else {}
    rows = []
    for key in shown:
        sources = [(run, by_key[run.name][key]) for run in runs if key in by_key[run.name]]
        own = [(run, point) for run, point in sources if point.origin != IMPORTED] or sources
        cells = {}
        for run in runs:
            point, reason = by_key[run.name].get(key), ""
            if point is None and key == _AS_GIVEN:
                point, reason = _stand_in(run)
            elif point is None:
                point, reason = _through(run, [(source.name, found.id) for source, found in own], measured_elsewhere)
            cells[run.name] = _cell(run, point, reason)
        first, point = own[0]
        baseline = point.origin == "baseline"
        shared = baseline and len(own) > 1 and len({found.id for _, found in own}) == 1
        rows.append(
            Row(
                id=point.id if shared else f"{first.folder}.{point.id}",
                aliases=() if shared else tuple(f"{run.folder}.{found.id}" for run, found in own[1:]),
                text=point.text,
                layers={layer: scheme.text for layer, scheme in point.layers.items()},
                baseline=baseline,
                cells=cells,
            )
        )
    return tuple(sorted(_unshared(rows, runs), key=_worst_ratio))


def _unshared(rows: Sequence[Row], runs: Sequence[BackendRun]) -> Iterable[Row]:
    """Rows whose ids are all different: two backends' ``int8`` may be two configs."""
    taken: set[str] = set()
    for row in rows:
        id_ = row.id if row.id not in taken else f"{runs[0].folder}.{row.id}"
        taken.add(id_)
        yield replace(row, id=id_)


def _stand_in(run: BackendRun) -> tuple[Point | None, str]:
    """Point that stands for the network as given where it is no point of its own; else the reason why none does."""
    if run.results is None:
        return None, "not measured"
    refused = run.results.given.refused if run.results.given else ""
    if refused:
        return None, refused
    point = run.results.points.get(run.results.reference)
    return point, "" if point else "not measured"


def _through(
    run: BackendRun,
    sources: Iterable[tuple[str, str]],
    measured_elsewhere: Mapping[tuple[str, str, str], tuple[str | None, str]],
) -> tuple[Point | None, str]:
    """Point that stands for another backend's config on this one; else the reason why none does."""
    for source, id_ in sources:
        point, reason = measured_elsewhere.get((source, id_, run.name), (None, ""))
        if point is not None and run.results is not None and point in run.results.points:
            return run.results.points[point], ""
        if reason:
            return None, reason
    return None, "not measured"


def _cell(run: BackendRun, point: Point | None, reason: str) -> Cell:
    if point is None or run.results is None:
        return Cell(point=None, reason=reason)
    return Cell(point=point, on_front=point.id in run.results.front, recommended=point.id == run.results.recommended)


def _worst_ratio(row: Row) -> tuple[bool, float]:
    ratios = [cell.ratio for cell in row.cells.values()]
    known = [ratio for ratio in ratios if ratio is not None]
    return len(known) < len(ratios), max(known, default=math.inf)


def _for_all(runs: Sequence[BackendRun], rows: Sequence[Row]) -> str | None:
    """The rule of the module's first lines."""
    found = [row for row in rows if all(cell.sound for cell in row.cells.values())]
    if not found:
        return None
    fastest = {run.name: min(_latency_ms(row.cells[run.name]) for row in found) for run in runs}
    speed_alone = all(run.results is not None and speed_first(run.results) for run in runs)

    results = {run.name: run.results for run in runs}

    def rank(row: Row) -> tuple[float, float, int]:
        slowdown = max(_latency_ms(cell) / fastest[name] for name, cell in row.cells.items())
        worst = min(_accuracy(results[name], cell) for name, cell in row.cells.items())
        size = max(cell.point.size_bytes for cell in row.cells.values() if cell.point)
        return (slowdown, -worst, size) if speed_alone else (-worst, slowdown, size)

    return min(found, key=rank).id


def _latency_ms(cell: Cell) -> float:
    assert cell.point is not None
    assert cell.point.shown_latency is not None
    return cell.point.shown_latency.median_ms


def _accuracy(results: RunResults | None, cell: Cell) -> float:
    """The metric of a cell that was measured, greater being better."""
    assert results is not None
    assert cell.point is not None
    assert cell.point.shown_accuracy is not None
    return results.metric.oriented(cell.point.shown_accuracy.value)
