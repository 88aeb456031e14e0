"""Paired differences: against simulated coverage, scipy's own tests and what no sample can tell."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from bitfront.search.measuring.accuracy import Scored
from bitfront.search.measuring.paired import assured_change, assured_mean, chance_of_worse, common, difference, paired


def hits(*counts: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two networks: so many samples right in both, in the first, in the second, in neither."""
    both, first, second, neither = counts
    one = np.repeat([1.0, 1.0, 0.0, 0.0], [both, first, second, neither])
    return one, np.repeat([1.0, 0.0, 1.0, 0.0], [both, first, second, neither])


def test_hits_are_counted() -> None:
    """Two of 450 lost: the difference, the samples, and an interval that holds 0."""
    mine, theirs = hits(440, 1, 3, 6)
    found = difference(mine, theirs)
    assert found is not None
    assert (found.better, found.worse, found.samples, found.hits) == (1, 3, 450, True)
    assert found.value == pytest.approx(-2 / 450)
    assert not found.measurable
    worse = difference(*hits(400, 0, 20, 30))
    assert worse is not None
    assert worse.measurable
    assert worse.ci_high < 0


@pytest.mark.parametrize(("changed", "lost"), [(0.02, 0.5), (0.05, 0.8), (0.004, 0.5)])
def test_interval_of_hits_covers_the_truth(changed: float, lost: float) -> None:
    """In 95 % of simulated data sets, also where some show no difference at all; the plain interval does not."""
    rng, samples, tries = np.random.default_rng(4), 450, 1500
    truth, covered, plain = changed * (1 - 2 * lost), 0, 0
    for _ in range(tries):
        apart = rng.choice([0.0, -1.0, 1.0], p=[1 - changed, changed * lost, changed * (1 - lost)], size=samples)
        found = difference((apart > 0).astype(float), (apart < 0).astype(float))
        assert found is not None
        covered += found.ci_low <= truth <= found.ci_high
        half = 1.96 * apart.std(ddof=1) / np.sqrt(samples)
        plain += abs(apart.mean() - truth) <= half
    assert covered / tries >= 0.935
    assert covered >= plain


def test_no_difference_seen_is_no_proof_of_none() -> None:
    """Of few samples less than of many."""
    few, many = difference(*hits(30, 0, 0, 0)), difference(*hits(3000, 0, 0, 0))
    assert few is not None
    assert many is not None
    assert 0 == few.value < many.ci_high < few.ci_high


def test_chance_is_mcnemar_s_and_student_s() -> None:
    """One-sided: the second is better by chance alone this often."""
    mine, theirs = hits(100, 2, 9, 5)
    assert chance_of_worse(mine, theirs) == pytest.approx(stats.binom.cdf(2, 11, 0.5))
    assert chance_of_worse(theirs, mine) == 1.0
    assert chance_of_worse(*hits(100, 0, 0, 5)) == 1.0
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 50), rng.normal(0.3, 1, 50)
    assert chance_of_worse(one, other) == pytest.approx(stats.ttest_rel(one, other, alternative="less").pvalue)
    assert chance_of_worse(other - 1.0, other) == 0.0
    assert chance_of_worse(other + 1.0, other) == chance_of_worse(other, other) == 1.0


def test_confidence_of_a_half_is_the_estimate_and_more_is_less_favourable() -> None:
    """Of hits, of misses counted as −1 and of other scores; Wilson's bound where scipy has it."""
    mine, theirs = hits(440, 1, 3, 6)
    rng = np.random.default_rng(1)
    for one, other in ((mine, theirs), (-mine, -theirs), (rng.normal(0, 1, 90), rng.normal(0, 1, 90))):
        assert assured_mean(one, 0.5) == pytest.approx(one.mean())
        assert assured_change(one, other, 0.5) == pytest.approx((one - other).mean())
        assert assured_mean(one, 0.95) < one.mean()
        assert assured_change(one, other, 0.95) < (one - other).mean()
    wilson = stats.binomtest(441, 450, alternative="greater").proportion_ci(0.95, method="wilson")
    assert assured_mean(mine, 0.95) == pytest.approx(wilson.low)
    misses = stats.binomtest(9, 450, alternative="less").proportion_ci(0.95, method="wilson")
    assert assured_mean(mine - 1.0, 0.95) == pytest.approx(-misses.high)


def test_confidence_is_kept_in_simulated_data() -> None:
    """The bound at 0.9 is below the truth in 90 % of data sets: of means and of differences."""
    rng, tries = np.random.default_rng(2), 1500
    below = lower = 0
    for _ in range(tries):
        one = (rng.random(300) < 0.9).astype(float)
        other = np.where(rng.random(300) < 0.05, 1 - one, one)
        below += assured_mean(one, 0.9) <= 0.9
        lower += assured_change(one, other, 0.9) <= 0.9 - (0.9 * 0.95 + 0.1 * 0.05)
    assert 0.87 <= below / tries <= 0.94
    assert 0.87 <= lower / tries <= 0.94


def test_pairs_are_of_the_samples_that_both_have() -> None:
    """The first ones; without scores a sample there are none."""
    many, few = Scored(np.array([1.0, 0.0, 1.0, 1.0]), 4), Scored(np.array([1.0, 1.0]), 2)
    both = common(many, few)
    assert both is not None
    np.testing.assert_array_equal(both[0], [1.0, 0.0])
    found = paired(many, few)
    assert found is not None
    assert (found.value, found.samples) == (-0.5, 2)
    assert paired(many, Scored(np.array([0.7]), 4)) is None
    assert paired(many, None) is None


def test_one_sample_tells_of_hits_alone() -> None:
    """Other scores have no spread there."""
    assert difference(np.array([0.3]), np.array([0.4])) is None
    assert assured_change(np.array([0.3]), np.array([0.4]), 0.95) == pytest.approx(-0.1)
    assert difference(np.array([1.0]), np.array([0.0])) is not None
