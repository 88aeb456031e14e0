"""Gains and costs of rules of recommendation, over budgets simulated on fronts whose true accuracies are known.

    python -m bitfront.experiments.regret_study
    python -m bitfront.experiments.regret_study --run runs/resnet20-1 --workload bitfront.experiments.workloads:resnet20

A front is synthetic, or the saved models of a run scored on all labelled samples of its workload. For every budget some
samples are drawn for the search and as many held out; the search's candidates become finalists and one of them is
recommended, as in a run. What is recommended is then compared by what it truly is, on all samples there are.

    exact maximum        the highest accuracy on the held-out samples within the limits, as held against them there
    one standard error   the fastest whose held-out accuracy is within one paired standard error of that
    paired test, α       the product's own rule (``search.results.recommend``) at this ``--significance``

Accuracy, latency and size are differences and ratios to the second rule, budget by budget; regret is to the highest
true accuracy within the limits; luck is the reported difference to FP32 minus the true one. Each with the standard
error over budgets.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Constraints, EngineError, LatencyStats, Preference, top1, write_text
from bitfront.core.cells import csv_text
from bitfront.core.given_network import FP32_ID, GivenNetwork
from bitfront.core.point import Point
from bitfront.experiments.recorded_front import Front, recorded, synthetic
from bitfront.search.console.tables import plain_table
from bitfront.search.measuring.accuracy import Scored, summary
from bitfront.search.results.choice import choose_finalists
from bitfront.search.results.evidence import Evidence, told_worse
from bitfront.search.results.ranking import Ranking
from bitfront.search.results.recommend import Rule, select
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus

LEVELS = (1.0, 0.32, 0.16, 0.1, 0.05, 0.01)
COLUMNS = ("rule", "accuracy, points", "latency", "size", "regret, points", "within the drop", "luck, points")
_MARGIN = 0.05  # of a budget: latency and size limits lie within the front's own range


@dataclass(frozen=True, slots=True)
class Draw:
    """Simulated run.

    Attributes:
        budget: What is asked for.
        points: The finalists.
        evidence: Id → scores, on the search's samples and on the held-out ones.
        place: Id → index in the front.
    """

    budget: Constraints
    points: tuple[Point, ...]
    evidence: Mapping[str, Evidence]
    place: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Taken:
    """Point that a rule takes: its index in the front, and the difference to FP32 reported of it."""

    index: int
    reported: float


Taking = Callable[[Draw], Taken | None]


def draw(front: Front, samples: int, rng: np.random.Generator) -> Draw:
    """A run under a random budget on samples drawn from all; half of the budgets limit the loss of accuracy too."""
    rows = rng.choice(front.hits.shape[1], size=2 * samples, replace=front.hits.shape[1] < 2 * samples)
    search, held_out = front.hits[:, rows[:samples]], front.hits[:, rows[samples:]]
    budget = Constraints(
        latency_ms=float(np.quantile(front.latency_ms, rng.uniform(_MARGIN, 1.0))) * (1 + _MARGIN),
        size_bytes=float(np.quantile(front.size_bytes, rng.uniform(_MARGIN, 1.0))) * (1 + _MARGIN),
        max_drop=float(rng.uniform(0.0, 0.03)) if rng.random() < 0.5 else None,
    )
    scores = [Evidence(search=Scored(row, samples), artifact=str(index)) for index, row in enumerate(search)]
    trials = [_trial(front, index, scores, budget) for index in range(len(search))]
    default = Preference()
    chosen = choose_finalists(
        trials,
        Ranking.of(budget, default),
        lambda one, other: told_worse(scores[one.number], scores[other.number], default.significance),
    )
    indices = [trial.number for trial in chosen]
    known = {
        front.ids[i]: Evidence(search=scores[i].search, held_out=Scored(held_out[i], samples), artifact=str(i))
        for i in indices
    }
    points = tuple(_point(front, i, held_out[i]) for i in indices)
    return Draw(budget, points, known, {front.ids[i]: i for i in indices})


def _trial(front: Front, index: int, scores: Sequence[Evidence], budget: Constraints) -> Trial:
    search = scores[index].search
    assert search is not None
    checks = budget.check(
        latency_ms=float(front.latency_ms[index]),
        size_bytes=float(front.size_bytes[index]),
        accuracy=search.stats.value,
        reference_accuracy=scores[0].everywhere,
    )
    return Trial(
        number=index,
        candidate=Candidate(origin=Origin.SAMPLER, schemes={}, name=FP32_ID if index == 0 else ""),
        status=TrialStatus.COMPLETE,
        artifact=str(index),
        size_bytes=int(front.size_bytes[index]),
        latency=_latency(front, index),
        accuracy=search.stats,
        misses={limit.value: check.relative_excess for limit, check in checks.items()},
        seconds=0.0,
    )


def _latency(front: Front, index: int) -> LatencyStats:
    value, ratio = float(front.latency_ms[index]), float(front.latency_ms[index] / front.latency_ms[0])
    return LatencyStats(
        median_ms=value, p90_ms=value, ci_low_ms=value, ci_high_ms=value, ratio=ratio, ratio_low=ratio,
        ratio_high=ratio, rounds=1, threads=1, batch_size=1,
    )  # fmt: skip


def _point(front: Front, index: int, held_out: NDArray[np.float64]) -> Point:
    stats = summary(held_out)
    return Point(
        id=front.ids[index], origin="", text="", config=None, model=None, size_bytes=int(front.size_bytes[index]),
        latency=_latency(front, index), search_latency=None, accuracy=stats, search_accuracy=None, feasible=False,
        violations=(), latency_reproduced=True, layers={},
    )  # fmt: skip


def exact_maximum(drawn: Draw) -> Taken | None:
    """The highest held-out accuracy within the limits; of equals the smaller, then the faster."""
    within = _within(drawn)
    if not within:
        return None
    best = min(within, key=lambda p: (-_value(p), p.size_bytes, _ms(p)))
    return Taken(drawn.place[best.id], _value(best) - _reference(drawn))


def one_standard_error(drawn: Draw) -> Taken | None:
    """The fastest of those within one paired standard error of the highest held-out accuracy within the limits."""
    within = _within(drawn)
    if not within:
        return None
    top = drawn.evidence[max(within, key=_value).id].held_out
    assert top is not None

    def ties(point: Point) -> bool:
        own = drawn.evidence[point.id].held_out
        assert own is not None
        apart = top.scores - own.scores
        return float(apart.mean()) <= float(apart.std(ddof=1)) / math.sqrt(len(apart))

    best = min((p for p in within if ties(p)), key=_ms)
    return Taken(drawn.place[best.id], _value(best) - _reference(drawn))


def paired_test(significance: float) -> Taking:
    """The product's rule at a level, with what it reports."""

    def take(drawn: Draw) -> Taken | None:
        rule = Rule(
            budget=drawn.budget, preference=Preference(significance=significance), baselines=[FP32_ID], metric=top1
        )
        given = GivenNetwork(size_bytes=1)
        evidence = {**drawn.evidence, "given": drawn.evidence[FP32_ID]}
        found = select(drawn.points, rule, given=given, evidence=evidence)
        if found.recommended is None or found.choice.change is None:
            return None
        return Taken(drawn.place[found.recommended], found.choice.change.value)

    return take


def _within(drawn: Draw) -> list[Point]:
    return [
        point
        for point in drawn.points
        if all(
            check.met
            for check in drawn.budget.check(
                latency_ms=_ms(point),
                size_bytes=point.size_bytes,
                accuracy=_value(point),
                reference_accuracy=_reference(drawn),
            ).values()
        )
    ]


def _reference(drawn: Draw) -> float:
    """FP32's accuracy on the held-out samples."""
    held_out = drawn.evidence[FP32_ID].held_out
    assert held_out is not None
    return held_out.stats.value


def _value(point: Point) -> float:
    assert point.accuracy is not None
    return point.accuracy.value


def _ms(point: Point) -> float:
    assert point.latency is not None
    return point.latency.median_ms


def rules() -> dict[str, Taking]:
    """Name → rule."""
    tests = {f"paired test, {level:g}": paired_test(level) for level in LEVELS}
    return {"exact maximum": exact_maximum, "one standard error": one_standard_error, **tests}


def study(front: Front, budgets: int, samples: int, seed: int) -> list[tuple[str, ...]]:
    """Rows of ``COLUMNS``, one a rule.

    Args:
        front: What is known of the points.
        budgets: How many are simulated; those under which some rule takes nothing are left out.
        samples: Of the search, and held out.
        seed: Of every draw.
    """
    rng = np.random.default_rng(seed)
    taken: dict[str, list[Taken]] = {name: [] for name in rules()}
    best: list[float] = []
    drops: list[float] = []
    for _ in range(budgets):
        drawn = draw(front, samples, rng)
        found = {name: rule(drawn) for name, rule in rules().items()}
        known = {name: one for name, one in found.items() if one is not None}
        if len(known) == len(found):
            for name, one in known.items():
                taken[name].append(one)
            best.append(_best(front, drawn.budget))
            drops.append(math.inf if drawn.budget.max_drop is None else drawn.budget.max_drop)
    return [_row(name, front, found, taken["one standard error"], best, drops) for name, found in taken.items()]


def _best(front: Front, budget: Constraints) -> float:
    """The highest true accuracy within the limits of latency and size."""
    latency_ms, size_bytes = budget.latency_ms or math.inf, budget.size_bytes or math.inf
    within = (front.latency_ms <= latency_ms) & (front.size_bytes <= size_bytes)
    return float(front.truth[within].max())


def _row(
    name: str,
    front: Front,
    taken: Sequence[Taken],
    beside: Sequence[Taken],
    best: Sequence[float],
    drops: Sequence[float],
) -> tuple[str, ...]:
    mine, theirs = (np.array([one.index for one in each]) for each in (taken, beside))
    truth, limited = front.truth[mine], np.isfinite(drops)
    kept = truth >= front.truth[0] - np.array(drops) - 1e-12
    return (
        name,
        _mean(100 * (truth - front.truth[theirs])),
        f"{_geometric(front.latency_ms[mine] / front.latency_ms[theirs])} ×",
        f"{_geometric(front.size_bytes[mine] / front.size_bytes[theirs])} ×",
        _mean(100 * (np.array(best) - truth)),
        f"{100 * kept[limited].mean():.0f} % of {limited.sum()}",
        _mean(100 * (np.array([one.reported for one in taken]) - (truth - front.truth[0]))),
    )


def _mean(values: NDArray[np.float64]) -> str:
    error = values.std(ddof=1) / math.sqrt(len(values))
    return f"{values.mean():+.3f} ± {error:.3f}".replace("-", "−")


def _geometric(values: NDArray[np.float64]) -> str:
    return f"{math.exp(np.log(values).mean()):.3f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the study and print its table; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, help="run folder whose saved models are the front (default: synthetic)")
    parser.add_argument("--workload", help="module:attribute of that run's workload")
    parser.add_argument("--data", type=Path, help="folder of the published weights and images")
    parser.add_argument("--budgets", type=int, default=400)
    parser.add_argument("--samples", type=int, default=450, help="of the search, and as many held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--csv", type=Path, help="where the table is written as well")
    options = parser.parse_args(argv)
    try:
        front = recorded(options.run, options.workload, options.data) if options.run else synthetic(options.seed)
        rows = study(front, options.budgets, options.samples, options.seed)
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(plain_table(COLUMNS, rows))
    if options.csv is not None:
        write_text(options.csv, csv_text(COLUMNS, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
