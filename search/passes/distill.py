"""``distill``: trains variants on the given network's answers, and on what its layers read (``passes.distill``).

Labels are not used: the given network's own answers are at hand for any input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bitfront.core import RecipeStep
from bitfront.search.passes.base import PassContext, TrainingPass

if TYPE_CHECKING:
    from torch import nn

    from bitfront.passes.train import Supervision, Trained


@dataclass(frozen=True, kw_only=True)
class DistillPass(TrainingPass):
    """Knowledge distillation with the given network as the teacher."""

    name: ClassVar[str] = "distill"
    summary: ClassVar[str] = "learn from the given network"
    variant_kind: ClassVar[str] = "distilled"

    def step(self, context: PassContext, steps: int, *, from_scratch: bool = False, seed: int = 0) -> RecipeStep:
        """Step that distils the given network; from scratch it has no feature term."""
        from bitfront.passes.distill import default_distillation_config

        options = default_distillation_config(
            context.base,
            steps,
            augment=context.augmentation,
            samples=len(context.data),
            seed=seed,
            match_features=not from_scratch,
        )
        return RecipeStep(name=self.name, options=options.to_json())

    def train(
        self, step: RecipeStep, module: nn.Module, context: PassContext, supervision: Supervision | None = None
    ) -> Trained:
        """Train ``module`` in place towards the given network's answers."""
        from bitfront.passes.distill import Distillation, TeacherCache

        return Distillation.from_json(step.options).train(
            module,
            context.data,
            teacher=context.base,
            supervision=supervision,
            teacher_cache=context.once("teacher's logits", TeacherCache),
        )
