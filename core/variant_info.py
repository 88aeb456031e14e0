"""How a model variant was made from the given network: what was pruned, how it was trained, the accuracy recovered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from bitfront.core.document import Count, JsonValue, NonNegative, Number, PathBelow


class VariantKind(StrEnum):
    """What a network is made of; quantisation-aware training is told beside it (``VariantInfo.qat``)."""

    GIVEN = "given"
    PRUNED = "pruned"
    SPARSE = "sparse"
    STUDENT = "student"
    DISTILLED = "distilled"


# The pass that decides the kind, the most telling one first.
_KINDS = {
    "student": VariantKind.STUDENT,
    "prune": VariantKind.PRUNED,
    "sparse": VariantKind.SPARSE,
    "distil": VariantKind.DISTILLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedGroup(JsonValue):
    """One pruned group: its channels before and after.

    Attributes:
        name: The group's, which is its first layer's or its branch's module path.
        branch: Whether it is a residual branch, which is kept or removed as a whole.
        channels: Channels before.
        kept: Channels kept; 0 for a removed branch.

    Raises:
        ValueError: If ``kept`` is not between 0 and ``channels``.
    """

    name: str
    branch: bool
    channels: Count
    kept: Count

    def __post_init__(self) -> None:
        if not 0 <= self.kept <= self.channels or self.channels < 1:
            raise ValueError(f"prune group '{self.name}': expected 0 to {self.channels} channels kept, got {self.kept}")

    @property
    def kept_fraction(self) -> float:
        """Kept channels over those before, 0 to 1."""
        return self.kept / self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo(JsonValue):
    """One pass of a recipe.

    Attributes:
        name: The pass: ``prune``, ``sparse``, ``student``, ``distil`` or ``qat``.
        steps: Training steps done; 0 for a pass without training.
        seconds: What it took.
        loss: The last loss its training reported, None without.
    """

    name: str
    steps: Count
    seconds: NonNegative
    loss: Number | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantInfo(JsonValue):
    """A model variant: a network made from the given one.

    Attributes:
        label: In short: ``pruned``, ``student small``, ``2:4``.
        pruned: Groups that lost something.
        steps: The passes, in order.
        macs: Multiply-adds per sample.
        parameters: Weights and biases.
        macs_share, parameters_share: The same over those of the given network.
        train_s: All training of it, in seconds.
        untrained_accuracy: In FP32 before any recovery, on the search's data; None where not scored.
        fp32_accuracy: In FP32 after recovery, on the search's data; None where not scored.
        file: Path of its FP32 graph, relative to the run folder; None where not written.
    """

    label: str
    pruned: tuple[PrunedGroup, ...]
    steps: tuple[StepInfo, ...]
    macs: Count
    parameters: Count
    macs_share: NonNegative
    parameters_share: NonNegative
    train_s: NonNegative
    untrained_accuracy: Number | None = None
    fp32_accuracy: Number | None = None
    file: PathBelow | None = None

    @property
    def kind(self) -> VariantKind:
        """What it is made of."""
        passes = {step.name for step in self.steps}
        return next((kind for name, kind in _KINDS.items() if name in passes), VariantKind.GIVEN)

    @property
    def qat(self) -> bool:
        """Whether the artifact's own quantisation was trained."""
        return any(step.name == "qat" for step in self.steps)

    @property
    def trained_steps(self) -> int:
        """Training steps of all its passes together."""
        return sum(step.steps for step in self.steps)
