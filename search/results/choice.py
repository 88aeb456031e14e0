"""Choice of the finalists among the trials: measured again, written to files and reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from bitfront.core import Limit
from bitfront.core.pareto import pareto_front
from bitfront.search.results.ranking import Ranking, choose_best
from bitfront.search.trial import Trial, TrialStatus

MOST = 12
_BEST_FEASIBLE = 3

ToldWorse = Callable[[Trial, Trial], bool]
"""Whether the first is less accurate than the second as far as can be told."""


def choose_finalists(
    trials: Sequence[Trial], ranking: Ranking, told_worse: ToldWorse | None = None, most: int = MOST
) -> list[Trial]:
    """The trials worth reporting, in order of their numbers.

    Baselines first; then the feasible ones that would be recommended, one after the other, and the first in order by
    their values; where none is feasible, the nearest by each limit; then the
    front, spread as widely as the remaining places allow, without what is hopelessly inaccurate; where none is feasible
    also of what was not scored to its end.
    """
    timed = [t for t in trials if t.measured]
    complete = [t for t in timed if t.status is TrialStatus.COMPLETE]
    feasible = sorted((t for t in complete if t.feasible), key=lambda t: ranking.key(t.objectives))
    preferred = [*_preferred(feasible, ranking, told_worse), *feasible[:1]]
    chosen = _distinct([*(t for t in timed if t.candidate.name), *preferred, *_nearest(timed, feasible)])
    useful = _near_the_floor(complete) if feasible else [t for t in timed if t.accuracy is not None]
    front = [useful[i] for i in pareto_front([t.objectives for t in useful])]
    rest = _spread([t for t in front if t not in chosen], [t for t in chosen if t in useful], most - len(chosen))
    return sorted([*chosen[:most], *rest], key=lambda trial: trial.number)


def _preferred(feasible: Sequence[Trial], ranking: Ranking, told_worse: ToldWorse | None) -> Iterable[Trial]:
    """Yield the trial that would be recommended, then the one that would be without it, and so on."""
    left = {trial.number: trial for trial in feasible}
    test = None if told_worse is None else (lambda one, other: told_worse(left[one], left[other]))
    for _ in range(_BEST_FEASIBLE):
        best = choose_best({number: trial.objectives for number, trial in left.items()}, ranking, told_worse=test)
        if best is None:
            return
        yield left.pop(best)


def _nearest(timed: Sequence[Trial], feasible: Sequence[Trial]) -> Iterable[Trial]:
    if feasible or not timed:
        return
    limits = {limit for trial in timed for limit in trial.misses}
    yield min(timed, key=lambda trial: _excess(trial, limits))
    for limit in Limit:
        known = [trial for trial in timed if limit in trial.misses]
        if known:
            # The nearest by one limit, of those that keep the others if there are any.
            yield min(known, key=lambda t: (_excess(t, limits - {limit}) > 0, t.misses[limit]))
            yield min(known, key=lambda t: t.misses[limit])


def _near_the_floor(complete: Sequence[Trial]) -> list[Trial]:
    """Trials that miss the accuracy floor by no more than the most accurate one exceeds it."""
    best = max(trial.objectives.accuracy for trial in complete)
    return [t for t in complete if 2 * t.misses.get(Limit.ACCURACY, 0.0) <= best - t.objectives.accuracy]


def _excess(trial: Trial, limits: Iterable[str]) -> float:
    return sum(max(trial.misses.get(limit, 0.0), 0.0) for limit in limits)


def _distinct(trials: Iterable[Trial]) -> list[Trial]:
    return list({trial.number: trial for trial in trials}.values())


def _spread(candidates: Sequence[Trial], chosen: Sequence[Trial], places: int) -> list[Trial]:
    """Greedy: the candidate farthest from everything chosen so far, in units of the front's extent."""
    if places <= 0 or not candidates:
        return []
    everyone = [*candidates, *chosen]
    values = np.array(
        [[o.accuracy, o.latency_ms, np.log(o.size_bytes)] for o in (trial.objectives for trial in everyone)]
    )
    extent = np.ptp(values, axis=0)
    values = (values - values.min(axis=0)) / np.where(extent > 0, extent, 1.0)
    own, others = values[: len(candidates)], values[len(candidates) :]
    distance = np.full(len(candidates), np.inf)
    for other in others:
        distance = np.minimum(distance, np.linalg.norm(own - other, axis=1))
    picked: list[Trial] = []
    while len(picked) < min(places, len(candidates)):
        index = int(np.argmax(distance))
        picked.append(candidates[index])
        distance = np.minimum(distance, np.linalg.norm(own - own[index], axis=1))
        distance[index] = -1.0
    return picked
