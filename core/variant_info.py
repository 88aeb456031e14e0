"""Description of a model variant: what was pruned, how it was trained, the accuracy recovered."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.core.document import Count, JsonValue, NonNegative, Number, PathBelow
from bitfront.core.recipe import pass_name

GIVEN, PRUNED, SPARSE, STUDENT, DISTILLED = "given", "pruned", "sparse", "student", "distilled"
"""Kinds of networks; a pass of another package may have a word of its own."""
# Files written before they said it: the passes that decide the kind, the most telling one first, and that of artifacts.
_KINDS_BEFORE = {"student": STUDENT, "prune": PRUNED, "sparse": SPARSE, "distill": DISTILLED}
_ARTIFACT_BEFORE = "qat"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunedGroup(JsonValue):
    """Pruned group: its channels before and after.

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
    """Pass of a recipe as it ran: steps, seconds, loss.

    Attributes:
        name: The pass's: ``prune``, ``distill``, ``my_package:MyPass``.
        steps: Training steps done; 0 for a pass without training.
        seconds: What it took.
        loss: The last loss its training reported, None without.
    """

    name: str
    steps: Count
    seconds: NonNegative
    loss: Number | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", pass_name(self.name))


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
        kind: What it is, in a word: ``pruned``. A file that does not say is read by the passes' names.
        artifact_trained: Whether the artifact's own quantisation was trained, by quantisation-aware training; likewise.
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
    kind: str = ""
    artifact_trained: bool | None = None

    def __post_init__(self) -> None:
        passes = {step.name for step in self.steps}
        kind = next((kind for name, kind in _KINDS_BEFORE.items() if name in passes), GIVEN)
        object.__setattr__(self, "kind", self.kind or kind)
        if self.artifact_trained is None:
            object.__setattr__(self, "artifact_trained", _ARTIFACT_BEFORE in passes)

    @property
    def trained_steps(self) -> int:
        """Training steps of all its passes together."""
        return sum(step.steps for step in self.steps)
