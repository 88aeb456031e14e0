"""The result in one sentence: which point meets the budgets and what it gains, or how near the search came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bitfront.report import wording
from bitfront.report.given import GIVEN_ID
from bitfront.report.results import Point, RunResults
from bitfront.report.tables import NOT_REPRODUCED, accuracy_difference, size_ratio

RANDOM_RANGES = (
    "Activation ranges come from random numbers (--calib random), not from data: every quantised point is a guess, "
    "and has to be made again with real inputs before it is used."
)
_NAMES = {GIVEN_ID: "the given network"}
_AGAIN = "run again while nothing else computes"
_TIE = 1.02
_WORTH = 1.1  # times as slow: a point that is less slower is not told of another


class RunStatus(Enum):
    """How a run ended for the person who asked."""

    MET = "met"
    MISSED = "missed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The sentence and what goes with it.

    Attributes:
        outcome: For the colour and the exit status.
        headline: One sentence.
        details: Further sentences: that ranges are random, what stopped the run, why there is but one point, what else
            may be worth taking, nearest points.
    """

    outcome: RunStatus
    headline: str
    details: tuple[str, ...] = ()


def describe(results: RunResults, point: Point) -> str:
    """A point in words: ``3.10 ms (0.41 × given), 97.20 % (−0.10 points), 62.0 kB (0.19 ×)``."""
    latency, accuracy = point.shown_latency, point.shown_accuracy
    parts = []
    if latency:
        parts.append(f"{wording.latency(latency.median_ms)} ({wording.ratio(latency.ratio)} {results.versus})")
    if accuracy:
        change = accuracy_difference(results, point)
        note = f" ({wording.accuracy_change(change, results.metric)})" if change is not None else ""
        parts.append(wording.accuracy(accuracy.value, results.metric) + note)
    share = size_ratio(results, point)
    parts.append(wording.size(point.size_bytes) + (f" ({wording.ratio(share)})" if share is not None else ""))
    return ", ".join(parts)


def budget_texts(results: RunResults) -> tuple[str, ...]:
    """Each limit in words: ``latency ≤ 5.00 ms``."""
    budget, metric = results.budget, results.metric
    texts = []
    if budget.latency_ms is not None:
        texts.append(f"latency ≤ {wording.latency(budget.latency_ms)}")
    if budget.min_accuracy is not None:
        texts.append(f"accuracy ≥ {wording.accuracy(budget.min_accuracy, metric)}")
    if budget.max_drop is not None:
        drop = wording.accuracy_change(budget.max_drop, metric).lstrip("+±")
        texts.append(f"accuracy within {drop} of {_NAMES.get(results.versus, results.versus)}")
    if budget.size_bytes is not None:
        texts.append(f"size ≤ {wording.size(budget.size_bytes)}")
    return tuple(texts)


def verdict(results: RunResults) -> Verdict:
    """What the report and the command line say first."""
    details: list[str] = [RANDOM_RANGES] if results.random_ranges else []
    if results.stopped is not None:
        what = "the results below are complete for what it had tried" if results.complete else "what it knew is below"
        details.append(f"The search was stopped ({results.stopped}); {what}.")
    elif not results.complete:
        details.append("The run has not finished; what it knew is below.")
    details += results.only_fp32
    if results.recommended is not None:
        meets = "meets every budget" if budget_texts(results) else "is recommended (no budget was set)"
        point = results.points[results.recommended]
        network = f" ({point.network.label})" if point.network else ""
        text = f"{point.id}{network} {meets}: {describe(results, point)}"
        details += _also_worth_it(results, point)
        return Verdict(outcome=RunStatus.MET, headline=text, details=tuple(details))
    if not results.complete and not results.nearest:
        text = "Stopped before a point could be recommended"
        return Verdict(outcome=RunStatus.UNFINISHED, headline=text, details=tuple(details))
    headline, more = _missed(results)
    details += more
    nearest: dict[str, list[str]] = {}
    for limit, id_ in results.nearest.items():
        nearest.setdefault(id_, []).append(limit)
    for id_, limits in nearest.items():
        point = results.points[id_]
        missed = f"; misses {', '.join(point.violations)}" if point.violations else ""
        missed += f"; {NOT_REPRODUCED}" if point.held is False else ""
        details.append(f"Nearest by {' and '.join(limits)}: {id_}, {describe(results, point)}{missed}.")
    return Verdict(outcome=RunStatus.MISSED, headline=headline, details=tuple(details))


def _also_worth_it(results: RunResults, recommended: Point) -> list[str]:
    """A sentence on the front point that is faster and smaller than the recommended, and may be as accurate.

    A sample or two may have made the scheme; whether they are worth the difference is for the person to say. Of several
    the most accurate is named, of equals the smallest that is within 2 % of the fastest.
    """
    rivals = {
        id_: (accuracy.value, latency.ratio)
        for id_ in results.front
        if (accuracy := results.points[id_].shown_accuracy)
        and (latency := results.points[id_].shown_latency)
        and _rivals(results.points[id_], recommended)
    }
    if not rivals:
        return []
    best = max(value for value, _ in rivals.values())
    fastest = min(ratio for value, ratio in rivals.values() if value == best)
    named = [results.points[id_] for id_, (value, ratio) in rivals.items() if value == best and ratio <= _TIE * fastest]
    rival = min(named, key=lambda point: point.size_bytes)
    return [
        f"{rival.id} is faster and smaller, and may be as accurate (each accuracy is within the other's 95 % "
        f"interval): {describe(results, rival)}."
    ]


def _rivals(point: Point, recommended: Point) -> bool:
    """Whether a point within every limit is surely faster and by enough, smaller, and not surely less accurate."""
    mine, theirs = point.shown_latency, recommended.shown_latency
    scored, aimed = point.shown_accuracy, recommended.shown_accuracy
    return (
        point.feasible
        and mine is not None
        and theirs is not None
        and scored is not None
        and aimed is not None
        and mine.ratio_high < theirs.ratio_low
        and mine.ratio * _WORTH <= theirs.ratio
        and point.size_bytes < recommended.size_bytes
        and scored.ci_high >= aimed.value
        and aimed.ci_low <= scored.value
    )


def _missed(results: RunResults) -> tuple[str, list[str]]:
    """Why nothing is recommended, in one sentence and those that go with it.

    A point that is within every budget by numbers that were not reproduced is told apart from one that misses a budget.
    """
    so_far = "" if results.complete else " so far"
    judged = [point for point in results.points.values() if point.held is not None]
    doubtful = [point.id for point in judged if not point.held and point.feasible]
    if judged and not any(point.held for point in judged):
        return (
            "No latency was reproduced in a fresh process: the machine is too noisy to recommend a point",
            [f"Every point was timed twice, and its ratio came out differently; {_AGAIN}."],
        )
    if not doubtful:
        unsure = [point.id for point in judged if not point.held]
        left_out = f"Timed differently in a fresh process, and left out: {', '.join(unsure)}; {_AGAIN}."
        return f"No point meets every budget{so_far}", [left_out] * bool(unsure)
    return (
        f"No point whose latency was reproduced meets every budget{so_far}",
        [f"Within every budget, but timed differently in a fresh process: {', '.join(doubtful)}."],
    )
