"""Tries one candidate: written, compiled, timed against the given network, scored only as long as that can matter.

    schemes → layers → artifact → size → compiled → paired latency → limits → accuracy on growing subsets

Machines drift: the same model is some per cent slower an hour later, or while somebody else computes. The ratio to the
given network in interleaved runs hardly moves. So the search decides by ``ratio × the given network's latency over the
whole run``; the final verdict is about the absolute latency in a fresh process (``search.results.finalists``).

Scoring stops as soon as the accuracy cannot reach the floor (upper end of its 95 % interval), or is worse than that of
a point that is no slower and no larger (paired by sample, 99 %; after a thousand samples, no better than it): such a
candidate cannot enter the front by more than noise. Scoring uses every core, timing as many as asked. What is over the
latency or size limit is not scored at all, but for the nearest while nothing keeps the limits.

Latencies decide by the ends of their intervals. A point is *no slower* where the upper end of its ratio is below the
candidate's lower end, or above it by no more than anybody would pay for (``LATENCY_TIE``). Before an incumbent stops
anything it is timed once more, together with the candidate (``search.measuring.paired_latency``): a lucky timing would
stop everything that comes after it. What stays known to no better than ``DecisionConfig.widest`` stops nothing else.

Baselines, and what others are compared with, the given network first, are always measured in full; what a network is
judged by is scored on a thousand samples, on five thousand after further training.

A candidate that cannot be written or compiled is an outcome with its reason; only FP32 failing is an error.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from statistics import median

from bitfront.core import (
    AccuracyStats,
    BackendError,
    Constraints,
    LatencyStats,
    Limit,
    LimitCheck,
    LoweringError,
    PairedDifference,
    Preference,
    formatting,
)
from bitfront.core.given_network import FP32_ID, GIVEN_ID
from bitfront.search.measuring.accuracy import Z_PAIR, Scored, Scorer, no_better, surely_worse
from bitfront.search.measuring.candidate_build import CandidateBuild
from bitfront.search.measuring.given import Given, GivenMeasurement
from bitfront.search.measuring.paired import paired
from bitfront.search.measuring.paired_latency import PairedLatencies
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.policy.config import DEFAULTS, PolicyConfig, ScoringConfig
from bitfront.search.results.evidence import Evidence, accuracy_of, check_accuracy
from bitfront.search.results.ranking import LATENCY_TIE, Ranking
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus

SEARCH_PART = "search"


def least_samples(candidate: Candidate, config: ScoringConfig = DEFAULTS.scoring) -> int:
    """Return how many samples a candidate within the limits is scored on at least."""
    if candidate.further_trained:
        return config.trained_samples
    return config.variant_samples if candidate.judges_variant else 0


class Evaluator:
    """Tries candidates, one after the other.

    Args:
        runner: What they are tried on.
        scorer: The search's part of the evaluation data.
        budget: Limits.
        given: The network that all are compared with.
        policy: How many samples candidates are scored on at least, and how well a latency is known that decides.
        preference: What is wanted most within the limits.
    """

    def __init__(
        self,
        runner: ModelRunner,
        scorer: Scorer,
        budget: Constraints,
        given: Given,
        policy: PolicyConfig = DEFAULTS,
        preference: Preference | None = None,
    ) -> None:
        self._runner = runner
        self._scorer = scorer
        self._budget = budget
        self._given = given
        self._measured: GivenMeasurement | None = None
        self._scoring = policy.scoring
        self._decisions = policy.decisions
        self._latencies = PairedLatencies(runner, given)
        self._ranking = Ranking.of(budget, preference or Preference())
        self.trials: list[Trial] = []

    @property
    def given(self) -> GivenMeasurement | None:
        """Measurement of the given network; None before ``measure_given``."""
        return self._measured

    @property
    def reference_ms(self) -> float:
        """The given network's median latency over the run so far, in milliseconds; NaN before anything was timed."""
        timed = [self._measured.latency] if self._measured else []
        timed += [trial.latency for trial in self.trials if trial.latency]
        found = [latency.median_ms / latency.ratio for latency in timed]
        return median(found) if found else math.nan

    @property
    def reference_accuracy(self) -> float:
        """The given network's accuracy; NaN before it was scored."""
        return self._measured.accuracy.value if self._measured else math.nan

    @property
    def limits(self) -> Constraints:
        """The budget, with a floor of accuracy in place of a drop from the given network's."""
        return self._budget.absolute(self.measure_given().value)

    @property
    def best(self) -> Trial | None:
        """The preferred trial within every limit."""
        feasible = (trial for trial in self.trials if trial.feasible)
        return min(feasible, key=lambda trial: self._ranking.key(trial.objectives), default=None)

    def measure_given(self) -> AccuracyStats:
        """Time the given network and score it in full, once; returns its accuracy.

        Raises:
            BackendError: If it fails.
        """
        if self._measured is None:
            runner, given = self._runner, self._given
            scored = runner.measurements.scored(given.artifact, SEARCH_PART)
            try:
                latency = self._latencies.of(given.artifact, lambda: given.compiled)
                if scored is None or scored.samples < len(self._scorer):
                    compiled = runner.compile_to_score(given.model)
                    scored = self._scorer.complete(compiled, scored)
                    runner.measurements.put_scored(given.artifact, SEARCH_PART, scored)
            except BackendError as error:
                what = "FP32 network" if given.is_fp32 else "network as given"
                raise BackendError(f"the {what} failed: {error.message}", error.hint) from error
            self._measured = GivenMeasurement(size_bytes=given.model.size_bytes, latency=latency, accuracy=scored.stats)
        return self._measured.accuracy

    def run(self, number: int, candidate: Candidate) -> Trial:
        """Try a candidate and remember what became of it.

        Raises:
            BackendError: If it is the given network or FP32 itself that fails.
        """
        self.measure_given()
        started = time.perf_counter()
        try:
            attempt = self._attempt(candidate)
        except (LoweringError, BackendError) as error:
            if candidate.name == FP32_ID:
                raise BackendError(f"the FP32 network failed: {error.message}", error.hint) from error
            attempt = _Attempt(status=TrialStatus.FAILED, reason=error.message)
        trial = Trial(
            number=number,
            candidate=candidate,
            status=attempt.status,
            artifact=attempt.artifact,
            size_bytes=attempt.size_bytes,
            latency=attempt.latency,
            latency_ms=attempt.latency_ms,
            accuracy=self._accuracy(attempt.scored) if attempt.scored else None,
            change=self._change(attempt.scored) if attempt.scored else None,
            misses={limit.value: check.relative_excess for limit, check in self._checks(attempt).items()},
            seconds=time.perf_counter() - started,
            reason=attempt.reason,
            retimed=attempt.retimed,
        )
        self.trials.append(trial)
        return trial

    def _attempt(self, candidate: Candidate) -> _Attempt:
        build = CandidateBuild(self._runner, candidate)
        lowered = build.lowered()
        if lowered.failure:
            return _Attempt(status=TrialStatus.FAILED, reason=lowered.failure)
        attempt = _Attempt(artifact=lowered.artifact, size_bytes=lowered.size_bytes)
        earlier = self._duplicate_of(lowered.artifact, candidate)
        if earlier is not None:
            attempt.status, attempt.reason = TrialStatus.REPEATED, f"the same artifact as trial {earlier.number}"
            attempt.latency, attempt.latency_ms = earlier.latency, earlier.latency_ms
            attempt.scored = self._runner.measurements.scored(lowered.artifact, SEARCH_PART)
            return attempt
        latency = self._note(attempt, self._latencies.of(lowered.artifact, build.compiled))
        if candidate.origin is Origin.COST_PROBE:
            attempt.status = TrialStatus.TIMED
            return attempt
        excess = self._over(attempt)
        if excess and self._wide(latency):
            latency = self._time_again(attempt, build)
            excess = self._over(attempt)
        if excess and not candidate.in_full and not self._nearest(attempt):
            attempt.status, attempt.reason = TrialStatus.OVER_BUDGET, excess
            return attempt
        least = len(self._scorer) if candidate.in_full else least_samples(candidate, self._scoring)
        self._score(attempt, build, least)
        if attempt.status is TrialStatus.COMPLETE and latency.timings == 1 and self._wide(latency):
            self._time_again(attempt, build)
        return attempt

    def _duplicate_of(self, artifact: str, candidate: Candidate) -> Trial | None:
        """An earlier trial of the same artifact; for what is to be measured in full, one that was."""
        same = (trial for trial in self.trials if trial.artifact == artifact)
        return next((trial for trial in same if not candidate.in_full or trial.status is TrialStatus.COMPLETE), None)

    def _wide(self, latency: LatencyStats) -> bool:
        """Whether a latency is too uncertain to decide by."""
        return latency.ratio_error > self._decisions.widest

    def _note(self, attempt: _Attempt, latency: LatencyStats) -> LatencyStats:
        """Give a candidate its latency, and the milliseconds that stands for; returns it."""
        attempt.latency, attempt.latency_ms = latency, latency.ratio * self.reference_ms
        return latency

    def _time_again(self, attempt: _Attempt, build: CandidateBuild) -> LatencyStats:
        """Time a candidate once more; returns its latency as it is now known."""
        artifact = str(attempt.artifact)
        return self._note(attempt, self._latencies.again({artifact: build.compiled})[artifact])

    def _time_both(self, attempt: _Attempt, build: CandidateBuild, rival: Trial) -> Trial:
        """Time a candidate once more, together with an incumbent that may stop it; the incumbent as it is now known."""
        artifact, other = str(attempt.artifact), str(rival.artifact)
        found = self._latencies.again(
            {artifact: build.compiled, other: CandidateBuild(self._runner, rival.candidate).compiled}
        )
        self._note(attempt, found[artifact])
        latency_ms = found[other].ratio * self.reference_ms
        checks = self._budget.check(latency_ms=latency_ms)
        misses = {**rival.misses, **{limit.value: check.relative_excess for limit, check in checks.items()}}
        renewed = replace(rival, latency=found[other], latency_ms=latency_ms, misses=misses)
        self.trials[self.trials.index(rival)] = renewed
        if rival.candidate.architecture == build.candidate.architecture:
            attempt.retimed[rival.number] = found[other]
        return renewed

    def _score(self, attempt: _Attempt, build: CandidateBuild, least: int) -> None:
        """Score on growing subsets; on so many samples whether it can still matter or not."""
        measurements, artifact = self._runner.measurements, attempt.artifact
        assert artifact is not None
        attempt.scored = known = measurements.scored(artifact, SEARCH_PART)
        while attempt.scored is None or attempt.scored.samples < len(self._scorer):
            scored = attempt.scored
            reason = self._hopeless(attempt, scored, build) if scored and scored.samples >= least else ""
            if reason:
                attempt.status, attempt.reason = TrialStatus.STOPPED, reason
                break
            attempt.scored = self._scorer.extend(
                build.scored(), attempt.scored, self._scorer.next_stage(attempt.scored)
            )
        if attempt.scored is not None and attempt.scored is not known:
            measurements.put_scored(artifact, SEARCH_PART, attempt.scored)

    def _hopeless(self, attempt: _Attempt, scored: Scored, build: CandidateBuild) -> str:
        """Reason why scoring on cannot matter; empty while it can."""
        change, reference = self._change(scored), self.reference_accuracy
        highest = reference + change.value + Z_PAIR * change.error if change else scored.stats.ci_high
        checks = self._budget.check(
            accuracy=self._accuracy(scored).value, accuracy_high=highest, reference_accuracy=reference
        )
        floor = checks.get(Limit.ACCURACY)
        if floor is not None and scored.per_sample and floor.surely_missed:
            metric = self._scorer.metric
            at_best, beyond = ("at least", "above") if metric.lower_is_better else ("at most", "below")
            return (
                f"{metric.quantity} {at_best} {metric.oriented(floor.best):.4g} on {scored.samples} samples, "
                f"{beyond} {metric.oriented(floor.bound):.4g}"
            )
        assert attempt.latency is not None
        assert attempt.size_bytes is not None
        given = self._measured
        if (
            given is not None
            and not self._given.is_fp32
            and given.size_bytes <= attempt.size_bytes
            and _no_slower(given.latency, attempt.latency)
            and self._worse(scored, self._given.artifact)
        ):
            return _surpassed(GIVEN_ID, scored)
        for rival in tuple(self.trials):
            if self._may_surpass(rival, attempt) and self._worse(scored, str(rival.artifact)):
                assert rival.latency is not None
                if rival.latency.timings < self._decisions.timings or self._wide(rival.latency):
                    rival = self._time_both(attempt, build, rival)
                if self._may_surpass(rival, attempt) and rival.latency and not self._wide(rival.latency):
                    return _surpassed(rival.id, scored)
        return ""

    def _worse(self, scored: Scored, artifact: str) -> bool:
        """Whether what was scored is surely worse than another artifact, or no better on many samples."""
        rival = self._runner.measurements.scored(artifact, SEARCH_PART)
        return rival is not None and (surely_worse(scored, rival) or no_better(scored, rival))

    def _may_surpass(self, rival: Trial, attempt: _Attempt) -> bool:
        """Whether a trial was measured in full and is no larger, and no slower."""
        return (
            rival.status is TrialStatus.COMPLETE
            and rival.latency is not None
            and attempt.latency is not None
            and rival.size_bytes is not None
            and attempt.size_bytes is not None
            and rival.size_bytes <= attempt.size_bytes
            and _no_slower(rival.latency, attempt.latency)
        )

    def _over(self, attempt: _Attempt) -> str:
        """Limits known before accuracy that are surely missed, in words; empty for none."""
        assert attempt.latency is not None
        assert attempt.latency_ms is not None
        # The estimate's own uncertainty: a candidate at the limit may hold it, and is worth knowing.
        low = attempt.latency_ms * (attempt.latency.ratio_low / attempt.latency.ratio)
        checks = self._budget.check(latency_ms=attempt.latency_ms, latency_low_ms=low, size_bytes=attempt.size_bytes)
        missed = (check for check in checks.values() if check.surely_missed)
        return next((formatting.limit_missed(check, self._scorer.metric) for check in missed), "")

    def _nearest(self, attempt: _Attempt) -> bool:
        """Whether nothing keeps the latency and size limits so far, and nothing came nearer."""
        misses = [
            sum(max(miss, 0.0) for limit, miss in trial.misses.items() if limit != Limit.ACCURACY)
            for trial in self.trials
            if trial.latency
        ]
        own = sum(max(check.relative_excess, 0.0) for check in self._checks(attempt).values())
        return bool(misses) and min(misses) > own

    def _checks(self, attempt: _Attempt) -> dict[Limit, LimitCheck]:
        checks = self._budget.check(latency_ms=attempt.latency_ms, size_bytes=attempt.size_bytes)
        if attempt.scored is None:
            return checks
        own = Evidence(search=attempt.scored, artifact=attempt.artifact or "")
        beside = Evidence(search=self._given_scored, artifact=self._given.artifact)
        accuracy = check_accuracy(own, beside, self._budget)
        return checks if accuracy is None else {**checks, Limit.ACCURACY: accuracy}

    @property
    def _given_scored(self) -> Scored | None:
        """The given network's scores on the search's part."""
        return self._runner.measurements.scored(self._given.artifact, SEARCH_PART)

    def _change(self, scored: Scored) -> PairedDifference | None:
        """Difference to the given network on the samples scored so far."""
        return paired(scored, self._given_scored)

    def _accuracy(self, scored: Scored) -> AccuracyStats:
        """Accuracy on the search's part; where not all of it was scored, the given network's with the difference to it.

        The first samples may be easier or harder than all: accuracies of different subsets do not compare.
        """
        change = self._change(scored)
        if change is None or scored.samples >= len(self._scorer):
            return scored.stats
        value = accuracy_of(Evidence(search=scored), Evidence(search=self._given_scored))
        low, high = (value + end - change.value for end in (change.ci_low, change.ci_high))
        return AccuracyStats(value=value, ci_low=low, ci_high=high, samples=scored.samples)


@dataclass(slots=True, kw_only=True)
class _Attempt:
    status: TrialStatus = TrialStatus.COMPLETE
    artifact: str | None = None
    size_bytes: int | None = None
    latency: LatencyStats | None = None
    latency_ms: float | None = None
    scored: Scored | None = None
    reason: str = ""
    retimed: dict[int, LatencyStats] = field(default_factory=dict)


def _no_slower(rival: LatencyStats, latency: LatencyStats) -> bool:
    """Whether the intervals leave no difference in favour of ``latency`` that anybody would pay for."""
    return rival.ratio_high <= latency.ratio_low * LATENCY_TIE


def _surpassed(rival: str, scored: Scored) -> str:
    return f"no more accurate than {rival} on {scored.samples} samples, nor faster or smaller"
