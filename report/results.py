"""A run folder, read back into typed values: ``measurement.json`` and its tables, which are CSV files.

A run that was interrupted has left what it knew: points may lack the measurements of finalists, there may be no
front, and ``trials.csv`` and ``sensitivity.csv`` may be missing; ``sparsity.csv`` is there where something was to be
pruned. Everything else that does not fit the format is refused with the file's name, since a report must never show
numbers that were misread.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from precision import AccuracyStats, Budget, EngineError, Footprint, LatencyStats, LayerChoice, UsageError
from report.fields import accuracy_stats, cell, damaged, finite, latency_stats, read_csv
from report.given import GIVEN_ID, GivenNetwork
from report.network import NetworkInfo
from report.training import TrainInfo

SCHEMA_VERSION = 1


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
        held: Whether its latency ratio held in the fresh process; None where it was not timed again.
        layers: Layer name → choice; empty for the network as it was given.
        footprint: What the compiled model takes; None where not asked, or where the runtime does not tell.
        engine: Path of the runtime's own file, relative to the run folder; None where not written.
        network: The network it was made from; None for the given one.
        compressed_bytes: Size of the model file deflated; None where not measured.
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
    network: NetworkInfo | None = None
    compressed_bytes: int | None = None

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
    """One candidate the search looked at; what was not measured is None.

    ``network`` is a key, empty for the given one; ``pruning`` is prune group → share removed, 1 for a branch.
    """

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
    network: str = ""
    pruning: Mapping[str, float] = field(default_factory=dict)


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
class SparsityScore:
    """A prune group alone at one level; NaN are losses not scored, ``trained`` being what a short training leaves."""

    group: str
    sparsity: float
    kept: int
    channels: int
    loss: float
    trained: float
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
        reference: Id of the point that stands for the given network, which an interrupted run may not have measured:
            ``given``, or ``fp32`` where the FP32 form makes no difference.
        baselines: Ids of the uniform points that were measured, and ``given`` where it is a point of its own.
        front: Ids of the Pareto-optimal points.
        recommended: Id of the recommended point, if any.
        nearest: Budget (``latency``, ``size``, ``accuracy``) → id of the nearest point, when nothing is feasible.
        points: Id → point, in the file's order.
        time_split_s: Part → seconds, ``total`` included.
        train: The run's training; None without passes.
        given: The given network; None where it was not measured, or in runs older than it, which compare with FP32.
        trials, scores: Empty where an interrupted run has not written them.
        sparsities: Empty where nothing was to be pruned.
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
    train: TrainInfo | None = None
    given: GivenNetwork | None = None
    trials: tuple[Trial, ...] = ()
    scores: tuple[Score, ...] = ()
    sparsities: tuple[SparsityScore, ...] = ()

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.settings["metric"])

    @property
    def base(self) -> GivenNetwork | None:
        """What points are compared with: the given network, FP32 in an older run; None where it was not measured."""
        point = self.points.get(self.reference)
        if self.given is not None or point is None:
            return self.given
        return GivenNetwork(
            size_bytes=point.size_bytes,
            latency=point.latency,
            search_latency=point.search_latency,
            accuracy=point.accuracy,
            search_accuracy=point.search_accuracy,
        )

    @property
    def versus(self) -> str:
        """What ``base`` is, in a word."""
        return "FP32" if self.given is None or self.given.refused else GIVEN_ID

    @property
    def accuracy_floor(self) -> float | None:
        """The accuracy the budget asks for; None without one, or while the given network's is needed and unknown."""
        known = self.base.shown_accuracy if self.base else None
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
            raise damaged(path, error) from error
        return replace(
            results,
            trials=read_csv(folder / "trials.csv", _trial, required=results.complete),
            scores=read_csv(folder / "sensitivity.csv", _score, required=results.complete),
            sparsities=read_csv(folder / "sparsity.csv", _sparsity_score, required=False),
        )


def _read_json(path: Path) -> Any:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
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
        train=None if data.get("train") is None else TrainInfo.from_json(data["train"]),
        given=None if data.get("given") is None else GivenNetwork.from_json(data["given"]),
        time_split_s=MappingProxyType({str(part): finite(part, s) for part, s in data["time_split_s"].items()}),
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
    whose = f"point {id_!r}"
    return Point(
        id=id_,
        origin=str(data["origin"]),
        text=str(data["text"]),
        config=data.get("config"),
        model=data.get("model"),
        size_bytes=int(data["size_bytes"]),
        latency=latency_stats(whose, data.get("latency")),
        search_latency=latency_stats(whose, data.get("search_latency")),
        accuracy=accuracy_stats(whose, data.get("accuracy")),
        search_accuracy=accuracy_stats(whose, data.get("search_accuracy")),
        feasible=bool(data["feasible"]),
        violations=tuple(str(text) for text in data["violations"]),
        held=data.get("held"),
        layers=MappingProxyType({str(name): LayerChoice.parse(text) for name, text in data["layers"].items()}),
        footprint=_footprint(id_, data.get("footprint")),
        engine=data.get("engine"),
        network=None if data.get("network") is None else NetworkInfo.from_json(data["network"]),
        compressed_bytes=None if data.get("compressed_bytes") is None else int(data["compressed_bytes"]),
    )


def _footprint(id_: str, data: Mapping[str, Any] | None) -> Footprint | None:
    if data is None:
        return None
    footprint = Footprint.from_json(data)
    for name, value in footprint.to_json().items():
        if value is not None:
            finite(f"{name} of point {id_!r}", value)
    return footprint


def _trial(row: Mapping[str, str]) -> Trial:
    size_bytes, samples = cell(row["size_bytes"]), cell(row["accuracy_samples"])
    return Trial(
        number=int(row["number"]),
        origin=row["origin"],
        state=row["state"],
        size_bytes=None if size_bytes is None else int(size_bytes),
        latency_ms=cell(row["latency_ms"]),
        latency_p90_ms=cell(row["latency_p90_ms"]),
        ratio=cell(row["ratio"]),
        accuracy=cell(row["accuracy"]),
        accuracy_samples=None if samples is None else int(samples),
        seconds=cell(row["seconds"]),
        reason=row["reason"],
        choices=MappingProxyType(
            {str(group): LayerChoice.parse(text) for group, text in json.loads(row["choices"] or "{}").items()}
        ),
        network=row.get("network") or "",
        pruning=MappingProxyType(
            {str(group): finite("sparsity", share) for group, share in json.loads(row.get("pruning") or "{}").items()}
        ),
    )


def _score(row: Mapping[str, str]) -> Score:
    alone, restored, loss = (cell(row[name]) for name in ("alone", "restored", "loss"))
    return Score(
        group=row["group"],
        choice=LayerChoice.parse(row["choice"]),
        alone=math.nan if alone is None else alone,
        restored=math.nan if restored is None else restored,
        loss=math.nan if loss is None else loss,
        dropped=row["dropped"],
    )


def _sparsity_score(row: Mapping[str, str]) -> SparsityScore:
    loss, trained = cell(row["loss"]), cell(row.get("trained", ""))
    return SparsityScore(
        group=row["group"],
        sparsity=finite("sparsity", float(row["sparsity"])),
        kept=int(row["kept"]),
        channels=int(row["channels"]),
        loss=math.nan if loss is None else loss,
        trained=math.nan if trained is None else trained,
        dropped=row["dropped"],
    )
