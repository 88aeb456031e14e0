"""A run folder, read back into typed values: ``measurement.json`` and its tables, which are CSV files.

A run that was interrupted has left what it knew: points may lack the measurements of finalists, there may be no
front, and ``trials.csv`` and ``sensitivity.csv`` may be missing; ``sparsity.csv`` is there where something was to be
pruned. Everything else that does not fit the format is refused with the file's name, since a report must never show
numbers that were misread.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from precision import AccuracyStats, Budget, DataError, Footprint, LatencyStats, LayerChoice, UsageError
from precision.choice import ChoiceText
from precision.document import Count, Digest, Form, JsonValue, NonNegative, PathBelow, decode_json
from report.fields import DAMAGED, cell, damaged, number_or_none, read_csv, share, whole, whole_or_none
from report.network import NetworkInfo
from report.training import TrainInfo

SCHEMA_VERSION = 1
_CHOICES = dict[str, ChoiceText]
_SHARES = dict[str, Annotated[float, Field(ge=0, le=1)]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLayer(JsonValue):
    """One layer of the network: its name, operator, number of weights, and the group it was decided in."""

    name: str
    op: str
    parameters: Count
    group: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(JsonValue):
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
        network: The network it was made from; None for the given one.
        compressed_bytes: Size of the model file deflated; None where not measured.
    """

    id: str
    origin: str
    text: str
    config: PathBelow | None
    model: PathBelow | None
    size_bytes: Count
    latency: LatencyStats | None
    search_latency: LatencyStats | None
    accuracy: AccuracyStats | None
    search_accuracy: AccuracyStats | None
    feasible: bool
    violations: tuple[str, ...]
    held: bool | None
    layers: Mapping[str, ChoiceText]
    footprint: Footprint | None = None
    engine: PathBelow | None = None
    network: NetworkInfo | None = None
    compressed_bytes: Count | None = None

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
        reference: Id of the FP32 point, which an interrupted run may not have measured.
        baselines: Ids of the uniform points that were measured.
        front: Ids of the Pareto-optimal points.
        recommended: Id of the recommended point, if any.
        nearest: Budget (``latency``, ``size``, ``accuracy``) → id of the nearest point, when nothing is feasible.
        points: Id → point, in the file's order.
        time_split_s: Part → seconds, ``total`` included.
        train: The run's training; None without passes.
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
    trials: tuple[Trial, ...] = ()
    scores: tuple[Score, ...] = ()
    sparsities: tuple[SparsityScore, ...] = ()

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
        path = folder / MEASUREMENT_FILE
        if not os.path.exists(path):
            raise UsageError(f"'{folder}' is no run folder: it has no {MEASUREMENT_FILE}", "give the --out of a search")
        file = MEASUREMENT_FORM.load(path)
        try:
            results = _results(file)
        except ValueError as error:
            raise damaged(path, error) from error
        return replace(
            results,
            trials=read_csv(folder / "trials.csv", _trial, required=results.complete),
            scores=read_csv(folder / "sensitivity.csv", _score, required=results.complete),
            sparsities=read_csv(folder / "sparsity.csv", _sparsity_score, required=False),
        )


class Settings(TypedDict):
    """What a run was asked for: shown as written, so there may be more; what is interpreted has its type."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    metric: str
    threads: Count
    batch_size: Count
    holdout_samples: Count
    search_samples: Count
    withheld: NotRequired[dict[str, str]]


class Device(TypedDict):
    """What a run was measured on: one entry a property, shown as written."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart(JsonValue):
    """The network of a run."""

    source: str
    fingerprint: Digest
    parameters: Count
    layers: tuple[ReportedLayer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPart(JsonValue):
    """The runtime of a run."""

    name: str
    dialect: str
    device: Device


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementFile(JsonValue):
    """Everything a run measured, and what it decided from that."""

    schema_version: Literal[1]
    name: str
    created: str
    model: ModelPart
    backend: BackendPart
    settings: Settings
    budget: Budget
    complete: bool
    stopped: str | None
    reference: str
    baselines: tuple[str, ...]
    front: tuple[str, ...]
    recommended: str | None
    nearest: dict[str, str]
    points: dict[str, Point]
    time_split_s: dict[str, NonNegative]
    train: TrainInfo | None = None


MEASUREMENT_FILE = "measurement.json"
MEASUREMENT_FORM = Form(
    kind=MeasurementFile,
    name="measurement",
    version=SCHEMA_VERSION,
    problem="is damaged",
    hint=DAMAGED,
    failure=DataError,
    version_hint="render the report with the version of this program that ran the search",
    version_failure=UsageError,
)


def _results(file: MeasurementFile) -> RunResults:
    points = file.points
    for id_, point in points.items():
        if point.id != id_:
            raise ValueError(f"points.{id_}.id: expected '{id_}', got '{point.id}'")
    results = RunResults(
        name=file.name,
        created=file.created,
        complete=file.complete,
        stopped=file.stopped,
        source=file.model.source,
        fingerprint=file.model.fingerprint,
        parameters=file.model.parameters,
        layers=file.model.layers,
        backend=file.backend.name,
        dialect=file.backend.dialect,
        device=MappingProxyType(dict(file.backend.device)),
        settings=MappingProxyType(dict(file.settings)),
        budget=file.budget,
        reference=file.reference,
        baselines=tuple(id_ for id_ in file.baselines if id_ in points),
        front=file.front,
        recommended=file.recommended,
        nearest=MappingProxyType(file.nearest),
        points=MappingProxyType(points),
        train=file.train,
        time_split_s=MappingProxyType(file.time_split_s),
    )
    named = (*results.front, *results.nearest.values(), *filter(None, (results.recommended,)))
    unknown = [id_ for id_ in named if id_ not in points]
    if unknown:
        raise ValueError(f"point {unknown[0]!r} is named but not among the points")
    if unmeasured := [i for i in results.front if not (points[i].shown_latency and points[i].shown_accuracy)]:
        raise ValueError(f"point {unmeasured[0]!r} is on the front but was not measured")
    if "total" not in results.time_split_s:
        raise ValueError("time_split_s.total: is missing")
    return results


def _trial(row: Mapping[str, str]) -> Trial:
    return Trial(
        number=whole(row["number"]),
        origin=row["origin"],
        state=row["state"],
        size_bytes=whole_or_none(row["size_bytes"]),
        latency_ms=number_or_none(row["latency_ms"]),
        latency_p90_ms=number_or_none(row["latency_p90_ms"]),
        ratio=number_or_none(row["ratio"]),
        accuracy=number_or_none(row["accuracy"]),
        accuracy_samples=whole_or_none(row["accuracy_samples"]),
        seconds=number_or_none(row["seconds"]),
        reason=row["reason"],
        choices=MappingProxyType(decode_json(_CHOICES, row["choices"] or "{}")),
        network=row.get("network") or "",
        pruning=MappingProxyType(decode_json(_SHARES, row.get("pruning") or "{}")),
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
        sparsity=share(row["sparsity"]),
        kept=whole(row["kept"]),
        channels=whole(row["channels"]),
        loss=math.nan if loss is None else loss,
        trained=math.nan if trained is None else trained,
        dropped=row["dropped"],
    )
