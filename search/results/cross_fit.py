"""Accuracy of the recommended point on samples that had no part in choosing it.

A point that is taken because it does well on some samples does better there than it does: the winner's luck. Choosing
uses all samples, so none is left over to report on; instead the held-out samples are split in folds, and each is scored
by the point that the same rule takes without that fold. The mean is free of luck whatever the rule, for no sample was
scored by a point that it helped to choose. Where every fold leads to the same point this is that point's own mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from bitfront.core import AccuracyStats, MetricInfo, PairedDifference
from bitfront.search.measuring.accuracy import summary
from bitfront.search.measuring.paired import difference
from bitfront.search.results.evidence import Evidence

FOLDS = 10

Take = Callable[[Mapping[str, Evidence], Evidence], str | None]


def cross_fitted(
    taken: str, evidence: Mapping[str, Evidence], reference: Evidence, take: Take, metric: MetricInfo
) -> tuple[AccuracyStats | None, PairedDifference | None]:
    """Accuracy of what the rule takes, and its difference to the given network, on the held-out samples.

    Args:
        taken: Id of the point that the rule takes of all samples; of a fold without which it takes none, too.
        evidence: Id → scores.
        reference: The given network's.
        take: The rule: scores by id and the given network's → id.
        metric: Turns values back into its own.

    Returns:
        None each where there are no held-out scores a sample, or fewer than two.
    """
    own, beside = evidence[taken].held_out, reference.held_out
    scored = [each.held_out for each in evidence.values()]
    if own is None or own.samples < 2 or not all(s and s.per_sample and s.samples == own.samples for s in scored):
        return None, None
    fold = np.arange(own.samples) % min(FOLDS, own.samples)
    scores = np.empty(own.samples)
    for number in range(fold.max() + 1):
        kept = fold != number
        without = {id_: each.only(kept) for id_, each in evidence.items()}
        found = take(without, reference.only(kept)) or taken
        held_out = evidence[found].held_out
        assert held_out is not None
        scores[~kept] = held_out.scores[~kept]
    change = None
    if beside is not None and beside.per_sample and beside.samples == own.samples:
        change = difference(scores, beside.scores)
    turned = change.negated() if change and metric.lower_is_better else change
    return metric.oriented_stats(summary(scores)), turned
