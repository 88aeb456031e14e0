"""A model variant that passes made of the given network, as policies see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bitfront.core import RecipeStep
from bitfront.search.trial import Trial


@dataclass(slots=True, kw_only=True)
class VariantState:
    """A variant on its way through the rungs; the executor keeps it up to date.

    Attributes:
        label: In words; different for different variants of a run.
        base: The steps before any training of it.
        pruning: Prune group → sparsity.
        architecture: The student, or the pattern of sparse weights; empty for the given network's.
        id: Id of the variant as it is now.
        steps: How that was made.
        trained_steps: Distillation steps among them.
        train_s: Seconds all its trainings took.
        trials: Of the variant as it is now.
        rungs: How many it has been through.
    """

    label: str
    base: tuple[RecipeStep, ...]
    pruning: Mapping[str, float] = field(default_factory=dict)
    architecture: str = ""
    id: str
    steps: tuple[RecipeStep, ...]
    trained_steps: int = 0
    train_s: float = 0.0
    trials: list[Trial] = field(default_factory=list)
    rungs: int = 0

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the variant's best candidate, on the search's data; None where nothing was scored."""
        return max((trial.accuracy.value for trial in self.trials if trial.accuracy), default=None)
