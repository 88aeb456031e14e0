"""The search's Optuna study: asking for candidates, telling results, and surviving a kill.

A trial's params are the groups' schemes (text). Its user attributes:

    origin, name   where the candidate came from; a baseline's id
    network        key of the network that was quantised; empty for the given one
    state          how it ended (``search.trial.TrialStatus``)
    ratio, ratio_low, ratio_high, latency_ms, size_bytes, accuracy   what was measured, as far as it was
    accuracy_error standard error of the difference to the given network, on the same samples; where known
    retimed        number of an earlier trial → its latency, timed again in the course of this one
    record         the rest, for ``--resume`` to read back

Constraints are relative misses, ≤ 0 where the limit is met. Optuna's own state is COMPLETE where accuracy is known on
every sample, FAIL where there is no artifact, and PRUNED for trials stopped before their accuracy was known: they
carry attributes and constraints but no values, as Optuna wants it.

Asking and telling happen in memory; a finished trial goes to the storage whole, in one transaction. Written parameter
by parameter, as Optuna does by itself, a trial of 30 groups takes longer to file than to measure. So the storage holds
finished trials only, and a kill leaves none that is running or waiting. Each has a ``checksum`` of all that is read
back from it: a damaged database may return what was never written to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field
from sqlalchemy.exc import SQLAlchemyError

from bitfront.core import AccuracyStats, ConfigError, LatencyStats, Limit, PairedDifference, UsageError, digest
from bitfront.core.document import Count, JsonValue, NonNegative, Number, decode_json
from bitfront.search.run_folder.storage import damaged_study, explain_errors, open_storage
from bitfront.search.space.space import Space
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus

DIRECTIONS = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE, StudyDirection.MINIMIZE)

_STATES = {
    TrialStatus.FAILED: TrialState.FAIL,
    TrialStatus.OVER_BUDGET: TrialState.PRUNED,
    TrialStatus.STOPPED: TrialState.PRUNED,
    TrialStatus.TIMED: TrialState.PRUNED,
}


class Study:
    """An Optuna study in a database, opened or created.

    Args:
        url: Optuna storage URL.
        name: The study's name there.
        space: What trials may take.
        sampler: Proposes what was not enqueued.
        architecture: The student architecture whose space it is; empty for the given network's.

    Raises:
        UsageError: If the storage cannot be opened, is locked or damaged.
        OutputError: If it cannot be written.
    """

    def __init__(self, url: str, name: str, space: Space, sampler: BaseSampler, architecture: str = "") -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._url = url
        with explain_errors(url):
            self._storage = open_storage(url)
            self._kept = optuna.create_study(
                storage=self._storage, study_name=name, directions=DIRECTIONS, load_if_exists=True
            )
            known = self._kept.get_trials(deepcopy=False)
            check_trials(url, known)
        self._space = space
        self._sampler = sampler
        self._architecture = architecture
        self._live = optuna.create_study(directions=DIRECTIONS)
        self._live.add_trials(known)
        # Enqueued trials need no sampling, and Optuna would sample for them all the same.
        self._idle = RandomSampler(seed=0)
        self._asked: optuna.Trial | None = None

    @property
    def live(self) -> optuna.Study:
        """Optuna's in-memory study, for the sampler."""
        return self._live

    def trials(self) -> list[Trial]:
        """The study's finished trials, read back.

        Raises:
            UsageError: If the storage is damaged.
        """
        found = self._live.get_trials(deepcopy=False)
        with explain_errors(self._url):
            told = [_read(self._space, frozen, self._architecture) for frozen in found if _finished(frozen)]
            return _as_timed_last(told)

    def ask(self, candidate: Candidate | None = None) -> tuple[int, Candidate]:
        """Begin a trial of ``candidate``, or of what the sampler proposes; its number and the candidate to try."""
        if candidate is not None:
            self._live.enqueue_trial(self._space.to_params(candidate.schemes, candidate.pruning))
        self._live.sampler = self._idle if candidate is not None else self._sampler
        trial = self._live.ask(self._space.distributions())
        if candidate is None:
            candidate = Candidate(
                origin=Origin.SAMPLER,
                schemes=self._space.from_params(trial.params),
                pruning=self._space.pruning_of(trial.params),
                architecture=self._architecture,
            )
        self._asked = trial
        return trial.number, candidate

    def tell(self, trial: Trial) -> None:
        """Record the result of the candidate asked for last.

        Raises:
            OutputError: If the storage cannot be written.
            UsageError: If it is locked, damaged or gone.
        """
        asked = self._asked
        assert asked is not None
        assert asked.number == trial.number
        values = _values(trial)
        state = _STATES.get(trial.status, TrialState.COMPLETE if values else TrialState.PRUNED)
        if state is not TrialState.COMPLETE:
            values = None
        attributes = _attributes(trial)
        attributes["checksum"] = _checksum(state, values, asked.params, attributes)
        for key, value in attributes.items():
            asked.set_user_attr(key, value)
        for limit, miss in trial.misses.items():
            asked.set_constraint(limit, miss)
        frozen = self._live.tell(asked, values, state)
        self._asked = None
        with explain_errors(self._url):
            self._kept.add_trial(frozen)

    def close(self) -> None:
        """Close the database, so that its file is complete."""
        if isinstance(self._storage, RDBStorage):
            # Every trial was committed when it was told; what ends the run may be what is wrong with the database.
            with suppress(SQLAlchemyError):
                self._storage.remove_session()
                self._storage.engine.dispose()


def check_trials(url: str, trials: Sequence[FrozenTrial]) -> None:
    """Check that finished trials are as they were written.

    Raises:
        UsageError: If one is not.
    """
    for trial in trials:
        if trial.state.is_finished():
            values = trial.values if trial.state is TrialState.COMPLETE else None
            attributes = {key: value for key, value in trial.user_attrs.items() if key != "checksum"}
            if trial.user_attrs.get("checksum") != _checksum(trial.state, values, trial.params, attributes):
                raise damaged_study(url, f"trial {trial.number} is not as it was written")


def _checksum(
    state: TrialState, values: Sequence[float] | None, params: Mapping[str, Any], attributes: Mapping[str, Any]
) -> str:
    # As JSON, which is what a database keeps of them: NumPy's numbers come back as Python's.
    told = [state.name, None if values is None else list(values), dict(params), dict(attributes)]
    return digest(json.dumps(told, sort_keys=True))


def _values(trial: Trial) -> list[float] | None:
    if trial.accuracy is None or trial.latency_ms is None or trial.size_bytes is None:
        return None
    return [trial.accuracy.value, trial.latency_ms, float(trial.size_bytes)]


def _attributes(trial: Trial) -> dict[str, Any]:
    candidate = trial.candidate
    attributes: dict[str, Any] = {
        "origin": candidate.origin,
        "name": candidate.name,
        "network": candidate.variant,
        "state": trial.status.value,
    }
    if trial.size_bytes is not None:
        attributes["size_bytes"] = trial.size_bytes
    if trial.latency is not None:
        latency = trial.latency
        attributes |= {"ratio": latency.ratio, "latency_ms": trial.latency_ms}
        attributes |= {"ratio_low": latency.ratio_low, "ratio_high": latency.ratio_high}
    if trial.retimed:
        attributes["retimed"] = {str(number): latency.to_json() for number, latency in trial.retimed.items()}
    if trial.accuracy is not None:
        attributes["accuracy"] = trial.accuracy.value
    if trial.change is not None:
        attributes["accuracy_error"] = trial.change.error
    attributes["record"] = json.dumps(
        {
            "artifact": trial.artifact,
            "latency": trial.latency.to_json() if trial.latency else None,
            "accuracy": trial.accuracy.to_json() if trial.accuracy else None,
            "change": trial.change.to_json() if trial.change else None,
            "misses": dict(trial.misses),
            "seconds": trial.seconds,
            "reason": trial.reason,
        }
    )
    return attributes


def _finished(frozen: FrozenTrial) -> bool:
    return frozen.state.is_finished() and "record" in frozen.user_attrs


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attributes(JsonValue):
    """The user attributes of a filed trial; ``name`` becomes the name of files."""

    origin: Origin
    name: Annotated[str, Field(pattern=r"^([A-Za-z0-9_-][A-Za-z0-9_.+-]*)?$")] = ""
    network: str = ""
    state: TrialStatus
    size_bytes: Count | None = None
    ratio: NonNegative | None = None
    ratio_low: NonNegative | None = None
    ratio_high: NonNegative | None = None
    retimed: dict[int, LatencyStats] = field(default_factory=dict)
    latency_ms: NonNegative | None = None
    accuracy: Number | None = None
    accuracy_error: NonNegative | None = None
    record: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record(JsonValue):
    """The attribute ``record`` of a filed trial."""

    artifact: str
    latency: LatencyStats | None
    accuracy: AccuracyStats | None
    misses: dict[str, float]
    seconds: NonNegative
    reason: str
    change: PairedDifference | None = None


def _read(space: Space, frozen: FrozenTrial, architecture: str = "") -> Trial:
    try:
        attributes = _Attributes.from_json(frozen.user_attrs)
        record = decode_json(_Record, attributes.record)
        schemes, pruning = space.from_params(frozen.params), space.pruning_of(frozen.params)
    except ConfigError as error:
        raise UsageError(
            f"trial {frozen.number} in the study's storage is damaged: {error.message}",
            "start afresh with another --out",
        ) from error
    return Trial(
        number=frozen.number,
        candidate=Candidate(
            origin=attributes.origin,
            schemes=schemes,
            name=attributes.name,
            pruning=pruning,
            variant=attributes.network,
            architecture=architecture,
        ),
        status=attributes.state,
        artifact=record.artifact,
        size_bytes=attributes.size_bytes,
        latency=record.latency,
        latency_ms=attributes.latency_ms,
        accuracy=record.accuracy,
        change=record.change,
        misses=record.misses,
        seconds=record.seconds,
        reason=record.reason,
        retimed=attributes.retimed,
    )


def past_trials(url: str, name: str, space: Space) -> list[Trial]:
    """Finished trials of another study in the same storage; none where it is not there.

    Raises:
        UsageError: If the storage cannot be opened, is locked or damaged.
    """
    with explain_errors(url):
        storage = open_storage(url)
        names = [summary.study_name for summary in storage.get_all_studies()]
        if name not in names:
            return []
        found = optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        check_trials(url, found)
        return _as_timed_last([_read(space, frozen) for frozen in found if _finished(frozen)])


def _as_timed_last(trials: Sequence[Trial]) -> list[Trial]:
    """The trials of a study, each with the latency that it was last found to have."""
    latest = {number: latency for trial in trials for number, latency in trial.retimed.items()}
    return [_with_latency(trial, latest[trial.number]) if trial.number in latest else trial for trial in trials]


def _with_latency(trial: Trial, latency: LatencyStats) -> Trial:
    if trial.latency is None or trial.latency_ms is None:
        return trial
    scale = latency.ratio / trial.latency.ratio
    misses = dict(trial.misses)
    if Limit.LATENCY in misses:
        misses[Limit.LATENCY.value] = (1 + misses[Limit.LATENCY.value]) * scale - 1
    return replace(trial, latency=latency, latency_ms=trial.latency_ms * scale, misses=misses)
