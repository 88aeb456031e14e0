"""The result in one sentence: which point meets the limits and what it gains, or how near the search came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from bitfront.core import Limit, formatting
from bitfront.core.constraints import ESTIMATE
from bitfront.core.given_network import GIVEN_ID
from bitfront.core.point import Point
from bitfront.report.choice_text import change_text, choice_details, chosen_text, gains, nothing_gained_details
from bitfront.report.results import RunResults
from bitfront.report.tables import NOT_REPRODUCED, accuracy_difference, size_ratio
from bitfront.report.timing_notes import busy_machine

RANDOM_RANGES = (
    "Activation ranges come from random numbers (--calib random), not from data: every quantised point is a guess, "
    "and has to be made again with real inputs before it is used."
)
_NAMES = {GIVEN_ID: "the given network"}
_AGAIN = "run again while nothing else computes"


class RunStatus(Enum):
    """End of a run for the person who asked."""

    MET = "met"
    NOTHING_GAINED = "unchanged"
    MISSED = "missed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """The result of a run in a sentence, with what goes with it.

    Attributes:
        status: For the colour and the exit status.
        headline: One sentence.
        details: Further sentences: that ranges are random, what stopped the run, why there is but one point, how the
            recommended was chosen, nearest points.
    """

    status: RunStatus
    headline: str
    details: tuple[str, ...] = ()


def point_text(results: RunResults, point: Point, accuracy_text: str = "") -> str:
    """Measured values of a point: ``3.10 ms (0.41 × given), 97.20 % (−0.10 points), 62.0 kB (0.19 ×)``.

    Args:
        results: Of the run.
        point: One of its points.
        accuracy_text: What is told of its accuracy instead of what was measured.
    """
    latency, accuracy = point.shown_latency, point.shown_accuracy
    parts = []
    if latency:
        parts.append(f"{formatting.latency(latency.median_ms)} ({formatting.ratio(latency.ratio)} {results.versus})")
    if accuracy_text:
        parts.append(accuracy_text)
    elif accuracy:
        change, paired = accuracy_difference(results, point), point.shown_change
        note = f" ({formatting.metric_change(change, results.metric)})" if change is not None else ""
        note = f" {change_text(paired, results)}" if paired and point.id != results.reference else note
        parts.append(formatting.metric_value(accuracy.value, results.metric) + note)
    share = size_ratio(results, point)
    parts.append(formatting.size(point.size_bytes) + (f" ({formatting.ratio(share)})" if share is not None else ""))
    return ", ".join(parts)


def limit_texts(results: RunResults) -> tuple[str, ...]:
    """Each limit in words: ``latency ≤ 5.00 ms``, ``error ≤ 0.2``."""
    budget, metric = results.budget, results.metric
    texts = []
    if budget.min_accuracy is not None:
        texts.append(f"{metric.quantity} ≥ {formatting.metric_value(budget.min_accuracy, metric)}")
    if budget.max_drop is not None:
        texts.append(f"{metric.quantity} {_within(budget.max_drop, results)}")
    if budget.max_error is not None:
        texts.append(f"error ≤ {formatting.metric_value(budget.max_error, metric)}")
    if budget.max_rise is not None:
        texts.append(f"error {_within(budget.max_rise, results)}")
    if budget.confidence != ESTIMATE:
        texts = [f"{text} at {100 * budget.confidence:g} % confidence" for text in texts]
    if budget.latency_ms is not None:
        texts.insert(0, f"latency ≤ {formatting.latency(budget.latency_ms)}")
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
        point = results.points[results.recommended]
        headline, status = _recommendation(results, point)
        more = [] if status is RunStatus.MET else nothing_gained_details(results)
        details += [*more, *choice_details(results, point)]
        return RunSummary(status=status, headline=headline, details=(*details, *busy_machine(results)))
    if not results.complete and not results.nearest:
        text = "Stopped before a point could be recommended"
        return RunSummary(status=RunStatus.UNFINISHED, headline=text, details=(*details, *busy_machine(results)))
    headline, more = _missed(results)
    details += [*more, *_nearest_texts(results)]
    return RunSummary(status=RunStatus.MISSED, headline=headline, details=(*details, *busy_machine(results)))


def _recommendation(results: RunResults, point: Point) -> tuple[str, RunStatus]:
    limited = bool(limit_texts(results))
    network = f" ({point.network.label})" if point.network else ""
    is_reference = point.id == results.reference
    values = point_text(results, point, "" if is_reference else chosen_text(results))
    doubt = f"; {NOT_REPRODUCED}" if point.latency_reproduced is False else ""
    if gains(results, point):
        meets = "meets every limit" if limited else "is recommended (no limit was set)"
        return f"{point.id}{network} {meets}: {values}{doubt}", RunStatus.MET
    kept = "the network as it was given" if is_reference else f"{point.id}{network}, no better than the one given,"
    meets = "meets every limit" if limited else "is all that can be recommended"
    return f"Nothing gained: {kept} {meets}: {point.id}, {values}{doubt}", RunStatus.NOTHING_GAINED


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


def _missed(results: RunResults) -> tuple[str, list[str]]:
    """Reason why nothing is recommended, in one sentence, and the sentences that go with it.

    A point that is within every limit by numbers that were not reproduced is told apart from one that misses a limit.
    """
    so_far = "" if results.complete else " so far"
    if results.budget.latency_ms is None:
        return f"No point meets every limit{so_far}", []
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
