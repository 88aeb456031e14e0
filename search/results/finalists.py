"""Finalists measured again: timed here and in a fresh process, scored on samples that the search never saw.

    model and config files → timed together here → timed together in a fresh process → those whose latency was not
    reproduced, or that met a slow machine, are timed there once more → those still not reproduced, a third time here
    and there where the given network's own latency has moved → memory → scored on the held-out samples

A latency is *reproduced* where its ratio to the given network in the fresh process is within 5 % of that in the
search's own process, both timed thoroughly with all finalists interleaved, or, where they would not fit into memory
together, as many as do, always with the given network among them. A point without that is kept in the results, marked,
and never on the front. The reported latency is that of the fresh process. Where the given network itself took over 5 %
more or less there than here, the ratios may differ for its sake: hence the third time. A point met a *slow
machine* where the given network, in the rounds that count for the point, took 10 % more than over all: its ratio is
sound then, its milliseconds are not.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitfront.backends.base import CompiledModel
from bitfront.backends.subprocess_timing import time_in_subprocess
from bitfront.backends.timing import TimingSettings
from bitfront.core import (
    AccuracyStats,
    LatencyStats,
    MemoryUsage,
    MetricInfo,
    Scheme,
    write_bytes,
    write_text,
)
from bitfront.core.artifact import load_artifact, save_artifact
from bitfront.core.point import Point
from bitfront.search.measuring.accuracy import Scorer
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Kind
from bitfront.search.trial import Trial, summarise

TOLERANCE = 0.05
SLOWNESS = 0.1
CLOSE = TimingSettings(slot_ms=10.0, min_rounds=12, max_rounds=60, max_seconds_per_model=0.6, target=0.01)
TOGETHER_BYTES = 4 * 10**9  # of finalists that are timed together, besides the given network
HELD_OUT_PART = "held back"  # its name in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """The settings by which finalists are measured again.

    Attributes:
        scorer: The held-out part of the evaluation data.
        backend: Name of the runtime, for the fresh process.
        timing: How closely.
    """

    scorer: Scorer
    backend: str
    timing: TimingSettings = CLOSE


def point_of(trial: Trial, layers: Mapping[str, Scheme], metric: MetricInfo) -> Point:
    """The point of the results that a trial becomes, as the search saw it; not compared with the limits yet."""
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
        search_accuracy=metric.oriented_stats(trial.accuracy) if trial.accuracy else None,
        feasible=False,
        violations=(),
        latency_reproduced=None,
        layers=layers,
    )


def write_files(runner: ModelRunner, folder: Path, point: Point, variant: str = "") -> tuple[str, str]:
    """Write a point's config and model; returns their paths relative to ``folder``.

    Args:
        runner: Writes them.
        folder: The run folder.
        point: What was decided.
        variant: Id of the variant that is quantised; empty for the given one.

    Raises:
        OutputError: If they cannot be written.
    """
    config, model = f"configs/{point.id}.json", f"models/{point.id}.onnx"
    with runner.watch.timed(Kind.LOWERING):
        document = runner.config(point.layers, variant)
    write_text(folder / config, document.to_json())
    save_artifact(runner.lower(point.layers, variant), folder / model)
    return config, model


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Latencies of finalists that were timed twice.

    Attributes:
        here, there: Id → latency in this process, and in a fresh one.
        reproduced: Ids of those whose latency was reproduced.
    """

    here: Mapping[str, LatencyStats]
    there: Mapping[str, LatencyStats]
    reproduced: frozenset[str]


class Built:
    """Saved models, each compiled as it is timed when first needed.

    Compiled models are kept, but for large ones, of which only those that are asked for together are.

    Args:
        runner: What they run on.
        files: Id → model file; the given network's, or what stands for it, is first.
    """

    def __init__(self, runner: ModelRunner, files: Mapping[str, Path]) -> None:
        self._runner = runner
        self.files = files
        self.reference = next(iter(files))
        # A runtime may hold what is stored in few bits as FP32, so each takes as much as the largest.
        largest = max(load_artifact(file).size_bytes for file in files.values())
        self._beside_reference = max(1, TOGETHER_BYTES // max(1, largest))
        self._compiled: dict[str, CompiledModel] = {}

    def __getitem__(self, name: str) -> CompiledModel:
        return self.together((name,))[name]

    def together(self, names: Sequence[str]) -> dict[str, CompiledModel]:
        """Compiled models of one group, or of some of its names."""
        if len(self.groups(self.files)) > 1:
            self._compiled = {name: self._compiled[name] for name in names if name in self._compiled}
        for name in names:
            if name not in self._compiled:
                self._compiled[name] = self._runner.compile(load_artifact(self.files[name]))
        return {name: self._compiled[name] for name in names}

    def groups(self, names: Iterable[str]) -> list[tuple[str, ...]]:
        """Names divided into those that may be in memory together, the reference first in each."""
        others = [name for name in names if name != self.reference]
        starts = range(0, max(1, len(others)), self._beside_reference)
        return [(self.reference, *others[start : start + self._beside_reference]) for start in starts]


def memory_usage(runner: ModelRunner, artifact: str, name: str, built: Built) -> MemoryUsage | None:
    """The memory a finalist takes once compiled; None where the runtime does not tell."""
    found = runner.measurements.memory_usage(artifact)
    if found is None:
        found = built[name].memory_usage()
        runner.measurements.put_memory_usage(artifact, found)
    return found if found.known else None


def compressed_bytes(file: Path) -> int:
    """Size of a model's files in a zip archive, where weights of few values or many zeros take little."""
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
    """Time saved models together in this process, then in a fresh one; those not reproduced there once more.

    Args:
        runner: What they run on.
        built: The models.
        artifacts: Id → digest, by which finished timings are found again.
        rerun: How they are timed.
    """
    files = built.files

    def time_here(names: Iterable[str]) -> dict[str, LatencyStats]:
        return _in_groups(built, names, lambda those: runner.time(built.together(those), rerun.timing, built.reference))

    def time_there(names: Iterable[str]) -> dict[str, LatencyStats]:
        return _in_groups(built, names, lambda those: _once_elsewhere(runner, built, those, rerun))

    here = _remembered(runner, "here", artifacts, lambda: time_here(files))
    there = _remembered(runner, "elsewhere", artifacts, lambda: _time_elsewhere(runner, built, here, rerun))
    shaky = [name for name in files if not reproduced(here[name], there[name])]
    if any(_moved(here[built.reference], there[name]) for name in shaky):
        third = {name: artifacts[name] for name in dict.fromkeys((built.reference, *shaky))}
        here_again = _remembered(runner, "here-third", third, lambda: time_here(third))
        there_again = _remembered(runner, "elsewhere-third", third, lambda: time_there(third))
        # The reference's own stay those beside which most others were timed.
        here |= {name: here_again[name] for name in shaky}
        there |= {name: there_again[name] for name in shaky}
    confirmed = frozenset(name for name in files if reproduced(here[name], there[name]))
    return Timings(here=here, there=there, reproduced=confirmed)


def _moved(reference: LatencyStats, beside: LatencyStats) -> bool:
    """Whether the reference took another time beside a model there than it did here."""
    return abs(_beside_ms(beside) / reference.median_ms - 1) > TOLERANCE


def _once_elsewhere(runner: ModelRunner, built: Built, names: Iterable[str], rerun: Rerun) -> dict[str, LatencyStats]:
    """Time saved models together in a fresh process; those that are compiled here are let go."""
    built.together(())
    with runner.watch.timed(Kind.INFERENCE):
        return time_in_subprocess(
            rerun.backend,
            {name: built.files[name] for name in names},
            built.reference,
            runner.inputs,
            runner.with_known_speed(rerun.timing),
            threads=runner.threads,
            batch_size=runner.batch_size,
        )


def _time_elsewhere(
    runner: ModelRunner, built: Built, here: Mapping[str, LatencyStats], rerun: Rerun
) -> dict[str, LatencyStats]:
    files, reference = built.files, built.reference

    def once(names: Sequence[str]) -> dict[str, LatencyStats]:
        return _once_elsewhere(runner, built, names, rerun)

    there = _in_groups(built, files, once)
    shaky = {name for name in files if not reproduced(here[name], there[name])}
    slow = {name for name in files if disturbed(there[name], there[reference])}
    if shaky | slow:
        again = _in_groups(built, [name for name in files if name in shaky | slow], once)
        quieter = {name for name in slow if _beside_ms(again[name]) < _beside_ms(there[name])}
        there |= {name: again[name] for name in shaky | quieter}
    return there


def _in_groups(
    built: Built, names: Iterable[str], measure: Callable[[Sequence[str]], dict[str, LatencyStats]]
) -> dict[str, LatencyStats]:
    """Latencies by name; the reference's is that in the first group."""
    found: dict[str, LatencyStats] = {}
    for group in built.groups(names):
        found = measure(group) | found
    return {name: found[name] for name in dict.fromkeys((built.reference, *names))}


def _remembered(
    runner: ModelRunner, kind: str, artifacts: Mapping[str, str], measure: Callable[[], dict[str, LatencyStats]]
) -> dict[str, LatencyStats]:
    known = runner.measurements.joint_latencies(kind, list(artifacts.values()))
    if known is None:
        measured = measure()
        known = {artifacts[name]: latency for name, latency in measured.items()}
        runner.measurements.put_joint_latencies(kind, known)
    return {name: known[artifact] for name, artifact in artifacts.items()}


def reproduced(here: LatencyStats, there: LatencyStats) -> bool:
    """Whether two timings agree about the ratio to the given network, within ``TOLERANCE``."""
    return abs(there.ratio / here.ratio - 1) <= TOLERANCE


def disturbed(latency: LatencyStats, reference: LatencyStats) -> bool:
    """Whether the machine was slow while a model was timed: the reference was, in the rounds that count for it."""
    return _beside_ms(latency) > (1 + SLOWNESS) * reference.median_ms


def _beside_ms(latency: LatencyStats) -> float:
    """The reference's latency in a model's own rounds, in ms."""
    return latency.median_ms / latency.ratio


def score(runner: ModelRunner, artifact: str, file: Path, scorer: Scorer) -> AccuracyStats:
    """The metric of a saved model on all held-out samples; from the measurements where it was scored before."""
    scored = runner.measurements.scored(artifact, HELD_OUT_PART)
    if scored is None or scored.samples < len(scorer):
        model = runner.compile_to_score(load_artifact(file))
        scored = scorer.extend(model, scored, len(scorer))
        runner.measurements.put_scored(artifact, HELD_OUT_PART, scored)
    return scorer.metric.oriented_stats(scored.stats)
