"""After several searches: every backend measures what the others found, so that one table can compare them.

Each search's finalists (its uniform baselines, what is on its front, what it would recommend) are translated layer by
layer and measured on each other backend in full: no limit and no rival stops them. They are called ``BACKEND.ID``
there, and are in the other's results like its own points: a config that one search found may be the best on the
other's runtime. What cannot be expressed or does not run there is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bitfront.core import Scheme
from bitfront.search.events import Listener
from bitfront.search.multi_backend.translate import translate
from bitfront.search.results.choice import choose_finalists
from bitfront.search.session import Session
from bitfront.search.trial import EXCHANGE, Candidate, Trial, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """One of the backends of a run.

    Attributes:
        name: The backend's, as asked for.
        label: Its folder in the run's, and the first part of its points' ids elsewhere.
        session: Its search.
        listener: Hears of its progress.
        guests: Trials to be reported besides its own finalists.
    """

    name: str
    label: str
    session: Session
    listener: Listener
    guests: list[Trial] = field(default_factory=list)

    def found(self) -> list[Trial]:
        """The finalists of its own search."""
        own = [trial for trial in self.session.evaluator.trials if trial.candidate.origin != EXCHANGE]
        return choose_finalists(own, self.session.options.budget)

    def layers(self, trial: Trial) -> dict[str, Scheme]:
        """Layer name → choice of one of its trials."""
        return self.session.runner.lowerer.quantisable.spread(trial.candidate.schemes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """What became of one backend's config on another.

    Attributes:
        source: The backend that found it.
        id: Its id there.
        target: The other backend.
        point: Its id on the other; None where it could not be measured.
        reason: Why not; empty otherwise.
    """

    source: str
    id: str
    target: str
    point: str | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return {
            "source": self.source,
            "id": self.id,
            "target": self.target,
            "point": self.point,
            "reason": self.reason,
        }


def exchange(parties: Sequence[Party], into: list[Exchanged]) -> None:
    """Measure each backend's finalists on each other backend.

    Args:
        parties: The backends, their searches done.
        into: Gets what became of each, as it is known: an interruption loses nothing.
    """
    found = {party.label: party.found() for party in parties}
    for target in parties:
        watch = target.session.runner.watch
        watch.go_on()
        try:
            target.listener.phase("exchange", sum(len(found[party.label]) for party in parties if party is not target))
            for source in parties:
                if source is not target:
                    for trial in found[source.label]:
                        into.append(_measure(source, trial, target))
                        target.listener.step(f"{source.label}.{trial.id}")
        finally:
            watch.halt()


def _measure(source: Party, trial: Trial, target: Party) -> Exchanged:
    def result(point: str | None, reason: str = "") -> Exchanged:
        return Exchanged(source=source.name, id=trial.id, target=target.name, point=point, reason=reason)

    evaluator = target.session.evaluator
    schemes, reason = translate(source.layers(trial), target.session.runner.lowerer.quantisable, target.name)
    if schemes is None:
        return result(None, reason)
    known = _complete(evaluator.trials, schemes)
    if known is None:
        number = max((other.number for other in evaluator.trials), default=-1) + 1
        guest = Candidate(origin=EXCHANGE, schemes=schemes, name=f"{source.label}.{trial.id}")
        known = evaluator.run(number, guest)
    if known.status is TrialStatus.FAILED:
        return result(None, known.reason)
    if known.status is TrialStatus.REPEATED:
        artifact = known.artifact
        known = next(t for t in evaluator.trials if t.artifact == artifact and t.status is TrialStatus.COMPLETE)
    if known not in target.guests:
        target.guests.append(known)
    return result(known.id)


def _complete(trials: Sequence[Trial], schemes: Mapping[str, Scheme]) -> Trial | None:
    """The trial that measured exactly these schemes in full, if one did."""
    same = (trial for trial in trials if trial.status is TrialStatus.COMPLETE and trial.candidate.schemes == schemes)
    return next(same, None)
