"""The search's Optuna study: what is asked of it, what is told, and how it survives a kill.

A trial's params are the groups' choices (text). Its user attributes:

    origin, name   where the candidate came from; a baseline's id
    network        key of the network that was quantised; empty for the given one
    state          how it ended (``search.trial.Outcome``)
    ratio, latency_ms, size_bytes, accuracy   what was measured, as far as it was
    record         the rest, for ``--resume`` to read back

Constraints are relative misses, ≤ 0 where the limit is met. Optuna's own state is COMPLETE where accuracy is known on
every sample, FAIL where there is no artifact, and PRUNED for trials stopped before their accuracy was known: they
carry attributes and constraints but no values, as Optuna wants it.

Asking and telling happen in memory; a finished trial goes to the storage whole, in one transaction. Written parameter
by parameter, as Optuna does by itself, a trial of 30 groups takes longer to file than to measure. So the storage holds
finished trials only, and a kill leaves none that is running or waiting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from precision import AccuracyStats, LatencyStats
from search.proposals.space import Space
from search.storage import cannot_open
from search.trial import Candidate, Outcome, Trial

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)

_STATES = {
    Outcome.FAILED: TrialState.FAIL,
    Outcome.OVER_BUDGET: TrialState.PRUNED,
    Outcome.STOPPED: TrialState.PRUNED,
    Outcome.TIMED: TrialState.PRUNED,
}


def default_storage(folder: Path) -> str:
    """URL of the SQLite file in a run folder."""
    return f"sqlite:///{(folder / 'study.db').resolve()}"


class Study:
    """One study, opened or created.

    Args:
        url: Optuna storage URL.
        name: The study's name there.
        space: What trials may take.
        sampler: Proposes what was not enqueued.
        family: The student architecture whose space it is; empty for the given network's.

    Raises:
        UsageError: If the storage cannot be opened.
    """

    def __init__(self, url: str, name: str, space: Space, sampler: BaseSampler, family: str = "") -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._storage = open_storage(url)
            self._kept = optuna.create_study(
                storage=self._storage, study_name=name, directions=DIRECTIONS, load_if_exists=True
            )
        except (SQLAlchemyError, ImportError, OSError, ValueError, RuntimeError) as error:
            raise cannot_open(url, error) from error
        self._space = space
        self._sampler = sampler
        self._family = family
        self._live = optuna.create_study(directions=DIRECTIONS)
        self._live.add_trials(self._kept.get_trials(deepcopy=False))
        # Enqueued trials need no sampling, and Optuna would sample for them all the same.
        self._idle = RandomSampler(seed=0)
        self._asked: optuna.Trial | None = None

    @property
    def live(self) -> optuna.Study:
        """Optuna's object, for the sampler."""
        return self._live

    def trials(self) -> list[Trial]:
        """Finished trials, read back."""
        found = self._live.get_trials(deepcopy=False)
        return [_read(self._space, frozen, self._family) for frozen in found if _finished(frozen)]

    def ask(self, candidate: Candidate | None = None) -> tuple[int, Candidate]:
        """A trial of ``candidate``, or of what the sampler proposes; its number and what is to be tried."""
        if candidate is not None:
            self._live.enqueue_trial(self._space.to_params(candidate.choices, candidate.pruning))
        self._live.sampler = self._idle if candidate is not None else self._sampler
        trial = self._live.ask(self._space.distributions())
        if candidate is None:
            candidate = Candidate(
                origin="sampler",
                choices=self._space.from_params(trial.params),
                pruning=self._space.pruning_of(trial.params),
                family=self._family,
            )
        self._asked = trial
        return trial.number, candidate

    def tell(self, trial: Trial) -> None:
        """Record what became of the candidate asked for last."""
        asked = self._asked
        assert asked is not None
        assert asked.number == trial.number
        for key, value in _attributes(trial).items():
            asked.set_user_attr(key, value)
        for limit, miss in trial.misses.items():
            asked.set_constraint(limit, miss)
        values = _values(trial)
        state = _STATES.get(trial.outcome, TrialState.COMPLETE if values else TrialState.PRUNED)
        frozen = self._live.tell(asked, values if state is TrialState.COMPLETE else None, state)
        self._kept.add_trial(frozen)
        self._asked = None

    def close(self) -> None:
        """Let go of the database, so that its file is complete."""
        if isinstance(self._storage, RDBStorage):
            self._storage.remove_session()
            self._storage.engine.dispose()


def open_storage(url: str) -> BaseStorage:
    """Optuna's storage at a database URL; a SQLite file commits without waiting for the disk, safe against a kill."""
    storage = RDBStorage(url)
    if url.startswith("sqlite"):
        event.listen(storage.engine, "connect", _ease)
        storage.engine.dispose()
    return storage


def _ease(connection: Any, _: object) -> None:
    """Waiting for the disk at each commit would take longer than many a measurement."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _values(trial: Trial) -> list[float] | None:
    if trial.accuracy is None or trial.latency_ms is None or trial.size_bytes is None:
        return None
    return [trial.accuracy.value, trial.latency_ms, float(trial.size_bytes)]


def _attributes(trial: Trial) -> dict[str, Any]:
    candidate = trial.candidate
    attributes: dict[str, Any] = {
        "origin": candidate.origin,
        "name": candidate.name,
        "network": candidate.network,
        "state": trial.outcome.value,
    }
    if trial.size_bytes is not None:
        attributes["size_bytes"] = trial.size_bytes
    if trial.latency is not None:
        attributes |= {"ratio": trial.latency.ratio, "latency_ms": trial.latency_ms}
    if trial.accuracy is not None:
        attributes["accuracy"] = trial.accuracy.value
    attributes["record"] = json.dumps(
        {
            "artifact": trial.artifact,
            "latency": trial.latency.to_json() if trial.latency else None,
            "accuracy": trial.accuracy.to_json() if trial.accuracy else None,
            "misses": dict(trial.misses),
            "seconds": trial.seconds,
            "reason": trial.reason,
        }
    )
    return attributes


def _finished(frozen: FrozenTrial) -> bool:
    return frozen.state.is_finished() and "record" in frozen.user_attrs


def _read(space: Space, frozen: FrozenTrial, family: str = "") -> Trial:
    attributes = frozen.user_attrs
    record: Mapping[str, Any] = json.loads(attributes["record"])
    return Trial(
        number=frozen.number,
        candidate=Candidate(
            origin=attributes["origin"],
            choices=space.from_params(frozen.params),
            name=attributes.get("name", ""),
            pruning=space.pruning_of(frozen.params),
            network=attributes.get("network", ""),
            family=family,
        ),
        outcome=Outcome(attributes["state"]),
        artifact=record["artifact"],
        size_bytes=attributes.get("size_bytes"),
        latency=LatencyStats.from_json(record["latency"]) if record["latency"] else None,
        latency_ms=attributes.get("latency_ms"),
        accuracy=AccuracyStats.from_json(record["accuracy"]) if record["accuracy"] else None,
        misses=record["misses"],
        seconds=record["seconds"],
        reason=record["reason"],
    )


def past_trials(url: str, name: str, space: Space) -> list[Trial]:
    """Finished trials of another study in the same storage; none where it is not there."""
    try:
        study = optuna.load_study(study_name=name, storage=open_storage(url))
    except (KeyError, SQLAlchemyError):
        return []
    return [_read(space, frozen) for frozen in study.get_trials(deepcopy=False) if _finished(frozen)]
