"""Scoring on growing subsets: intervals, pairs, stages, and metrics of both kinds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core import Array, Labelled, WorkloadError
from bitfront.search.measuring.accuracy import MANY, Scored, Scorer, no_better, summary, surely_worse
from bitfront.search.measuring.holdout import split_holdout
from tests.search import toy


def hits(count: int, of: int) -> Scored:
    """The last ``count`` of some samples right."""
    return Scored(np.array([0.0] * (of - count) + [1.0] * count), of)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (450, 500, 0.8706, 0.9234)],
)
def test_hits_get_the_wilson_interval(count: int, of: int, low: float, high: float) -> None:
    """Values computed by hand from Wilson's formula; inside [0, 1] even at the ends."""
    stats = hits(count, of).stats
    assert (stats.value, stats.samples) == (count / of, of)
    assert (stats.ci_low, stats.ci_high) == pytest.approx((low, high), abs=2e-4)


def test_other_scores_get_the_normal_interval() -> None:
    """Mean ± 1.96 standard errors."""
    stats = summary(np.array([1.0, 2.0, 3.0, 4.0]))
    assert stats.value == 2.5
    assert stats.ci_high - stats.value == pytest.approx(1.96 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-3)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """95 % of intervals of 100 samples cover the rate they were drawn at, for rates near the end, too."""
    rng = np.random.default_rng(0)
    for rate in (0.5, 0.9, 0.98):
        draws = (rng.random((400, 100)) < rate).astype(np.float64)
        covered = [stats.ci_low <= rate <= stats.ci_high for stats in map(summary, draws)]
        assert 0.91 <= np.mean(covered) <= 0.99
        # A planted bug, an interval of half the width, is noticed.
        narrow = [abs(s.value - rate) <= (s.ci_high - s.ci_low) / 4 for s in map(summary, draws)]
        assert np.mean(narrow) < 0.91


@given(st.lists(st.sampled_from([0.0, 1.0]), min_size=2, max_size=60), st.integers(0, 2**31))
def test_equal_or_better_is_never_surely_worse(scores: list[float], seed: int) -> None:
    """What is right wherever the other is right is not worse, however few samples there are."""
    base = np.array(scores)
    better = np.maximum(base, (np.random.default_rng(seed).random(len(base)) < 0.3).astype(np.float64))
    assert not surely_worse(Scored(better, len(base)), Scored(base, len(base)))


def test_pairing_tells_what_intervals_do_not() -> None:
    """Eight samples lost of 64 and none won is sure, though the two intervals overlap."""
    ours, theirs = hits(40, 64), hits(48, 64)
    assert ours.stats.ci_high > theirs.stats.ci_low
    assert surely_worse(ours, theirs)
    assert not surely_worse(theirs, ours)


def test_pairing_uses_common_samples_only() -> None:
    """The other was scored on more samples; the rest of its scores says nothing."""
    ours = Scored(np.ones(64), 64)
    theirs = Scored(np.concatenate([np.ones(64), np.zeros(64)]), 128)
    assert not surely_worse(ours, theirs)


def test_one_number_is_never_surely_worse() -> None:
    """Without per-sample scores nothing is sure, and there is no interval."""
    ours, theirs = Scored(np.array([0.1]), 300), Scored(np.array([0.9]), 300)
    assert not surely_worse(ours, theirs)
    assert ours.stats.ci_low == ours.stats.ci_high == 0.1


def model(backend: toy.ToyBackend, **schemes: str) -> toy.ToyModel:
    """A toy model, FP32 but for ``schemes``."""
    return toy.ToyModel(schemes={**dict.fromkeys(toy.LAYERS, "fp32"), **schemes}, backend=backend)


def test_stages_grow_and_give_what_scoring_at_once_gives() -> None:
    """Stages double from the first to all samples, and their scores are those of the whole."""
    work = toy.workload(samples=600)
    scorer = Scorer(work.evaluation, work.metric, first_stage=64, name="all")
    scored, stages = None, []
    backend = toy.ToyBackend()
    while scored is None or scored.samples < len(scorer):
        scored = scorer.extend(model(backend, e="int4:nearest"), scored, scorer.next_stage(scored))
        stages.append(scored.samples)
    assert stages == [64, 128, 256, 600]
    x = np.asarray(work.evaluation.inputs["x"][:, 0], dtype=np.float64)
    expected = (x > toy.harm({"e": "int4:nearest"})).astype(np.float64)
    np.testing.assert_array_equal(scored.scores, expected)


def test_one_number_costs_one_stage_too_many_once() -> None:
    """The first artifact shows what the metric gives; from then on everything is scored in one go."""

    def mean_logit(outputs: tuple[Array, ...], labels: Array) -> float:
        del labels
        return float(np.asarray(outputs[0], dtype=np.float64)[:, 0].mean())

    work = toy.workload(samples=300)
    scorer = Scorer(work.evaluation, mean_logit, batch=300, first_stage=64, name="all")
    backend = toy.ToyBackend()
    first = scorer.extend(model(backend), None, scorer.next_stage(None))
    second = scorer.extend(model(backend), None, scorer.next_stage(None))
    assert backend.runs == 3
    assert first.samples == second.samples == 300
    assert first.stats.value == pytest.approx(8 * work.evaluation.inputs["x"].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        pytest.param(np.zeros((64, 2)), r"got an array of shape \(64, 2\)", id="matrix"),
        pytest.param(np.zeros(63), r"expected 64 finite scores", id="too few"),
        pytest.param(np.array([np.nan] * 64), "with 64 NaN", id="nan"),
        pytest.param("high", r"the metric on all: its result is a str, expected an array", id="text"),
    ],
)
def test_bad_metric_is_explained(result: object, message: str) -> None:
    """What a metric gives is checked before it is believed."""
    work = toy.workload()
    scorer = Scorer(work.evaluation, lambda *_: result, name="all")  # type: ignore[arg-type]
    with pytest.raises(WorkloadError, match=message):
        scorer.extend(model(toy.ToyBackend()), None, 64)


@given(st.integers(2, 40), st.floats(0.01, 0.99), st.integers(0, 100))
def test_split_keeps_every_sample_once_and_no_part_empty(samples: int, share: float, seed: int) -> None:
    """Search part and held-out part are a partition, the same for the same seed."""
    data = Labelled(inputs={"x": np.arange(samples)}, labels=np.arange(samples))
    search, held = split_holdout(data, share, seed)
    assert len(search) >= 1
    assert len(held) >= 1
    assert sorted([*search.labels, *held.labels]) == list(range(samples))
    np.testing.assert_array_equal(search.inputs["x"], search.labels)
    np.testing.assert_array_equal(split_holdout(data, share, seed)[1].labels, held.labels)


def test_no_better_needs_many_samples_and_no_lead() -> None:
    """After many common samples a tie is enough to be no better; a lead of one hit, or few samples, is not."""
    ones, lead = np.zeros(MANY), np.zeros(MANY)
    lead[0] = 1.0
    assert no_better(Scored(ones, MANY), Scored(ones, MANY))
    assert no_better(Scored(ones, MANY), Scored(lead, MANY))
    assert not no_better(Scored(lead, MANY), Scored(ones, MANY))
    assert not no_better(Scored(ones[1:], MANY - 1), Scored(ones, MANY))
    assert not no_better(Scored(np.zeros(1), MANY), Scored(np.zeros(1), MANY))
