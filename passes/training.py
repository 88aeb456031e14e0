"""The options of a training: steps, batches, learning rate and its schedule, augmentation. They serialise whole.

learning rate at step s of S, W = ⌈warmup · S⌉:
    s < W    learning_rate · (s + 1) / W
    cosine   learning_rate · (1 + cos(π (s − W) / (S − W))) / 2     (Loshchilov and Hutter, arXiv:1608.03983, eq. 5)
    constant learning_rate
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from bitfront.core import ConfigError
from bitfront.passes.data import Augmentation


class Optimiser(StrEnum):
    """Rule by which gradients become steps."""

    SGD = "sgd"  # with Nesterov momentum
    ADAM = "adam"  # with decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101)


class Schedule(StrEnum):
    """Course of the learning rate after the warm-up."""

    COSINE = "cosine"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Options of a training.

    Attributes:
        steps: Updates of the weights.
        batch_size: Samples per step; all samples where there are fewer.
        learning_rate: The highest.
        optimiser: ``momentum`` applies to SGD; Adam's betas are 0.9 and 0.999.
        momentum: Of SGD.
        weight_decay: Applied to weights of two axes and more, not to biases, norms and scales.
        schedule: See the module.
        warmup: Fraction of the steps in which the rate rises.
        gradient_norm: Gradients longer than this (over all parameters) are shortened to it; None leaves them.
        freeze_batch_norm_after: Fraction of the steps after which batch norm uses its running statistics as they
            are; 1 never, 0 from the start.
        augment: Of images.
        seed: Of the order, the augmentation and dropout.
    """

    steps: int
    batch_size: int = 128
    learning_rate: float = 0.05
    optimiser: Optimiser = Optimiser.SGD
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Schedule = Schedule.COSINE
    warmup: float = 0.05
    gradient_norm: float | None = None
    freeze_batch_norm_after: float = 1.0
    augment: Augmentation = Augmentation()  # noqa: RUF009 - frozen
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "steps ≥ 0": self.steps >= 0,
            "batch_size ≥ 1": self.batch_size >= 1,
            "learning_rate > 0": self.learning_rate > 0,
            "momentum in [0, 1)": 0 <= self.momentum < 1,
            "weight_decay ≥ 0": self.weight_decay >= 0,
            "warmup in [0, 1]": 0 <= self.warmup <= 1,
            "gradient_norm > 0": self.gradient_norm is None or self.gradient_norm > 0,
            "freeze_batch_norm_after in [0, 1]": 0 <= self.freeze_batch_norm_after <= 1,
            "seed ≥ 0": self.seed >= 0,
        }
        for rule, holds in wrong.items():
            if not holds:
                name = rule.partition(" ")[0]
                raise ConfigError(f"training: expected {rule}, got {getattr(self, name)!r}", f"change {name}")

    def learning_rate_at(self, step: int) -> float:
        """The rate of one step, from 0; 0 for the step after the last one of a cosine."""
        warm = math.ceil(self.warmup * self.steps)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        if self.schedule is Schedule.CONSTANT:
            return self.learning_rate
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def freezes_batch_norm_at(self, step: int) -> bool:
        """Whether batch norm keeps its statistics in that step."""
        return step >= self.freeze_batch_norm_after * self.steps
