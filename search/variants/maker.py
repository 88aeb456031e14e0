"""Networks made from the given one by passes: what a recipe's steps say, done once and kept.

Each training is kept in the run's cache under a digest of all that went before it, its state in the middle and what it
came to, so a run that was killed goes on in the middle and a step that is repeated costs no training. Networks are made
on a GPU where torch has one, exported on the CPU, and lowered as the given network is.

Two things hold for every recipe: the given network is the teacher, and labels are not used, since a network's own
answers are at hand for any input. After zeros were put into weights batch norm is measured anew.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bitfront.core import ConfigError, ContentStore, Recipe, RecipeStep, Scheme, digest
from bitfront.lowering.export import Exporter
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.options import SparsePattern
from bitfront.search.run_folder.identity import code_identity
from bitfront.search.variants.state import State, done, remember
from bitfront.search.variants.trained_artifact import lowerer_of, qat_options, values_of
from bitfront.search.variants.trainings import TrainBudget, Trainings

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from bitfront.passes.data import TrainingData
    from bitfront.passes.distil import Answers
    from bitfront.passes.prune import StructuredPrune
    from bitfront.passes.prune_groups import PruneGroup

__all__ = ["Maker", "Network", "TrainBudget"]

BATCH_NORM_SAMPLES = 1024
CALIBRATION_SAMPLES = 256  # at most: there are many networks, and each is calibrated
_SCORES = "importances"


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network that candidates are written from.

    Attributes:
        steps: How it was made, trainings with the end they came to; empty for the given network.
        module: On the CPU, in evaluation mode. None after quantisation-aware training.
        lowerer: Writes it.
        recipe: The steps with fingerprints; None for the given network.
        step_seconds: Spent on each training, whenever that was, in the order of the steps that train.
        losses: What each training's loss was at its end, in the order of the steps that train.
    """

    steps: tuple[RecipeStep, ...]
    module: nn.Module | None
    lowerer: Lowerer
    recipe: Recipe | None
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Spent on all of its trainings together."""
        return sum(self.step_seconds)


class Maker:
    """Makes networks from the given one.

    Args:
        module: The given network; left as it is.
        given: Lowers the network exported from ``module``, with calibration inputs.
        data: What passes see: inputs named and ordered as the network's.
        students: Name → a network with weights to start from.
        store: Where trainings, importances, ranges and rounded weights are kept.
        budget: Of training, over all networks.
        name: Of the workload, for messages.
        on_step: Told of each training that was done.
        augment: Fields of ``passes.data.Augmentation``.
        importance: What pruning removes first, one of ``passes.prune_importance``.
        round_to: Channels that stay are a multiple of it.
    """

    def __init__(
        self,
        *,
        module: nn.Module,
        given: Lowerer,
        data: TrainingData,
        students: Mapping[str, nn.Module],
        store: ContentStore,
        budget: TrainBudget,
        name: str,
        on_step: Callable[[str], None],
        augment: Mapping[str, float] | None = None,
        importance: str = "taylor",
        round_to: int = 8,
    ) -> None:
        # A workload may hold its network with gradients switched off.
        self.module = copy.deepcopy(module).cpu().eval().requires_grad_(True)
        self.data = data
        self.students = dict(students)
        self._students_code = {key: code_identity(student, key) for key, student in students.items()}
        self.budget = budget
        self.round_to = round_to
        self._given = given
        self._store = store
        self._trainings = Trainings(store, budget, on_step)
        self._exporter = Exporter(data.inputs, given.reference.interpreter, name, batch=given.reference.fixed_batch)
        self._augment = dict(augment or {})
        self._importance = importance
        self._scores: dict[str, dict[str, Tensor]] = {}
        self._states: OrderedDict[str, State] = OrderedDict()
        self._networks: OrderedDict[str, Network] = OrderedDict()

    @cached_property
    def groups(self) -> tuple[PruneGroup, ...]:
        """What can be pruned, and what cannot with the reason.

        Raises:
            ModelError: If the module cannot be traced.
        """
        from bitfront.passes.prune_groups import find_prune_groups

        return find_prune_groups(self.module, self.data.inputs)

    @cached_property
    def key(self) -> str:
        """Digest of the given network and the training data, which all that is made depends on."""
        return digest("recipe", self._given.reference.fingerprint, self.data_digest)

    @cached_property
    def data_digest(self) -> str:
        """Of the training inputs, and labels if there are any."""
        return digest(dict(self.data.inputs), self.data.labels)

    def prune_step(self, sparsity: Mapping[str, float]) -> RecipeStep:
        """Removal of channels and branches: prune group → sparsity."""
        from bitfront.passes.prune import StructuredPrune
        from bitfront.passes.prune_importance import Importance

        options = StructuredPrune(
            sparsity={name: value for name, value in sparsity.items() if value > 0},
            importance=Importance(self._importance),
            round_to=self.round_to,
            batch_norm_samples=BATCH_NORM_SAMPLES,
        )
        return RecipeStep(name="prune", options=options.to_json())

    def sparse_step(self, pattern: SparsePattern) -> RecipeStep:
        """Zeros among the weights, which trainings that follow leave there."""
        from bitfront.passes.prune_weights import NMPrune, UnstructuredPrune

        options = NMPrune(n=pattern.n, m=pattern.m) if pattern.m else UnstructuredPrune(sparsity=pattern.fraction)
        return RecipeStep(name="sparse", options=options.to_json())

    def student_step(self, name: str) -> RecipeStep:
        """One of the students instead of the given network."""
        return RecipeStep(name="student", options={"name": name})

    def distil_step(self, steps: int, *, student: bool = False, seed: int = 0) -> RecipeStep:
        """Training on the given network's answers, and but for a student on what its layers read too."""
        from bitfront.passes.distil import usual

        options = usual(
            self.module,
            steps,
            augment=self._augmentation(),
            samples=len(self.data),
            seed=seed,
            like_teacher=not student,
        )
        return RecipeStep(name="distil", options=options.to_json())

    def qat_step(self, schemes: Mapping[str, Scheme], steps: int) -> RecipeStep:
        """Training as the artifact of layer name → scheme, on the given network's answers."""
        from bitfront.passes.qat import TRAINING, Qat

        options = Qat(training=replace(TRAINING, steps=steps, augment=self._augmentation()))
        texts = {name: scheme.text for name, scheme in schemes.items()}
        return RecipeStep(name="qat", options={"qat": options.to_json(), "choices": texts})

    def make(self, steps: Sequence[RecipeStep]) -> Network:
        """Follow a recipe.

        A training that the budget cuts short is in the network's steps with the end it came to; where nothing is left
        of the budget, it is not among them. Asked for with that end, it ends there whatever the budget has left.

        Raises:
            ConfigError: If an option is wrong, or a step cannot follow those before it.
            ModelError: If the network cannot be traced, trained or exported.
            LoweringError: If it cannot be trained as it is quantised.
        """
        state = self._start
        for step in steps:
            state = self._followed(state, step)
        return self._network(state)

    def pruned(self, sparsity: Mapping[str, float]) -> nn.Module:
        """The given network pruned and not trained, prune group → sparsity; not to be changed.

        Raises:
            ModelError: If it cannot be pruned so.
        """
        module = self._followed(self._start, self.prune_step(sparsity)).module
        assert module is not None
        return module

    def trained(self, sparsity: Mapping[str, float], steps: int) -> nn.Module | None:
        """The given network pruned and trained for so many steps; None where the budget has not as many left.

        Raises:
            ModelError: If it cannot be pruned or trained so.
        """
        state = self._start
        for step in (self.prune_step(sparsity), self.distil_step(steps)):
            state = self._followed(state, step)
        whole = len(state.steps) == 2 and state.steps[-1].ended_at is None
        return state.module if whole else None

    @property
    def _start(self) -> State:
        return State(key=self.key, module=self.module)

    @cached_property
    def _answers(self) -> Answers:
        from bitfront.passes.distil import Answers

        return Answers()

    def _network(self, state: State) -> Network:
        if state.key not in self._networks:
            remember(self._networks, state.key, self._lowered(state))
        return self._networks[state.key]

    def _lowered(self, state: State) -> Network:
        module, lowerer = state.module, state.lowerer
        if not state.steps:
            lowerer = self._given
        elif lowerer is None:
            module, lowerer = self._exported(state)
        recipe = None
        if state.steps:
            recipe = Recipe(
                steps=state.steps,
                data=self.data_digest,
                network=lowerer.reference.fingerprint,
                architecture=lowerer.reference.architecture,
            )
        return Network(
            steps=state.steps,
            module=module,
            lowerer=lowerer,
            recipe=recipe,
            step_seconds=tuple(training.seconds for training in state.trained),
            losses=tuple(training.loss for training in state.trained),
        )

    def _exported(self, state: State) -> tuple[nn.Module, Lowerer]:
        from bitfront.passes.prune_weights import bake

        assert state.module is not None
        module = bake(state.module).eval()
        given = self._given
        reference = self._exporter.reference(module)
        settings = replace(given.settings, samples=min(given.settings.samples, CALIBRATION_SAMPLES))
        return module, Lowerer(reference, given.dialect, given.calibration, settings, self._store)

    def _followed(self, state: State, step: RecipeStep) -> State:
        if state.module is None:
            raise ConfigError(
                f"recipe: pass '{step.name}' cannot follow 'qat', which leaves no torch module", "make 'qat' the last"
            )
        known = self._states.get(digest(state.key, step.key))
        if known is not None:
            return known
        do = {
            "prune": self._pruned,
            "sparse": self._sparse,
            "student": self._student,
            "distil": self._distilled,
            "qat": self._quantised,
        }[step.name]
        found = do(state, step, state.module)
        if found.steps != state.steps:
            remember(self._states, found.key, found)
        return found

    def _pruned(self, state: State, step: RecipeStep, module: nn.Module) -> State:
        from bitfront.passes.prune import StructuredPrune
        from bitfront.passes.prune_weights import bake

        options = StructuredPrune.from_json(step.options)
        if state.steps:
            smaller = options.apply(bake(module), self.data)
        else:
            smaller = options.apply(module, self.data, groups=self.groups, scores=self._importances(options))
        return done(state, step, smaller)

    def _sparse(self, state: State, step: RecipeStep, module: nn.Module) -> State:
        from bitfront.passes.batch_norm import reestimate_batch_norm
        from bitfront.passes.prune_weights import NMPrune, UnstructuredPrune, bake, masked

        kind = NMPrune if "n" in step.options else UnstructuredPrune
        whole = bake(module)
        zeroed = masked(whole, kind.from_json(step.options).masks(whole))
        reestimate_batch_norm(zeroed, self.data.inputs, samples=BATCH_NORM_SAMPLES)
        return done(state, step, zeroed)

    def _student(self, state: State, step: RecipeStep, _: nn.Module) -> State:
        name = step.options.get("name")
        if state.steps or not isinstance(name, str) or name not in self.students:
            known = ", ".join(self.students) or "none"
            raise ConfigError(
                f"recipe: expected one of the workload's students ({known}) as the first step, got '{name}'",
                "give the workload the run was made with",
            )
        student = copy.deepcopy(self.students[name]).cpu().eval().requires_grad_(True)
        weights = {path: tensor.detach().cpu().numpy() for path, tensor in student.state_dict().items()}
        return replace(done(state, step, student), key=digest(state.key, step.key, weights, self._students_code[name]))

    def _distilled(self, state: State, step: RecipeStep, module: nn.Module) -> State:
        from bitfront.passes.distil import Distil

        options = Distil.from_json(step.options)
        student = copy.deepcopy(module)

        def train(supervision: Any) -> tuple[dict[str, Any], Any]:
            working = copy.deepcopy(module).to(_device())
            trained = options.train(
                working, self.data, teacher=self.module, supervision=supervision, answers=self._answers
            )
            return {"weights": working.cpu().state_dict()}, trained

        finished = self._trainings.finish(state.key, step, options.training.steps, train)
        if finished is None:
            return state
        student.load_state_dict(finished.values["weights"])
        return done(state, step.ending_at(finished.ended_at), student, finished)

    def _quantised(self, state: State, step: RecipeStep, _: nn.Module) -> State:
        options, schemes = qat_options(step)
        before = self._network(state).lowerer

        def train(supervision: Any) -> tuple[dict[str, Any], Any]:
            result = options.apply(
                before, schemes, self.data, teacher=self.module, supervision=supervision, device=_device()
            )
            return values_of(result), result.trained

        settings = before.settings.to_json()
        key = digest(state.key, before.dialect.name, settings, before.calibration_digest)
        finished = self._trainings.finish(key, step, options.training.steps, train)
        if finished is None:
            return state
        found = done(state, step.ending_at(finished.ended_at), None, finished)
        return replace(found, lowerer=lowerer_of(finished.values, before, self._store))

    def _importances(self, options: StructuredPrune) -> dict[str, Tensor]:
        """Of the given network, computed once in a run's life."""
        import torch

        key = digest(
            self._given.reference.fingerprint,
            self.data_digest,
            options.importance.value,
            options.samples,
            options.seed,
        )
        if key not in self._scores:
            kept = self._store.get_arrays(_SCORES, key)
            if kept is None:
                working = copy.deepcopy(self.module).to(_device())
                found = options.importances(working, self.groups, self.data)
                kept = {name: scores.numpy() for name, scores in found.items()}
                self._store.put_arrays(_SCORES, key, kept)
            self._scores[key] = {name: torch.from_numpy(scores) for name, scores in kept.items()}
        return self._scores[key]

    def _augmentation(self) -> Any:
        from bitfront.passes.data import Augmentation
        from bitfront.passes.options import options_from_json

        return options_from_json(Augmentation, self._augment, "workload, augment")


def _device() -> torch.device:
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
