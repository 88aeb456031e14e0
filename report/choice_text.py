"""Sentences on how the recommended point was chosen: whether it gains anything, luck, and what was passed over."""

from __future__ import annotations

from bitfront.core import PairedDifference, Prefer, formatting
from bitfront.core.constraints import ESTIMATE
from bitfront.core.given_network import LATENCY_APART, SIZE_APART
from bitfront.core.point import Point
from bitfront.report.results import RunResults

_SAME = 1e-12


def gains(results: RunResults, point: Point) -> bool:
    """Whether a point is told apart from the given network by being faster, smaller or more accurate.

    By the interval of the ratio and 2 %, by 1 % of the size, and by the interval of the paired difference.
    """
    latency, base, change = point.shown_latency, results.base, point.shown_change
    faster = latency is not None and latency.ratio_high < 1 and latency.ratio * (1 + LATENCY_APART) < 1
    smaller = base is not None and point.size_bytes * (1 + SIZE_APART) < base.size_bytes
    better = change is not None and change.measurable and results.metric.oriented(change.value) > 0
    return faster or smaller or better


def chosen_text(results: RunResults) -> str:
    """The recommended point's accuracy as the choice of it does not flatter; empty where that is not known."""
    choice = results.choice
    if choice is None or choice.accuracy is None:
        return ""
    value = formatting.metric_value(choice.accuracy.value, results.metric)
    return f"{value} {change_text(choice.change, results)}" if choice.change else value


def change_text(change: PairedDifference, results: RunResults) -> str:
    """A difference, its interval, a verdict: ``(+0.2 points [−0.2, +0.6]) with no measurable difference (…)``."""
    verdict = formatting.verdict(change, results.metric)
    return f"({formatting.paired_change(change, results.metric)})" + (f" with {verdict}" if verdict else "")


def choice_details(results: RunResults, point: Point) -> list[str]:
    """Sentences on the recommended point: luck that was taken off, what is more accurate, limits without interval."""
    return [*_luck(results, point), *_rival(results, point), *_unsure(results, point)]


def nothing_gained_details(results: RunResults) -> list[str]:
    """A sentence on a faster or smaller point within every limit that was passed over for being less accurate."""
    others = [p for p in results.points.values() if p.feasible and p.id in results.front and gains(results, p)]
    if not others:
        return ["Nothing that was tried is faster, smaller or more accurate within every limit."]
    best = max(others, key=lambda p: results.metric.oriented(p.shown_accuracy.value) if p.shown_accuracy else 0.0)
    change = best.shown_change
    lost = f" {change_text(change, results)}" if change else ""
    return [
        f"Of what is faster or smaller within every limit {best.id} comes nearest in {results.metric.quantity}{lost}; "
        "--prefer latency or size with a limit on what may be lost takes such a point."
    ]


def _luck(results: RunResults, point: Point) -> list[str]:
    choice = results.choice
    if choice is None or choice.accuracy is None or point.accuracy is None:
        return []
    if abs(choice.accuracy.value - point.accuracy.value) <= _SAME:
        return []
    own = formatting.metric_value(point.accuracy.value, results.metric)
    return [
        f"The held-out samples helped to choose {point.id}, whose {results.metric.quantity} on them is {own}; the "
        "figure above is on samples that had no part in the choice, and free of that luck."
    ]


def _rival(results: RunResults, point: Point) -> list[str]:
    choice = results.choice
    if choice is None or choice.rival is None or choice.rival not in results.points:
        return []
    rival = results.points[choice.rival]
    mine, theirs = point.shown_latency, rival.shown_latency
    slower = f"{formatting.ratio(theirs.median_ms / mine.median_ms)} its latency, " if mine and theirs else ""
    size = f"{formatting.ratio(rival.size_bytes / point.size_bytes)} its size"
    apart = choice.rival_change
    told = f" ({_lead(apart, results)})" if apart is not None else ""
    return [
        f"{rival.id} scores best of what is within the limits, by no more than chance explains{told}; it takes "
        f"{slower}{size}. --significance 1 takes the best score."
    ]


def _lead(apart: PairedDifference, results: RunResults) -> str:
    counted = f", {formatting.counted(apart)}" if apart.hits else ""
    return formatting.paired_change(apart, results.metric) + counted


def _unsure(results: RunResults, point: Point) -> list[str]:
    budget = results.budget
    if budget.confidence == ESTIMATE or not budget.limits_accuracy or point.shown_change is not None:
        return []
    return [
        f"{results.metric.name} gives one number for all samples, of which no interval is known: its limits hold by "
        f"that number, not with a confidence of {budget.confidence:g}."
    ]


def speed_first(results: RunResults) -> bool:
    """Whether the fastest point within the limits was wanted."""
    if results.choice is None:
        return results.budget.accuracy_alone
    return results.choice.prefer is Prefer.LATENCY and results.budget.limits_accuracy
