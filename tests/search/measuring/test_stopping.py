"""Scoring is stopped only where it cannot matter: checked against the toy's true accuracies."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.core import FP32, Constraints, ContentStore
from bitfront.search.measuring.accuracy import Scored, Scorer
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.measuring.given import open_given
from bitfront.search.measuring.measurement_cache import MeasurementCache
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.stopwatch import Stopwatch
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus
from tests.search import toy

SAMPLES = 1000


def evaluated(budget: Constraints, origin: Origin = Origin.SAMPLER) -> list[Trial]:
    """FP32, then random mixes of schemes."""
    work = toy.workload(samples=SAMPLES)
    backend, lowerer = toy.ToyBackend(), toy.ToyLowerer()
    runner = ModelRunner(
        lowerer=lowerer,
        backend=backend,
        inputs={"x": work.calibration["x"][:1]},
        threads=1,
        batch_size=1,
        cores=1,
        measurements=MeasurementCache(ContentStore(None), lowering="l", timing="t", scoring="s"),
        watch=Stopwatch(),
    )
    everything = dict.fromkeys(toy.LAYERS, FP32)
    given = open_given(None, lowerer.lower(everything), runner.compile, runner.inputs)
    evaluator = Evaluator(runner, Scorer(work.evaluation, work.metric, name="all"), budget, given)
    evaluator.run(0, Candidate(origin=Origin.BASELINE, schemes=everything, name="fp32"))
    rng = np.random.default_rng(1)
    for number in range(1, 40):
        picks = rng.integers(len(toy.SCHEMES), size=len(toy.LAYERS))
        schemes = {layer: toy.SCHEMES[pick] for layer, pick in zip(toy.LAYERS, picks, strict=True)}
        evaluator.run(number, Candidate(origin=origin, schemes=schemes))
    evaluator.run(40, Candidate(origin=origin, schemes=schemes))
    return evaluator.trials


def wrongly_stopped(trials: list[Trial], floor: float) -> list[int]:
    """Oracle: stopped trials that reach the floor and that no complete trial beats."""
    x = np.asarray(toy.workload(samples=SAMPLES).evaluation.inputs["x"][:, 0], dtype=np.float64)

    def truth(trial: Trial) -> float:
        return float((x > toy.harm(trial.candidate.texts)).mean())

    found = []
    for trial in trials:
        if trial.status is TrialStatus.STOPPED:
            beaten = any(
                truth(other) >= truth(trial)
                and toy.latency_ms(other.candidate.texts) <= toy.latency_ms(trial.candidate.texts)
                and (other.size_bytes or 0) <= (trial.size_bytes or 0)
                for other in trials
                if other.status is TrialStatus.COMPLETE
            )
            if not beaten and truth(trial) >= floor:
                found.append(trial.number)
    return found


@pytest.mark.parametrize("budget", [Constraints(), Constraints(min_accuracy=0.95)], ids=["no floor", "floor"])
def test_only_hopeless_candidates_are_stopped(budget: Constraints) -> None:
    """Some are stopped, on fewer samples than there are, and none that could have mattered."""
    trials = evaluated(budget)
    stopped = [trial for trial in trials if trial.status is TrialStatus.STOPPED]
    assert stopped
    assert all(trial.accuracy is not None and trial.accuracy.samples < SAMPLES and trial.reason for trial in stopped)
    assert not wrongly_stopped(trials, budget.accuracy_floor(1.0))
    complete = [trial for trial in trials if trial.status is TrialStatus.COMPLETE]
    assert all(trial.accuracy is not None and trial.accuracy.samples == SAMPLES for trial in complete)


@pytest.mark.parametrize("origin", [Origin.ZERO_SHOT, Origin.FINE_TUNED])
def test_what_others_are_compared_with_is_scored_in_full(origin: Origin) -> None:
    """However slow, large or inaccurate it is, whereas other candidates of the same schemes are not."""
    budget = Constraints(min_accuracy=0.95, latency_ms=0.1, size_bytes=1)
    assert {trial.status for trial in evaluated(budget)} >= {TrialStatus.OVER_BUDGET}
    trials = [trial for trial in evaluated(budget, origin) if trial.status is not TrialStatus.REPEATED]
    assert all(trial.accuracy is not None and trial.accuracy.samples == SAMPLES for trial in trials)


@pytest.mark.parametrize("origin", [Origin.RETRIED, Origin.QAT])
def test_after_training_more_samples_are_worth_their_while(origin: Origin) -> None:
    """However inaccurate it is, but not over a limit."""
    trials = evaluated(Constraints(min_accuracy=0.95), origin)
    assert all(trial.accuracy is not None and trial.accuracy.samples == SAMPLES for trial in trials)
    trials = evaluated(Constraints(latency_ms=0.1), origin)
    assert any(trial.status is TrialStatus.OVER_BUDGET and trial.accuracy is None for trial in trials)


def test_oracle_notices_a_comparison_the_wrong_way_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted bug: what is at least as accurate is called worse."""

    def reversed_(scored: Scored, other: Scored) -> bool:
        return float(scored.scores.mean()) >= float(other.scores[: scored.samples].mean())

    monkeypatch.setattr("bitfront.search.measuring.evaluate.surely_worse", reversed_)
    assert wrongly_stopped(evaluated(Constraints()), -np.inf)


def test_equal_artifacts_are_measured_once() -> None:
    """The same schemes again are marked as repeated, and nothing else is."""
    trials = evaluated(Constraints())
    assert trials[-1].status is TrialStatus.REPEATED
    keys = [trial.candidate.key for trial in trials]
    for trial in trials:
        first = keys.index(trial.candidate.key)
        assert (trial.status is TrialStatus.REPEATED) == (first != trial.number)
