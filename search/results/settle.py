"""From trials to the results of a run: who is reported, measured again, judged, written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from report.network import NetworkInfo
from report.results import Point
from report.training import TrainInfo
from search.bench import REFERENCE
from search.results import finalists
from search.results.recommend import Judgement, judge
from search.session import Session
from search.trial import EXCHANGE, Trial

INTERRUPTED = "interrupted"
TIME_LIMIT = "time limit"


def described(session: Session, also: Sequence[Trial] = ()) -> list[tuple[Trial, Point]]:
    """The trials worth reporting, each with its point, as the search saw it.

    Args:
        session: What was explored.
        also: Trials to be reported besides those that are chosen.
    """
    own = [trial for trial in session.evaluator.trials if trial.candidate.origin != EXCHANGE]
    given = {trial.artifact for trial in also}
    # An own trial that was stopped may have been measured in full as another backend's.
    chosen = [trial for trial in finalists.choose(own, session.options.budget) if trial.artifact not in given]
    chosen = sorted([*chosen, *also], key=lambda trial: trial.number)
    points = [finalists.describe(trial, session.bench.layers(trial.candidate)) for trial in chosen]
    made = [_network(session, trial) for trial in chosen]
    return [(trial, replace(p, network=info)) for trial, p, info in zip(chosen, points, made, strict=True)]


def _network(session: Session, trial: Trial) -> NetworkInfo | None:
    """What is to be said of the trial's network; None of the given one."""
    if session.making is None or not trial.candidate.network:
        return None
    from search.networks.info import network_info

    return network_info(session.making, trial.candidate.network, session.evaluator.trials)


def _with_files(session: Session, trial: Trial, point: Point) -> Point:
    """The point with its config, its model and its network written."""
    folder, key = session.options.out, trial.candidate.network
    config, model = finalists.write_files(session.bench, folder, point, key)
    made = point.network
    if made is not None and session.making is not None:
        from search.networks.files import save_network

        made = replace(made, file=save_network(folder, session.making.made[key]).as_posix())
    return replace(point, config=config, model=model, network=made)


def _baseline_ids(session: Session) -> list[str]:
    return [trial.id for trial in session.evaluator.trials if trial.candidate.origin == "baseline" and trial.measured]


def judged(session: Session, points: list[Point]) -> Judgement:
    """Front and recommendation of these points."""
    return judge(
        points,
        session.options.budget,
        reference=REFERENCE,
        baselines=_baseline_ids(session),
        metric=session.metric,
    )


def checkpoint(session: Session) -> None:
    """Write what is known so far, so that a kill leaves a readable folder."""
    session.record.write_trials(session.evaluator.trials)
    write(session, judged(session, [point for _, point in described(session)]), complete=False, stopped=None)


def measured_again(session: Session, also: Sequence[Trial]) -> Judgement:
    """Finalists, measured as ``finalists`` says."""
    chosen, bench, rerun = described(session, also), session.bench, session.rerun
    folder = session.options.out
    session.listener.phase("finalists", len(chosen) + 2)
    files: dict[str, Path] = {}
    points = []
    for trial, described_point in chosen:
        point = _with_files(session, trial, described_point)
        files[point.id] = folder / str(point.model)
        points.append(point)
    artifacts = {trial.id: str(trial.artifact) for trial, _ in chosen}
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
                compressed_bytes=finalists.compressed_bytes(files[point.id]) if session.making else None,
                footprint=finalists.footprint(bench, artifacts[point.id], point.id, built),
                engine=finalists.write_engine(folder, point.id, built[point.id])
                if session.options.save_engine
                else None,
            )
        )
    lost = [point.id for point in final if not point.held]
    if lost:
        session.listener.warn(f"timed differently in a fresh process and left out of the front: {', '.join(lost)}")
    return judged(session, final)


def as_searched(session: Session, also: Sequence[Trial]) -> Judgement:
    """Points with files, but with the search's own measurements alone."""
    return judged(session, [_with_files(session, trial, point) for trial, point in described(session, also)])


def write(session: Session, judgement: Judgement, *, complete: bool, stopped: str | None) -> None:
    """Write ``measurement.json``."""
    session.record.write_results(
        judgement,
        _baseline_ids(session),
        complete=complete,
        stopped=stopped,
        time_split_s=session.bench.watch.split_s(),
        train=_training(session),
    )


def _training(session: Session) -> TrainInfo | None:
    if session.making is None:
        return None
    from search.networks.info import train_info

    return train_info(session.making)
