"""The main job on several backends: a search on each in turn, then everything found measured everywhere.

    search A → search B, started from A's finalists → … → exchange (``exchange``)
    → finalists of each, their own and the others', timed in fresh processes and scored as always → comparison

``out/BACKEND/`` is a run folder like any other. ``backends.json`` beside them says which there are and what became of
each exchanged config; ``comparison.*`` and ``summary.txt`` are made from these alone. A time limit is split evenly;
what a search leaves unused goes to those after it. An interruption ends all of them with what is known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitfront.backends.base import Backend
from bitfront.core import Scheme, Workload, write_text
from bitfront.core.backends_file import BACKENDS_FILE, SCHEMA_VERSION
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.events import Listener
from bitfront.search.explore import explore
from bitfront.search.interruption import EXIT_INTERRUPTED
from bitfront.search.multi_backend.cross_evaluation import Exchanged, Party, exchange
from bitfront.search.options import RunOptions
from bitfront.search.results.finalize import INTERRUPTED
from bitfront.search.results.ranking import ranking_key
from bitfront.search.run import EXIT_MET, EXIT_MISSED, RunOutcome, conclude
from bitfront.search.session import prepare
from bitfront.search.trial import TrialStatus

_STARTS_PART = 6  # of the trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One backend to search on.

    Attributes:
        backend: The runtime.
        lowerer: The network, in its dialect.
        options: What is asked of this search: ``backend`` its name, ``out`` its folder, ``budget`` its limits.
    """

    backend: Backend
    lowerer: Lowerer
    options: RunOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class SeveralOutcome:
    """What a run on several backends came to; everything else is in its folder.

    Attributes:
        folder: The run folder.
        exit_code: 0 where every backend has a point within its limits, 3 where one has none, 130 where interrupted.
        outcomes: Backend → its own outcome; without those an interruption left no time for.
        exchanged: What became of each config on the other backends.
    """

    folder: Path
    exit_code: int
    outcomes: Mapping[str, RunOutcome]
    exchanged: tuple[Exchanged, ...]


class _Named:
    """Says which backend it is about."""

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


def labels(names: Sequence[str]) -> dict[str, str]:
    """Backend name → what its folder is called, and its points elsewhere; all different."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "backend"
        label, number = plain, 2
        while label in found.values():
            label, number = f"{plain}-{number}", number + 1
        found[name] = label
    return found


def run_several(
    workload: Workload,
    contestants: Sequence[Contestant],
    folder: Path,
    listener: Listener,
    *,
    time_limit_s: float | None,
    command: str = "",
) -> SeveralOutcome:
    """Search on each backend and measure on each what the others found.

    Args:
        workload: The network's data and metric.
        contestants: The backends, in the order they are searched.
        folder: The run folder; each contestant's is below it.
        listener: Hears of progress.
        time_limit_s: For all searches together.
        command: What was typed, for the reports.

    Raises:
        EngineError: As for ``search.run.run``.
    """
    labelled = labels([contestant.options.backend for contestant in contestants])
    parties = []
    for contestant in contestants:
        options, named = contestant.options, _Named(contestant.options.backend, listener)
        session = prepare(workload, contestant.lowerer, contestant.backend, options, named, command)
        session.runner.watch.halt()
        parties.append(Party(name=options.backend, label=labelled[options.backend], session=session, listener=named))
    exchanged: list[Exchanged] = []
    _write(folder, parties, exchanged, workload.name, command)
    stopped = _explore(parties, time_limit_s)
    if INTERRUPTED not in stopped.values():
        try:
            exchange(parties, exchanged)
        except KeyboardInterrupt:
            stopped = dict.fromkeys(stopped, INTERRUPTED)
    _write(folder, parties, exchanged, workload.name, command)
    outcomes = _conclude(parties, stopped)
    return SeveralOutcome(folder=folder, exit_code=_exit_code(outcomes), outcomes=outcomes, exchanged=tuple(exchanged))


def _explore(parties: Sequence[Party], time_limit_s: float | None) -> dict[str, str | None]:
    """Search on each backend; returns what ended each search early. Those after an interruption are missing."""
    stopped: dict[str, str | None] = {}
    starts: list[dict[str, Scheme]] = []
    left_s = time_limit_s
    for index, party in enumerate(parties):
        session, watch = party.session, party.session.runner.watch
        watch.go_on()
        began_s = watch.elapsed_s
        if left_s is not None:
            share_s = began_s + left_s / (len(parties) - index)
            session = replace(session, options=replace(session.options, time_limit_s=share_s))
        # A few: they are where another runtime's boundaries and kernels led, and this one's own seeds matter more.
        stopped[party.name] = explore(session, starts[: max(session.options.trials // _STARTS_PART, 1)])
        watch.halt()
        if left_s is not None:
            left_s = max(left_s - (watch.elapsed_s - began_s), 0.0)
        if stopped[party.name] == INTERRUPTED:
            break
        starts = [*_starts(party), *starts]
    return stopped


def _starts(party: Party) -> list[dict[str, Scheme]]:
    """What a search found besides its baselines, the preferred first."""
    rank = ranking_key(party.session.options.budget)
    found = [trial for trial in party.found() if trial.status is TrialStatus.COMPLETE and not trial.candidate.name]
    found.sort(key=lambda trial: (not trial.feasible, rank(trial.objectives)))
    return [party.layers(trial) for trial in found]


def _conclude(parties: Sequence[Party], stopped: Mapping[str, str | None]) -> dict[str, RunOutcome]:
    """Measure each backend's finalists again and write its results; after an interruption, as far as known."""
    interrupted = INTERRUPTED in stopped.values()
    outcomes = {}
    for party in parties:
        if party.name not in stopped:
            continue
        party.session.runner.watch.go_on()
        reason = INTERRUPTED if interrupted else stopped[party.name]
        outcomes[party.name] = conclude(party.session, reason, also=party.guests)
        party.session.runner.watch.halt()
        interrupted = interrupted or outcomes[party.name].exit_code == EXIT_INTERRUPTED
    return outcomes


def _exit_code(outcomes: Mapping[str, RunOutcome]) -> int:
    codes = {outcome.exit_code for outcome in outcomes.values()}
    return next((code for code in (EXIT_INTERRUPTED, EXIT_MISSED) if code in codes), EXIT_MET)


def _write(folder: Path, parties: Sequence[Party], exchanged: Sequence[Exchanged], name: str, command: str) -> None:
    data = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "command": command,
        "backends": [{"name": party.name, "folder": party.label} for party in parties],
        "exchange": [entry.to_json() for entry in exchanged],
    }
    write_text(folder / BACKENDS_FILE, json.dumps(data, indent=1) + "\n")
