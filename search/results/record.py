"""The run folder's tables and ``measurement.json``, written in one step each, as the run goes.

An interruption at any moment leaves a folder that can be read: what stands there is complete for the moment at which
it was written. Numbers are written as measured, without rounding.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bitfront.core import EngineError, MetricInfo, UsageError, write_text
from bitfront.core.cells import csv_text, frame_text
from bitfront.core.measurement_file import (
    LATER_TRIAL_COLUMNS,
    MEASUREMENT_FILE,
    MEASUREMENT_FORM,
    SCHEMA_VERSION,
    TRIAL_COLUMNS,
)
from bitfront.core.point import Point
from bitfront.core.training_info import TrainInfo
from bitfront.search.results.recommend import Selection
from bitfront.search.trial import Trial
from bitfront.sensitivity.sparsity import SparsityTable
from bitfront.sensitivity.table import SensitivityTable

CHECKPOINT_S = 10.0


class Record:
    """Files that a run writes.

    Args:
        folder: The run folder.
        header: The parts of ``measurement.json`` that are known from the start.
        metric: The run's; its values are written as they are, not as the search compares them.

    Attributes:
        reasons: Why FP32 as given is the only point, in sentences; empty where there was something to decide.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], metric: MetricInfo) -> None:
        self.folder = folder
        self._metric = metric
        self._header = dict(header)
        self._written = -CHECKPOINT_S
        self.reasons: tuple[str, ...] = ()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is long enough ago for another."""
        return time.monotonic() - self._written >= CHECKPOINT_S

    def write_sensitivity(self, table: SensitivityTable) -> None:
        """Write ``sensitivity.csv``."""
        write_text(self.folder / "sensitivity.csv", frame_text(table.frame()))

    def write_sparsity(self, table: SparsityTable) -> None:
        """Write ``sparsity.csv``."""
        write_text(self.folder / "sparsity.csv", frame_text(table.frame()))

    def write_trials(self, trials: Iterable[Trial]) -> None:
        """Write ``trials.csv``; ``latency_ms`` is the trial's own median."""
        rows = (_trial_row(trial, self._metric) for trial in trials)
        write_text(self.folder / "trials.csv", csv_text((*TRIAL_COLUMNS, *LATER_TRIAL_COLUMNS), rows))

    def write_results(
        self,
        selection: Selection,
        *,
        complete: bool,
        stopped: str | None,
        time_split_s: Mapping[str, float],
        train: TrainInfo | None = None,
    ) -> None:
        """Write ``measurement.json``, which reports and ``pareto.csv`` are made from.

        Args:
            selection: Points, front, recommendation.
            complete: Whether the run came to its end.
            stopped: What ended it early, else None.
            time_split_s: Kind of work → seconds.
            train: The run's training; None without passes.
        """
        data = {
            "schema_version": SCHEMA_VERSION,
            **self._header,
            "complete": complete,
            "stopped": stopped,
            "only_fp32": list(self.reasons),
            "reference": selection.reference,
            "given": selection.given.to_json(),
            "baselines": list(selection.baselines),
            "front": list(selection.front),
            "recommended": selection.recommended,
            "nearest": dict(selection.nearest),
            "points": {id_: _point_json(point) for id_, point in selection.points.items()},
            "time_split_s": dict(time_split_s),
            "train": train.to_json() if train else None,
            "choice": selection.choice.to_json(),
        }
        write_text(self.folder / MEASUREMENT_FILE, json.dumps(data, indent=1, allow_nan=False) + "\n")
        self._written = time.monotonic()


def earlier_split_s(folder: Path) -> Mapping[str, float]:
    """Seconds that the run in ``folder`` spent so far, by kind; empty where it has not said.

    Raises:
        UsageError: If its ``measurement.json`` is damaged.
    """
    path = folder / MEASUREMENT_FILE
    if not path.exists():
        return {}
    try:
        return MEASUREMENT_FORM.load(path).time_split_s
    except EngineError as error:
        raise UsageError(
            f"--resume: {error.message}",
            "move it away and repeat the command: it is written again, from measurements that are kept elsewhere",
        ) from error


def _trial_row(trial: Trial, metric: MetricInfo) -> Sequence[object]:
    latency, accuracy, change = trial.latency, trial.accuracy, trial.change
    if change is not None and metric.lower_is_better:
        change = change.negated()
    return (
        trial.number,
        trial.candidate.origin,
        trial.status.value,
        trial.size_bytes,
        latency and latency.median_ms,
        latency and latency.p90_ms,
        latency and latency.ratio,
        accuracy and metric.oriented(accuracy.value),
        accuracy and accuracy.samples,
        round(trial.seconds, 4),
        trial.reason,
        json.dumps(trial.candidate.texts),
        trial.candidate.variant,
        json.dumps(dict(trial.candidate.pruning)),
        change and change.value,
        change and change.ci_low,
        change and change.ci_high,
        change and change.better,
        change and change.worse,
    )


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "id": point.id,
        "origin": point.origin,
        "text": point.text,
        "config": point.config,
        "model": point.model,
        "engine": point.engine,
        "size_bytes": point.size_bytes,
        "latency": point.latency.to_json() if point.latency else None,
        "search_latency": point.search_latency.to_json() if point.search_latency else None,
        "accuracy": point.accuracy.to_json() if point.accuracy else None,
        "search_accuracy": point.search_accuracy.to_json() if point.search_accuracy else None,
        "feasible": point.feasible,
        "violations": list(point.violations),
        "held": point.latency_reproduced,
        "footprint": point.footprint.to_json() if point.footprint else None,
        "network": point.network.to_json() if point.network else None,
        "compressed_bytes": point.compressed_bytes,
        "change": point.change.to_json() if point.change else None,
        "search_change": point.search_change.to_json() if point.search_change else None,
        "layers": {layer: scheme.text for layer, scheme in point.layers.items()},
    }
