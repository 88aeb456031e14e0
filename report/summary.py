"""The result in one sentence: which point meets the limits and what it gains, or how near the search came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bitfront.core import Limit, MetricInfo, formatting
from bitfront.core.given_network import GIVEN_ID
from bitfront.core.point import Point
from bitfront.report.results import RunResults
from bitfront.report.tables import NOT_REPRODUCED, accuracy_difference, size_ratio
from bitfront.report.timing_notes import busy_machine

RANDOM_RANGES = (
    "Activation ranges come from random numbers (--calib random), not from data: every quantised point is a guess, "
    "and has to be made again with real inputs before it is used."
)
_NAMES = {GIVEN_ID: "the given network"}
_AGAIN = "run again while nothing else computes"
_TIE = 1.02
_WORTH = 1.1  # times as slow: a point that is less slower is not told of another


class RunStatus(Enum):
    """End of a run for the person who asked."""

    MET = "met"
    MISSED = "missed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The result of a run in a sentence, with what goes with it.

    Attributes:
        status: For the colour and the exit status.
        headline: One sentence.
        details: Further sentences: that ranges are random, what stopped the run, why there is but one point, what else
            may be worth taking, nearest points.
    """

    status: RunStatus
    headline: str
    details: tuple[str, ...] = ()


def point_text(results: RunResults, point: Point) -> str:
    """Measured values of a point: ``3.10 ms (0.41 × given), 97.20 % (−0.10 points), 62.0 kB (0.19 ×)``."""
    latency, accuracy = point.shown_latency, point.shown_accuracy
    parts = []
    if latency:
        parts.append(f"{formatting.latency(latency.median_ms)} ({formatting.ratio(latency.ratio)} {results.versus})")
    if accuracy:
        change = accuracy_difference(results, point)
        note = f" ({formatting.metric_change(change, results.metric)})" if change is not None else ""
        parts.append(formatting.metric_value(accuracy.value, results.metric) + note)
    share = size_ratio(results, point)
    parts.append(formatting.size(point.size_bytes) + (f" ({formatting.ratio(share)})" if share is not None else ""))
    return ", ".join(parts)


def limit_texts(results: RunResults) -> tuple[str, ...]:
    """Each limit in words: ``latency ≤ 5.00 ms``, ``error ≤ 0.2``."""
    budget, metric = results.budget, results.metric
    texts = []
    if budget.latency_ms is not None:
        texts.append(f"latency ≤ {formatting.latency(budget.latency_ms)}")
    if budget.min_accuracy is not None:
        texts.append(f"{metric.quantity} ≥ {formatting.metric_value(budget.min_accuracy, metric)}")
    if budget.max_drop is not None:
        texts.append(f"{metric.quantity} {_within(budget.max_drop, results)}")
    if budget.max_error is not None:
        texts.append(f"error ≤ {formatting.metric_value(budget.max_error, metric)}")
    if budget.max_rise is not None:
        texts.append(f"error {_within(budget.max_rise, results)}")
    if budget.size_bytes is not None:
        texts.append(f"size ≤ {formatting.size(budget.size_bytes)}")
    return tuple(texts)


def _within(change: float, results: RunResults) -> str:
    text = formatting.metric_change(change, results.metric).lstrip("+±")
    return f"within {text} of {_NAMES.get(results.versus, results.versus)}"


def summarise_run(results: RunResults) -> RunSummary:
    """The summary that the report and the command line begin with."""
    random_ranges = [RANDOM_RANGES] if results.random_ranges else []
    details = [*random_ranges, *_ended_early(results), *results.only_fp32]
    if results.recommended is not None:
        meets = "meets every limit" if limit_texts(results) else "is recommended (no limit was set)"
        point = results.points[results.recommended]
        network = f" ({point.network.label})" if point.network else ""
        text = f"{point.id}{network} {meets}: {point_text(results, point)}"
        details += _also_worth_it(results, point)
        return RunSummary(status=RunStatus.MET, headline=text, details=(*details, *busy_machine(results)))
    if not results.complete and not results.nearest:
        text = "Stopped before a point could be recommended"
        return RunSummary(status=RunStatus.UNFINISHED, headline=text, details=(*details, *busy_machine(results)))
    headline, more = _missed(results)
    details += [*more, *_nearest_texts(results)]
    return RunSummary(status=RunStatus.MISSED, headline=headline, details=(*details, *busy_machine(results)))


def _ended_early(results: RunResults) -> list[str]:
    """A sentence on what ended the run before its time; none where nothing did."""
    if results.stopped is not None:
        what = "the results below are complete for what it had tried" if results.complete else "what it knew is below"
        return [f"The search was stopped ({results.stopped}); {what}."]
    return [] if results.complete else ["The run has not finished; what it knew is below."]


def _nearest_texts(results: RunResults) -> list[str]:
    """A sentence on each point that comes nearest to one limit or several."""
    nearest: dict[str, list[str]] = {}
    for limit, id_ in results.nearest.items():
        nearest.setdefault(id_, []).append(results.metric.quantity if limit == Limit.ACCURACY else limit)
    texts = []
    for id_, limits in nearest.items():
        point = results.points[id_]
        missed = f"; misses {', '.join(point.violations)}" if point.violations else ""
        missed += f"; {NOT_REPRODUCED}" if point.latency_reproduced is False else ""
        texts.append(f"Nearest by {' and '.join(limits)}: {id_}, {point_text(results, point)}{missed}.")
    return texts


def _also_worth_it(results: RunResults, recommended: Point) -> list[str]:
    """A sentence on the front point that is faster and smaller than the recommended, and may be as accurate.

    A sample or two may have made the scheme; whether they are worth the difference is for the person to say. Of several
    the most accurate is named, of equals the smallest that is within 2 % of the fastest.
    """
    rivals = {
        id_: (results.metric.oriented(accuracy.value), latency.ratio)
        for id_ in results.front
        if (accuracy := results.points[id_].shown_accuracy)
        and (latency := results.points[id_].shown_latency)
        and _rivals(results.points[id_], recommended, results.metric)
    }
    if not rivals:
        return []
    best = max(value for value, _ in rivals.values())
    fastest = min(ratio for value, ratio in rivals.values() if value == best)
    named = [results.points[id_] for id_, (value, ratio) in rivals.items() if value == best and ratio <= _TIE * fastest]
    rival = min(named, key=lambda point: point.size_bytes)
    return [
        f"{rival.id} is faster and smaller, and may be as accurate (each {results.metric.quantity} is within the "
        f"other's 95 % interval): {point_text(results, rival)}."
    ]


def _rivals(point: Point, recommended: Point, metric: MetricInfo) -> bool:
    """Whether a point within every limit is surely faster and by enough, smaller, and not surely less accurate."""
    mine, theirs = point.shown_latency, recommended.shown_latency
    if mine is None or theirs is None or point.shown_accuracy is None or recommended.shown_accuracy is None:
        return False
    scored, aimed = (metric.oriented_stats(stats) for stats in (point.shown_accuracy, recommended.shown_accuracy))
    return (
        point.feasible
        and mine.ratio_high < theirs.ratio_low
        and mine.ratio * _WORTH <= theirs.ratio
        and point.size_bytes < recommended.size_bytes
        and scored.ci_high >= aimed.value
        and aimed.ci_low <= scored.value
    )


def _missed(results: RunResults) -> tuple[str, list[str]]:
    """Reason why nothing is recommended, in one sentence, and the sentences that go with it.

    A point that is within every limit by numbers that were not reproduced is told apart from one that misses a limit.
    """
    so_far = "" if results.complete else " so far"
    judged = [point for point in results.points.values() if point.latency_reproduced is not None]
    doubtful = [point.id for point in judged if not point.latency_reproduced and point.feasible]
    if judged and not any(point.latency_reproduced for point in judged):
        return (
            "No latency was reproduced in a fresh process: the machine is too noisy to recommend a point",
            [f"Every point was timed twice, and its ratio came out differently; {_AGAIN}."],
        )
    if not doubtful:
        unsure = [point.id for point in judged if not point.latency_reproduced]
        excluded = f"Latency not reproduced in a fresh process, so not considered: {', '.join(unsure)}; {_AGAIN}."
        return f"No point meets every limit{so_far}", [excluded] * bool(unsure)
    return (
        f"No point whose latency was reproduced meets every limit{so_far}",
        [f"Within every limit, but with a latency not reproduced in a fresh process: {', '.join(doubtful)}."],
    )
