"""The search itself: from the first calibration to the last candidate tried.

    the given network measured → calibration → sensitivity → space → baselines → seeds → study

With passes, the space has prunings too, and networks are made along the way (``search.variants.joint``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np

from bitfront.core import MetricInfo, Scheme, formatting
from bitfront.search.multi_backend.translate import adapt
from bitfront.search.only_fp32 import why_only_fp32
from bitfront.search.proposals import seeds
from bitfront.search.proposals.history import History
from bitfront.search.proposals.latency_model import LatencyModel, fit_encodings
from bitfront.search.proposals.overhead import Overhead
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.proposals.space import Encoding, Space, build_space
from bitfront.search.results import finalize
from bitfront.search.results.finalize import INTERRUPTED, TIME_LIMIT
from bitfront.search.session import Session
from bitfront.search.stopwatch import Kind
from bitfront.search.study import Study
from bitfront.search.timed import TimedBackend, TimedWriter
from bitfront.search.trial import Candidate, Trial, TrialStatus
from bitfront.sensitivity.measure import readings
from bitfront.sensitivity.score import planned_steps, score
from bitfront.sensitivity.table import SensitivityTable

LADDER_SEEDS = 8
SPLIT_SEEDS = 6
SOLVER_SEEDS = 8
_MOST_REPEATS = 20
_FINALISTS_SHARE = 0.2
_FINALISTS_MOST_S = 30.0


def explore(session: Session, starts: Sequence[Mapping[str, Scheme]] = ()) -> str | None:
    """Everything up to the finalists.

    Args:
        session: What ``search.session.prepare`` made.
        starts: Configs (layer name → scheme) worth trying first, after the baselines.

    Returns:
        What ended it early, else None.
    """
    try:
        stopped = _search(session, starts)
        finalize.checkpoint(session)
    except KeyboardInterrupt:
        return INTERRUPTED
    return stopped


def _search(session: Session, starts: Sequence[Mapping[str, Scheme]]) -> str | None:
    session.listener.phase("given network", None)
    session.evaluator.measure_given()
    table = sensitivity_of(session)
    space = space_of(session, table)
    if all(len(group.schemes) == 1 for group in space.groups):
        dropped = (f"{entry.group} {entry.scheme.text}: {entry.reason}" for entry in space.dropped)
        session.record.reasons = why_only_fp32(session.runner.lowerer, session.options.precisions, dropped)
        session.listener.warn(session.record.reasons[0])
    if session.making is not None:
        from bitfront.search.variants.joint import search_jointly

        return search_jointly(session, session.making, space, table, starts)
    sampler = FrontSampler(space, session.evaluator.limits, session.options.seed)
    study = session.open_study(space, sampler)
    explorer = Explorer(session, space, study)
    try:
        session.listener.phase("search", session.options.trials)
        explorer.baselines()
        if space.cardinality == 1:
            return None
        return explorer.all(explorer.seeds(starts)) or explorer.sample(lambda: sampler.exhausted(study.live))
    finally:
        study.close()


def sensitivity_of(session: Session) -> SensitivityTable:
    """Calibrate the given network, and score every choice of every group of it."""
    options, runner, listener = session.options, session.runner, session.listener
    listener.phase("calibrate", None)
    with runner.watch.timed(Kind.CALIBRATION):
        offered = {scheme for group in runner.lowerer.quantisable.groups for scheme in group.schemes}
        runner.lowerer.prepare(sorted(scheme for scheme in offered if scheme.precision in options.precisions))
    listener.phase("sensitivity", planned_steps(runner.lowerer.quantisable, options.precisions))
    table = scored(session, "", options.sensitivity_samples)
    session.record.write_sensitivity(table)
    return table


def scored(session: Session, network: str, samples: int) -> SensitivityTable:
    """Every choice of every group of a network (its key; empty for the given one), on so many calibration samples."""
    options, runner = session.options, session.runner
    return score(
        TimedWriter(runner.writer(network), runner.watch),
        TimedBackend(runner.backend.proxy_backend(), runner.watch),
        session.calibration,
        samples=samples,
        read=readings(runner.writer(network).reference.proto, session.outputs_read),
        precisions=options.precisions,
        threads=options.threads,
        store=session.store,
        on_step=session.listener.step,
        batching=runner.lowerer.reference.batching,
    )


def space_of(session: Session, table: SensitivityTable, network: str = "") -> Space:
    """What may be decided about a network (its key; empty for the given one)."""
    with session.runner.watch.timed(Kind.CALIBRATION):
        lowerer = session.runner.writer(network)
        precisions = session.options.precisions
        return build_space(lowerer.quantisable, table, precisions, lowerer.weight_bytes, lowerer.dialect.arithmetic)


class Explorer:
    """Tries candidates of one space, one after the other, and tells its study.

    Args:
        session: The run's things.
        space: What may be decided.
        study: Of that space.
        family: The student architecture whose space it is; empty for the given network's.

    Attributes:
        share: Of the time limit, after which it is late.
        part: Of the run's trials, after which it is full.
    """

    def __init__(self, session: Session, space: Space, study: Study, family: str = "") -> None:
        self.session = session
        self.space = space
        self.study = study
        self.family = family
        self.share = 1.0
        self.part = 1.0

    @property
    def trials(self) -> list[Trial]:
        """Those of this space so far."""
        return [t for t in self.session.evaluator.trials if t.candidate.family == self.family]

    @property
    def full(self) -> bool:
        """Whether as many candidates were measured as the run may, or as are this explorer's part of them."""
        uncounted = (TrialStatus.REPEATED, TrialStatus.TIMED)
        measured = sum(trial.status not in uncounted for trial in self.session.evaluator.trials)
        return measured >= self.part * self.session.options.trials

    @property
    def late(self) -> bool:
        """Whether the time limit leaves only what the finalists need, or this explorer's share of it is used up."""
        limit = self.session.options.time_limit_s
        if limit is None:
            return False
        return self.session.runner.watch.elapsed_s >= self.share * (limit - finalists_s(limit))

    def attempt(
        self, candidate: Candidate | None = None, made: Callable[[Candidate], Candidate] | None = None
    ) -> Trial:
        """Try a candidate, or what the study proposes.

        Args:
            candidate: None lets the study propose.
            made: Gives what the study proposes its network.
        """
        session = self.session
        number, asked = self.study.ask(candidate)
        if candidate is None and made is not None:
            asked = made(asked)
        best = session.evaluator.best
        trial = session.evaluator.run(number, asked)
        self.study.tell(trial)
        session.listener.step(f"{trial.id} ({asked.origin}): {trial.status.value}")
        better = session.evaluator.best
        if better is not None and better is not best:
            session.listener.best(_words(better, session.metric))
        if session.record.due:
            finalize.checkpoint(session)
        return trial

    def baselines(self) -> None:
        """Try the uniform precisions."""
        known = {trial.candidate.key for trial in self.trials}
        for name, schemes in self.space.baselines():
            candidate = Candidate(origin="baseline", schemes=schemes, name=name, family=self.family)
            if candidate.key not in known:
                self.attempt(candidate)
        finalize.checkpoint(self.session)

    def all(self, candidates: Iterable[Candidate]) -> str | None:
        """Try them until trials or time are used up; returns what ended it early, else None."""
        for candidate in candidates:
            if self.full:
                return None
            if self.late:
                return TIME_LIMIT
            self.attempt(candidate)
        return None

    def sample(
        self,
        exhausted: Callable[[], bool],
        made: Callable[[Candidate], Candidate] | None = None,
        after: Callable[[Trial], None] = lambda _: None,
    ) -> str | None:
        """Ask the sampler until the trials, the space or the time are used up.

        Args:
            exhausted: Whether there is nothing left to propose.
            made: Gives a proposal its network.
            after: Told of each trial.

        Returns:
            What ended it early, else None.
        """
        repeats = 0
        while not self.full:
            if self.late:
                return TIME_LIMIT
            trial = self.attempt(made=made)
            after(trial)
            repeats = repeats + 1 if trial.status is TrialStatus.REPEATED else 0
            if repeats and (repeats >= _MOST_REPEATS or exhausted()):
                count = len(self.session.evaluator.trials)
                self.session.listener.warn(f"everything worth trying was tried after {count} trials")
                return None
        return None

    def encoding(self, trial: Trial) -> Encoding:
        """What a trial of this space decided."""
        return self.space.encode(trial.candidate.schemes, trial.candidate.pruning)

    def model(self) -> LatencyModel:
        """Fitted to all that was timed."""
        with self.session.runner.watch.timed(Kind.SOLVER):
            timed = [(self.encoding(trial), trial.latency.ratio) for trial in self.trials if trial.latency]
            return fit_encodings(self.space, [encoding for encoding, _ in timed], [ratio for _, ratio in timed])

    @property
    def overhead(self) -> Overhead:
        """What files hold besides the groups' weights."""
        return History.of(self.space, self.study.live).overhead(self.space)

    def seeds(self, starts: Sequence[Mapping[str, Scheme]], part: float = 1.0) -> Iterator[Candidate]:
        """Precisions for the given network: what an earlier run under other budgets tried, starts, then the seeds.

        Args:
            starts: Configs (layer name → scheme) worth trying.
            part: Of the usual number of seeds.
        """
        session, space = self.session, self.space
        trials, budget = self.trials, session.options.budget
        tried: set[Encoding] = {self.encoding(trial) for trial in trials}
        for trial in session.earlier_trials(space):
            encoding = self.encoding(trial)
            if encoding not in tried:
                tried.add(encoding)
                yield trial.candidate
        solved = sum(trial.candidate.origin == "solver" for trial in trials)
        solver = seeds.solver_seeds(
            space,
            self.model,
            max_ratio=budget.latency_ms / session.evaluator.reference_ms if budget.latency_ms else None,
            max_bytes=budget.size_bytes,
            overhead=self.overhead,
        )
        quantisable = session.runner.lowerer.quantisable

        def count(usual: int) -> int:
            return max(1, round(part * usual))

        streams = (
            (("other backend", adapt(layers, quantisable, space)) for layers in starts),
            islice(seeds.ladder(space), count(LADDER_SEEDS)),
            seeds.splits(space, np.random.default_rng(session.options.seed), count(SPLIT_SEEDS)),
            islice(solver, max(count(SOLVER_SEEDS) - solved, 0)),
        )
        stream = seeds.distinct(space, streams, tried)
        while True:
            with session.runner.watch.timed(Kind.SOLVER):
                found = next(stream, None)
            if found is None:
                return
            yield Candidate(origin=found[0], schemes=found[1])


def finalists_s(limit_s: float) -> float:
    """What of a time limit is kept for measuring the finalists, in seconds."""
    return min(_FINALISTS_SHARE * limit_s, _FINALISTS_MOST_S)


def _words(trial: Trial, metric: MetricInfo) -> str:
    assert trial.accuracy is not None
    value = formatting.metric_value(metric.oriented(trial.accuracy.value), metric)
    return f"{value}, {formatting.latency(trial.latency_ms)}, {formatting.size(trial.size_bytes)}"
