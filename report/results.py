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
from typing import Any

from bitfront.core import Constraints, MetricInfo, UsageError, WorkloadError
from bitfront.core.builtin_metrics import info_from_settings
from bitfront.core.given_network import GIVEN_ID, GivenNetwork
from bitfront.core.json_text import field_name, shown
from bitfront.core.measurement_file import (
    MEASUREMENT_FILE,
    MEASUREMENT_FORM,
    SCORE_COLUMNS,
    SPARSITY_COLUMNS,
    TRIAL_COLUMNS,
    MeasurementFile,
    ReportedLayer,
)
from bitfront.core.point import Point
from bitfront.core.preference import Choice
from bitfront.core.training_info import TrainInfo
from bitfront.report.csv_fields import damaged, read_csv
from bitfront.report.rows import (
    Score,
    SparsityScore,
    Trial,
    read_score,
    read_sparsity_score,
    read_trial,
)


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
        choice: How the recommended point was chosen; None in older runs, which took the highest accuracy.
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
    choice: Choice | None = None

    @property
    def metric(self) -> MetricInfo:
        """The metric, as far as it is known without its function."""
        return info_from_settings(self.settings)

    @property
    def random_ranges(self) -> bool:
        """Whether activation ranges come from random numbers."""
        return bool(self.settings.get("data", {}).get("calibration", {}).get("form") == "random")

    @property
    def base(self) -> GivenNetwork | None:
        """Network that points are compared with: the given one, or FP32 in an older run; None: not measured."""
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
        """Word for what ``base`` is: ``given`` or ``FP32``."""
        return "FP32" if self.given is None or self.given.refused else GIVEN_ID

    @property
    def accuracy_limit(self) -> float | None:
        """The metric's worst value within the limits; None without one, or while the given network's is unknown."""
        known = self.base.shown_accuracy if self.base else None
        floor = self.budget.accuracy_floor(self.metric.oriented(known.value) if known else -math.inf)
        return self.metric.oriented(floor) if math.isfinite(floor) else None

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


def _results(file: MeasurementFile) -> RunResults:
    points = file.points
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
        choice=file.choice,
        train=file.train,
        given=file.given,
        time_split_s=MappingProxyType(file.time_split_s),
    )
    _check(results)
    return results


def _check(results: RunResults) -> None:
    """Refuse what no field's form tells.

    Raises:
        ValueError: If ids, intervals, the metric or the time split make no sense.
    """
    points = results.points
    for id_, point in points.items():
        if point.id != id_:
            raise ValueError(f"{field_name(('points', id_, 'id'))}: expected the same, got {shown(point.id)}")
        _check_intervals(point)
    rival = results.choice.rival if results.choice else None
    named = (*results.front, *results.nearest.values(), *filter(None, (results.recommended, rival)))
    unknown = [id_ for id_ in named if id_ not in points]
    if unknown:
        raise ValueError(f"point {shown(unknown[0])} is named but not among the points")
    if unmeasured := [i for i in results.front if not (points[i].shown_latency and points[i].shown_accuracy)]:
        raise ValueError(f"point {shown(unmeasured[0])} is on the front but was not measured")
    if "total" not in results.time_split_s:
        raise ValueError("time_split_s.total: is missing")
    try:
        _ = results.metric
    except WorkloadError as error:
        raise ValueError(f"settings: {error.message}") from error


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
