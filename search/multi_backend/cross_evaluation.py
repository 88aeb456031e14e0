"""Cross-evaluation: every backend measures what the searches on the others found, so that one table can compare them.

Each search's finalists (its uniform baselines, what is on its front, what it would recommend) are translated layer by
layer and measured on each other backend in full: no limit and no rival stops them. They are called ``BACKEND.ID``
there, and are in the other's results like its own points: a config that one search found may be the best on the
other's runtime. What cannot be expressed or does not run there is kept with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bitfront.core import Scheme
from bitfront.core.backends_file import CrossEvaluation
from bitfront.search.events import Listener
from bitfront.search.multi_backend.translate import translate_config
from bitfront.search.results.finalize import own_finalists
from bitfront.search.session import Session
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRun:
    """The search on one backend of a run on several.

    Attributes:
        name: The backend's, as asked for.
        label: Its folder in the run's, and the first part of its points' ids elsewhere.
        session: Its search.
        listener: Hears of its progress.
        imported_trials: Trials of other searches' finalists, to be reported besides its own.
    """

    name: str
    label: str
    session: Session
    listener: Listener
    imported_trials: list[Trial] = field(default_factory=list)

    def finalists(self) -> list[Trial]:
        """The finalists of its own search."""
        return own_finalists(self.session)

    def layers(self, trial: Trial) -> dict[str, Scheme]:
        """Layer name → scheme of one of its trials."""
        return self.session.runner.lowerer.quantisable.spread(trial.candidate.schemes)


def cross_evaluate(runs: Sequence[BackendRun], into: list[CrossEvaluation]) -> None:
    """Measure each backend's finalists on each other backend.

    Args:
        runs: The backends, their searches done.
        into: Gets each result as soon as it is known: an interruption loses nothing.
    """
    found = {run.label: run.finalists() for run in runs}
    for target in runs:
        watch = target.session.runner.watch
        watch.resume()
        try:
            steps = sum(len(found[run.label]) for run in runs if run is not target)
            target.listener.phase("cross-evaluation", steps)
            for source in runs:
                if source is not target:
                    for trial in found[source.label]:
                        into.append(_measure(source, trial, target))
                        target.listener.step(f"{source.label}.{trial.id}")
        finally:
            watch.pause()


def _measure(source: BackendRun, trial: Trial, target: BackendRun) -> CrossEvaluation:
    def result(point: str | None, reason: str = "") -> CrossEvaluation:
        return CrossEvaluation(source=source.name, id=trial.id, target=target.name, point=point, reason=reason)

    evaluator = target.session.evaluator
    schemes, reason = translate_config(source.layers(trial), target.session.runner.lowerer.quantisable, target.name)
    if schemes is None:
        return result(None, reason)
    known = _complete(evaluator.trials, schemes)
    if known is None:
        number = max((other.number for other in evaluator.trials), default=-1) + 1
        imported = Candidate(origin=Origin.IMPORTED, schemes=schemes, name=f"{source.label}.{trial.id}")
        known = evaluator.run(number, imported)
    if known.status is TrialStatus.FAILED:
        return result(None, known.reason)
    if known.status is TrialStatus.REPEATED:
        artifact = known.artifact
        known = next(t for t in evaluator.trials if t.artifact == artifact and t.status is TrialStatus.COMPLETE)
    if known not in target.imported_trials:
        target.imported_trials.append(known)
    return result(known.id)


def _complete(trials: Sequence[Trial], schemes: Mapping[str, Scheme]) -> Trial | None:
    """The trial that measured exactly these schemes in full, if one did."""
    same = (trial for trial in trials if trial.status is TrialStatus.COMPLETE and trial.candidate.schemes == schemes)
    return next(same, None)
