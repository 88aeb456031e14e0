"""Model variants: what the passes of a recipe make of the given network, each step done once and kept.

A variant depends on its steps, the given network and the training data alone. Each training is kept in the run's cache
under a digest of all that went before it, with its state in the middle and its result: a run that was killed goes on in
the middle, and a step that is repeated costs no training. Variants are trained on a GPU where torch has one, exported
on the CPU, and lowered as the given network is.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bitfront.core import ConfigError, Recipe, RecipeStep, digest
from bitfront.lowering.export import Exporter
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import with_batching_of
from bitfront.search.passes.base import ArtifactPass, Pass, PassContext, StructuralPass, TrainingPass
from bitfront.search.passes.registry import applicable, pass_of
from bitfront.search.passes.trainings import Finished

if TYPE_CHECKING:
    from torch import nn

    from bitfront.passes.train import Supervision, Trained

CALIBRATION_SAMPLES = 256  # at most: there are many variants, and each is calibrated
_REMEMBERED = 8  # states and variants, so that one that is trained on is not pruned again


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A model variant that candidates are written from.

    Attributes:
        steps: How it was made, trainings with the step they ended at; empty for the given network.
        module: On the CPU, in evaluation mode. None after training as an artifact.
        lowerer: Writes it.
        recipe: The steps with fingerprints; None for the given network.
        step_seconds: Seconds of each training, whenever it was done, in the order of the steps that train.
        losses: Each training's last loss, in the order of the steps that train.
    """

    steps: tuple[RecipeStep, ...]
    module: nn.Module | None
    lowerer: Lowerer
    recipe: Recipe | None
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Seconds of all its trainings together."""
        return sum(self.step_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """A variant after some of a recipe's steps.

    Attributes:
        key: Digest of everything so far.
        steps: Those done.
        module: With its masks on, if it has some; None after training as an artifact.
        lowerer: Of a variant that exists as an artifact alone; None while there is a module to export.
        trained: Results of its trainings.
    """

    key: str
    steps: tuple[RecipeStep, ...] = ()
    module: nn.Module | None
    lowerer: Lowerer | None = None
    trained: tuple[Finished, ...] = ()

    def after(
        self, step: RecipeStep, module: nn.Module | None, *trained: Finished, parts: Sequence[Any] = ()
    ) -> _State:
        """State after one step more; ``parts`` go into the key beside the step."""
        return _State(
            key=digest(self.key, step.key, *parts),
            steps=(*self.steps, step),
            module=module,
            trained=(*self.trained, *trained),
        )


class PassPipeline:
    """Applies recipes to the given network.

    Args:
        context: The given network, its data and trainings.
        given: Lowers the network exported from ``context.base``, with calibration inputs.
        name: Of the workload, for messages.
        passes: Of other packages, that a person named; recipes may have steps of them.
    """

    def __init__(self, context: PassContext, given: Lowerer, name: str, passes: Iterable[Pass] = ()) -> None:
        self.context = context
        self.passes = applicable(passes)
        self._given = given
        known = given.reference
        self._exporter = Exporter(
            context.data.inputs,
            known.interpreter,
            name,
            batch=known.fixed_batch,
            dynamic={
                key: [axis for axis, size in enumerate(shape) if axis and size is None]
                for key, shape in known.input_shapes.items()
            },
        )
        self._states: OrderedDict[str, _State] = OrderedDict()
        self._variants: OrderedDict[str, Variant] = OrderedDict()

    def make(self, steps: Sequence[RecipeStep]) -> Variant:
        """The variant of a recipe's steps.

        A training that the budget cuts short is in the variant's steps with the step it ended at; where nothing is left
        of the budget, it is not among them. Asked for with that end, it ends there whatever the budget has left.

        Raises:
            ConfigError: If a pass is unknown, an option wrong, or a step cannot follow those before it.
            ModelError: If the network cannot be traced, trained or exported.
            LoweringError: If it cannot be trained as it is quantised.
        """
        return self._variant(self._apply_all(steps))

    def module_of(self, steps: Sequence[RecipeStep]) -> nn.Module | None:
        """The module of a recipe's steps, not to be changed; None where the budget cuts a training short.

        Raises:
            EngineError: As ``make``.
        """
        state = self._apply_all(steps)
        whole = len(state.steps) == len(steps) and all(step.ended_at is None for step in state.steps)
        return state.module if whole else None

    def pass_of(self, step: RecipeStep) -> Pass:
        """The pass that applies a step.

        Raises:
            ConfigError: If it is unknown.
        """
        return pass_of(step, self.passes)

    def is_structural(self, step: RecipeStep) -> bool:
        """Whether a step makes another module, without training."""
        return isinstance(self.pass_of(step), StructuralPass)

    def is_from_scratch(self, steps: Sequence[RecipeStep]) -> bool:
        """Whether nothing in the variant of these steps is the given network's."""
        found = (self.pass_of(step) for step in steps)
        return any(isinstance(one, StructuralPass) and one.from_scratch for one in found)

    def trained_steps(self, steps: Sequence[RecipeStep]) -> int:
        """Training steps of a variant's module; those as an artifact aside."""
        return sum(self.steps_of(step) for step in steps if isinstance(self.pass_of(step), TrainingPass))

    def steps_of(self, step: RecipeStep) -> int:
        """Training steps of one step of a recipe, as far as it came; 0 for one that does not train."""
        found = self.pass_of(step)
        if isinstance(found, StructuralPass):
            return 0
        assert isinstance(found, TrainingPass | ArtifactPass)
        return found.steps_of(step) if step.ended_at is None else step.ended_at

    def _apply_all(self, steps: Sequence[RecipeStep]) -> _State:
        state = _State(key=self.context.key, module=self.context.base)
        for step in steps:
            state = self._apply(state, step)
        return state

    def _apply(self, state: _State, step: RecipeStep) -> _State:
        if state.module is None:
            raise ConfigError(
                f"recipe: pass '{step.name}' cannot follow '{state.steps[-1].name}', which leaves no torch module",
                f"make '{state.steps[-1].name}' the last",
            )
        known = self._states.get(digest(state.key, step.key))
        if known is not None:
            return known
        found = self.pass_of(step)
        if isinstance(found, StructuralPass):
            after = self._transform(found, state, step, state.module)
        elif isinstance(found, TrainingPass):
            after = self._train(found, state, step, state.module)
        else:
            assert isinstance(found, ArtifactPass)
            after = self._train_artifact(found, state, step)
        if after.steps != state.steps:
            _remember(self._states, after.key, after)
        return after

    def _transform(self, found: StructuralPass, state: _State, step: RecipeStep, module: nn.Module) -> _State:
        from bitfront.passes.prune_weights import bake

        made = found.apply(step, module if module is self.context.base else bake(module), self.context)
        return state.after(step, made, parts=found.key_parts(step, made, self.context))

    def _train(self, found: TrainingPass, state: _State, step: RecipeStep, module: nn.Module) -> _State:
        from bitfront.passes.device import best_device

        def train(supervision: Supervision) -> tuple[dict[str, Any], Trained]:
            working = copy.deepcopy(module).to(best_device())
            trained = found.train(step, working, self.context, supervision)
            return {"weights": working.cpu().state_dict()}, trained

        finished = self.context.trainings.finish(state.key, step, found.steps_of(step), train)
        if finished is None:
            return state
        made = copy.deepcopy(module)
        made.load_state_dict(finished.values["weights"])
        return state.after(step.ending_at(finished.ended_at), made, finished)

    def _train_artifact(self, found: ArtifactPass, state: _State, step: RecipeStep) -> _State:
        before = self._variant(state).lowerer

        def train(supervision: Supervision) -> tuple[dict[str, Any], Trained]:
            return found.train(step, before, self.context, supervision)

        settings = before.settings.to_json()
        key = digest(state.key, before.dialect.name, settings, before.calibration_digest)
        finished = self.context.trainings.finish(key, step, found.steps_of(step), train)
        if finished is None:
            return state
        after = state.after(step.ending_at(finished.ended_at), None, finished)
        return replace(after, lowerer=found.lowerer(finished.values, before, self.context))

    def _variant(self, state: _State) -> Variant:
        if state.key not in self._variants:
            _remember(self._variants, state.key, self._lowered(state))
        return self._variants[state.key]

    def _lowered(self, state: _State) -> Variant:
        module, lowerer = state.module, state.lowerer
        if not state.steps:
            lowerer = self._given
        elif lowerer is None:
            module, lowerer = self._exported(state)
        recipe = None
        if state.steps:
            recipe = Recipe(
                steps=state.steps,
                data=self.context.data_digest,
                network=lowerer.reference.fingerprint,
                architecture=lowerer.reference.architecture,
            )
        return Variant(
            steps=state.steps,
            module=module,
            lowerer=lowerer,
            recipe=recipe,
            step_seconds=tuple(training.seconds for training in state.trained),
            losses=tuple(training.loss for training in state.trained),
        )

    def _exported(self, state: _State) -> tuple[nn.Module, Lowerer]:
        from bitfront.passes.prune_weights import bake

        assert state.module is not None
        module = bake(state.module).eval()
        given = self._given
        reference = with_batching_of(self._exporter.reference(module), given.reference)
        settings = replace(given.settings, samples=min(given.settings.samples, CALIBRATION_SAMPLES))
        return module, Lowerer(reference, given.dialect, given.calibration, settings, self.context.store)


def _remember(kept: OrderedDict[str, Any], key: str, value: Any) -> None:
    """Keep a value, and let the oldest go."""
    kept[key] = value
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)
