"""Who goes into the results, and what is reported of them: measured again, elsewhere, on data the search never saw.

    chosen from the trials → model and config files → timed together here → timed together in a fresh process
    → those that do not hold, or met a slow machine, are timed there once more → footprints → scored on the
    held-back samples

A point *holds* where its ratio to the given network in the fresh process is within 5 % of that in the search's own
process, both timed thoroughly with all finalists interleaved. What does not hold is kept in the results, marked, and
never on the front. The reported latency is the absolute median in the fresh process. A point met a *slow machine* where
the given network, in the rounds that count for the point, took 10 % more than over all: its ratio is sound then, its
milliseconds are not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitfront.backends.base import CompiledModel
from bitfront.backends.subprocess_timing import time_in_subprocess
from bitfront.backends.timing import TimingSettings
from bitfront.core import (
    AccuracyStats,
    Constraints,
    LatencyStats,
    MemoryUsage,
    Scheme,
    write_bytes,
    write_text,
)
from bitfront.core.artifact import load_artifact, save_artifact
from bitfront.report.front import pareto_front
from bitfront.report.results import Point
from bitfront.search.measuring.accuracy import Scorer
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.results.preference import preference
from bitfront.search.trial import Trial, TrialStatus, summarise

MOST = 12
TOLERANCE = 0.05
SLOWNESS = 0.1
CLOSE = TimingSettings(slot_ms=10.0, min_rounds=12, max_rounds=60, max_seconds_per_model=0.6, target=0.01)
HELD_BACK_PART = "held back"
_BEST_FEASIBLE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """How finalists are measured again.

    Attributes:
        scorer: The held-back part of the evaluation data.
        backend: Name of the runtime, for the fresh process.
        timing: How closely.
    """

    scorer: Scorer
    backend: str
    timing: TimingSettings = CLOSE


def choose(trials: Sequence[Trial], budget: Constraints, most: int = MOST) -> list[Trial]:
    """The trials worth reporting, in order of their numbers.

    Baselines first; then the preferred feasible ones; where none is feasible, the nearest by each limit; then the
    front, spread as widely as the remaining places allow, without what is hopelessly inaccurate; where none is feasible
    also of what was not scored to its end.
    """
    timed = [t for t in trials if t.measured]
    complete = [t for t in timed if t.status is TrialStatus.COMPLETE]
    feasible = sorted((t for t in complete if t.feasible), key=lambda t: preference(budget)(t.objectives))
    chosen = _distinct(
        [*(t for t in timed if t.candidate.name), *feasible[:_BEST_FEASIBLE], *_nearest(timed, feasible)]
    )
    useful = _near_the_floor(complete) if feasible else [t for t in timed if t.accuracy is not None]
    front = [useful[i] for i in pareto_front([t.objectives for t in useful])]
    rest = _spread([t for t in front if t not in chosen], [t for t in chosen if t in useful], most - len(chosen))
    return sorted([*chosen[:most], *rest], key=lambda trial: trial.number)


def describe(trial: Trial, layers: Mapping[str, Scheme]) -> Point:
    """A trial as a point of the results, as the search saw it; not judged yet."""
    assert trial.size_bytes is not None
    return Point(
        id=trial.id,
        origin=trial.candidate.origin,
        text=summarise(layers),
        config=None,
        model=None,
        size_bytes=trial.size_bytes,
        latency=None,
        search_latency=trial.latency,
        accuracy=None,
        search_accuracy=trial.accuracy,
        feasible=False,
        violations=(),
        held=None,
        layers=layers,
    )


def write_files(runner: ModelRunner, folder: Path, point: Point, network: str = "") -> tuple[str, str]:
    """Write a point's config and model; returns their paths relative to ``folder``.

    Args:
        runner: Writes them.
        folder: The run folder.
        point: What was decided.
        network: Key of the network that is quantised; empty for the given one.

    Raises:
        OutputError: If they cannot be written.
    """
    config, model = f"configs/{point.id}.json", f"models/{point.id}.onnx"
    with runner.watch.timed(Kind.LOWERING):
        document = runner.config(point.layers, network)
    write_text(folder / config, document.to_json())
    save_artifact(runner.lower(point.layers, network), folder / model)
    return config, model


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Finalists timed twice.

    Attributes:
        here, there: Id → latency in this process, and in a fresh one.
        holding: Ids of those that hold.
    """

    here: Mapping[str, LatencyStats]
    there: Mapping[str, LatencyStats]
    holding: frozenset[str]


class Built:
    """Saved models, each compiled as it is timed when first needed and at most once.

    Args:
        runner: What they run on.
        files: Id → model file; the given network's, or what stands for it, is first.
    """

    def __init__(self, runner: ModelRunner, files: Mapping[str, Path]) -> None:
        self._runner = runner
        self.files = files
        self.reference = next(iter(files))
        self._compiled: dict[str, CompiledModel] = {}

    def __getitem__(self, name: str) -> CompiledModel:
        if name not in self._compiled:
            self._compiled[name] = self._runner.compile(load_artifact(self.files[name]))
        return self._compiled[name]


def memory_usage(runner: ModelRunner, artifact: str, name: str, built: Built) -> MemoryUsage | None:
    """What a finalist takes once compiled; None where the runtime does not tell."""
    found = runner.measurements.memory_usage(artifact)
    if found is None:
        found = built[name].memory_usage()
        runner.measurements.note_memory_usage(artifact, found)
    return found if found.known else None


def compressed_bytes(file: Path) -> int:
    """Size of a model's files, deflated: what weights of few values or many zeros take in an archive."""
    total = 0
    for data in load_artifact(file).files.values():
        packer = zlib.compressobj(9)
        for block in (data,) if isinstance(data, bytes) else data.blocks():
            total += len(packer.compress(block))
        total += len(packer.flush())
    return total


def write_engine(folder: Path, name: str, model: CompiledModel) -> str | None:
    """Write the runtime's own file of a model; returns its path relative to ``folder``, None where there is none.

    Raises:
        OutputError: If it cannot be written.
    """
    data, path = model.engine(), f"models/{name}.engine"
    if data is None:
        return None
    write_bytes(folder / path, data)
    return path


def time_twice(runner: ModelRunner, built: Built, artifacts: Mapping[str, str], rerun: Rerun) -> Timings:
    """Time saved models together in this process, then in a fresh one; those that do not hold there once more.

    Args:
        runner: What they run on.
        built: The models.
        artifacts: Id → digest, by which finished timings are found again.
        rerun: How they are timed.
    """
    files = built.files
    here = _remembered(
        runner,
        "here",
        artifacts,
        lambda: runner.time({id_: built[id_] for id_ in files}, rerun.timing, built.reference),
    )
    there = _remembered(runner, "elsewhere", artifacts, lambda: _time_elsewhere(runner, built, here, rerun))
    holding = frozenset(name for name in files if holds(here[name], there[name]))
    return Timings(here=here, there=there, holding=holding)


def _time_elsewhere(
    runner: ModelRunner, built: Built, here: Mapping[str, LatencyStats], rerun: Rerun
) -> dict[str, LatencyStats]:
    files, reference = built.files, built.reference

    def once(names: Iterable[str]) -> dict[str, LatencyStats]:
        with runner.watch.timed(Kind.INFERENCE):
            return time_in_subprocess(
                rerun.backend,
                {name: files[name] for name in names},
                reference,
                runner.inputs,
                runner.patient(rerun.timing),
                threads=runner.threads,
                batch_size=runner.batch_size,
            )

    there = once(files)
    shaky = {name for name in files if not holds(here[name], there[name])}
    slow = {name for name in files if disturbed(there[name], there[reference])}
    if shaky | slow:
        again = once(dict.fromkeys((reference, *(name for name in files if name in shaky | slow))))
        quieter = {name for name in slow if _beside_ms(again[name]) < _beside_ms(there[name])}
        there |= {name: again[name] for name in shaky | quieter}
    return there


def _remembered(
    runner: ModelRunner, kind: str, artifacts: Mapping[str, str], measure: Callable[[], dict[str, LatencyStats]]
) -> dict[str, LatencyStats]:
    known = runner.measurements.together(kind, list(artifacts.values()))
    if known is None:
        measured = measure()
        known = {artifacts[name]: latency for name, latency in measured.items()}
        runner.measurements.note_together(kind, known)
    return {name: known[artifact] for name, artifact in artifacts.items()}


def holds(here: LatencyStats, there: LatencyStats) -> bool:
    """Whether two timings agree about the ratio to the given network."""
    return abs(there.ratio / here.ratio - 1) <= TOLERANCE


def disturbed(latency: LatencyStats, reference: LatencyStats) -> bool:
    """Whether the machine was slow while a model was timed: the reference was, in the rounds that count for it."""
    return _beside_ms(latency) > (1 + SLOWNESS) * reference.median_ms


def _beside_ms(latency: LatencyStats) -> float:
    """The reference's latency in a model's own rounds, in ms."""
    return latency.median_ms / latency.ratio


def score(runner: ModelRunner, artifact: str, file: Path, scorer: Scorer) -> AccuracyStats:
    """Score a saved model on everything held back; from the measurements where it was done before."""
    scored = runner.measurements.scored(artifact, HELD_BACK_PART)
    if scored is None or scored.samples < len(scorer):
        model = runner.compile_to_score(load_artifact(file))
        scored = scorer.extend(model, scored, len(scorer))
        runner.measurements.note_scored(artifact, HELD_BACK_PART, scored)
    return scored.stats


def _nearest(timed: Sequence[Trial], feasible: Sequence[Trial]) -> Iterable[Trial]:
    if feasible or not timed:
        return
    limits = {limit for trial in timed for limit in trial.misses}
    yield min(timed, key=lambda trial: _excess(trial, limits))
    for limit in ("latency", "size", "accuracy"):
        known = [trial for trial in timed if limit in trial.misses]
        if known:
            # The nearest by one limit, of those that keep the others if there are any.
            yield min(known, key=lambda t: (_excess(t, limits - {limit}) > 0, t.misses[limit]))
            yield min(known, key=lambda t: t.misses[limit])


def _near_the_floor(complete: Sequence[Trial]) -> list[Trial]:
    """Those that miss the accuracy floor by no more than the most accurate one exceeds it."""
    best = max(trial.objectives.accuracy for trial in complete)
    return [t for t in complete if 2 * t.misses.get("accuracy", 0.0) <= best - t.objectives.accuracy]


def _excess(trial: Trial, limits: Iterable[str]) -> float:
    return sum(max(trial.misses.get(limit, 0.0), 0.0) for limit in limits)


def _distinct(trials: Iterable[Trial]) -> list[Trial]:
    return list({trial.number: trial for trial in trials}.values())


def _spread(candidates: Sequence[Trial], chosen: Sequence[Trial], places: int) -> list[Trial]:
    """Greedy: the candidate farthest from everything chosen so far, in units of the front's extent."""
    if places <= 0 or not candidates:
        return []
    everyone = [*candidates, *chosen]
    values = np.array(
        [[o.accuracy, o.latency_ms, np.log(o.size_bytes)] for o in (trial.objectives for trial in everyone)]
    )
    extent = np.ptp(values, axis=0)
    values = (values - values.min(axis=0)) / np.where(extent > 0, extent, 1.0)
    own, others = values[: len(candidates)], values[len(candidates) :]
    distance = np.full(len(candidates), np.inf)
    for other in others:
        distance = np.minimum(distance, np.linalg.norm(own - other, axis=1))
    picked: list[Trial] = []
    while len(picked) < min(places, len(candidates)):
        index = int(np.argmax(distance))
        picked.append(candidates[index])
        distance = np.minimum(distance, np.linalg.norm(own - own[index], axis=1))
        distance[index] = -1.0
    return picked
