"""What a report says of the networks of a run: what was pruned, how they were trained, what that bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bitfront.core import FP32, RecipeStep
from bitfront.core.training_info import RungInfo, TrainInfo
from bitfront.core.variant_info import PrunedGroup, StepInfo, VariantInfo
from bitfront.search.options import SparsePattern
from bitfront.search.trial import Trial
from bitfront.search.variants.made import Making
from bitfront.search.variants.maker import Network

TRAININGS = ("distil", "qat")


def label(steps: tuple[RecipeStep, ...], key: str) -> str:
    """In short: ``pruned 3f2a``, ``student SmallNet-1``, ``2:4``, with ``qat`` where the artifact was trained."""
    first = steps[0]
    name = "given"
    if first.name == "prune":
        name = f"pruned {key[:4]}"
    elif first.name == "student":
        name = f"student {first.options['name']}"
    elif first.name == "sparse":
        name = _pattern(first.options).label
    return f"{name} qat" if steps[-1].name == "qat" else name


def _pattern(options: Mapping[str, Any]) -> SparsePattern:
    return SparsePattern(f"{options['n']}:{options['m']}" if "n" in options else str(options["sparsity"]))


def network_info(making: Making, key: str, trials: Sequence[Trial]) -> VariantInfo:
    """What there is to say of one network.

    Args:
        making: Made it.
        key: The network's.
        trials: All trials of the run, for accuracies.
    """
    from bitfront.passes.prune_counts import count_macs, count_parameters

    network = making.made[key]
    steps = tuple(network.steps)
    plain = steps[:-1] if steps[-1].name == "qat" else steps
    module = (making.made[making.made.add(plain)].module if plain else None) or making.maker.module
    inputs = making.maker.data.inputs
    macs, whole = count_macs(module, inputs), count_macs(making.maker.module, inputs)
    parameters, all_parameters = count_parameters(module), count_parameters(making.maker.module)
    base = [step for step in plain if step.name not in TRAININGS]
    before = making.made.key_of(base) if base else ""
    return VariantInfo(
        label=label(steps, making.made.key_of(base) if base else key),
        pruned=_pruned(making, steps),
        steps=tuple(_step(network, index) for index in range(len(steps))),
        macs=macs,
        parameters=parameters,
        macs_share=macs / whole,
        parameters_share=parameters / all_parameters,
        train_s=network.seconds,
        untrained_accuracy=_fp32_accuracy(trials, before) if before else None,
        fp32_accuracy=_fp32_accuracy(trials, making.made.key_of(plain) if plain else ""),
    )


def train_info(making: Making) -> TrainInfo:
    """What the run spent on training."""
    budget = making.maker.budget
    networks = {key: network for key, network in making.made.items() if network.steps}
    trained = [network for network in networks.values() if network.seconds > 0]
    return TrainInfo(
        budget_s=budget.limit_s,
        spent_s=budget.spent_s,
        networks=len({tuple(s.key for s in n.steps if s.name not in TRAININGS) for n in networks.values()}),
        trained=len({tuple(s.key for s in n.steps if s.name not in TRAININGS) for n in trained}),
        promoted=sum(judged.promoted for judged in making.history),
        history=tuple(
            RungInfo(
                network=judged.label,
                rung=judged.rung,
                steps=judged.steps,
                value=judged.accuracy,
                kept=judged.promoted,
            )
            for judged in making.history
        ),
    )


def _pruned(making: Making, steps: tuple[RecipeStep, ...]) -> tuple[PrunedGroup, ...]:
    found = []
    for step in steps:
        sparsity: Mapping[str, float] = step.options.get("sparsity", {}) if step.name == "prune" else {}
        for group in making.maker.groups:
            if sparsity.get(group.name, 0) > 0:
                size = group.channels // len(group.units)
                kept = 0 if group.branch else group.kept(sparsity[group.name], step.options["round_to"]) * size
                found.append(PrunedGroup(name=group.name, branch=group.branch, channels=group.channels, kept=kept))
    return tuple(found)


def _step(network: Network, index: int) -> StepInfo:
    step = network.steps[index]
    trainings = [i for i, other in enumerate(network.steps) if other.name in TRAININGS]
    if index not in trainings:
        return StepInfo(name=step.name, steps=0, seconds=0.0, loss=None)
    place = trainings.index(index)
    return StepInfo(
        name=step.name,
        steps=_steps_of(step),
        seconds=network.step_seconds[place],
        loss=network.losses[place],
    )


def distilled(steps: Sequence[RecipeStep]) -> int:
    """Training steps of all distillations of a recipe together."""
    return sum(_steps_of(step) for step in steps if step.name == "distil")


def _steps_of(step: RecipeStep) -> int:
    """So many a training had."""
    options: Mapping[str, Any] = step.options["qat"] if step.name == "qat" else step.options
    return int(options["training"]["steps"]) if step.ended_at is None else step.ended_at


def _fp32_accuracy(trials: Sequence[Trial], network: str) -> float | None:
    """What it scored on all of the search's samples; None where scoring stopped early."""
    most = max((trial.accuracy.samples for trial in trials if trial.accuracy), default=0)
    found = (
        trial.accuracy.value
        for trial in trials
        if trial.candidate.network == network
        and trial.accuracy is not None
        and trial.accuracy.samples == most
        and all(scheme == FP32 for scheme in trial.candidate.schemes.values())
    )
    return next(found, None)
