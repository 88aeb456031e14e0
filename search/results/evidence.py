"""Everything known of a point's accuracy: its scores on the search's samples and on the held-out ones, together.

Greater is better. With scores a sample both parts are one set of samples, on which points are compared pairwise; a
point that was scored on some of the search's samples is compared on those. A metric that gives one number for all
samples cannot be pooled: limits are held against the mean of both parts' numbers, weighted by samples, and of two
points that one is more accurate that is so on the search's part, so that what is reported, the other part, was not
chosen by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Constraints, Limit, LimitCheck, MetricInfo
from bitfront.core.given_network import GivenNetwork
from bitfront.core.point import Point
from bitfront.search.measuring.accuracy import Scored
from bitfront.search.measuring.metrics import Scores
from bitfront.search.measuring.paired import assured_change, assured_mean, chance_of_worse, common


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Scores of one network.

    Attributes:
        search: On the search's samples, or the first of them; None where not scored there.
        held_out: On the held-out samples; likewise.
        artifact: Digest of the network; empty where not known.
    """

    search: Scored | None = None
    held_out: Scored | None = None
    artifact: str = ""

    @classmethod
    def of_values(cls, known: Point | GivenNetwork, metric: MetricInfo) -> Evidence:
        """Return the evidence of a network whose scores are not known: a number for each part."""
        search, held_out = (
            Scored(np.array([metric.oriented(stats.value)]), max(stats.samples, 2)) if stats else None
            for stats in (known.search_accuracy, known.accuracy)
        )
        return cls(search=search, held_out=held_out)

    @property
    def parts(self) -> tuple[Scored, ...]:
        """Parts that were scored."""
        return tuple(part for part in (self.search, self.held_out) if part is not None)

    @property
    def per_sample(self) -> bool:
        """Whether every part has a score a sample."""
        return bool(self.parts) and all(part.per_sample for part in self.parts)

    def only(self, kept: NDArray[np.bool_]) -> Evidence:
        """The same with these of the held-out samples alone, (held-out samples,)."""
        if self.held_out is None or not self.held_out.per_sample:
            return self
        return replace(self, held_out=Scored(self.held_out.scores[kept], int(kept.sum())))

    def beside(self, other: Evidence) -> tuple[Scores, Scores] | None:
        """Scores of both on all samples that both were scored on, (n,) each; None without scores a sample."""
        pairs = [common(self.search, other.search), common(self.held_out, other.held_out)]
        found = [pair for pair in pairs if pair is not None]
        if not found or not (self.per_sample and other.per_sample):
            return None
        mine, theirs = (np.concatenate(scores) for scores in zip(*found, strict=True))
        return mine, theirs

    @property
    def everywhere(self) -> float:
        """Accuracy on all samples; the mean of both parts' numbers where those cannot be pooled; NaN of none."""
        if not self.parts:
            return math.nan
        values = [part.stats.value for part in self.parts]
        return float(np.average(values, weights=[part.samples for part in self.parts]))

    @property
    def chosen_by(self) -> float:
        """Accuracy by which points are ordered: on all samples, without scores a sample on the search's."""
        return self.everywhere if self.per_sample else self.parts[0].stats.value

    @property
    def samples(self) -> int:
        """Number of samples in all."""
        return sum(part.samples for part in self.parts)


def accuracy_of(evidence: Evidence, reference: Evidence) -> float:
    """Accuracy on all samples; of a point not scored on all, the reference's with the difference on the others."""
    both = evidence.beside(reference)
    if both is None or evidence.samples >= reference.samples:
        return evidence.everywhere
    return reference.everywhere + float((both[0] - both[1]).mean())


def check_accuracy(evidence: Evidence, reference: Evidence, budget: Constraints) -> LimitCheck | None:
    """The limit of the metric, held against all samples with the confidence asked for; None where there is none.

    Without scores a sample no confidence is known: the number is held against the limit as it is.
    """
    both = evidence.beside(reference)
    value = accuracy_of(evidence, reference)
    low = change_low = None
    if both is not None:
        # Of one and the same network the difference is none on whatever samples.
        same = evidence.artifact == reference.artifact != ""
        change_low = 0.0 if same else assured_change(*both, budget.confidence)
        scores = np.concatenate([part.scores for part in evidence.parts])
        low = assured_mean(scores, budget.confidence) + value - evidence.everywhere
    checks = budget.check(
        accuracy=value, reference_accuracy=reference.everywhere, accuracy_low=low, change_low=change_low
    )
    return checks.get(Limit.ACCURACY)


def told_worse(evidence: Evidence, best: Evidence, significance: float) -> bool:
    """Whether a network is less accurate than another by more than chance explains; by the values, without scores."""
    both = evidence.beside(best)
    if both is None:
        return evidence.chosen_by < best.chosen_by
    mine, theirs = both
    if significance >= 1:
        return float((mine - theirs).mean()) < 0
    return chance_of_worse(mine, theirs) < significance
