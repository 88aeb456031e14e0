"""A run on several backends, read back: one row a config, one cell a backend, and what is best everywhere.

Two points are the same config where every layer has the same scheme. The network as given is a row of its own where a
backend lists it; on one where its FP32 form makes no difference that stands for it. A config that a backend measured
under another one's id (two configs may be written as the same file) is found through ``backends.json``.

``everywhere`` is the config to take where one has to serve all backends. Of those that meet every limit on every
backend, and whose latency held, it is

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
from typing import Annotated, Literal

from pydantic import Field

from bitfront.core import FP32, DataError, UsageError
from bitfront.core.document import Form, JsonValue
from bitfront.report.fields import DAMAGED, damaged
from bitfront.report.given import GIVEN_ID
from bitfront.report.results import MEASUREMENT_FILE, Point, RunResults

BACKENDS_FILE = "backends.json"
SCHEMA_VERSION = 1
_FOLDER = r"^[A-Za-z0-9_-]+$"
GUEST = "exchange"  # origin of points that another backend's search found

Key = frozenset[tuple[str, str]]
_AS_GIVEN: Key = frozenset({(GIVEN_ID, "")})  # the file as given, of which nobody decided a layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One backend of the run.

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
    """One config on one backend.

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
        """Whether it meets every limit there and its latency held."""
        return self.point is not None and self.point.feasible and self.point.held is not False


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One config.

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
        parties: The backends, in the order searched.
        rows: Every config on some front, recommended, nearest or uniform; by falling worst-case speed.
        everywhere: Id of the row to take for all backends; None where none meets every limit everywhere.
    """

    name: str
    command: str
    parties: tuple[Party, ...]
    rows: tuple[Row, ...]
    everywhere: str | None

    @property
    def measured(self) -> tuple[tuple[str, RunResults], ...]:
        """(name, results) of the backends that have any."""
        return tuple((party.name, party.results) for party in self.parties if party.results is not None)

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
        exchanged = {(entry.source, entry.id, entry.target): (entry.point, entry.reason) for entry in file.exchange}
        parties = tuple(
            Party(name=entry.name, folder=entry.folder, results=_results(folder, entry.folder))
            for entry in file.backends
        )
        rows = _rows(parties, exchanged)
        return cls(
            name=file.name, command=file.command, parties=parties, rows=rows, everywhere=_everywhere(parties, rows)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendEntry(JsonValue):
    """One backend of a run on several: its name as asked for, and its folder in the run's."""

    name: str
    folder: Annotated[str, Field(pattern=_FOLDER)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossEvaluation(JsonValue):
    """What became of one backend's config on another: the point that stands for it there, or the reason for none."""

    source: str
    id: str
    target: str
    point: str | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsFile(JsonValue):
    """A run on several backends: which there are, and what became of each config on the others."""

    schema_version: Literal[1]
    name: str
    command: str
    backends: Annotated[tuple[BackendEntry, ...], Field(min_length=1)]
    exchange: tuple[CrossEvaluation, ...]


BACKENDS_FORM = Form(
    kind=BackendsFile,
    name="backends",
    version=SCHEMA_VERSION,
    problem="is damaged",
    hint=DAMAGED,
    failure=DataError,
    version_hint="render the report with the version of this program that ran the search",
    version_failure=UsageError,
)


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
    parties: Sequence[Party], exchanged: Mapping[tuple[str, str, str], tuple[str | None, str]]
) -> tuple[Row, ...]:
    """Every config that is shown, each with a cell for every backend."""
    by_key: dict[str, dict[Key, Point]] = {}
    shown: dict[Key, None] = {}
    for party in parties:
        results = party.results
        points = results.points.values() if results else ()
        # A search's own point stands before another backend's of the same config.
        ordered = sorted(points, key=lambda point: point.origin == GUEST, reverse=True)
        by_key[party.name] = {_key(point): point for point in ordered}
        shown |= {_key(results.points[id_]): None for id_ in _shown(results)} if results else {}
    rows = []
    for key in shown:
        sources = [(party, by_key[party.name][key]) for party in parties if key in by_key[party.name]]
        own = [(party, point) for party, point in sources if point.origin != GUEST] or sources
        cells = {}
        for party in parties:
            point, reason = by_key[party.name].get(key), ""
            if point is None and key == _AS_GIVEN:
                point, reason = _stand_in(party)
            elif point is None:
                point, reason = _through(party, [(source.name, found.id) for source, found in own], exchanged)
            cells[party.name] = _cell(party, point, reason)
        first, point = own[0]
        baseline = point.origin == "baseline"
        shared = baseline and len(own) > 1 and len({found.id for _, found in own}) == 1
        rows.append(
            Row(
                id=point.id if shared else f"{first.folder}.{point.id}",
                aliases=() if shared else tuple(f"{party.folder}.{found.id}" for party, found in own[1:]),
                text=point.text,
                layers={layer: scheme.text for layer, scheme in point.layers.items()},
                baseline=baseline,
                cells=cells,
            )
        )
    return tuple(sorted(_unshared(rows, parties), key=_worst_ratio))


def _unshared(rows: Sequence[Row], parties: Sequence[Party]) -> Iterable[Row]:
    """Rows whose ids are all different: two backends' ``int8`` may be two configs."""
    taken: set[str] = set()
    for row in rows:
        id_ = row.id if row.id not in taken else f"{parties[0].folder}.{row.id}"
        taken.add(id_)
        yield replace(row, id=id_)


def _stand_in(party: Party) -> tuple[Point | None, str]:
    """What stands for the network as given where it is no point of its own, else the reason why nothing does."""
    if party.results is None:
        return None, "not measured"
    refused = party.results.given.refused if party.results.given else ""
    if refused:
        return None, refused
    point = party.results.points.get(party.results.reference)
    return point, "" if point else "not measured"


def _through(
    party: Party, sources: Iterable[tuple[str, str]], exchanged: Mapping[tuple[str, str, str], tuple[str | None, str]]
) -> tuple[Point | None, str]:
    """What stands for another backend's config on this one, else the reason why nothing does."""
    for source, id_ in sources:
        point, reason = exchanged.get((source, id_, party.name), (None, ""))
        if point is not None and party.results is not None and point in party.results.points:
            return party.results.points[point], ""
        if reason:
            return None, reason
    return None, "not measured"


def _cell(party: Party, point: Point | None, reason: str) -> Cell:
    if point is None or party.results is None:
        return Cell(point=None, reason=reason)
    return Cell(
        point=point, on_front=point.id in party.results.front, recommended=point.id == party.results.recommended
    )


def _worst_ratio(row: Row) -> tuple[bool, float]:
    ratios = [cell.ratio for cell in row.cells.values()]
    known = [ratio for ratio in ratios if ratio is not None]
    return len(known) < len(ratios), max(known, default=math.inf)


def _everywhere(parties: Sequence[Party], rows: Sequence[Row]) -> str | None:
    """The rule of the module's first lines."""
    found = [row for row in rows if all(cell.sound for cell in row.cells.values())]
    if not found:
        return None
    fastest = {party.name: min(_latency_ms(row.cells[party.name]) for row in found) for party in parties}
    speed_alone = all(party.results is not None and party.results.budget.accuracy_alone for party in parties)

    def rank(row: Row) -> tuple[float, float, int]:
        slowdown = max(_latency_ms(cell) / fastest[name] for name, cell in row.cells.items())
        worst = min(_accuracy(cell) for cell in row.cells.values())
        size = max(cell.point.size_bytes for cell in row.cells.values() if cell.point)
        return (slowdown, -worst, size) if speed_alone else (-worst, slowdown, size)

    return min(found, key=rank).id


def _latency_ms(cell: Cell) -> float:
    assert cell.point is not None
    assert cell.point.shown_latency is not None
    return cell.point.shown_latency.median_ms


def _accuracy(cell: Cell) -> float:
    assert cell.point is not None
    assert cell.point.shown_accuracy is not None
    return cell.point.shown_accuracy.value
