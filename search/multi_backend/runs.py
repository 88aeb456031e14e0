"""A run on several backends: a search on each in turn, then every finalist measured on every backend.

    search A → search B, started from A's finalists → … → cross-evaluation (``cross_evaluate``)
    → finalists of each, their own and the others', timed in fresh processes and scored as always → comparison

``out/BACKEND/`` is a run folder like any other. ``backends.json`` beside them lists the backends and what became of
each config on the others; ``comparison.*`` and ``summary.txt`` are made from these alone. A time limit is split
evenly; what a search leaves unused goes to those after it. An interruption ends all of them with what is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitfront.backends.base import Backend
from bitfront.core import Scheme, Workload, write_text
from bitfront.core.backends_file import BACKENDS_FILE, BackendEntry, BackendsFile, CrossEvaluation
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.console.interruption import EXIT_INTERRUPTED
from bitfront.search.events import Listener
from bitfront.search.execution.explore import explore
from bitfront.search.multi_backend.cross_evaluation import BackendRun, cross_evaluate
from bitfront.search.options import RunOptions
from bitfront.search.prepare import prepare
from bitfront.search.results.finalize import INTERRUPTED
from bitfront.search.run import EXIT_MET, EXIT_MISSED, RunResult, conclude
from bitfront.search.trial import TrialStatus

_STARTS_PART = 6  # of the trials


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSearch:
    """A search to be run on one backend.

    Attributes:
        backend: The runtime.
        lowerer: The network, in its dialect.
        options: What is asked of this search: ``backend`` its name, ``out`` its folder, ``budget`` its limits.
    """

    backend: Backend
    lowerer: Lowerer
    options: RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiBackendResult:
    """Result of a run on several backends; everything else is in its folder.

    Attributes:
        folder: The run folder.
        exit_code: 0 where every backend has a point within its limits, 3 where one has none, 130 where interrupted.
        results: Backend → its own search's result; without those an interruption left no time for.
        cross_evaluations: What became of each config on the other backends.
    """

    folder: Path
    exit_code: int
    results: Mapping[str, RunResult]
    cross_evaluations: tuple[CrossEvaluation, ...]


class _PrefixedListener:
    """A listener that names the backend in what it passes on."""

    def __init__(self, name: str, listener: Listener) -> None:
        self._name = name
        self._listener = listener

    def phase(self, name: str, total: int | None) -> None:
        self._listener.phase(f"{self._name}: {name}", total)

    def step(self, note: str) -> None:
        self._listener.step(note)

    def best(self, text: str) -> None:
        self._listener.best(f"{self._name}: {text}")

    def warn(self, text: str) -> None:
        self._listener.warn(f"{self._name}: {text}")


def folder_names(names: Sequence[str]) -> dict[str, str]:
    """Backend name → name of its folder, and first part of its points' ids elsewhere; all different."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "backend"
        label, number = plain, 2
        while label in found.values():
            label, number = f"{plain}-{number}", number + 1
        found[name] = label
    return found


def run_on_backends(
    workload: Workload,
    searches: Sequence[BackendSearch],
    folder: Path,
    listener: Listener,
    *,
    time_limit_s: float | None,
    command: str = "",
) -> MultiBackendResult:
    """Search on each backend, then measure each one's finalists on all others.

    Args:
        workload: The network's data and metric.
        searches: The backends, in the order they are searched.
        folder: The run folder; each search's is below it.
        listener: Hears of progress.
        time_limit_s: For all searches together.
        command: What was typed, for the reports.

    Raises:
        EngineError: As for ``search.run.run``.
    """
    labels = folder_names([search.options.backend for search in searches])
    runs = []
    for search in searches:
        options, named = search.options, _PrefixedListener(search.options.backend, listener)
        session = prepare(workload, search.lowerer, search.backend, options, named, command)
        session.runner.watch.pause()
        runs.append(BackendRun(name=options.backend, label=labels[options.backend], session=session, listener=named))
    cross_evaluations: list[CrossEvaluation] = []
    _write(folder, runs, cross_evaluations, workload.name, command)
    stopped = _explore(runs, time_limit_s)
    if INTERRUPTED not in stopped.values():
        try:
            cross_evaluate(runs, cross_evaluations)
        except KeyboardInterrupt:
            stopped = dict.fromkeys(stopped, INTERRUPTED)
    _write(folder, runs, cross_evaluations, workload.name, command)
    results = _conclude(runs, stopped)
    return MultiBackendResult(
        folder=folder, exit_code=_exit_code(results), results=results, cross_evaluations=tuple(cross_evaluations)
    )


def _explore(runs: Sequence[BackendRun], time_limit_s: float | None) -> dict[str, str | None]:
    """Search on each backend; backend → reason that ended its search early, without those after an interruption."""
    stopped: dict[str, str | None] = {}
    starts: list[dict[str, Scheme]] = []
    left_s = time_limit_s
    for index, run in enumerate(runs):
        session, watch = run.session, run.session.runner.watch
        watch.resume()
        began_s = watch.elapsed_s
        if left_s is not None:
            share_s = began_s + left_s / (len(runs) - index)
            session = replace(session, options=replace(session.options, time_limit_s=share_s))
        # A few: they are where another runtime's boundaries and kernels led, and this one's own seeds matter more.
        stopped[run.name] = explore(session, starts[: max(session.options.trials // _STARTS_PART, 1)])
        watch.pause()
        if left_s is not None:
            left_s = max(left_s - (watch.elapsed_s - began_s), 0.0)
        if stopped[run.name] == INTERRUPTED:
            break
        starts = [*_starts(run), *starts]
    return stopped


def _starts(run: BackendRun) -> list[dict[str, Scheme]]:
    """Layer name → scheme of each config a search found besides its baselines, the preferred first."""
    rank = run.session.options.ranking.key
    found = [trial for trial in run.finalists() if trial.status is TrialStatus.COMPLETE and not trial.candidate.name]
    found.sort(key=lambda trial: (not trial.feasible, rank(trial.objectives)))
    return [run.layers(trial) for trial in found]


def _conclude(runs: Sequence[BackendRun], stopped: Mapping[str, str | None]) -> dict[str, RunResult]:
    """Measure each backend's finalists again and write its results; after an interruption, as far as known."""
    interrupted = INTERRUPTED in stopped.values()
    results = {}
    for run in runs:
        if run.name not in stopped:
            continue
        run.session.runner.watch.resume()
        reason = INTERRUPTED if interrupted else stopped[run.name]
        results[run.name] = conclude(run.session, reason, also=run.imported_trials)
        run.session.runner.watch.pause()
        interrupted = interrupted or results[run.name].exit_code == EXIT_INTERRUPTED
    return results


def _exit_code(results: Mapping[str, RunResult]) -> int:
    codes = {result.exit_code for result in results.values()}
    return next((code for code in (EXIT_INTERRUPTED, EXIT_MISSED) if code in codes), EXIT_MET)


def _write(
    folder: Path, runs: Sequence[BackendRun], cross_evaluations: Sequence[CrossEvaluation], name: str, command: str
) -> None:
    file = BackendsFile(
        schema_version=1,
        name=name,
        command=command,
        backends=tuple(BackendEntry(name=run.name, folder=run.label) for run in runs),
        exchange=tuple(cross_evaluations),
    )
    write_text(folder / BACKENDS_FILE, json.dumps(file.to_json(), indent=1) + "\n")
