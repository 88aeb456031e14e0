"""What becomes of one candidate, decision by decision, with latencies and scores that are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bitfront.core import FP32, Constraints, ContentStore, LatencyStats, Scheme
from bitfront.search.measuring.accuracy import Scored, Scorer
from bitfront.search.measuring.evaluate import SEARCH_PART, Evaluator
from bitfront.search.measuring.given import open_given
from bitfront.search.measuring.measurement_cache import MeasurementCache
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.trial import Candidate, Origin, TrialStatus
from tests.search import toy

ALL_FP32 = dict.fromkeys(toy.LAYERS, FP32)
ALL_INT8 = dict.fromkeys(toy.LAYERS, toy.INT8)
ALL_INT4 = dict.fromkeys(toy.LAYERS, toy.INT4)
SAMPLES = 400


def latency(ratio: float, low: float | None = None, high: float | None = None, fp32_ms: float = 10.0) -> LatencyStats:
    """A timing against an FP32 of ``fp32_ms``."""
    median = fp32_ms * ratio
    return LatencyStats(
        median_ms=median, p90_ms=median, ci_low_ms=median, ci_high_ms=median, ratio=ratio, ratio_low=low or ratio,
        ratio_high=high or ratio, rounds=9, threads=1, batch_size=1,
    )  # fmt: skip


class Trials:
    """An evaluator over a measurement cache that tests write into.

    Args:
        budget: Limits.
        samples: Of the search's part of the data.
    """

    def __init__(self, budget: Constraints, samples: int = SAMPLES) -> None:
        work, backend = toy.workload(samples=samples), toy.ToyBackend()
        self.lowerer = toy.ToyLowerer()
        self.measurements = MeasurementCache(ContentStore(None), lowering="l", timing="t", scoring="s")
        runner = ModelRunner(
            lowerer=self.lowerer,
            backend=backend,
            inputs={"x": work.calibration["x"][:1]},
            threads=1,
            batch_size=1,
            cores=1,
            measurements=self.measurements,
            watch=Stopwatch(),
        )
        fp32 = self.lowerer.lower(ALL_FP32)
        given = open_given(None, fp32, lambda model: backend.compile(model, threads=1), runner.inputs)
        scorer = Scorer(work.evaluation, work.metric, name="all")
        self.evaluator = Evaluator(runner, scorer, budget, given)
        self.knows(ALL_FP32, latency(1.0))
        self.fp32 = self.evaluator.run(0, Candidate(origin=Origin.BASELINE, schemes=ALL_FP32, name="fp32"))

    def artifact(self, schemes: dict[str, Scheme]) -> str:
        return self.lowerer.lower(schemes).digest

    def knows(self, schemes: dict[str, Scheme], timed: LatencyStats) -> None:
        """What the artifact's latency is."""
        self.measurements.put_latency(self.artifact(schemes), timed)

    def scores(self, schemes: dict[str, Scheme], right: int) -> None:
        """So many of the first 64 samples right."""
        hits = np.zeros(64)
        hits[:right] = 1.0
        self.measurements.put_scored(self.artifact(schemes), SEARCH_PART, Scored(hits, 64))


@pytest.mark.parametrize(
    ("low", "outcome"),
    [
        pytest.param(0.49, TrialStatus.COMPLETE, id="may hold it"),
        pytest.param(0.505, TrialStatus.OVER_BUDGET, id="surely over"),
    ],
)
def test_a_candidate_near_the_limit_has_its_own_uncertainty(low: float, outcome: TrialStatus) -> None:
    """5.1 ms are over 5 ms only where the whole of the ratio's interval is; the upper end does not matter."""
    trials = Trials(Constraints(latency_ms=5.0))
    trials.knows(ALL_INT4, latency(0.2))
    trials.evaluator.run(
        1, Candidate(origin=Origin.PRUNED, schemes=ALL_INT4)
    )  # keeps the limit, so that nothing is nearest
    trials.knows(ALL_INT8, latency(0.51, low=low, high=0.518))
    found = trials.evaluator.run(2, Candidate(origin=Origin.PRUNED, schemes=ALL_INT8))
    assert found.latency_ms == pytest.approx(5.1)
    assert found.status is outcome
    assert not found.feasible, "its median is over the limit all the same"
    if outcome is TrialStatus.OVER_BUDGET:
        assert found.reason == "latency 5.1 ms > 5 ms"
        assert found.accuracy is None


def test_a_machine_that_drifts_does_not_decide() -> None:
    """Timed when FP32 took 20 ms, 0.4 of it are 4 ms of the run's own 10."""
    trials = Trials(Constraints(latency_ms=5.0))
    trials.knows(ALL_INT4, latency(1.0))
    trials.evaluator.run(1, Candidate(origin=Origin.PRUNED, schemes=ALL_INT4))
    trials.knows(ALL_INT8, latency(0.4, fp32_ms=20.0))
    found = trials.evaluator.run(2, Candidate(origin=Origin.PRUNED, schemes=ALL_INT8))
    assert found.latency is not None
    assert found.latency.median_ms == 8.0
    assert found.latency_ms == pytest.approx(4.0)
    assert found.feasible


def test_a_baseline_is_scored_in_full_though_its_equal_was_stopped() -> None:
    """A stopped trial's few samples are no yardstick; another candidate of the same artifact is a repetition."""
    trials = Trials(Constraints(min_accuracy=0.999))
    trials.knows(ALL_INT4, latency(0.4))
    stopped = trials.evaluator.run(1, Candidate(origin=Origin.PRUNED, schemes=ALL_INT4))
    assert stopped.status is TrialStatus.STOPPED
    assert stopped.accuracy is not None
    assert stopped.accuracy.samples < SAMPLES
    again = trials.evaluator.run(2, Candidate(origin=Origin.PRUNED, schemes=ALL_INT4))
    assert (again.status, again.reason) == (TrialStatus.REPEATED, "the same artifact as trial 1")
    baseline = trials.evaluator.run(3, Candidate(origin=Origin.BASELINE, schemes=ALL_INT4, name="int4"))
    assert baseline.status is TrialStatus.COMPLETE
    assert baseline.accuracy is not None
    assert baseline.accuracy.samples == SAMPLES
    duplicate = trials.evaluator.run(4, Candidate(origin=Origin.BASELINE, schemes=ALL_INT4, name="another"))
    assert (duplicate.status, duplicate.reason) == (TrialStatus.REPEATED, "the same artifact as trial 3")


def test_a_baseline_over_a_limit_is_scored_in_full() -> None:
    """Everything is compared with it."""
    trials = Trials(Constraints(latency_ms=0.1, size_bytes=1.0))
    found = trials.evaluator.run(1, Candidate(origin=Origin.BASELINE, schemes=ALL_INT8, name="int8"))
    assert found.status is TrialStatus.COMPLETE
    assert found.accuracy is not None
    assert found.accuracy.samples == SAMPLES
    assert set(found.misses) == {"latency", "size"}


@pytest.mark.parametrize(("right", "stopped"), [(58, False), (40, True)], ids=["within the interval", "surely below"])
def test_scoring_goes_on_while_the_floor_is_within_the_interval(right: int, stopped: bool) -> None:
    """58 of 64 are 0.906 and at most 0.956: a floor of 0.95 may still be reached. 40 are at most 0.732."""
    trials = Trials(Constraints(min_accuracy=0.95))
    trials.knows(ALL_INT8, latency(0.4))
    trials.scores(ALL_INT8, right)
    found = trials.evaluator.run(1, Candidate(origin=Origin.PRUNED, schemes=ALL_INT8))
    assert found.accuracy is not None
    assert (found.status is TrialStatus.STOPPED and found.accuracy.samples == 64) == stopped
    if stopped:
        assert "below 0.95" in found.reason


def test_misses_are_relative_to_the_limits() -> None:
    """Half of a limit misses by −0.5, twice of it by 1; accuracy by its difference from the floor."""
    trials = Trials(Constraints(latency_ms=8.0, size_bytes=1000.0, max_drop=0.25))
    trials.knows(ALL_INT8, latency(0.4))
    found = trials.evaluator.run(1, Candidate(origin=Origin.BASELINE, schemes=ALL_INT8, name="int8"))
    assert found.size_bytes == len(trials.lowerer.lower(ALL_INT8).data)
    assert found.accuracy is not None
    assert found.misses["latency"] == pytest.approx(-0.5)
    assert found.misses["size"] == pytest.approx(found.size_bytes / 1000 - 1)
    assert found.misses["accuracy"] == pytest.approx(1.0 - 0.25 - found.accuracy.value, abs=1e-6)


def test_of_two_within_the_limits_the_smaller_is_kept_small() -> None:
    """A size just at the limit keeps it, a byte more does not."""
    size = len(toy.ToyLowerer().lower(ALL_INT8).data)
    for limit, feasible in ((float(size), True), (size - 1.0, False)):
        trials = Trials(Constraints(size_bytes=limit))
        trials.knows(ALL_INT8, latency(0.4))
        found = trials.evaluator.run(1, Candidate(origin=Origin.BASELINE, schemes=ALL_INT8, name="int8"))
        assert found.feasible is feasible


def test_fp32_is_the_yardstick_of_the_whole_run() -> None:
    """Its latency is the median over all timings, its own 10 ms among them twice; its accuracy is its own."""
    trials = Trials(Constraints())
    for number, (schemes, fp32_ms) in enumerate(((ALL_INT8, 30.0), (ALL_INT4, 11.0)), start=1):
        trials.knows(schemes, latency(0.5, fp32_ms=fp32_ms))
        trials.evaluator.run(number, Candidate(origin=Origin.PRUNED, schemes=schemes))
    assert trials.evaluator.reference_ms == pytest.approx(10.5)
    assert trials.fp32.accuracy is not None
    assert trials.evaluator.reference_accuracy == trials.fp32.accuracy.value
    assert replace(trials.fp32, number=9).id == "fp32"


def test_a_network_is_compiled_for_scoring_once() -> None:
    """What is in use is shared, and what is not is let go."""
    trials = Trials(Constraints())
    runner = trials.evaluator._runner
    model = trials.lowerer.lower(ALL_FP32)
    first = runner.compile_to_score(model)
    assert runner.compile_to_score(trials.lowerer.lower(ALL_FP32)) is first
    assert runner.compile_to_score(trials.lowerer.lower(ALL_INT8)) is not first
    del first
    assert dict(runner.scoring) == {}


def test_accuracy_of_a_stopped_trial_is_fp32_s_with_the_difference_on_the_same_samples() -> None:
    """FP32 may do worse on the first samples than on all: what a candidate loses beside it there is what it loses."""
    trials = Trials(Constraints(min_accuracy=0.95))
    fp32, given = trials.fp32, trials.evaluator.given
    assert given is not None
    hits = np.ones(SAMPLES)
    hits[:32] = 0.0  # half of the first 64, 8 % of all
    trials.measurements.put_scored(trials.artifact(ALL_FP32), SEARCH_PART, Scored(hits, SAMPLES))
    trials.knows(ALL_INT8, latency(0.4))
    early = hits[:64].copy()
    early[32:52] = 0.0
    trials.measurements.put_scored(trials.artifact(ALL_INT8), SEARCH_PART, Scored(early, 64))
    found = trials.evaluator.run(1, Candidate(origin=Origin.SAMPLER, schemes=ALL_INT8))
    assert found.status is TrialStatus.STOPPED
    assert found.accuracy is not None
    assert found.change is not None
    assert (found.change.worse, found.change.better, found.change.samples) == (20, 0, 64)
    assert found.accuracy.value == pytest.approx(hits.mean() - 20 / 64)
    assert found.accuracy.ci_low < found.accuracy.value < found.accuracy.ci_high
    assert found.misses["accuracy"] == pytest.approx(0.95 - found.accuracy.value, abs=1e-6)
    assert fp32.change is not None
    assert fp32.change.value == 0


def test_a_hard_start_stops_nobody_who_does_as_well_as_fp32() -> None:
    """Half of the first 64 samples wrong is 50 % there, and FP32 has that too, of whose accuracy a drop counts."""
    trials = Trials(Constraints(max_drop=0.01))
    hits = np.ones(SAMPLES)
    hits[:32] = 0.0
    trials.measurements.put_scored(trials.artifact(ALL_FP32), SEARCH_PART, Scored(hits, SAMPLES))
    trials.knows(ALL_INT8, latency(0.4))
    trials.measurements.put_scored(trials.artifact(ALL_INT8), SEARCH_PART, Scored(hits[:64].copy(), 64))
    found = trials.evaluator.run(1, Candidate(origin=Origin.SAMPLER, schemes=ALL_INT8))
    assert found.status is TrialStatus.COMPLETE


def test_limits_hold_in_the_search_as_surely_as_asked() -> None:
    """INT8 loses some: within the drop by its estimate, not with near certainty; FP32 loses nothing to itself."""
    for confidence, feasible in ((0.5, True), (0.999, False)):
        trials = Trials(Constraints(max_drop=0.02, confidence=confidence))
        trials.knows(ALL_INT8, latency(0.4))
        found = trials.evaluator.run(1, Candidate(origin=Origin.BASELINE, schemes=ALL_INT8, name="int8"))
        assert found.accuracy is not None
        assert trials.evaluator.reference_accuracy - found.accuracy.value <= 0.02
        assert found.feasible is feasible
        assert trials.fp32.feasible
