"""``student``: an architecture of the user's own instead of the given network, where the workload brings some."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bitfront.core import ConfigError, RecipeStep
from bitfront.search.passes.base import PassContext, Proposal, StructuralPass
from bitfront.search.run_folder.code_identity import code_identity

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class StudentPass(StructuralPass):
    """Replaces the given network by one of the workload's students."""

    name: ClassVar[str] = "student"
    summary: ClassVar[str] = "train the workload's students instead"
    variant_kind: ClassVar[str] = "student"
    selectable: ClassVar[bool] = False
    own_layers: ClassVar[bool] = True
    from_scratch: ClassVar[bool] = True

    def step(self, name: str) -> RecipeStep:
        """A student by its name."""
        return RecipeStep(name=self.name, options={"name": name})

    def proposals(self, context: PassContext) -> Sequence[Proposal]:
        """A variant for each student."""
        return [Proposal(label=f"student {name}", step=self.step(name), architecture=name) for name in context.students]

    def apply(self, step: RecipeStep, module: nn.Module, context: PassContext) -> nn.Module:
        """A copy of the student with the weights it came with."""
        name = step.options.get("name")
        if module is not context.base or not isinstance(name, str) or name not in context.students:
            known = ", ".join(context.students) or "none"
            raise ConfigError(
                f"recipe: expected one of the workload's students ({known}) as the first step, got '{name}'",
                "give the workload the run was made with",
            )
        return copy.deepcopy(context.students[name]).cpu().eval().requires_grad_(True)

    def key_parts(self, step: RecipeStep, module: nn.Module, context: PassContext) -> tuple[Any, ...]:
        """The student's first weights, and its code."""
        name: str = step.options["name"]
        weights = {path: tensor.detach().cpu().numpy() for path, tensor in module.state_dict().items()}
        student = context.students[name]
        return (weights, context.once(f"code of student {name}", lambda: code_identity(student, name)))

    def label(self, step: RecipeStep, variant: str) -> str:  # noqa: ARG002 - the student has a name
        """Short name: ``student SmallNet-1``."""
        return f"student {step.options['name']}"
