"""Front and recommendation: which measured points meet the limits, which are on the front, and which one to take.

Recommended is the point that ``choose_best`` takes of those within every limit, decided on all samples that it was
scored on (``evidence``). A baseline that is as good is preferred to it for its simplicity: the network as given first,
then FP32, then the uniform precisions.

    y is as good as p   a paired test does not tell it to be less accurate, and it is neither surely slower nor larger
    y beats p           it is as good, and surely better in one
    surely faster       the intervals of the median and of the ratio do not overlap, and it is 2 % less
    surely smaller      it is 1 % less

A point whose latency was not reproduced is neither on the front nor recommended where latency is limited; where it is
not, such a latency decides nothing. Accuracies are compared so that greater is better (``MetricInfo.oriented``).

Where no point is within every limit, ``nearest`` names one for each limit: of those that meet the others the one that
misses it least, or, where none does, the one that misses all together least.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from bitfront.core import Constraints, Limit, LimitCheck, MetricInfo, Preference, formatting
from bitfront.core.given_network import FP32_ID, GIVEN_ID, GivenNetwork
from bitfront.core.pareto import Objectives, pareto_front
from bitfront.core.point import Point
from bitfront.core.preference import Choice
from bitfront.search.measuring.paired import difference
from bitfront.search.results.cross_fit import cross_fitted
from bitfront.search.results.evidence import Evidence, check_accuracy, told_worse
from bitfront.search.results.ranking import LATENCY_TIE, SIZE_TIE, Ranking, choose_best

Checks = Mapping[Limit, LimitCheck]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Points with their front and recommendation: the results of a run.

    Attributes:
        points: Id → point, ``feasible`` and ``violations`` filled in.
        front: Ids of the Pareto-optimal points, the preferred first.
        recommended: Id of the point to take, None where none meets every limit.
        nearest: Limit → id, the nearest of all first; empty where a point is recommended.
        given: What was measured of the given network, with which all are compared.
        baselines: Ids of the uniform points, and of the given network where it is a point of its own.
        choice: How the recommended point was chosen.
    """

    points: Mapping[str, Point]
    front: tuple[str, ...]
    recommended: str | None
    nearest: Mapping[str, str]
    given: GivenNetwork
    baselines: tuple[str, ...]
    choice: Choice

    @property
    def reference(self) -> str:
        """Id of the point that stands for the given network: its own, or that of FP32, which makes no difference."""
        return GIVEN_ID if GIVEN_ID in self.points else FP32_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule by which one point is taken of those that were measured.

    Attributes:
        budget: The limits.
        preference: What is wanted of points within them.
        baselines: Ids of those that are preferred where they are as good, the simplest first.
        metric: How its values are compared and written.
    """

    budget: Constraints
    preference: Preference = field(default_factory=Preference)
    baselines: Sequence[str]
    metric: MetricInfo

    @property
    def ranking(self) -> Ranking:
        """Order of quantities that decides between points."""
        return Ranking.of(self.budget, self.preference)

    def eligible(self, point: Point) -> bool:
        """Whether a point's latency keeps it from nothing: it was reproduced, or is not limited."""
        return self.budget.latency_ms is None or point.latency_reproduced is not False

    def checks(self, point: Point, evidence: Evidence, reference: Evidence) -> Checks:
        """Each limit beside what was measured of a point."""
        found = self.budget.check(
            latency_ms=point.shown_latency.median_ms if point.shown_latency else None, size_bytes=point.size_bytes
        )
        accuracy = check_accuracy(evidence, reference, self.budget)
        return found if accuracy is None else {**found, Limit.ACCURACY: accuracy}

    def take(self, points: Iterable[Point], evidence: Mapping[str, Evidence], reference: Evidence) -> str | None:
        """The id to recommend; None where no point is within every limit.

        Args:
            points: Those that were measured.
            evidence: Id → what is known of its accuracy.
            reference: Of the given network.
        """
        within = {
            point.id: point
            for point in points
            if self.eligible(point)
            and all(check.met for check in self.checks(point, evidence[point.id], reference).values())
        }
        chosen = choose_best(
            {id_: self._objectives(point, evidence[id_]) for id_, point in within.items()},
            self.ranking,
            told_worse=lambda one, other: told_worse(evidence[one], evidence[other], self.preference.significance),
            untimed=frozenset(id_ for id_, point in within.items() if point.latency_reproduced is False),
        )
        return chosen and self._simplest(within, chosen, evidence)

    def beats(self, point: Point, other: Point, evidence: Mapping[str, Evidence]) -> bool:
        """Whether, both within every limit, a point is as good as another, and surely better in one."""
        return self._as_good(point, other, evidence) and (
            self._less_accurate(other, point, evidence) or _surely_faster(point, other) or _surely_smaller(point, other)
        )

    def _simplest(self, within: Mapping[str, Point], chosen: str, evidence: Mapping[str, Evidence]) -> str:
        for id_ in self.baselines:
            baseline = within.get(id_)
            if (
                baseline is not None
                and self._as_good(baseline, within[chosen], evidence)
                and not any(self.beats(other, baseline, evidence) for other in within.values())
            ):
                return id_
        return chosen

    def _as_good(self, point: Point, other: Point, evidence: Mapping[str, Evidence]) -> bool:
        return (
            not self._less_accurate(point, other, evidence)
            and not _surely_faster(other, point)
            and not _surely_smaller(other, point)
            and (point.latency_reproduced is not False or other.latency_reproduced is False)
        )

    def _less_accurate(self, point: Point, other: Point, evidence: Mapping[str, Evidence]) -> bool:
        return told_worse(evidence[point.id], evidence[other.id], self.preference.significance)

    def _objectives(self, point: Point, evidence: Evidence) -> Objectives:
        return replace(objectives_of(point, self.metric), accuracy=evidence.chosen_by)


def select(
    points: Iterable[Point], rule: Rule, *, given: GivenNetwork, evidence: Mapping[str, Evidence] | None = None
) -> Selection:
    """Front by what is shown of each point, the finalists' measurement or else the search's; recommendation by all.

    Args:
        points: In the order they are to be listed.
        rule: Limits and preferences.
        given: The given network, from whose accuracy a drop counts.
        evidence: Id → scores, also of the given network as ``given``; values alone count where there are none.
    """
    by_id = {point.id: point for point in points}
    measured = [p for p in by_id.values() if p.shown_latency is not None and p.shown_accuracy is not None]
    known = {p.id: Evidence.of_values(p, rule.metric) for p in measured} | dict(evidence or {})
    reference = (evidence or {}).get(GIVEN_ID) or Evidence.of_values(given, rule.metric)
    checks = {p.id: rule.checks(p, known[p.id], reference) for p in measured}
    judged = {id_: _compared(p, checks.get(id_), known.get(id_), rule.metric) for id_, p in by_id.items()}
    objectives = {p.id: objectives_of(p, rule.metric) for p in measured}
    sound = {id_: objectives[id_] for id_ in objectives if judged[id_].latency_reproduced is not False}
    ids = list(sound)
    front = [ids[index] for index in pareto_front(list(sound.values()))]
    taken = rule.take(measured, known, reference)
    named = [p.id for p in measured if rule.eligible(p)]
    return Selection(
        points=judged,
        front=tuple(sorted(front, key=lambda id_: rule.ranking.key(sound[id_]))),
        recommended=taken,
        nearest={} if taken else _nearest({id_: checks[id_] for id_ in named or checks}),
        given=given,
        baselines=tuple(id_ for id_ in rule.baselines if id_ in by_id),
        choice=_choice(rule, measured, known, reference, taken),
    )


def objectives_of(point: Point, metric: MetricInfo) -> Objectives:
    """The objectives of a point that was measured, accuracy oriented so that greater is better."""
    assert point.shown_latency is not None
    assert point.shown_accuracy is not None
    return Objectives(
        accuracy=metric.oriented(point.shown_accuracy.value),
        latency_ms=point.shown_latency.median_ms,
        size_bytes=float(point.size_bytes),
    )


def _choice(
    rule: Rule, points: Sequence[Point], known: Mapping[str, Evidence], reference: Evidence, taken: str | None
) -> Choice:
    prefer = rule.preference.within(rule.budget)
    choice = Choice(prefer=prefer, significance=rule.preference.significance)
    if taken is None:
        return choice
    accuracy, change = cross_fitted(
        taken, known, reference, lambda kept, beside: rule.take(points, kept, beside), rule.metric
    )
    within = [p for p in points if rule.eligible(p) and _met(rule.checks(p, known[p.id], reference))]
    rival = max(within, key=lambda p: known[p.id].chosen_by).id
    ahead = known[rival].chosen_by > known[taken].chosen_by
    if not ahead or not rule.preference.accuracy_first(rule.budget):
        return replace(choice, accuracy=accuracy, change=change)
    both = known[rival].beside(known[taken])
    apart = difference(*both) if both else None
    turned = apart.negated() if apart and rule.metric.lower_is_better else apart
    return replace(choice, accuracy=accuracy, change=change, rival=rival, rival_change=turned)


def _met(checks: Checks) -> bool:
    return all(check.met for check in checks.values())


def _compared(point: Point, checks: Checks | None, evidence: Evidence | None, metric: MetricInfo) -> Point:
    """The point with what its comparison with the limits came to; None is of one that was not measured."""
    missed = [check for check in (checks or {}).values() if not check.met]
    # A limit of accuracy is judged on more samples than the accuracy is shown of.
    samples = evidence.samples if evidence and len(evidence.parts) > 1 else None
    texts = tuple(formatting.limit_missed(check, metric, samples) for check in missed)
    return replace(point, feasible=checks is not None and not missed, violations=texts)


def _surely_faster(point: Point, other: Point) -> bool:
    mine, theirs = point.shown_latency, other.shown_latency
    return (
        mine is not None
        and theirs is not None
        and mine.ci_high_ms < theirs.ci_low_ms
        and mine.ratio_high < theirs.ratio_low
        and mine.median_ms * LATENCY_TIE < theirs.median_ms
    )


def _surely_smaller(point: Point, other: Point) -> bool:
    return point.size_bytes * SIZE_TIE < other.size_bytes


def _nearest(checks: Mapping[str, Checks]) -> dict[str, str]:
    """Limit → id of the point that is nearest to it; the one that misses least of all together first.

    A miss of the metric counts by the part of the range that its values have among the points: any other scale would
    depend on whether accuracies or errors are told.
    """
    values = [each[Limit.ACCURACY].value for each in checks.values() if Limit.ACCURACY in each]
    scale = max(values, default=0.0) - min(values, default=0.0) or 1.0
    distances = {id_: _distance(each, scale) for id_, each in checks.items()}
    found = {}
    for limit in Limit:
        known = {id_: each for id_, each in checks.items() if limit in each}
        keeping = [id_ for id_, each in known.items() if all(c.met for other, c in each.items() if other != limit)]
        if keeping:
            found[limit.value] = min(keeping, key=lambda id_: max(known[id_][limit].excess, 0.0))
        elif known:
            found[limit.value] = min(known, key=distances.__getitem__)
    return dict(sorted(found.items(), key=lambda entry: distances[entry[1]]))


def _distance(checks: Checks, scale: float) -> float:
    """Distance by which a point misses its limits in all: relative to the bound, of the metric to ``scale``."""
    units = {Limit.ACCURACY: scale}
    return sum(max(check.excess, 0.0) / units.get(limit, check.bound) for limit, check in checks.items())
