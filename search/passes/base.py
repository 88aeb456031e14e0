"""Base of a pass: options with a name, and one of three ways to make a model variant.

    StructuralPass   module → another module, without training        prune, sparse, student
    TrainingPass     trains a variant's module                        distill
    ArtifactPass     trains what is deployed, as it is quantised      qat

A pass is a frozen dataclass: its fields are its options in one search, its class variables the same in every search.
What it does to a variant is a step of the variant's recipe (``core.recipe``), whose options are plain JSON. A step
alone says everything: ``--resume`` and ``search apply`` apply it by a pass with default options.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from bitfront.core import ContentStore, Inputs, Labelled, RecipeStep, Scheme, digest
from bitfront.core.variant_info import PrunedGroup
from bitfront.search.passes.trainings import TrainingBudget, Trainings

if TYPE_CHECKING:
    from torch import nn

    from bitfront.lowering.lowerer import Lowerer
    from bitfront.passes.data import Augmentation, TrainingData
    from bitfront.passes.train import Supervision, Trained

T = TypeVar("T")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A command-line option of a pass.

    Attributes:
        flag: As typed, ``--round-to``; without dashes it is the field of the pass.
        help: With the default.
        metavar: In the help.
        parse: Text → the field's value; raises ``argparse.ArgumentTypeError`` or ``UsageError``.
        choices: All values there are; None for any.
        text: The field's value → text in a run's identity, which decides whether a run may be resumed.
        json: The field's value → plain JSON in results.
    """

    flag: str
    help: str
    metavar: str
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    text: Callable[[Any], str] = str
    json: Callable[[Any], Any] = _same

    @property
    def field(self) -> str:
        """The name of the pass's field."""
        return self.flag.removeprefix("--").replace("-", "_")


@dataclass(frozen=True, kw_only=True, eq=False)
class PassContext:
    """Values that passes work with: the given network, its training data, the run's store and trainings.

    Attributes:
        base: The given network, on the CPU in evaluation mode; the teacher of every training. Left as it is.
        fingerprint: Of its normalised ONNX graph.
        data: Inputs named and ordered as the network's, with labels if there are any.
        students: Name → module of an architecture of the user's own, with weights to start from.
        store: Where what is expensive is kept, under a digest of all it depends on.
        trainings: Does trainings within the run's budget.
        augment: Fields of ``passes.data.Augmentation``.
    """

    base: nn.Module
    fingerprint: str
    data: TrainingData
    students: Mapping[str, nn.Module]
    store: ContentStore
    trainings: Trainings
    augment: Mapping[str, float] = field(default_factory=dict)
    _memory: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def budget(self) -> TrainingBudget:
        """Budget of training, over all variants."""
        return self.trainings.budget

    @cached_property
    def data_digest(self) -> str:
        """Digest of the training inputs, and labels if there are any."""
        return digest(dict(self.data.inputs), self.data.labels)

    @cached_property
    def key(self) -> str:
        """Digest of the given network and the training data, which every variant depends on."""
        return digest("recipe", self.fingerprint, self.data_digest)

    @property
    def augmentation(self) -> Augmentation:
        """Augmentation of training images.

        Raises:
            ConfigError: If a field is unknown or wrong.
        """
        from bitfront.passes.data import Augmentation
        from bitfront.passes.options import options_from_json

        return options_from_json(Augmentation, self.augment, "workload, augment")

    def once(self, key: str, make: Callable[[], T]) -> T:
        """Value that ``make`` returned when it was first called for this key."""
        if key not in self._memory:
            self._memory[key] = make()
        found: T = self._memory[key]
        return found


def pass_context(
    module: nn.Module,
    fingerprint: str,
    training: Inputs | Labelled,
    *,
    students: Mapping[str, nn.Module],
    augment: Mapping[str, float],
    trainings: Trainings,
) -> PassContext:
    """The context of a workload's parts; the arguments are its fields, modules are copied."""
    from bitfront.passes.data import TrainingData

    inputs, labels = (training.inputs, training.labels) if isinstance(training, Labelled) else (training, None)
    return PassContext(
        # A workload may hold its network with gradients switched off.
        base=copy.deepcopy(module).cpu().eval().requires_grad_(True),
        fingerprint=fingerprint,
        data=TrainingData(inputs=inputs, labels=labels),
        students=dict(students),
        store=trainings.store,
        trainings=trainings,
        augment=dict(augment),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A variant that a structural pass offers to the search.

    Attributes:
        label: In messages and in the report's table of the race.
        step: How it is made from the given network.
        architecture: Names its study and its points' files; letters, digits, ``-`` and ``_``.
    """

    label: str
    step: RecipeStep
    architecture: str


class Pass(ABC):
    """A pass; subclass one of the three kinds below.

    Attributes:
        name: In recipes and on the command line; of another package's pass ``module:attribute``, where it is found.
        summary: What it does, for the help of ``--passes``.
        arguments: Its options on the command line; each is a field.
        libraries: Modules it needs installed.
        selectable: Whether ``--passes`` may name it; other passes take part wherever variants are trained.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    arguments: ClassVar[tuple[Argument, ...]] = ()
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    selectable: ClassVar[bool] = True

    def options_text(self) -> dict[str, str]:
        """Option → value, as a run's identity has them."""
        return {argument.flag: argument.text(getattr(self, argument.field)) for argument in self.arguments}

    def options_json(self) -> dict[str, Any]:
        """Field → value, as results have them."""
        return {argument.field: argument.json(getattr(self, argument.field)) for argument in self.arguments}


class StructuralPass(Pass):
    """Makes another module of a module, without training.

    Attributes:
        variant_kind: A word for what it makes: ``pruned``.
        own_layers: Whether its variants' layers are others than the given network's: precisions are then scored on the
            variant itself and chosen in a space of their own. Else a variant has the given network's scores.
        from_scratch: Whether nothing in its variants is the given network's: they are worth nothing without training,
            and learn from its answers alone.
    """

    variant_kind: ClassVar[str]
    own_layers: ClassVar[bool] = False
    from_scratch: ClassVar[bool] = False

    @abstractmethod
    def apply(self, step: RecipeStep, module: nn.Module, context: PassContext) -> nn.Module:
        """Return the module that the step makes; ``module`` is left as it is.

        Args:
            step: One that this pass made, by its options.
            module: ``context.base`` itself in the recipe's first step.
            context: What there is to work with.

        Raises:
            ConfigError: If the step's options are wrong, or it cannot follow those before it.
            ModelError: If the module cannot be changed so.
        """

    def proposals(self, context: PassContext) -> Sequence[Proposal]:  # noqa: ARG002 - none by default
        """The variants to try; none for a pass whose options are variables of the search's space."""
        return ()

    def key_parts(self, step: RecipeStep, module: nn.Module, context: PassContext) -> tuple[Any, ...]:  # noqa: ARG002
        """Further values than step and context that decide the module that ``apply`` returned, for digests."""
        return ()

    def label(self, step: RecipeStep, variant: str) -> str:  # noqa: ARG002 - the step tells other passes more
        """The variant in two words, for reports; ``variant`` is its id before any training."""
        return f"{self.variant_kind} {variant[:4]}"

    def removed(self, step: RecipeStep, context: PassContext) -> tuple[PrunedGroup, ...]:  # noqa: ARG002
        """Groups of channels and branches that the step removed, for reports."""
        return ()


class TrainingPass(Pass):
    """Trains the module of a variant in place.

    Attributes:
        variant_kind: A word for the given network trained so, without a structural pass: ``distilled``.
    """

    variant_kind: ClassVar[str]

    @abstractmethod
    def step(self, context: PassContext, steps: int, *, from_scratch: bool = False, seed: int = 0) -> RecipeStep:
        """Step of a recipe: a training of a module.

        Args:
            context: What there is to work with.
            steps: Updates of the weights.
            from_scratch: Whether nothing in the variant is the given network's.
            seed: Of everything random.
        """

    @abstractmethod
    def train(
        self, step: RecipeStep, module: nn.Module, context: PassContext, supervision: Supervision | None = None
    ) -> Trained:
        """Train ``module`` in place on its device.

        Raises:
            ConfigError: If the step's options are wrong.
            ModelError: If the training diverges.
        """

    def steps_of(self, step: RecipeStep) -> int:
        """Training steps by the options."""
        return int(step.options["training"]["steps"])

    def batch_size_of(self, step: RecipeStep) -> int:
        """Samples a training step."""
        return int(step.options["training"]["batch_size"])


class ArtifactPass(Pass):
    """Trains a variant as it is quantised; nothing can follow, since what comes out is no torch module."""

    @abstractmethod
    def step(self, context: PassContext, schemes: Mapping[str, Scheme], steps: int) -> RecipeStep:
        """Step of a recipe: so many training steps as the artifact of layer name → scheme."""

    @abstractmethod
    def train(
        self, step: RecipeStep, lowerer: Lowerer, context: PassContext, supervision: Supervision | None = None
    ) -> tuple[dict[str, Any], Trained]:
        """Train the network that ``lowerer`` writes.

        Returns:
            (what ``lowerer`` below needs: tensors, numbers and text; how the training went).

        Raises:
            ConfigError: If the step's options are wrong.
            LoweringError: If it cannot be trained as it is quantised.
        """

    @abstractmethod
    def lowerer(self, values: Mapping[str, Any], before: Lowerer, context: PassContext) -> Lowerer:
        """Writes the trained network; ``before`` is the lowerer it was trained with."""

    @abstractmethod
    def steps_of(self, step: RecipeStep) -> int:
        """Training steps by the options."""
