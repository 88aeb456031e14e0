"""A search run, from a network and its constraints to measured points and a report.

    prepare → explore (calibration → sensitivity → space → baselines → seeds → study) → finalists → report

An interruption ends the search with what is known: the points as the search measured them, marked as not timed again,
in a report that says so. A time limit does the same gracefully, with finalists measured as always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitfront.backends.base import Backend
from bitfront.core import Workload
from bitfront.core.point import Point
from bitfront.lowering.lowerer import Lowerer
from bitfront.report.render import render
from bitfront.search.console.interruption import EXIT_INTERRUPTED
from bitfront.search.events import Listener
from bitfront.search.execution.explore import explore
from bitfront.search.options import RunOptions
from bitfront.search.prepare import prepare
from bitfront.search.results import finalize
from bitfront.search.results.finalize import INTERRUPTED
from bitfront.search.results.recommend import Selection
from bitfront.search.session import Session
from bitfront.search.trial import Trial

EXIT_MET = 0
EXIT_MISSED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Result of a run; everything else is in its folder.

    Attributes:
        folder: The run folder.
        exit_code: 0 where a point meets every limit, 3 where none does, 130 where the run was interrupted.
        recommended: Id of the point to take.
        points: Id → point.
        front: Ids of the Pareto-optimal points.
        nearest: Limit → id of the nearest point, where no point meets every limit.
        stopped: What ended the run early, else None.
        time_split_s: Kind of work → seconds.
    """

    folder: Path
    exit_code: int
    recommended: str | None
    points: Mapping[str, Point]
    front: tuple[str, ...]
    nearest: Mapping[str, str]
    stopped: str | None
    time_split_s: Mapping[str, float]


def run(
    workload: Workload,
    lowerer: Lowerer,
    backend: Backend,
    options: RunOptions,
    listener: Listener,
    *,
    command: str = "",
) -> RunResult:
    """Search for the best network within the budgets, and write the run folder.

    Args:
        workload: The network's data and metric.
        lowerer: The network, in the backend's dialect.
        backend: The runtime.
        options: What is asked for.
        listener: Hears of progress.
        command: What was typed, for the report.

    Raises:
        UsageError: If the run folder belongs to something else, or the storage cannot be opened.
        DataError: If there is too little data.
        WorkloadError: If the metric fails.
        BackendError: If the FP32 network fails, or timing in a fresh process does.
        OutputError: If a result cannot be written.
    """
    session = prepare(workload, lowerer, backend, options, listener, command)
    return conclude(session, explore(session))


def conclude(session: Session, stopped: str | None, also: Sequence[Trial] = ()) -> RunResult:
    """Measure the finalists again and write the report.

    Args:
        session: The explored search.
        stopped: What ended that early.
        also: Trials to be reported besides the finalists.
    """
    try:
        selection = (
            finalize.as_searched(session, also) if stopped == INTERRUPTED else finalize.measured_again(session, also)
        )
    except KeyboardInterrupt:
        stopped = INTERRUPTED
        selection = finalize.as_searched(session, also)
    if stopped == INTERRUPTED:
        return _report(session, selection, stopped)
    try:
        return _report(session, selection, stopped)
    except KeyboardInterrupt:
        # Everything is measured: what is left takes seconds, and a further signal ends that too.
        return replace(_report(session, selection, stopped), exit_code=EXIT_INTERRUPTED)


def _report(session: Session, selection: Selection, stopped: str | None) -> RunResult:
    session.listener.phase("report", None)
    session.record.write_trials(session.evaluator.trials)
    finalize.write(session, selection, complete=stopped != INTERRUPTED, stopped=stopped)
    render(session.options.out)
    met = EXIT_MET if selection.recommended else EXIT_MISSED
    return RunResult(
        folder=session.options.out,
        exit_code=EXIT_INTERRUPTED if stopped == INTERRUPTED else met,
        recommended=selection.recommended,
        points=selection.points,
        front=selection.front,
        nearest=selection.nearest,
        stopped=stopped,
        time_split_s=session.runner.watch.split_s(),
    )
