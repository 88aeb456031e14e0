"""Successive halving, asynchronous (ASHA), of variants over training steps, by Optuna's pruner.

Rung r of a variant ends after η^r units of training. A variant is promoted where its value is among the best 1/η of
those that came as far (Li et al., arXiv:1810.05934), so that no variant waits for another. One that is not keeps what
it learned, and may still be among the finalists. A decision depends on the earlier ones alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.pruners import SuccessiveHalvingPruner

from bitfront.search.policy.config import DEFAULTS, HalvingConfig
from bitfront.search.policy.variant import VariantState


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionDecision:
    """Whether a variant was trained on.

    Attributes:
        label: The variant's.
        rung: From 0.
        steps: Training steps so far.
        value: What it was judged by: its expected hypervolume improvement.
        accuracy: Its best candidate's, on the search's data; None where nothing was scored.
        promoted: Whether it was trained on.
    """

    label: str
    rung: int
    steps: int
    value: float
    accuracy: float | None
    promoted: bool


def first_rung_steps(
    *, limit_s: float | None, pace_s: float, epoch_steps: int, config: HalvingConfig = DEFAULTS.halving
) -> int:
    """Return the training steps of the first rung.

    The last one then ends after a part of the training time, unless the first would be too short to tell anything.

    Args:
        limit_s: Training time of the whole run in seconds; None is without limit.
        pace_s: Seconds a step takes.
        epoch_steps: Steps in which the training data are seen once.
        config: The rungs.
    """
    whole = config.epochs * epoch_steps
    if limit_s is not None:
        whole = min(whole, int(config.training_fraction * limit_s / pace_s))
    return max(whole // int(config.factor ** (config.rungs - 1)), min(config.least_steps, epoch_steps))


def steps_of(rung: int, unit: int, config: HalvingConfig = DEFAULTS.halving) -> int:
    """Return the training steps between the end of the rung before and the end of this one.

    Args:
        rung: From 0.
        unit: Steps of the first rung.
        config: The rungs.
    """
    return unit * (1 if rung == 0 else (config.factor - 1) * int(config.factor ** (rung - 1)))


def decide(
    history: Sequence[PromotionDecision],
    variant: VariantState,
    value: float,
    unit: int,
    config: HalvingConfig = DEFAULTS.halving,
) -> PromotionDecision:
    """Decide whether a variant that has come to the end of a rung is trained on.

    Args:
        history: Decisions so far.
        variant: Has been through at least one rung.
        value: What it is worth; what is worth nothing is not trained on.
        unit: Steps of the first rung.
        config: The rungs.
    """
    rung = variant.rungs - 1
    promoted = value > 0 and variant.rungs < config.rungs and _among_best(history, variant.label, rung, value, config)
    return _decision(variant, rung, value, unit, config, promoted=promoted)


def decided_before(
    variant: VariantState, value: float, unit: int, config: HalvingConfig = DEFAULTS.halving
) -> list[PromotionDecision]:
    """Return the decisions that led a variant of an interrupted run as far as it came, each at what it is worth now."""
    rungs = range(variant.rungs)
    return [_decision(variant, r, value, unit, config, promoted=r < variant.rungs - 1) for r in rungs]


def _decision(
    variant: VariantState, rung: int, value: float, unit: int, config: HalvingConfig, *, promoted: bool
) -> PromotionDecision:
    return PromotionDecision(
        label=variant.label,
        rung=rung,
        steps=unit * config.factor**rung,
        value=value,
        accuracy=variant.accuracy,
        promoted=promoted,
    )


def _among_best(
    history: Sequence[PromotionDecision], label: str, rung: int, value: float, config: HalvingConfig
) -> bool:
    """Ask Optuna's pruner, to which everything that was decided is told in a study of its own."""
    pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=config.factor, bootstrap_count=config.warm_up)
    study = optuna.create_study(direction="maximize", pruner=pruner)
    entries: dict[str, optuna.Trial] = {}
    for decision in history:
        entry = entries[decision.label] = entries.get(decision.label) or study.ask()
        entry.report(decision.value, config.factor**decision.rung)
        entry.should_prune()
    entry = entries.get(label) or study.ask()
    entry.report(value, config.factor**rung)
    return not entry.should_prune()
