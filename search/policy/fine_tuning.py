"""Final fine-tuning: what is left of the training time goes to those that can enter the front.

    variants by expected improvement ─► distilled on ─► the best of them, likewise, with the rest
    artifacts by expected improvement ─► quantisation-aware training   (where rounding costs something)

What a variant would come to is known roughly at first, so half of the time goes to several of them: that of the point
that would be recommended so far, or that is likeliest to keep the limits, and others, each chosen for what it would add
to those before it. The rest goes to the one that further training would bring most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bitfront.search.policy.config import DEFAULTS, FineTuningConfig
from bitfront.search.policy.improvement import Evidence, Priority, Projected
from bitfront.search.policy.variant import VariantState
from bitfront.search.trial import Trial, TrialStatus

SCORED = (TrialStatus.COMPLETE, TrialStatus.STOPPED)  # one that was stopped below the floor is what training is for


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResources:
    """Resources that training may use from now on.

    Attributes:
        left_s: Seconds; infinite without limit.
        asked: Whether the training time was asked for, rather than what usually pays.
        pace_s: Seconds a step of the given network takes.
        epoch_steps: Steps in which the training data are seen once.
        config: How it is divided.
    """

    left_s: float
    asked: bool
    pace_s: float
    epoch_steps: int
    config: FineTuningConfig = DEFAULTS.fine_tuning


class TimeSplit(NamedTuple):
    """Division of the training time from now on, in seconds.

    Attributes:
        shared_s: For several variants.
        final_s: For the one of them that goes on.
        qat_s: For artifacts.
    """

    shared_s: float
    final_s: float
    qat_s: float


def seconds_left(
    budget_left_s: float | None, time_left_s: float, config: FineTuningConfig = DEFAULTS.fine_tuning
) -> float:
    """Return the seconds of training that both the training time and the time limit leave; infinite without either."""
    left_s = budget_left_s if budget_left_s is not None else math.inf
    return min(left_s, (1 - config.trying_fraction) * max(time_left_s, 0.0))


def split_time(resources: TrainingResources, *, qat: bool) -> TimeSplit:
    """Divide the time that is left, before anybody is chosen.

    Args:
        resources: What is left.
        qat: Whether artifacts are trained too.
    """
    config = resources.config
    qat_s = config.qat_fraction * qat * resources.left_s
    fraction = config.shared_fraction if resources.asked else 1.0
    return TimeSplit(fraction * (resources.left_s - qat_s), (1 - fraction) * (resources.left_s - qat_s), qat_s)


def steps_within(variant: VariantState, seconds: float, resources: TrainingResources) -> int:
    """Return the training steps for a variant in so many seconds, bounded by how often data should be seen."""
    config = resources.config
    epochs = config.most_epochs if resources.asked else config.usual_epochs
    done = variant.trained_steps
    step_s = variant.train_s / done if done and variant.train_s else resources.pace_s
    return int(min(seconds / step_s, max(epochs * resources.epoch_steps, config.few_data_steps)))


def training_multiple(variant: VariantState, seconds: float, resources: TrainingResources) -> float:
    """Return how many times the steps of its training so far a variant would have had after so many seconds more."""
    done = max(variant.trained_steps, 1)
    return (done + steps_within(variant, seconds, resources)) / done


def qat_steps(seconds: float, resources: TrainingResources) -> int:
    """Return the steps of quantisation-aware training in so many seconds."""
    config = resources.config
    return int(min(seconds / (config.qat_step_cost * resources.pace_s), config.qat_most_steps))


def choose_variants(
    variants: Sequence[VariantState],
    split: TimeSplit,
    evidence: Evidence,
    resources: TrainingResources,
    *,
    every: Sequence[VariantState],
    feasible: bool,
    most: int | None = None,
    first: VariantState | None = None,
) -> list[VariantState]:
    """Choose those that further training would bring most, each beside those chosen before it.

    They are as many as can be trained for long enough to matter, fewer where only longer training reaches the floor.
    Where none is worth anything yet it is the most accurate: time that is left is best spent on it.

    Args:
        variants: To choose from.
        split: The time.
        evidence: What is known.
        resources: What training may take.
        every: All variants of the run: what their trials have reached is there already.
        feasible: Whether something keeps every limit.
        most: At most so many; None is the usual number.
        first: Chosen first if it gains at all.
    """
    config = resources.config
    if most is None:
        most = config.most_variants if resources.asked else config.usual_variants
    whole_s = config.whole_epochs * resources.epoch_steps * resources.pace_s
    reached = [Projected(trial, 1) for one in every for trial in one.trials if trial.status is TrialStatus.COMPLETE]
    count = int(min(max(split.shared_s / whole_s, 1), most))
    found: list[tuple[VariantState, Priority]] = []
    while count:
        found = _one_by_one(variants, split, count, reached, evidence, resources, feasible=feasible, first=first)
        if any(priority.reaches_floor for _, priority in found):
            break
        count -= 1
    return [variant for variant, _ in found]


def _one_by_one(
    variants: Sequence[VariantState],
    split: TimeSplit,
    count: int,
    reached: Sequence[Projected],
    evidence: Evidence,
    resources: TrainingResources,
    *,
    feasible: bool,
    first: VariantState | None,
) -> list[tuple[VariantState, Priority]]:
    found: list[tuple[VariantState, Priority]] = []
    beside, others = list(reached), list(variants)
    while others and len(found) < count:
        seconds = split.shared_s / count + split.final_s
        times = [training_multiple(variant, seconds, resources) for variant in others]
        ranks = [evidence.priority(v.trials, t, beside) for v, t in zip(others, times, strict=True)]
        # The first is one that reaches the floor, if any does; the improvement speaks for the others.
        best = max(range(len(others)), key=lambda i: ranks[i][1:] if found else _leading(ranks[i], feasible=feasible))
        if not found and first is not None and ranks[others.index(first)].improvement > 0:
            best = others.index(first)
        if found and ranks[best].improvement <= 0:
            break
        beside += [Projected(trial, times[best]) for trial in others[best].trials]
        found.append((others.pop(best), ranks[best]))
    return found


def _leading(priority: Priority, *, feasible: bool) -> tuple[float, ...]:
    """Key by which variants are ordered; where nothing keeps the limits yet, expected accuracy counts before volume.

    What is extrapolated from few steps is too kind to small networks, which promise most volume.
    """
    if feasible:
        return priority
    return priority.reaches_floor, priority.improvement > 0, priority.accuracy


def preferred_variant(
    variants: Sequence[VariantState], best: Trial | None, *, accuracy_first: bool
) -> VariantState | None:
    """Return the variant of the point that would be recommended now, if more accuracy is what would be preferred."""
    if best is None or not accuracy_first:
        return None
    wanted = best.candidate.architecture, dict(best.candidate.pruning)
    return next((one for one in variants if (one.architecture, dict(one.pruning)) == wanted), None)


def rounding_costs(
    artifacts: Sequence[Trial], evidence: Evidence, config: FineTuningConfig = DEFAULTS.fine_tuning
) -> bool:
    """Whether one of the artifacts is clearly less accurate than its variant without that rounding."""
    allowed = evidence.allowed_gap
    least = config.rounding_fraction * (allowed if math.isfinite(allowed) else evidence.config.least_gap)
    best: dict[str, float] = {}
    for trial in evidence.trials:
        if trial.status in SCORED:
            network = trial.candidate.variant
            best[network] = max(best.get(network, -math.inf), trial.objectives.accuracy)
    return any(best[t.candidate.variant] - t.objectives.accuracy >= least for t in artifacts)


def choose_artifacts(
    trials: Sequence[Trial],
    variants: Sequence[VariantState],
    evidence: Evidence,
    *,
    feasible: bool,
    times: float = DEFAULTS.halving.factor,
    config: FineTuningConfig = DEFAULTS.fine_tuning,
) -> list[Trial]:
    """Choose low-bit trials worth most if training closed part of their gap to the given network.

    Of different variants first. Where nothing keeps the limits yet the most accurate lead, and where none is worth
    anything it is the most accurate one; what is over a limit of latency or size stays so.

    Args:
        trials: Those that can be trained as they are quantised.
        variants: Of the run, as they are now; a trial of an earlier state of one is left out.
        evidence: What is known.
        feasible: Whether something keeps every limit.
        times: The steps, over those so far, that training is taken to come to.
        config: How many.
    """
    latest = {variant.id for variant in variants} | {""}
    current = [
        trial
        for trial in trials
        if trial.status in SCORED
        and evidence.conclusive(trial)
        and not any(trial.misses.get(limit, 0.0) > 0 for limit in ("latency", "size"))
        and trial.candidate.variant in latest
    ]
    ranks = {id(trial): evidence.priority([trial], times) for trial in current}
    ranked = sorted(current, key=lambda trial: _leading(ranks[id(trial)], feasible=feasible), reverse=True)
    worthy = [trial for trial in ranked if ranks[id(trial)].improvement > 0]
    return _different_first(worthy)[: config.most_artifacts] or ranked[:1]


def _different_first(trials: Sequence[Trial]) -> list[Trial]:
    """The first of each variant, then the others."""
    seen: set[str] = set()
    first: list[Trial] = []
    others: list[Trial] = []
    for trial in trials:
        (others if trial.candidate.variant in seen else first).append(trial)
        seen.add(trial.candidate.variant)
    return [*first, *others]


def final_split(split: TimeSplit, resources: TrainingResources, *, qat: bool) -> TimeSplit:
    """Return how what is left after several variants is used: for one of them, and for artifacts if still wanted."""
    qat_s = split.qat_s * qat
    return TimeSplit(max(resources.left_s - qat_s, 0.0), 0.0, qat_s)
