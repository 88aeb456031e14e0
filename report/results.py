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
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NotRequired

from pydantic import ConfigDict
from typing_extensions import TypedDict

from bitfront.core import AccuracyStats, Constraints, DataError, LatencyStats, MemoryUsage, UsageError
from bitfront.core.document import Count, Form, JsonValue, NonNegative, PathBelow
from bitfront.core.json_text import field_name, shown
from bitfront.core.scheme import SchemeText
from bitfront.report.fields import DAMAGED, damaged, read_csv
from bitfront.report.given import GIVEN_ID, GivenNetwork
from bitfront.report.network import NetworkInfo
from bitfront.report.rows import (
    SCORE_COLUMNS,
    SPARSITY_COLUMNS,
    TRIAL_COLUMNS,
    Score,
    SparsityScore,
    Trial,
    read_score,
    read_sparsity_score,
    read_trial,
)
from bitfront.report.training import TrainInfo

SCHEMA_VERSION = 1


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
        text: Its schemes in short: ``int8 ×18, int4 ×2``.
        config, model: Paths of its files, relative to the run folder; None where not written.
        size_bytes: Size of the model file.
        latency, accuracy: As reported: from a fresh process, on held-back data; None where not measured.
        search_latency, search_accuracy: As the search saw them; None where not measured.
        feasible: Whether it meets every budget.
        violations: Each budget it misses, in words.
        held: Whether its latency ratio held in the fresh process; None where it was not timed again.
        layers: Layer name → scheme; empty for the network as it was given.
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
    layers: Mapping[str, SchemeText]
    footprint: MemoryUsage | None = None
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
        nearest: Constraints (``latency``, ``size``, ``accuracy``) → id of the nearest point, when nothing is feasible.
        points: Id → point, in the file's order.
        time_split_s: Part → seconds, ``total`` included.
        train: The run's training; None without passes.
        given: The given network; None where it was not measured, or in runs older than it, which compare with FP32.
        trials, scores: Empty where an interrupted run has not written them.
        sparsities: Empty where nothing was to be pruned.
        only_fp32: Why FP32 as given is the only point, in sentences; empty where there was something to decide.
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
    budget: Constraints
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
    only_fp32: tuple[str, ...] = ()

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return str(self.settings["metric"])

    @property
    def random_ranges(self) -> bool:
        """Whether activation ranges come from random numbers."""
        return bool(self.settings.get("data", {}).get("calibration", {}).get("form") == "random")

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
            trials=read_csv(folder / "trials.csv", read_trial, TRIAL_COLUMNS, required=results.complete),
            scores=read_csv(folder / "sensitivity.csv", read_score, SCORE_COLUMNS, required=results.complete),
            sparsities=read_csv(folder / "sparsity.csv", read_sparsity_score, SPARSITY_COLUMNS, required=False),
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
    data: NotRequired[dict[str, dict[str, str]]]


class Device(TypedDict):
    """What a run was measured on: one entry a property, shown as written."""

    __pydantic_config__ = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)  # type: ignore[misc]

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart(JsonValue):
    """The network of a run."""

    source: str
    fingerprint: str
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
    budget: Constraints
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
    given: GivenNetwork | None = None
    only_fp32: tuple[str, ...] = ()


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
            raise ValueError(f"{field_name(('points', id_, 'id'))}: expected the same, got {shown(point.id)}")
        _check_intervals(point)
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
        only_fp32=file.only_fp32,
        train=file.train,
        given=file.given,
        time_split_s=MappingProxyType(file.time_split_s),
    )
    named = (*results.front, *results.nearest.values(), *filter(None, (results.recommended,)))
    unknown = [id_ for id_ in named if id_ not in points]
    if unknown:
        raise ValueError(f"point {shown(unknown[0])} is named but not among the points")
    if unmeasured := [i for i in results.front if not (points[i].shown_latency and points[i].shown_accuracy)]:
        raise ValueError(f"point {shown(unmeasured[0])} is on the front but was not measured")
    if "total" not in results.time_split_s:
        raise ValueError("time_split_s.total: is missing")
    return results


def _check_intervals(point: Point) -> None:
    for what, latency in (("latency", point.latency), ("search_latency", point.search_latency)):
        if latency and (latency.ci_low_ms > latency.ci_high_ms or latency.ratio_low > latency.ratio_high):
            raise ValueError(
                f"{field_name(('points', point.id, what))}: an interval's lower end is above its upper one"
            )
    for what, accuracy in (("accuracy", point.accuracy), ("search_accuracy", point.search_accuracy)):
        if accuracy and accuracy.ci_low > accuracy.ci_high:
            raise ValueError(
                f"{field_name(('points', point.id, what))}: an interval's lower end is above its upper one"
            )
