"""Tries the candidates of one space, one after the other, and tells its study."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bitfront.core import Constraints, MetricInfo, Preference, formatting
from bitfront.search.events import Listener
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.measuring.stopwatch import Kind, Stopwatch
from bitfront.search.policy.allocation import Allocation, RunLimits, is_full, is_late
from bitfront.search.policy.config import PolicyConfig
from bitfront.search.policy.seeding import SeedingState, seed_order
from bitfront.search.proposals.file_overhead import FileOverhead
from bitfront.search.proposals.history import History
from bitfront.search.proposals.latency_model import LatencyModel, fit_encodings
from bitfront.search.results.finalize import TIME_LIMIT
from bitfront.search.run_folder.study import Study
from bitfront.search.space.space import Assignment, Encoding, Space
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialContext:
    """Values that trying candidates needs.

    Attributes:
        evaluator: Measures them and remembers them.
        watch: Clocks.
        listener: Hears of progress.
        metric: How outputs are scored.
        checkpoint: Writes what is known into the run folder.
        checkpoint_due: Whether it is time for that.
        limits: Trials and time of the run.
        constraints: What is searched for.
        seed: Of every random draw.
        policy: What to do next.
        preference: What is wanted most within them.
    """

    evaluator: Evaluator
    watch: Stopwatch
    listener: Listener
    metric: MetricInfo
    checkpoint: Callable[[], None]
    checkpoint_due: Callable[[], bool]
    limits: RunLimits
    constraints: Constraints
    seed: int
    policy: PolicyConfig
    preference: Preference = field(default_factory=Preference)

    @property
    def accuracy_first(self) -> bool:
        """Whether the most accurate of what is within the limits comes first."""
        return self.preference.accuracy_first(self.constraints)

    @property
    def max_ratio(self) -> float | None:
        """The latency limit over the given network's latency; None without one."""
        limit_ms = self.constraints.latency_ms
        return limit_ms / self.evaluator.reference_ms if limit_ms is not None else None


class Explorer:
    """Tries candidates of one space.

    Args:
        context: What it takes.
        space: What may be decided.
        study: Of that space.
        architecture: The student, or the pattern of sparse weights, whose space it is; empty for the given network's.

    Attributes:
        allocation: What of the run's trials and time it may use.
    """

    def __init__(self, context: TrialContext, space: Space, study: Study, architecture: str = "") -> None:
        self.context = context
        self.space = space
        self.study = study
        self.architecture = architecture
        self.allocation = Allocation()

    @property
    def trials(self) -> list[Trial]:
        """Trials of this space so far."""
        return [t for t in self.context.evaluator.trials if t.candidate.architecture == self.architecture]

    @property
    def full(self) -> bool:
        """Whether as many candidates were measured as allocated."""
        return is_full(self.context.evaluator.trials, self.allocation, self.context.limits)

    @property
    def late(self) -> bool:
        """Whether the allocated time is used up."""
        return is_late(self.context.watch.elapsed_s, self.allocation, self.context.limits)

    def attempt(
        self, candidate: Candidate | None = None, made: Callable[[Candidate], Candidate] | None = None
    ) -> Trial:
        """Try a candidate, or what the study proposes.

        Args:
            candidate: None lets the study propose.
            made: Gives what the study proposes its network.
        """
        context = self.context
        number, asked = self.study.ask(candidate)
        if candidate is None and made is not None:
            asked = made(asked)
        best = context.evaluator.best
        trial = context.evaluator.run(number, asked)
        self.study.tell(trial)
        context.listener.step(f"{trial.id} ({asked.origin}): {trial.status.value}")
        better = context.evaluator.best
        if better is not None and better is not best:
            context.listener.best(_words(better, context.metric))
        if context.checkpoint_due():
            context.checkpoint()
        return trial

    def baselines(self) -> None:
        """Try the uniform precisions."""
        known = {trial.candidate.key for trial in self.trials}
        for name, schemes in self.space.baselines():
            candidate = Candidate(origin=Origin.BASELINE, schemes=schemes, name=name, architecture=self.architecture)
            if candidate.key not in known:
                self.attempt(candidate)
        self.context.checkpoint()

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
        before: Callable[[], None] = lambda: None,
        made: Callable[[Candidate], Candidate] | None = None,
        after: Callable[[Trial], None] = lambda _: None,
    ) -> str | None:
        """Ask the sampler until the trials, the space or the time are used up.

        Args:
            exhausted: Whether there is nothing left to propose.
            before: Called before each proposal and before ``exhausted``.
            made: Gives a proposal its network.
            after: Told of each trial.

        Returns:
            What ended it early, else None.
        """
        duplicates = 0
        while not self.full:
            if self.late:
                return TIME_LIMIT
            before()
            trial = self.attempt(made=made)
            after(trial)
            duplicates = duplicates + 1 if trial.status is TrialStatus.REPEATED else 0
            before()
            if duplicates and (duplicates >= self.context.policy.allocation.most_duplicates or exhausted()):
                count = len(self.context.evaluator.trials)
                self.context.listener.warn(f"everything worth trying was tried after {count} trials")
                return None
        return None

    def encoding(self, trial: Trial) -> Encoding:
        """Return what a trial of this space decided."""
        return self.space.encode(trial.candidate.schemes, trial.candidate.pruning)

    def model(self) -> LatencyModel:
        """Fit the latency model to all that was timed."""
        with self.context.watch.timed(Kind.SOLVER):
            timed = [(self.encoding(trial), trial.latency) for trial in self.trials if trial.latency]
            return fit_encodings(
                self.space,
                [encoding for encoding, _ in timed],
                [latency.ratio for _, latency in timed],
                self.context.policy.sampler.surrogate.latency,
                deviations=[latency.ratio_deviation for _, latency in timed],
            )

    @property
    def overhead(self) -> FileOverhead:
        """Model of the bytes that files hold besides the groups' weights."""
        history = History.of(self.space, self.study.live)
        return history.overhead(self.space, self.context.policy.sampler.surrogate.file_overhead_pull)

    def seeds(
        self, starts: Sequence[Assignment], earlier: Sequence[Trial] = (), fraction: float = 1.0
    ) -> Iterator[Candidate]:
        """Yield precisions for the given network: what an earlier run under other constraints tried, then the seeds.

        Args:
            starts: Assignments worth trying.
            earlier: Trials of that run.
            fraction: Of the usual number of seeds.
        """
        context, trials = self.context, self.trials
        tried = {self.encoding(trial) for trial in trials}
        for trial in earlier:
            encoding = self.encoding(trial)
            if encoding not in tried:
                tried.add(encoding)
                yield trial.candidate
        state = SeedingState(
            tried=frozenset(tried),
            solved=sum(trial.candidate.origin is Origin.SOLVER for trial in trials),
            max_ratio=context.max_ratio,
            max_bytes=context.constraints.size_bytes,
            overhead=self.overhead,
            seed=context.seed,
            fraction=fraction,
        )
        stream = seed_order(self.space, state, starts, self.model, context.policy.seeding)
        while True:
            with context.watch.timed(Kind.SOLVER):
                found = next(stream, None)
            if found is None:
                return
            yield Candidate(origin=found[0], schemes=found[1])


def _words(trial: Trial, metric: MetricInfo) -> str:
    assert trial.accuracy is not None
    value = formatting.metric_value(metric.oriented(trial.accuracy.value), metric)
    return f"{value}, {formatting.latency(trial.latency_ms)}, {formatting.size(trial.size_bytes)}"
