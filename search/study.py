"""The search's Optuna study: what is asked of it, what is told, and how it survives a kill.

A trial's params are the groups' choices (text). Its user attributes:

    origin, name   where the candidate came from; a baseline's id
    state          how it ended (``search.trial.Outcome``)
    ratio, latency_ms, size_bytes, accuracy   what was measured, as far as it was
    record         the rest, for ``--resume`` to read back

Constraints are relative misses, ≤ 0 where the limit is met. Optuna's own state is COMPLETE where accuracy is known on
every sample, FAIL where there is no artifact, and PRUNED for trials stopped before their accuracy was known: they
carry attributes and constraints but no values, as Optuna wants it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from precision import AccuracyStats, LatencyStats, UsageError
from search.space import Space
from search.trial import Candidate, Outcome, Trial

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)
OBJECTIVES = ("accuracy", "latency_ms", "size_bytes")

_STATES = {Outcome.FAILED: TrialState.FAIL, Outcome.OVER_BUDGET: TrialState.PRUNED, Outcome.STOPPED: TrialState.PRUNED}


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

    Raises:
        UsageError: If the storage cannot be opened.
    """

    def __init__(self, url: str, name: str, space: Space, sampler: BaseSampler) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            self._storage = RDBStorage(url)
            if url.startswith("sqlite"):
                _ease(self._storage)
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, directions=DIRECTIONS, load_if_exists=True
            )
        except (SQLAlchemyError, ImportError, OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--storage: cannot open '{url}': {str(error).splitlines()[0]}",
                "give a database URL that Optuna reads, such as sqlite:///study.db",
            ) from error
        self._study.set_metric_names(list(OBJECTIVES))
        self._space = space
        self._sampler = sampler
        # Enqueued trials need no sampling, and Optuna would sample for them all the same.
        self._idle = RandomSampler(seed=0)
        self._asked: optuna.Trial | None = None
        self._requeue_unfinished()

    @property
    def inner(self) -> optuna.Study:
        """Optuna's object."""
        return self._study

    def trials(self) -> list[Trial]:
        """Finished trials, read back."""
        return [_read(self._space, frozen) for frozen in self._study.get_trials(deepcopy=False) if _finished(frozen)]

    def enqueue(self, candidate: Candidate) -> None:
        """Queue a candidate; ``ask`` gives it back in its turn."""
        attributes = {"origin": candidate.origin, "name": candidate.name}
        self._study.enqueue_trial(self._space.to_params(candidate.choices), user_attrs=attributes)

    @property
    def waiting(self) -> int:
        """Candidates in the queue."""
        return len(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def ask(self) -> tuple[int, Candidate]:
        """The next candidate with its number: from the queue, else from the sampler."""
        self._study.sampler = self._idle if self.waiting else self._sampler
        trial = self._study.ask(self._space.distributions())
        self._asked = trial
        attributes = trial.user_attrs
        if "origin" not in attributes:
            trial.set_user_attr("origin", "sampler")
        candidate = Candidate(
            origin=attributes.get("origin", "sampler"),
            choices=self._space.from_params(trial.params),
            name=attributes.get("name", ""),
        )
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
        self._study.tell(asked, values if state is TrialState.COMPLETE else None, state)
        self._asked = None

    def close(self) -> None:
        """Let go of the database, so that its file is complete."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _requeue_unfinished(self) -> None:
        """A run that was killed leaves a trial running: give it up and queue what it was about to measure."""
        for frozen in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(frozen.number, state=TrialState.FAIL)
            if len(frozen.params) == len(self._space.groups):
                self._study.enqueue_trial(
                    dict(frozen.params), user_attrs={key: frozen.user_attrs.get(key, "") for key in ("origin", "name")}
                )


def _ease(storage: RDBStorage) -> None:
    """Commit without waiting for the disk, which would take longer than a measurement; safe against a kill."""

    def configure(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(storage.engine, "connect", configure)
    storage.engine.dispose()


def _values(trial: Trial) -> list[float] | None:
    if trial.accuracy is None or trial.latency_ms is None or trial.size_bytes is None:
        return None
    return [trial.accuracy.value, trial.latency_ms, float(trial.size_bytes)]


def _attributes(trial: Trial) -> dict[str, Any]:
    attributes: dict[str, Any] = {"state": trial.outcome.value}
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


def _read(space: Space, frozen: FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    record: Mapping[str, Any] = json.loads(attributes["record"])
    return Trial(
        number=frozen.number,
        candidate=Candidate(
            origin=attributes["origin"], choices=space.from_params(frozen.params), name=attributes.get("name", "")
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
        study = optuna.load_study(study_name=name, storage=url)
    except (KeyError, SQLAlchemyError):
        return []
    return [_read(space, frozen) for frozen in study.get_trials(deepcopy=False) if _finished(frozen)]
