"""Results of a run from its trials: the finalists, measured again, judged, written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bitfront.core import MetricInfo
from bitfront.core.artifact import save_artifact
from bitfront.core.given_network import AS_GIVEN, FP32_ID, GIVEN_ID, GivenNetwork, differs
from bitfront.core.point import Point
from bitfront.core.training_info import TrainInfo
from bitfront.core.variant_info import VariantInfo
from bitfront.search.measuring.evaluate import SEARCH_PART
from bitfront.search.measuring.paired import paired
from bitfront.search.results import finalists
from bitfront.search.results.choice import choose_finalists
from bitfront.search.results.evidence import Evidence, told_worse
from bitfront.search.results.recommend import Rule, Selection, select
from bitfront.search.session import Session
from bitfront.search.trial import Origin, Trial
from bitfront.search.variants.info import train_info, variant_info
from bitfront.search.variants.variant_files import save_variant

INTERRUPTED = "interrupted"
TIME_LIMIT = "time limit"


def own_finalists(session: Session) -> list[Trial]:
    """Trials of the session's own search that are worth reporting."""
    own = [trial for trial in session.evaluator.trials if trial.candidate.origin is not Origin.IMPORTED]
    options = session.options

    def worse(trial: Trial, other: Trial) -> bool:
        mine, theirs = (_evidence(session, str(one.artifact), held_out=False) for one in (trial, other))
        return told_worse(mine, theirs, options.preference.significance)

    return choose_finalists(own, options.ranking, worse)


def _evidence(session: Session, artifact: str, *, held_out: bool) -> Evidence:
    """Scores that are known of an artifact."""
    scored = session.runner.measurements.scored
    return Evidence(
        search=scored(artifact, SEARCH_PART),
        held_out=scored(artifact, finalists.HELD_OUT_PART) if held_out else None,
        artifact=artifact,
    )


def described(session: Session, also: Sequence[Trial] = ()) -> list[tuple[Trial, Point]]:
    """The trials worth reporting, each with its point, as the search saw it.

    Args:
        session: What was explored.
        also: Trials to be reported besides those that are chosen.
    """
    given = {trial.artifact for trial in also}
    # An own trial that was stopped may have been measured in full as another backend's.
    chosen = [trial for trial in own_finalists(session) if trial.artifact not in given]
    chosen = sorted([*chosen, *also], key=lambda trial: trial.number)
    points = [finalists.point_of(trial, session.runner.layers(trial.candidate), session.metric) for trial in chosen]
    made = [_variant_of(session, trial) for trial in chosen]
    return [(trial, replace(p, network=info)) for trial, p, info in zip(chosen, points, made, strict=True)]


def _variant_of(session: Session, trial: Trial) -> VariantInfo | None:
    """Description of the trial's variant; None for the given network."""
    if session.builder is None or not trial.candidate.variant:
        return None
    info = variant_info(session.builder, trial.candidate.variant, session.evaluator.trials)
    return replace(
        info,
        untrained_accuracy=_as_written(session.metric, info.untrained_accuracy),
        fp32_accuracy=_as_written(session.metric, info.fp32_accuracy),
    )


def _as_written(metric: MetricInfo, value: float | None) -> float | None:
    """The metric's own value of one that the search compares; None stays None."""
    return None if value is None else metric.oriented(value)


def _with_files(session: Session, trial: Trial, point: Point) -> Point:
    """The point with its config, its model and its network written."""
    folder, key = session.options.out, trial.candidate.variant
    config, model = finalists.write_files(session.runner, folder, point, key)
    made = point.network
    if made is not None and session.builder is not None:
        made = replace(made, file=save_variant(folder, session.builder.variants[key]).as_posix())
    return replace(point, config=config, model=model, network=made)


def judged(session: Session, points: Sequence[Point], given: Point, artifacts: Mapping[str, str]) -> Selection:
    """Front and recommendation of these points, and of the given network where FP32 does not stand for it.

    Args:
        session: What was explored.
        points: Made from trials.
        given: The given network.
        artifacts: Id of each → its digest.
    """
    again = any(point.accuracy is not None for point in points)
    known = {point.id: _evidence(session, artifacts[point.id], held_out=again) for point in points}
    known[GIVEN_ID] = _evidence(session, session.given.artifact, held_out=again)
    points = [_with_changes(point, known[point.id], known[GIVEN_ID], session.metric) for point in points]
    trials = session.evaluator.trials
    baselines = [trial.id for trial in trials if trial.candidate.origin is Origin.BASELINE and trial.measured]
    fp32 = next((point for point in points if point.id == FP32_ID), None)
    measured = _network_of(given)
    if session.given.is_fp32:
        # The same file: what the finalists' measurement found of it stands with the point.
        measured = measured if fp32 is None else _network_of(fp32)
    elif fp32 is not None and differs(
        measured, _network_of(fp32), latency_reproduced=fp32.latency_reproduced, change=fp32.shown_change
    ):
        own = _with_changes(given, known[GIVEN_ID], known[GIVEN_ID], session.metric)
        points, baselines = [own, *points], [given.id, *baselines]
    options = session.options
    rule = Rule(budget=options.budget, preference=options.preference, baselines=baselines, metric=session.metric)
    return select(points, rule, given=replace(measured, refused=session.given.refused), evidence=known)


def _with_changes(point: Point, evidence: Evidence, reference: Evidence, metric: MetricInfo) -> Point:
    """The point with its differences to the given network."""
    held_out, search = (
        change.negated() if change and metric.lower_is_better else change
        for change in (paired(evidence.held_out, reference.held_out), paired(evidence.search, reference.search))
    )
    return replace(point, change=held_out, search_change=search)


def _network_of(point: Point) -> GivenNetwork:
    return GivenNetwork(
        size_bytes=point.size_bytes,
        latency=point.latency,
        search_latency=point.search_latency,
        accuracy=point.accuracy,
        search_accuracy=point.search_accuracy,
    )


def _given_point(session: Session) -> Point:
    """The given network as a point, as the search saw it."""
    seen = session.evaluator.given
    return Point(
        id=GIVEN_ID,
        origin="baseline",
        text=AS_GIVEN,
        config=None,
        model=None,
        size_bytes=session.given.model.size_bytes,
        latency=None,
        search_latency=seen.latency if seen else None,
        accuracy=None,
        search_accuracy=session.metric.oriented_stats(seen.accuracy) if seen else None,
        feasible=False,
        violations=(),
        latency_reproduced=None,
        layers={},
    )


def _with_given_file(session: Session, given: Point) -> Point:
    """The given network's point with its model written."""
    model = f"models/{GIVEN_ID}.onnx"
    save_artifact(session.given.model, session.options.out / model)
    return replace(given, model=model)


def checkpoint(session: Session) -> None:
    """Write what is known so far, so that a kill leaves a readable folder."""
    session.record.write_trials(session.evaluator.trials)
    found = described(session)
    selection = judged(session, [point for _, point in found], _given_point(session), _artifacts(found))
    write(session, selection, complete=False, stopped=None)


def _artifacts(found: Sequence[tuple[Trial, Point]]) -> dict[str, str]:
    return {point.id: str(trial.artifact) for trial, point in found}


def measured_again(session: Session, also: Sequence[Trial]) -> Selection:
    """Finalists, and the given network, measured as ``finalists`` says."""
    chosen, folder, apart_file = described(session, also), session.options.out, not session.given.is_fp32
    session.listener.phase("finalists", len(chosen) + 2 + apart_file)
    entries = [(_with_files(session, trial, point), str(trial.artifact)) for trial, point in chosen]
    given = _given_point(session)
    if apart_file:
        entries.insert(0, (_with_given_file(session, given), session.given.artifact))
    else:
        entries.sort(key=lambda entry: entry[0].id != FP32_ID)
    built = finalists.Built(session.runner, {point.id: folder / str(point.model) for point, _ in entries})
    timings = finalists.time_twice(session.runner, built, {p.id: artifact for p, artifact in entries}, session.rerun)
    session.listener.step("timed here and in a fresh process")
    final = {point.id: _remeasured(session, point, artifact, built, timings) for point, artifact in entries}
    order = [trial.id for trial, _ in chosen]
    lost = [id_ for id_ in order if not final[id_].latency_reproduced]
    if lost:
        session.listener.warn(f"latency not reproduced in a fresh process, so not on the front: {', '.join(lost)}")
    selection = judged(session, [final[id_] for id_ in order], final.get(GIVEN_ID, given), _artifacts(chosen))
    _tidy(session, selection)
    return selection


def _tidy(session: Session, selection: Selection) -> None:
    """Remove the given network's files, written to be timed, where no point refers to them."""
    if GIVEN_ID not in selection.points:
        for file in (session.options.out / "models").glob(f"{GIVEN_ID}.*"):
            file.unlink()


def _remeasured(
    session: Session, point: Point, artifact: str, built: finalists.Built, timings: finalists.Timings
) -> Point:
    """A finalist with its timings, scored on held-out data, with whatever else is asked of the compiled model."""
    runner, file = session.runner, built.files[point.id]
    accuracy = finalists.score(runner, artifact, file, session.rerun.scorer)
    session.listener.step(f"{point.id}: scored on held-out data")
    engine = session.options.save_engine
    return replace(
        point,
        search_latency=timings.here[point.id],
        latency=timings.there[point.id],
        latency_reproduced=point.id in timings.reproduced,
        accuracy=accuracy,
        compressed_bytes=finalists.compressed_bytes(file) if session.builder else None,
        footprint=finalists.memory_usage(runner, artifact, point.id, built),
        engine=finalists.write_engine(session.options.out, point.id, built[point.id]) if engine else None,
    )


def as_searched(session: Session, also: Sequence[Trial]) -> Selection:
    """Points with files, but with the search's own measurements alone."""
    found = described(session, also)
    points = [_with_files(session, trial, point) for trial, point in found]
    selection = judged(session, points, _given_point(session), _artifacts(found))
    if GIVEN_ID not in selection.points:
        _tidy(session, selection)
        return selection
    written = _with_given_file(session, selection.points[GIVEN_ID])
    return replace(selection, points={**selection.points, GIVEN_ID: written})


def write(session: Session, selection: Selection, *, complete: bool, stopped: str | None) -> None:
    """Write ``measurement.json``."""
    session.record.write_results(
        selection,
        complete=complete,
        stopped=stopped,
        time_split_s=session.runner.watch.split_s(),
        train=_training(session),
    )


def _training(session: Session) -> TrainInfo | None:
    if session.builder is None:
        return None
    info = train_info(session.builder)
    history = tuple(replace(rung, value=_as_written(session.metric, rung.value)) for rung in info.history)
    return replace(info, history=history)
