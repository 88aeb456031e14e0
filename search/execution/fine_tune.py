"""Spends what is left of the training time as ``policy.fine_tuning`` decides, and tries what comes of it.

Time is split evenly among those chosen, and what one leaves unused goes to the next. Each is trained from where it
stood. Before it, each variant's state without any training is tried too: the report says what training bought.
"""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.core import EngineError, Precision
from bitfront.search.execution.proposed_variants import refine
from bitfront.search.execution.variants import VariantExecutor
from bitfront.search.passes.base import ArtifactPass
from bitfront.search.policy import fine_tuning
from bitfront.search.policy.fine_tuning import SCORED, TimeSplit
from bitfront.search.policy.variant import VariantState
from bitfront.search.trial import Candidate, Origin, Trial


def fine_tune(executor: VariantExecutor) -> None:
    """Spend the rest of the training time."""
    options, budget = executor.builder.options, executor.builder.context.budget
    if options.recovery:
        _fine_tune_variants(executor)
    if options.artifact:
        _train_artifacts(executor, options.artifact)
    executor.trials.listener.step(f"trained for {budget.spent_s:.0f} s in all")


def _fine_tune_variants(executor: VariantExecutor) -> None:
    resources, qat = executor.resources, executor.builder.options.artifact is not None
    best = executor.trials.evaluator.best
    split = fine_tuning.split_time(resources, qat=qat)
    first = fine_tuning.preferred_variant(executor.variants, best, accuracy_first=executor.trials.accuracy_first)
    several = _chosen(executor, executor.variants, split, first=first)
    if len(several) == 1:
        split = TimeSplit(split.shared_s + split.final_s, 0.0, split.qat_s)
    if several:
        executor.trials.listener.phase("recovery", None)
    tuned = _train_all(executor, several, split)
    if split.final_s:
        _try_unquantised(executor, tuned)
        config = executor.policy.fine_tuning
        worth_it = fine_tuning.rounding_costs(_artifacts(executor), executor.evidence, config)
        split = fine_tuning.final_split(split, executor.resources, qat=worth_it)
        tuned += _train_all(executor, _chosen(executor, several, split, most=1), split)
    tuned = list({variant.label: variant for variant in tuned}.values())
    _try_unquantised(executor, tuned)
    for variant in tuned:
        if variant.architecture:
            refine(executor, variant)


def _chosen(
    executor: VariantExecutor,
    variants: Sequence[VariantState],
    split: TimeSplit,
    *,
    most: int | None = None,
    first: VariantState | None = None,
) -> list[VariantState]:
    return fine_tuning.choose_variants(
        variants,
        split,
        executor.evidence,
        executor.resources,
        every=executor.variants,
        feasible=executor.trials.evaluator.best is not None,
        most=most,
        first=first,
    )


def _train_all(executor: VariantExecutor, chosen: Sequence[VariantState], split: TimeSplit) -> list[VariantState]:
    """Train variants in turn, and try their candidates; returns those that were trained."""
    trained = []
    for index, variant in enumerate(chosen):
        resources = executor.resources
        seconds = (resources.left_s - split.final_s - split.qat_s) / (len(chosen) - index)
        steps = fine_tuning.steps_within(variant, seconds, resources)
        if steps < resources.config.least_steps:
            continue
        _try_untrained(executor, variant)
        if executor.train(variant, steps):
            trained.append(variant)
    return trained


def _try_unquantised(executor: VariantExecutor, variants: Sequence[VariantState]) -> None:
    """Try variants in FP32 that were not tried so."""
    for variant in variants:
        if not any(trial.candidate.origin is Origin.FINE_TUNED for trial in variant.trials):
            fp32 = executor.explorer_of(variant).space.uniform(Precision.FP32)
            executor.try_on(variant, [fp32], origin=Origin.FINE_TUNED)


def _try_untrained(executor: VariantExecutor, variant: VariantState) -> None:
    """The variant in FP32 as it was before any training."""
    base, explorer = executor.builder.variants.add(variant.base), executor.explorers[""]
    tried = any(t.candidate.origin is Origin.ZERO_SHOT and t.candidate.variant == base for t in explorer.trials)
    if base != variant.id and not variant.architecture and not tried:
        fp32 = explorer.space.uniform(Precision.FP32)
        explorer.attempt(Candidate(origin=Origin.ZERO_SHOT, schemes=fp32, pruning=variant.pruning, variant=base))


def _artifacts(executor: VariantExecutor) -> list[Trial]:
    """Artifacts to train as they are quantised."""
    trainable = [
        trial
        for explorer in executor.explorers.values()
        for trial in explorer.trials
        if trial.status in SCORED and _has_trainable_integers(executor, trial)
    ]
    return fine_tuning.choose_artifacts(
        trainable,
        executor.variants,
        executor.evidence,
        feasible=executor.trials.evaluator.best is not None,
        times=executor.policy.halving.factor,
        config=executor.policy.fine_tuning,
    )


def _has_trainable_integers(executor: VariantExecutor, trial: Trial) -> bool:
    """Whether it has integer weights to train, and neither blocks nor dynamic activations, which training ignores."""
    schemes = executor.context.layers(trial.candidate).values()
    unknown = any(scheme.weights.group_size or scheme.activations.is_dynamic for scheme in schemes)
    return any(scheme.precision.is_integer for scheme in schemes) and not unknown


def _train_artifacts(executor: VariantExecutor, artifact: ArtifactPass) -> None:
    builder, listener = executor.builder, executor.trials.listener
    chosen = _artifacts(executor)
    if chosen:
        listener.phase("quantisation-aware training", None)
    for index, trial in enumerate(chosen):
        resources = executor.resources
        steps = fine_tuning.qat_steps(resources.left_s / (len(chosen) - index), resources)
        if steps < resources.config.least_steps:
            return
        candidate = trial.candidate
        before = builder.variants[candidate.variant].steps if candidate.variant else ()
        try:
            step = artifact.step(builder.context, executor.context.layers(candidate), steps)
            key = builder.variants.add([*before, step])
        except EngineError as error:
            listener.warn(f"{trial.id} cannot be trained as it is quantised: {error.message}")
            continue
        if len(builder.variants[key].steps) == len(before):
            return
        trained = Candidate(
            origin=Origin.QAT,
            schemes=candidate.schemes,
            pruning=candidate.pruning,
            variant=key,
            architecture=candidate.architecture,
        )
        executor.explorers[candidate.architecture].attempt(trained)
