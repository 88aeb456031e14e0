"""A run folder, read back into typed values: ``measurement.json``, ``trials.csv`` and ``sensitivity.csv``.

A run that was interrupted has left what it knew: points may lack the measurements of finalists, there may be no
front, and the two tables may be missing. Everything else that does not fit the format is refused with the file's
name, since a report must never show numbers that were misread.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from precision import AccuracyStats, Budget, DataError, EngineError, Footprint, LatencyStats, LayerChoice, UsageError

SCHEMA_VERSION = 1
_DAMAGED = "restore the file, or run the search again with --resume to have it written anew"
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLayer:
    """One layer of the network: its name, operator, number of weights, and the group it was decided in."""

    name: str
    op: str
    parameters: int
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One artifact of the run that was kept.

    Attributes:
        id: Names its files.
        origin: What proposed it: ``baseline``, ``ladder``, ``solver``, ``sampler``, …
        text: Its choices in short: ``int8 ×18, int4 ×2``.
        config, model: Paths of its files, relative to the run folder; None where not written.
        size_bytes: Size of the model file.
        latency, accuracy: As reported: from a fresh process, on held-back data; None where not measured.
        search_latency, search_accuracy: As the search saw them; None where not measured.
        feasible: Whether it meets every budget.
        violations: Each budget it misses, in words.
        held: Whether its ratio to FP32 held in the fresh process; None where it was not timed again.
        layers: Layer name → choice.
        footprint: What the compiled model takes; None where not asked, or where the runtime does not tell.
        engine: Path of the runtime's own file, relative to the run folder; None where not written.
    """

    id: str
    origin: str
    text: str
    config: str | None
    model: str | None
    size_bytes: int
    latency: LatencyStats | None
    search_latency: LatencyStats | None
    accuracy: AccuracyStats | None
    search_accuracy: AccuracyStats | None
    feasible: bool
    violations: tuple[str, ...]
    held: bool | None
    layers: Mapping[str, LayerChoice]
    footprint: Footprint | None = None
    engine: str | None = None

    @property
    def shown_latency(self) -> LatencyStats | None:
        """The finalists' timing, else the search's."""
        return self.latency or self.search_latency

    @property
    def shown_accuracy(self) -> AccuracyStats | None:
        """The accuracy on held-back data, else the search's."""
        return self.accuracy or self.search_accuracy


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate the search looked at; what was not measured is None."""

    number: int
    origin: str
    state: str
    size_bytes: int | None
    latency_ms: float | None
    latency_p90_ms: float | None
    ratio: float | None
    accuracy: float | None
    accuracy_samples: int | None
    seconds: float | None
    reason: str
    choices: Mapping[str, LayerChoice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One row of the sensitivity table; NaN where it was not scored."""

    group: str
    choice: LayerChoice
    alone: float
    restored: float
    loss: float
    dropped: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResults:
    """Everything a report shows.

    Attributes:
        name: The workload's.
        created: When, as written.
        complete: Whether the search ended by itself or by a limit it was given.
        stopped: What ended it early, else None.
        source, fingerprint, parameters: The network's.
        layers: In the network's order.
        backend, dialect, device: What it was measured on; ``device`` holds one entry a property.
        settings: As written; shown, not interpreted, but for the metric.
        budget: The limits.
        reference: Id of the FP32 point, which an interrupted run may not have measured.
        baselines: Ids of the uniform points that were measured.
        front: Ids of the Pareto-optimal points.
        recommended: Id of the recommended point, if any.
        nearest: Budget (``latency``, ``size``, ``accuracy``) → id of the nearest point, when nothing is feasible.
        points: Id → point, in the file's order.
        time_split_s: Part → seconds, ``total`` included.
        trials, scores: Empty where an interrupted run has not written them.
    """

    name: str
    created: str
    complete: bool
    stopped: str | None
    source: str
    fingerprint: str
    parameters: int
    layers: tuple[ReportedLayer, ...]
    backend: str
    dialect: str
    device: Mapping[str, Any]
    settings: Mapping[str, Any]
    budget: Budget
    reference: str
    baselines: tuple[str, ...]
    front: tuple[str, ...]
    recommended: str | None
    nearest: Mapping[str, str]
    points: Mapping[str, Point]
    time_split_s: Mapping[str, float]
    trials: tuple[Trial, ...] = ()
    scores: tuple[Score, ...] = ()

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.settings["metric"])

    @property
    def reference_point(self) -> Point | None:
        """The FP32 point, None where an interrupted run has not measured it."""
        return self.points.get(self.reference)

    @property
    def accuracy_floor(self) -> float | None:
        """The accuracy the budget asks for; None without one, or while FP32's accuracy is needed and unknown."""
        reference = self.reference_point
        known = reference.shown_accuracy if reference else None
        floor = self.budget.accuracy_floor(known.value if known else -math.inf)
        return floor if math.isfinite(floor) else None

    @classmethod
    def load(cls, folder: Path) -> RunResults:
        """Read a run folder.

        Raises:
            UsageError: If ``folder`` holds no run, or one of another schema version.
            DataError: If one of its files is missing, unreadable or damaged; names the file.
        """
        path = folder / "measurement.json"
        if not path.is_file():
            raise UsageError(f"'{folder}' is no run folder: it has no measurement.json", "give the --out of a search")
        data = _read_json(path)
        try:
            results = _results(data)
        except (KeyError, TypeError, ValueError, AttributeError, EngineError) as error:
            raise _damaged(path, error) from error
        trials = _read_csv(folder / "trials.csv", _trial, required=results.complete)
        scores = _read_csv(folder / "sensitivity.csv", _score, required=results.complete)
        return replace(results, trials=trials, scores=scores)


def _damaged(path: Path, error: Exception) -> DataError:
    what = f"no entry {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
    return DataError(f"'{path}' is damaged: {what}", _DAMAGED)


def _read_json(path: Path) -> Any:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"'{path}': expected schema version {SCHEMA_VERSION}, got {version}",
            "render the report with the version of this program that ran the search",
        )
    return data


def _results(data: Mapping[str, Any]) -> RunResults:
    model, backend, budget = data["model"], data["backend"], data["budget"]
    points = {id_: _point(id_, entry) for id_, entry in data["points"].items()}
    results = RunResults(
        name=str(data["name"]),
        created=str(data["created"]),
        complete=bool(data["complete"]),
        stopped=None if data["stopped"] is None else str(data["stopped"]),
        source=str(model["source"]),
        fingerprint=str(model["fingerprint"]),
        parameters=int(model["parameters"]),
        layers=tuple(
            ReportedLayer(
                name=str(layer["name"]),
                op=str(layer["op"]),
                parameters=int(layer["parameters"]),
                group=str(layer["group"]),
            )
            for layer in model["layers"]
        ),
        backend=str(backend["name"]),
        dialect=str(backend["dialect"]),
        device=MappingProxyType(dict(backend["device"])),
        settings=MappingProxyType(dict(data["settings"])),
        budget=Budget(
            latency_ms=budget["latency_ms"],
            size_bytes=budget["size_bytes"],
            min_accuracy=budget["min_accuracy"],
            max_drop=budget["max_drop"],
        ),
        reference=str(data["reference"]),
        baselines=tuple(id_ for id_ in data["baselines"] if id_ in points),
        front=tuple(data["front"]),
        recommended=data["recommended"],
        nearest=MappingProxyType(dict(data["nearest"])),
        points=MappingProxyType(points),
        time_split_s=MappingProxyType({str(part): _finite(part, s) for part, s in data["time_split_s"].items()}),
    )
    named = (*results.front, *results.nearest.values(), *filter(None, (results.recommended,)))
    unknown = [id_ for id_ in named if id_ not in points]
    if unknown:
        raise ValueError(f"point {unknown[0]!r} is named but not among the points")
    if unmeasured := [i for i in results.front if not (points[i].shown_latency and points[i].shown_accuracy)]:
        raise ValueError(f"point {unmeasured[0]!r} is on the front but was not measured")
    if "metric" not in results.settings or "total" not in results.time_split_s:
        raise ValueError("settings.metric or time_split_s.total is missing")
    return results


def _point(id_: str, data: Mapping[str, Any]) -> Point:
    return Point(
        id=id_,
        origin=str(data["origin"]),
        text=str(data["text"]),
        config=data.get("config"),
        model=data.get("model"),
        size_bytes=int(data["size_bytes"]),
        latency=_latency(id_, data.get("latency")),
        search_latency=_latency(id_, data.get("search_latency")),
        accuracy=_accuracy(id_, data.get("accuracy")),
        search_accuracy=_accuracy(id_, data.get("search_accuracy")),
        feasible=bool(data["feasible"]),
        violations=tuple(str(text) for text in data["violations"]),
        held=data.get("held"),
        layers=MappingProxyType({str(name): LayerChoice.parse(text) for name, text in data["layers"].items()}),
        footprint=_footprint(id_, data.get("footprint")),
        engine=data.get("engine"),
    )


def _footprint(id_: str, data: Mapping[str, Any] | None) -> Footprint | None:
    if data is None:
        return None
    footprint = Footprint.from_json(data)
    for name, value in footprint.to_json().items():
        if value is not None:
            _finite(f"{name} of point {id_!r}", value)
    return footprint


def _latency(id_: str, data: Mapping[str, Any] | None) -> LatencyStats | None:
    if data is None:
        return None
    stats = LatencyStats.from_json(data)
    for name, value in stats.to_json().items():
        _finite(f"{name} of point {id_!r}", value)
    return stats


def _accuracy(id_: str, data: Mapping[str, Any] | None) -> AccuracyStats | None:
    if data is None:
        return None
    stats = AccuracyStats.from_json(data)
    for name, value in stats.to_json().items():
        _finite(f"accuracy {name} of point {id_!r}", value)
    return stats


def _finite(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
    return float(value)


def _read_csv(path: Path, parse: Callable[[Mapping[str, str]], _Row], *, required: bool) -> tuple[_Row, ...]:
    if not required and not path.exists():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, error) from error
    parsed = []
    for line, row in enumerate(rows, start=2):
        try:
            parsed.append(parse(row))
        except (KeyError, TypeError, ValueError, AttributeError, EngineError) as error:
            raise DataError(f"{_damaged(path, error).message} (row {line})", _DAMAGED) from error
    return tuple(parsed)


def _trial(row: Mapping[str, str]) -> Trial:
    size_bytes, samples = _number(row["size_bytes"]), _number(row["accuracy_samples"])
    return Trial(
        number=int(row["number"]),
        origin=row["origin"],
        state=row["state"],
        size_bytes=None if size_bytes is None else int(size_bytes),
        latency_ms=_number(row["latency_ms"]),
        latency_p90_ms=_number(row["latency_p90_ms"]),
        ratio=_number(row["ratio"]),
        accuracy=_number(row["accuracy"]),
        accuracy_samples=None if samples is None else int(samples),
        seconds=_number(row["seconds"]),
        reason=row["reason"],
        choices=MappingProxyType(
            {str(group): LayerChoice.parse(text) for group, text in json.loads(row["choices"] or "{}").items()}
        ),
    )


def _score(row: Mapping[str, str]) -> Score:
    alone, restored, loss = (_number(row[name]) for name in ("alone", "restored", "loss"))
    return Score(
        group=row["group"],
        choice=LayerChoice.parse(row["choice"]),
        alone=math.nan if alone is None else alone,
        restored=math.nan if restored is None else restored,
        loss=math.nan if loss is None else loss,
        dropped=row["dropped"],
    )


def _number(text: str) -> float | None:
    """A cell's number; None for an empty cell or NaN, which is how tables write what was not measured."""
    value = float(text) if text else math.nan
    return None if math.isnan(value) else value
