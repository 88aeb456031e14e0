"""Report of a run's model variants: what was pruned, how they were trained, what accuracy it recovered."""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.core import FP32, RecipeStep
from bitfront.core.training_info import RungInfo, TrainInfo
from bitfront.core.variant_info import GIVEN, PrunedGroup, StepInfo, VariantInfo
from bitfront.search.passes.base import ArtifactPass, StructuralPass, TrainingPass
from bitfront.search.trial import Trial
from bitfront.search.variants.builder import VariantBuilder
from bitfront.search.variants.pipeline import PassPipeline, Variant


def label(pipeline: PassPipeline, steps: Sequence[RecipeStep], variant: str) -> str:
    """Short name: ``pruned 3f2a``, ``student SmallNet-1``, ``2:4``, with ``qat`` where the artifact was trained.

    Args:
        pipeline: Knows the passes.
        steps: The variant's.
        variant: Its id before any training.
    """
    first, last = pipeline.pass_of(steps[0]), pipeline.pass_of(steps[-1])
    name = first.label(steps[0], variant) if isinstance(first, StructuralPass) else GIVEN
    return f"{name} {last.name}" if isinstance(last, ArtifactPass) else name


def kind(pipeline: PassPipeline, steps: Sequence[RecipeStep]) -> str:
    """A word for what a variant is: that of its first structural pass, else of its first training."""
    passes = [pipeline.pass_of(step) for step in steps]
    structural = [one.variant_kind for one in passes if isinstance(one, StructuralPass)]
    training = [one.variant_kind for one in passes if isinstance(one, TrainingPass)]
    return next(iter([*structural, *training]), GIVEN)


def variant_info(builder: VariantBuilder, id_: str, trials: Sequence[Trial]) -> VariantInfo:
    """Description of one variant.

    Args:
        builder: Made it.
        id_: The variant's id.
        trials: All trials of the run, for accuracies.
    """
    from bitfront.passes.prune_counts import count_macs, count_parameters

    pipeline, variants, context = builder.pipeline, builder.variants, builder.context
    variant = variants[id_]
    steps = variant.steps
    artifact = isinstance(pipeline.pass_of(steps[-1]), ArtifactPass)
    plain = steps[:-1] if artifact else steps
    module = (variants[variants.add(plain)].module if plain else None) or context.base
    macs, whole = count_macs(module, context.data.inputs), count_macs(context.base, context.data.inputs)
    parameters, all_parameters = count_parameters(module), count_parameters(context.base)
    base = [step for step in plain if pipeline.is_structural(step)]
    before = variants.id_of(base)
    return VariantInfo(
        label=label(pipeline, steps, before or id_),
        kind=kind(pipeline, steps),
        artifact_trained=artifact,
        pruned=_removed(builder, steps),
        steps=tuple(_step(pipeline, variant, index) for index in range(len(steps))),
        macs=macs,
        parameters=parameters,
        macs_share=macs / whole,
        parameters_share=parameters / all_parameters,
        train_s=variant.seconds,
        untrained_accuracy=_fp32_accuracy(trials, before) if before else None,
        fp32_accuracy=_fp32_accuracy(trials, variants.id_of(plain)),
    )


def train_info(builder: VariantBuilder) -> TrainInfo:
    """Description of the training of a run."""
    budget, pipeline = builder.context.budget, builder.pipeline
    made = [variant for variant in builder.variants.values() if variant.steps]

    def architectures(variants: Sequence[Variant]) -> int:
        return len({tuple(s.key for s in one.steps if pipeline.is_structural(s)) for one in variants})

    return TrainInfo(
        budget_s=budget.limit_s,
        spent_s=budget.spent_s,
        networks=architectures(made),
        trained=architectures([variant for variant in made if variant.seconds > 0]),
        promoted=sum(judged.promoted for judged in builder.history),
        history=tuple(
            RungInfo(
                network=judged.label,
                rung=judged.rung,
                steps=judged.steps,
                value=judged.accuracy,
                kept=judged.promoted,
            )
            for judged in builder.history
        ),
    )


def _removed(builder: VariantBuilder, steps: Sequence[RecipeStep]) -> tuple[PrunedGroup, ...]:
    found: list[PrunedGroup] = []
    for step in steps:
        one = builder.pipeline.pass_of(step)
        if isinstance(one, StructuralPass):
            found += one.removed(step, builder.context)
    return tuple(found)


def _step(pipeline: PassPipeline, variant: Variant, index: int) -> StepInfo:
    step = variant.steps[index]
    trainings = [i for i, other in enumerate(variant.steps) if not pipeline.is_structural(other)]
    if index not in trainings:
        return StepInfo(name=step.name, steps=0, seconds=0.0, loss=None)
    place = trainings.index(index)
    return StepInfo(
        name=step.name,
        steps=pipeline.steps_of(step),
        seconds=variant.step_seconds[place],
        loss=variant.losses[place],
    )


def _fp32_accuracy(trials: Sequence[Trial], variant: str) -> float | None:
    """The network's in FP32 on all of the search's samples; None where scoring stopped early."""
    most = max((trial.accuracy.samples for trial in trials if trial.accuracy), default=0)
    found = (
        trial.accuracy.value
        for trial in trials
        if trial.candidate.variant == variant
        and trial.accuracy is not None
        and trial.accuracy.samples == most
        and all(scheme == FP32 for scheme in trial.candidate.schemes.values())
    )
    return next(found, None)
