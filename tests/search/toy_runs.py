"""Whole runs on the toy network, and what stands in for processes, databases and pages while they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages import BaseStorage, InMemoryStorage

from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import (
    Constraints,
    Inputs,
    LatencyStats,
)
from bitfront.core.artifact import load_artifact
from bitfront.report.results import RunResults
from bitfront.search.events import SilentListener
from bitfront.search.options import RunOptions
from bitfront.search.results import finalists
from bitfront.search.run import RunResult, run
from bitfront.search.run_folder import storage, study
from tests.search import toy


class Elsewhen:
    """Stands in for the fresh process: times by the toy's clock, and can make an artifact slower there.

    Attributes:
        slower: Id → by what factor its ratio is off, the first ``times`` times.
        spells: Id → by what factor the whole machine is slow while it is timed, the first time.
        moved: What everything there takes longer by, the given network too, the first ``times`` times.
        calls: Ids timed, one entry a call.
        runtime: Makes the backend there.
    """

    def __init__(self) -> None:
        self.runtime: Callable[[], toy.ToyBackend] = toy.ToyBackend
        self.slower: dict[str, float] = {}
        self.spells: dict[str, float] = {}
        self.times = 99
        self.moved = 1.0
        self.calls: list[tuple[str, ...]] = []

    def __call__(
        self,
        backend: str,
        models: Mapping[str, Path],
        reference: str,
        inputs: Inputs,
        settings: TimingSettings,
        *,
        threads: int,
        batch_size: int,
    ) -> dict[str, LatencyStats]:
        """As ``time_in_subprocess``."""
        assert backend == "fake"
        self.calls.append(tuple(models))
        runtime = self.runtime()
        compiled = {name: runtime.compile(load_artifact(path), threads=threads) for name, path in models.items()}
        stats = time_paired(
            compiled, reference, inputs, settings, threads=threads, batch_size=batch_size, clock=runtime.clock
        )
        if len(self.calls) == 1:
            for name, factor in self.spells.items():
                stats[name] = replace(stats[name], median_ms=stats[name].median_ms * factor)
        if len(self.calls) <= self.times:
            stats = {name: replace(found, median_ms=found.median_ms * self.moved) for name, found in stats.items()}
            for name, factor in self.slower.items():
                if name in stats:
                    stats[name] = replace(
                        stats[name], ratio=stats[name].ratio * factor, median_ms=stats[name].median_ms * factor
                    )
        return stats


class Heard(SilentListener):
    """Remembers warnings and phases."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.warnings: list[str] = []
        self.bests: list[str] = []

    def phase(self, name: str, total: int | None) -> None:
        """Note it."""
        del total
        self.phases.append(name)

    def best(self, text: str) -> None:
        """Note it."""
        self.bests.append(text)

    def warn(self, text: str) -> None:
        """Note it."""
        self.warnings.append(text)


real_storage = storage.open_storage


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhen:
    """No process is started, and no page is rendered."""
    proxy_backend = Elsewhen()
    databases: dict[str, BaseStorage] = {}
    # A database costs more than a whole run of the toy; tests of the storage itself ask for the real one.
    monkeypatch.setattr(study, "open_storage", lambda url: databases.setdefault(url, InMemoryStorage()))
    monkeypatch.setattr(finalists, "time_in_subprocess", proxy_backend)
    monkeypatch.setattr("bitfront.search.run.render", lambda folder: folder / "report.html")
    return proxy_backend


def options(out: Path, budget: Constraints | None = None, trials: int = 12, **more: object) -> RunOptions:
    """Small runs."""
    base = RunOptions(budget=budget or Constraints(), out=out, backend="fake", trials=trials, sensitivity_samples=32)
    return replace(base, **more)  # type: ignore[arg-type]


def search(
    asked: RunOptions,
    backend: toy.ToyBackend | None = None,
    lowerer: toy.ToyLowerer | None = None,
    workload: toy.ToyWorkload | None = None,
    heard: Heard | None = None,
) -> RunResult:
    """Run on the toy."""
    return run(
        workload or toy.workload(), lowerer or toy.ToyLowerer(), backend or toy.ToyBackend(), asked, heard or Heard()
    )


def states(folder: Path) -> dict[str, int]:
    """State → number of trials."""
    counts: dict[str, int] = {}
    for trial in RunResults.load(folder).trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return counts
