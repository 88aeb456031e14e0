"""Benchmark of our sampler against random search, TPE and NSGA-II on synthetic problems.

    python -m bitfront.experiments.sampler_study --trials 60 --seeds 2
    python -m bitfront.experiments.sampler_study --ablate

Every sampler gets the same uniform baselines first and then the same number of trials, on the same problems. A
sampler's figure is the hypervolume (accuracy × latency × size, without timing noise) of what it tried, over that of
what all samplers together found on that problem: once over the whole box below FP32, once within budgets that bind.
Trials that break the latency or the size budget are recorded with their constraints, as a search would. With
``--ablate`` our sampler is compared with itself, one part of its config left out at a time.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import mean

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from bitfront.core import Constraints, Limit, Precision
from bitfront.core.pareto import Objectives, hypervolume
from bitfront.experiments.synthetic import Synthetic
from bitfront.search.policy.config import DEFAULTS, SamplerConfig
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.space.space import Encoding, Space

_SLACK = 0.15  # of the way from uniform INT8's latency back to FP32's
_SIZE, _DROP = 0.25, 0.03  # size over FP32's, drop of accuracy

SamplerOf = Callable[[Space, Constraints, int], BaseSampler]

SAMPLERS: dict[str, SamplerOf] = {
    "front": FrontSampler,
    "random": lambda _space, _budget, seed: RandomSampler(seed),
    "tpe": lambda _space, _budget, seed: TPESampler(seed=seed),
    "nsga2": lambda _space, _budget, seed: NSGAIISampler(seed=seed, population_size=20),
}

_FULL = DEFAULTS.sampler
ABLATIONS: dict[str, SamplerConfig] = {
    "full": _FULL,
    "no trades": replace(_FULL, trades=0),
    "no segments": replace(_FULL, segments=0),
    "no mutations": replace(_FULL, mutations=0),
    "no solves": replace(_FULL, solves=0),
    "no random proposals": replace(_FULL, random_fraction=0.0),
    "nothing outside": replace(_FULL, surrogate=replace(_FULL.surrogate, outside_weight=0.0)),
    "random alone": replace(_FULL, random_fraction=1.0),
}


def _ours(config: SamplerConfig) -> SamplerOf:
    return lambda space, budget, seed: FrontSampler(space, budget, seed, config)


def budget_of(problem: Synthetic) -> Constraints:
    """Budgets that every uniform assignment misses: INT8 by size, INT4 by accuracy, FP16 and FP32 by both others."""
    fp32 = problem.reference
    int8 = problem.truth(problem.space.encode(problem.space.uniform(Precision.INT8)))
    return Constraints(
        latency_ms=int8.latency_ms + _SLACK * (fp32.latency_ms - int8.latency_ms),
        size_bytes=_SIZE * fp32.size_bytes,
        min_accuracy=fp32.accuracy - _DROP,
    )


def run_study(problem: Synthetic, sampler: BaseSampler, budget: Constraints, trials: int) -> list[Encoding]:
    """Run ``trials`` trials, baselines included; the encodings tried, in order."""
    space, fp32 = problem.space, problem.reference
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    for _, assignment in space.baselines():
        study.enqueue_trial(space.to_params(assignment))
    encodings = []
    for _ in range(trials):
        trial = study.ask(space.distributions())
        encoding = space.encode(space.from_params(trial.params))
        point = problem.measure(encoding)
        encodings.append(encoding)
        checks = budget.check(
            latency_ms=point.latency_ms,
            size_bytes=point.size_bytes,
            accuracy=point.accuracy,
            reference_accuracy=fp32.accuracy,
        )
        for limit in Limit:
            trial.set_constraint(limit.value, checks[limit].excess if limit in checks else -math.inf)
        trial.set_user_attr("ratio", point.latency_ms / fp32.latency_ms)
        trial.set_user_attr("latency_ms", point.latency_ms)
        trial.set_user_attr("size_bytes", point.size_bytes)
        trial.set_user_attr("accuracy", point.accuracy)
        trial.set_user_attr("state", "complete")
        study.tell(trial, [point.accuracy, point.latency_ms, point.size_bytes])
    return encodings


def volumes(problem: Synthetic, encodings: Sequence[Encoding], budget: Constraints) -> tuple[float, float]:
    """Hypervolume of what was tried: (below FP32's latency and size, within the budget)."""
    fp32 = problem.reference
    points = [problem.truth(encoding) for encoding in set(encodings)]
    whole = Objectives(
        accuracy=0.8 * fp32.accuracy, latency_ms=1.001 * fp32.latency_ms, size_bytes=1.001 * fp32.size_bytes
    )
    within = Objectives(
        accuracy=budget.accuracy_floor(fp32.accuracy),
        latency_ms=budget.latency_ms or fp32.latency_ms,
        size_bytes=budget.size_bytes or fp32.size_bytes,
    )
    return hypervolume(points, whole), hypervolume(points, within)


def compare(
    groups: int, trials: int, seeds: int, samplers: Mapping[str, SamplerOf]
) -> tuple[list[str], dict[str, float]]:
    """Return the table's rows for networks of one size, and the seconds each sampler took a trial."""
    ratios: dict[str, list[list[float]]] = {name: [] for name in samplers}
    seconds = dict.fromkeys(samplers, 0.0)
    checkpoints = (trials // 2, trials)
    for seed in range(seeds):
        problem = Synthetic.random(groups, seed)
        budget = budget_of(problem)
        tried = {}
        for name, sampler_of in samplers.items():
            start = time.perf_counter()
            tried[name] = run_study(problem, sampler_of(problem.space, budget, seed), budget, trials)
            seconds[name] += (time.perf_counter() - start) / (seeds * trials)
        everything = [encoding for encodings in tried.values() for encoding in encodings]
        best = volumes(problem, everything, budget)
        for name, encodings in tried.items():
            found = [volumes(problem, encodings[:stop], budget) for stop in checkpoints]
            ratios[name].append(
                [value / top if top else 1.0 for pair in found for value, top in zip(pair, best, strict=True)]
            )
    rows = []
    for name, table in ratios.items():
        columns = list(zip(*table, strict=True))
        cells = "".join(f"{mean(column):10.3f} {min(column):7.3f}" for column in columns)
        rows.append(f"{groups:6d}  {name:20s}{cells}")
    return rows, seconds


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Compare samplers on synthetic problems, by hypervolume.")
    parser.add_argument("--trials", type=int, default=60, help="trials a study, baselines included (default: 60)")
    parser.add_argument("--seeds", type=int, default=2, help="problems of each size (default: 2)")
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[12, 24], help="groups of the problems (default: 12 24)"
    )
    parser.add_argument("--ablate", action="store_true", help="compare our sampler without one part at a time")
    options = parser.parse_args(argv)
    samplers = {name: _ours(config) for name, config in ABLATIONS.items()} if options.ablate else SAMPLERS
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    half = options.trials // 2
    lines = [
        f"hypervolume over that of all samplers' points together: mean and worst of {options.seeds} problems",
        f"{'':28s}{f'after {half} trials':^36s}{f'after {options.trials} trials':^36s}",
        f"groups  {'sampler':20s}{'whole':>10s} {'worst':>7s}{'budget':>10s} {'worst':>7s}"
        f"{'whole':>10s} {'worst':>7s}{'budget':>10s} {'worst':>7s}",
    ]
    for groups in options.groups:
        rows, seconds = compare(groups, options.trials, options.seeds, samplers)
        lines += rows
        lines.append("        ms a trial: " + ", ".join(f"{name} {1e3 * s:.1f}" for name, s in seconds.items()))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
