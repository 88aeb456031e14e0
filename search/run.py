"""The main job, from a network and a budget to measured points: DESIGN.md's picture, step by step.

    calibration → sensitivity → space → baselines → seeds → study → finalists → report

An interruption ends the search with what is known: the points as the search measured them, marked as not timed again,
in a report that says so. A time limit does the same gracefully, with finalists measured as always.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from backends.base import Backend
from lowering.lowerer import Lowerer
from precision import LayerChoice, Workload
from report import wording
from report.render import render
from report.results import Point
from search import finalists, seeds
from search.evaluate import REFERENCE
from search.events import Listener
from search.latency_model import LatencyModel, fit_latency_model
from search.metered import MeteredBackend, MeteredWriter
from search.options import RunOptions
from search.recommend import Judgement, judge
from search.sampler import FrontSampler
from search.session import Session, prepare
from search.several_translate import adapt
from search.space import Code, Space, build_space
from search.stopwatch import Kind
from search.study import Study
from search.trial import EXCHANGE, Candidate, Outcome, Trial
from sensitivity.score import planned_steps, score
from sensitivity.table import SensitivityTable

EXIT_MET = 0
EXIT_MISSED = 3
EXIT_INTERRUPTED = 130
INTERRUPTED = "interrupted"
TIME_LIMIT = "time limit"

LADDER_SEEDS = 8
SPLIT_SEEDS = 6
SOLVER_SEEDS = 8
_MOST_REPEATS = 20
_FINALISTS_SHARE = 0.2
_FINALISTS_MOST_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """What a run came to; everything else is in its folder.

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
) -> RunOutcome:
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


def explore(session: Session, starts: Sequence[Mapping[str, LayerChoice]] = ()) -> str | None:
    """Everything up to the finalists.

    Args:
        session: What ``search.session.prepare`` made.
        starts: Configs (layer name → choice) worth trying first, after the baselines.

    Returns:
        What ended it early, else None.
    """
    try:
        stopped = _search(session, starts)
        _checkpoint(session)
    except KeyboardInterrupt:
        return INTERRUPTED
    return stopped


def conclude(session: Session, stopped: str | None, also: Sequence[Trial] = ()) -> RunOutcome:
    """Finalists and report.

    Args:
        session: What was explored.
        stopped: What ended that early.
        also: Trials to be reported besides those that are chosen.
    """
    try:
        judgement = _as_searched(session, also) if stopped == INTERRUPTED else _measured_again(session, also)
    except KeyboardInterrupt:
        stopped = INTERRUPTED
        judgement = _as_searched(session, also)
    return _report(session, judgement, stopped)


def _search(session: Session, starts: Sequence[Mapping[str, LayerChoice]]) -> str | None:
    table = _sensitivity(session)
    inventory, options = session.bench.lowerer.inventory, session.options
    with session.bench.watch.measure(Kind.CALIBRATION):
        lowerer = session.bench.lowerer
        space = build_space(inventory, table, options.precisions, lowerer.weight_bytes, lowerer.dialect.arithmetic)
    study, sampler = session.open_study(space)
    try:
        session.listener.phase("search", options.trials)
        for candidate in _baselines(space, session):
            _try(session, study, candidate)
        _checkpoint(session)
        for candidate in _seeds(space, session, starts):
            if _full(session):
                return None
            if _late(session):
                return TIME_LIMIT
            _try(session, study, candidate)
        return _sample(session, study, sampler)
    finally:
        study.close()


def _sensitivity(session: Session) -> SensitivityTable:
    options, bench, listener = session.options, session.bench, session.listener
    listener.phase("calibrate", None)
    with bench.watch.measure(Kind.CALIBRATION):
        offered = {choice for group in bench.lowerer.inventory.groups for choice in group.choices}
        bench.lowerer.prepare(sorted(choice for choice in offered if choice.precision in options.precisions))
    listener.phase("sensitivity", planned_steps(bench.lowerer.inventory, options.precisions))
    table = score(
        MeteredWriter(bench.lowerer, bench.watch),
        MeteredBackend(bench.backend.stand_in(), bench.watch),
        session.calibration,
        samples=options.sensitivity_samples,
        precisions=options.precisions,
        threads=options.threads,
        store=session.store,
        on_step=listener.step,
    )
    session.record.write_sensitivity(table)
    return table


def _baselines(space: Space, session: Session) -> Iterator[Candidate]:
    known = {trial.candidate.key for trial in session.evaluator.trials}
    for name, choices in space.baselines():
        candidate = Candidate(origin="baseline", choices=choices, name=name)
        if candidate.key not in known:
            yield candidate


def _seeds(space: Space, session: Session, starts: Sequence[Mapping[str, LayerChoice]]) -> Iterator[Candidate]:
    """What an earlier run under other budgets tried, given starts, then the seeds; without what was tried already."""
    trials, budget = session.evaluator.trials, session.options.budget
    tried: set[Code] = {space.encode(trial.candidate.choices) for trial in trials}
    for trial in session.earlier_trials(space):
        code = space.encode(trial.candidate.choices)
        if code not in tried:
            tried.add(code)
            yield trial.candidate

    def model() -> LatencyModel:
        with session.bench.watch.measure(Kind.SOLVER):
            timed = [(trial.candidate.choices, trial.latency.ratio) for trial in trials if trial.latency]
            return fit_latency_model(space, timed)

    solved = sum(trial.candidate.origin == "solver" for trial in trials)
    fp32 = next(trial for trial in trials if trial.candidate.name == REFERENCE)
    solver = seeds.solver_seeds(
        space,
        model,
        max_ratio=budget.latency_ms / session.evaluator.reference_ms if budget.latency_ms else None,
        max_bytes=budget.size_bytes,
        overhead_bytes=(fp32.size_bytes or 0) - space.size_bytes(fp32.candidate.choices),
    )
    inventory = session.bench.lowerer.inventory
    streams = (
        (("other backend", adapt(layers, inventory, space)) for layers in starts),
        islice(seeds.ladder(space), LADDER_SEEDS),
        seeds.splits(space, np.random.default_rng(session.options.seed), SPLIT_SEEDS),
        islice(solver, max(SOLVER_SEEDS - solved, 0)),
    )
    stream = seeds.distinct(space, streams, tried)
    while True:
        with session.bench.watch.measure(Kind.SOLVER):
            found = next(stream, None)
        if found is None:
            return
        yield Candidate(origin=found[0], choices=found[1])


def _sample(session: Session, study: Study, sampler: FrontSampler) -> str | None:
    """Ask the sampler until the trials, the space or the time are used up."""
    repeats = 0
    while not _full(session):
        if _late(session):
            return TIME_LIMIT
        trial = _try(session, study)
        repeats = repeats + 1 if trial.outcome is Outcome.REPEATED else 0
        if repeats and (repeats >= _MOST_REPEATS or sampler.exhausted(study.live)):
            session.listener.warn(f"everything worth trying was tried after {len(session.evaluator.trials)} trials")
            return None
    return None


def _try(session: Session, study: Study, candidate: Candidate | None = None) -> Trial:
    """Try a candidate, or what the study proposes."""
    number, asked = study.ask(candidate)
    best = session.evaluator.best
    trial = session.evaluator.run(number, asked)
    study.tell(trial)
    session.listener.step(f"{trial.id} ({asked.origin}): {trial.outcome.value}")
    better = session.evaluator.best
    if better is not None and better is not best:
        session.listener.best(_words(better, session.metric))
    if session.record.due:
        _checkpoint(session)
    return trial


def _full(session: Session) -> bool:
    measured = sum(trial.outcome is not Outcome.REPEATED for trial in session.evaluator.trials)
    return measured >= session.options.trials


def _late(session: Session) -> bool:
    limit = session.options.time_limit_s
    if limit is None:
        return False
    return session.bench.watch.elapsed_s >= limit - min(_FINALISTS_SHARE * limit, _FINALISTS_MOST_S)


def _words(trial: Trial, metric: str) -> str:
    assert trial.accuracy is not None
    return (
        f"{wording.accuracy(trial.accuracy.value, metric)}, {wording.latency(trial.latency_ms)}, "
        f"{wording.size(trial.size_bytes)}"
    )


def _described(session: Session, also: Sequence[Trial] = ()) -> list[tuple[Trial, Point]]:
    inventory = session.bench.lowerer.inventory
    own = [trial for trial in session.evaluator.trials if trial.candidate.origin != EXCHANGE]
    given = {trial.artifact for trial in also}
    # An own trial that was stopped may have been measured in full as another backend's.
    chosen = [trial for trial in finalists.choose(own, session.options.budget) if trial.artifact not in given]
    chosen = sorted([*chosen, *also], key=lambda trial: trial.number)
    return [(trial, finalists.describe(trial, inventory.spread(trial.candidate.choices))) for trial in chosen]


def _baseline_ids(session: Session) -> list[str]:
    return [trial.id for trial in session.evaluator.trials if trial.candidate.origin == "baseline" and trial.measured]


def _judged(session: Session, points: list[Point]) -> Judgement:
    return judge(
        points,
        session.options.budget,
        reference=REFERENCE,
        baselines=_baseline_ids(session),
        metric=session.metric,
    )


def _checkpoint(session: Session) -> None:
    """Write what is known so far, so that a kill leaves a readable folder."""
    session.record.write_trials(session.evaluator.trials)
    _write(session, _judged(session, [point for _, point in _described(session)]), complete=False, stopped=None)


def _measured_again(session: Session, also: Sequence[Trial]) -> Judgement:
    """Finalists, measured as ``search.finalists`` says."""
    described, bench, rerun = _described(session, also), session.bench, session.rerun
    folder = session.options.out
    session.listener.phase("finalists", len(described) + 2)
    files: dict[str, Path] = {}
    points = []
    for _, point in described:
        config, model = finalists.write_files(bench, folder, point)
        files[point.id] = folder / model
        points.append(replace(point, config=config, model=model))
    artifacts = {trial.id: str(trial.artifact) for trial, _ in described}
    built = finalists.Built(bench, files)
    here, there, holding = finalists.time_twice(bench, built, artifacts, rerun)
    session.listener.step("timed here and in a fresh process")
    final = []
    for point in points:
        accuracy = finalists.score(bench, artifacts[point.id], files[point.id], rerun.scorer)
        session.listener.step(f"{point.id}: scored on held-back data")
        final.append(
            replace(
                point,
                search_latency=here[point.id],
                latency=there[point.id],
                held=point.id in holding,
                accuracy=accuracy,
                footprint=finalists.footprint(bench, artifacts[point.id], point.id, built),
                engine=finalists.write_engine(folder, point.id, built[point.id])
                if session.options.save_engine
                else None,
            )
        )
    lost = [point.id for point in final if not point.held]
    if lost:
        session.listener.warn(f"timed differently in a fresh process and left out of the front: {', '.join(lost)}")
    return _judged(session, final)


def _as_searched(session: Session, also: Sequence[Trial]) -> Judgement:
    """Points with files, but with the search's own measurements alone."""
    points = []
    for _, point in _described(session, also):
        config, model = finalists.write_files(session.bench, session.options.out, point)
        points.append(replace(point, config=config, model=model))
    return _judged(session, points)


def _report(session: Session, judgement: Judgement, stopped: str | None) -> RunOutcome:
    session.listener.phase("report", None)
    session.record.write_trials(session.evaluator.trials)
    _write(session, judgement, complete=stopped != INTERRUPTED, stopped=stopped)
    render(session.options.out)
    met = EXIT_MET if judgement.recommended else EXIT_MISSED
    return RunOutcome(
        folder=session.options.out,
        exit_code=EXIT_INTERRUPTED if stopped == INTERRUPTED else met,
        recommended=judgement.recommended,
        points=judgement.points,
        front=judgement.front,
        nearest=judgement.nearest,
        stopped=stopped,
        time_split_s=session.bench.watch.split_s(),
    )


def _write(session: Session, judgement: Judgement, *, complete: bool, stopped: str | None) -> None:
    session.record.write_results(
        judgement,
        _baseline_ids(session),
        complete=complete,
        stopped=stopped,
        time_split_s=session.bench.watch.split_s(),
    )
