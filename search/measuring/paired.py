"""Comparison of two networks on the same samples, so that the samples' difficulty cancels; greater scores are better.

    hits (0 or 1)   difference of two proportions: exact McNemar test (binomial); interval by Bonett and Price
                    (*Adjusted Wald confidence interval for a difference of binomial proportions based on paired data*,
                    2012), which knows that samples not seen may differ even where none so far does
    other scores    paired t test and Student's interval

One number for all samples has no difference to test: nothing is told of it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from bitfront.core import PairedDifference
from bitfront.core.constraints import ESTIMATE
from bitfront.search.measuring.accuracy import Z95, Scored
from bitfront.search.measuring.metrics import Scores

_INTERVAL = 0.975
_ROUNDING = 1e-9  # of differences that are all the same


def is_hits(scores: Scores) -> bool:
    """Whether scores are hits: 0 or 1 each, or, of a metric that is better when lower, 0 or −1."""
    return bool(np.isin(scores, (0.0, 1.0)).all() or np.isin(scores, (0.0, -1.0)).all())


def common(scored: Scored | None, other: Scored | None) -> tuple[Scores, Scores] | None:
    """Scores of both on the samples that both were scored on, (n,) each; None without any, or without scores a sample.

    Scoring begins with the same samples, so those are the first of each.
    """
    if scored is None or other is None or not (scored.per_sample and other.per_sample):
        return None
    count = min(scored.samples, other.samples)
    return (scored.scores[:count], other.scores[:count]) if count else None


def difference(mine: Scores, theirs: Scores) -> PairedDifference | None:
    """Mean of ``mine − theirs``, scores of the same samples, (n,) each, with its interval.

    None of a single sample whose scores are no hits: it has no spread.
    """
    count, apart = len(mine), mine - theirs
    better, worse = int((apart > 0).sum()), int((apart < 0).sum())
    hits = is_hits(mine) and is_hits(theirs)
    if not hits and count < 2:
        return None
    value, error = float(apart.mean()), _standard_error(apart, better, worse, hits=hits)
    half = error * (Z95 if hits else float(stats.t.ppf(_INTERVAL, count - 1)))
    return PairedDifference(
        value=value, ci_low=value - half, ci_high=value + half, error=error, better=better, worse=worse, samples=count,
        hits=hits,
    )  # fmt: skip


def paired(scored: Scored | None, other: Scored | None) -> PairedDifference | None:
    """``difference`` on the samples that both were scored on; None where there is none to tell."""
    both = common(scored, other)
    return difference(*both) if both else None


def chance_of_worse(mine: Scores, theirs: Scores) -> float:
    """Probability of ``mine`` coming out so much worse than ``theirs`` by chance alone: a one-sided paired p-value.

    1 where it does not come out worse.
    """
    apart = mine - theirs
    better, worse = int((apart > 0).sum()), int((apart < 0).sum())
    if is_hits(mine) and is_hits(theirs):
        return float(stats.binom.sf(worse - 1, better + worse, 0.5)) if worse > better else 1.0
    if len(apart) < 2 or np.ptp(apart) <= _ROUNDING * np.abs(apart).max():
        return 0.0 if len(apart) > 1 and apart[0] < 0 else 1.0
    if apart.mean() >= 0:
        return 1.0
    return float(stats.ttest_rel(mine, theirs, alternative="less").pvalue)


def assured_mean(scores: Scores, confidence: float) -> float:
    """The lowest mean that scores of samples, (n,), speak for with this confidence; their mean at 0.5."""
    mean, count = float(scores.mean()), len(scores)
    if confidence == ESTIMATE:
        return mean
    z = float(stats.norm.ppf(confidence))
    if is_hits(scores):
        # Of a metric that is better when lower a hit is −1: the proportion is one of misses, and its upper end counts.
        sign = -1 if np.signbit(scores).any() else 1
        share, z = abs(mean), z * sign
        centre, spread = share + z * z / (2 * count), share * (1 - share) / count + z * z / (4 * count * count)
        return sign * float(centre - z * math.sqrt(spread)) / (1 + z * z / count)
    if count < 2:
        return mean
    return mean - float(stats.t.ppf(confidence, count - 1)) * float(scores.std(ddof=1)) / math.sqrt(count)


def assured_change(mine: Scores, theirs: Scores, confidence: float) -> float:
    """The lowest mean difference that scores of the same samples speak for with this confidence; the mean at 0.5."""
    found = None if confidence == ESTIMATE else difference(mine, theirs)
    if found is None:
        return float((mine - theirs).mean())
    z = stats.norm.ppf(confidence) if found.hits else stats.t.ppf(confidence, found.samples - 1)
    return found.value - float(z) * found.error


def _standard_error(apart: Scores, better: int, worse: int, *, hits: bool) -> float:
    if not hits:
        return float(apart.std(ddof=1)) / math.sqrt(len(apart))
    count = len(apart) + 2
    up, down = (better + 1) / count, (worse + 1) / count
    return math.sqrt((up + down - (up - down) ** 2) / count)
