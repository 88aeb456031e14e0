"""Sentences on how far a run's latencies can be relied on: for the summary, and for the report's facts."""

from __future__ import annotations

from bitfront.report.results import RunResults

BUSY = 0.03
LATENCY_MEANS = (
    "of one inference while nobody is in the way: over the fastest fifth of interleaved rounds, the median of each "
    "round's shortest run; p90 is over all runs, disturbed ones included"
)
REPRODUCED = (
    "a fresh process measured the same ratio to the given network within 5 %; timed twice there, and a third time in "
    "both processes where the given network's own latency had moved. A point without it is kept, marked, on no front, "
    "and never recommended."
)


def busy_machine(results: RunResults) -> list[str]:
    """A sentence on the points whose ratio is known to no better than ± 3 %; empty where there are none."""
    errors = {
        id_: point.shown_latency.ratio_error for id_, point in results.points.items() if point.shown_latency is not None
    }
    wide = [id_ for id_, error in errors.items() if error > BUSY]
    if not wide:
        return []
    return [
        f"This machine is too busy: latency is known to ± {max(errors.values()):.0%} only ({', '.join(wide)}); "
        "run the search again with less beside it."
    ]
