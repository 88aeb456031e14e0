"""Makes, trains and tries the variants of a run, as ``policy`` decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bitfront.core import EngineError, Inputs, RecipeStep, Scheme
from bitfront.core.pareto import pareto_front
from bitfront.search.execution.explorer import Explorer, TrialContext
from bitfront.search.execution.sensitivities import SensitivityContext
from bitfront.search.policy import halving
from bitfront.search.policy.allocation import search_time_s
from bitfront.search.policy.fine_tuning import TrainingResources, seconds_left
from bitfront.search.policy.improvement import Evidence
from bitfront.search.policy.learning_curve import LearningCurve
from bitfront.search.policy.variant import VariantState
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.run_folder.study import Study
from bitfront.search.space.space import UNPRUNED, Space
from bitfront.search.trial import Candidate, Origin, Trial, TrialStatus, origin_of
from bitfront.search.variants.builder import VariantBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantContext:
    """Values that making variants needs.

    Attributes:
        builder: Makes and trains them.
        open_study: (space, sampler, architecture) → the run's study of that space.
        layers: What a candidate comes to, layer by layer.
        unseen: Inputs that nothing is trained on.
        divergence_samples: Of these, that rival prunings are compared on.
        measure: What a divergence is measured in, as ``sensitivity.divergence_metric`` writes it.
        sensitivities: What it takes to score a student's schemes.
    """

    builder: VariantBuilder
    open_study: Callable[[Space, FrontSampler, str], Study]
    layers: Callable[[Candidate], Mapping[str, Scheme]]
    unseen: Inputs
    divergence_samples: int
    measure: str
    sensitivities: SensitivityContext


class VariantExecutor:
    """The variants of a run, with the explorers of their spaces.

    Args:
        trials: What it takes to try candidates.
        context: What it takes to make variants.

    Attributes:
        variants: All that were made and tried.
        explorers: Architecture → explorer of its space; that of the given network's is set from outside.
        curve: What training is expected to bring.
        unit: Training steps of the first rung.
    """

    def __init__(self, trials: TrialContext, context: VariantContext) -> None:
        self.trials = trials
        self.context = context
        self.builder = builder = context.builder
        self.policy = trials.policy
        self.variants: list[VariantState] = []
        self.explorers: dict[str, Explorer] = {}
        self.curve = LearningCurve((self.policy.learning_curve.prior_power,))
        budget = builder.context.budget
        self.unit = halving.first_rung_steps(
            limit_s=budget.limit_s,
            pace_s=builder.seconds_per_step,
            epoch_steps=builder.steps_of_epochs(1),
            config=self.policy.halving,
        )
        limit = trials.limits.time_limit_s
        if limit is not None:
            usable = search_time_s(limit, trials.limits.config)
            budget.time_left = lambda: usable - trials.watch.elapsed_s

    @property
    def evidence(self) -> Evidence:
        """Evidence that is there at the moment."""
        evaluator = self.trials.evaluator
        return Evidence(
            trials=tuple(evaluator.trials),
            reference_accuracy=evaluator.reference_accuracy,
            reference_ms=evaluator.reference_ms,
            constraints=self.trials.constraints,
            curve=self.curve,
            config=self.policy.learning_curve,
        )

    @property
    def resources(self) -> TrainingResources:
        """Resources that training may use from now on."""
        builder, config = self.builder, self.policy.fine_tuning
        budget = builder.context.budget
        return TrainingResources(
            left_s=seconds_left(budget.left_s, budget.time_left(), config),
            asked=builder.options.train_budget_s is not None,
            pace_s=builder.seconds_per_step,
            epoch_steps=builder.steps_of_epochs(1),
            config=config,
        )

    @property
    def may_train(self) -> bool:
        """Whether the search's part of the training time has something left."""
        budget, fraction = self.builder.context.budget, self.policy.allocation.search_training_fraction
        return budget.limit_s is None or budget.spent_s < fraction * budget.limit_s

    def explorer_of(self, variant: VariantState) -> Explorer:
        """Return the explorer of a variant's space."""
        return self.explorers[variant.architecture]

    def open_explorer(self, variant: VariantState, space: Space) -> Explorer:
        """Open a space that is a variant's own."""
        trials, architecture = self.trials, variant.architecture
        sampler = FrontSampler(space, trials.evaluator.limits, trials.seed, self.policy.sampler)
        study = self.context.open_study(space, sampler, architecture)
        explorer = Explorer(trials, space, study, architecture)
        explorer.allocation = self.explorers[""].allocation
        self.explorers[architecture] = explorer
        return explorer

    def make(
        self, label: str, base: Sequence[RecipeStep], *, pruning: Mapping[str, float] = UNPRUNED, architecture: str = ""
    ) -> VariantState | None:
        """Make a variant of the given network, trained through the first rung where the run trains.

        Args:
            label: In words.
            base: Steps before any training.
            pruning: Prune group → sparsity.
            architecture: Where it has a space of its own.

        Returns:
            None where it fails, of which the listener hears.
        """
        steps = list(base)
        if self.builder.options.recovery:
            first = halving.steps_of(0, self.unit, self.policy.halving)
            steps.append(self.builder.training_step(first, base))
        try:
            key = self.builder.variants.add(steps)
        except EngineError as error:
            self.trials.listener.warn(f"{label}: {error.message}")
            return None
        variant = VariantState(
            label=label, base=tuple(base), pruning=pruning, architecture=architecture, id=key, steps=(), rungs=1
        )
        self.note_network(variant, key)
        self.trials.listener.step(f"{label}: made")
        return variant

    def note_network(self, variant: VariantState, key: str) -> None:
        """Bring a variant up to date with its network."""
        network = self.builder.variants[key]
        variant.id, variant.steps = key, tuple(network.steps)
        variant.trained_steps, variant.train_s = self.builder.pipeline.trained_steps(variant.steps), network.seconds

    def enter(self, variant: VariantState, candidates: Sequence[Mapping[str, Scheme]]) -> None:
        """Try a new variant and lead it through the rungs.

        Args:
            variant: Made, without trials.
            candidates: Group → scheme, what is tried on it; equal ones once.
        """
        self.variants.append(variant)
        self.try_on(variant, _distinct(candidates), origin=origin_of(variant.base[0]))
        self.race(variant)

    def try_on(self, variant: VariantState, candidates: Sequence[Mapping[str, Scheme]], origin: Origin) -> None:
        """Try candidates on a variant as it is now."""
        explorer, tried = self.explorer_of(variant), []
        for schemes in candidates:
            candidate = Candidate(
                origin=origin,
                schemes=schemes,
                pruning=variant.pruning,
                variant=variant.id,
                architecture=variant.architecture,
            )
            tried.append(explorer.attempt(candidate))
        variant.trials += [trial for trial in tried if trial.status is not TrialStatus.FAILED]

    def train(self, variant: VariantState, steps: int) -> bool:
        """Train a variant on, and try the best of its candidates again.

        Returns:
            Whether it was trained: False where the budget left nothing.
        """
        before, done = variant.accuracy, variant.trained_steps
        key = self.builder.variants.add([*variant.steps, self.builder.training_step(steps, variant.base)])
        if len(self.builder.variants[key].steps) == len(variant.steps):
            return False
        own = [trial for trial in variant.trials if trial.candidate.origin is not Origin.FINE_TUNED]
        again = _best_of(own, self.policy.allocation.retried_candidates)
        self.note_network(variant, key)
        variant.trials = []
        self.try_on(variant, again, origin=Origin.RETRIED)
        if before is not None and variant.accuracy is not None and done:
            reference = self.trials.evaluator.reference_accuracy
            times = variant.trained_steps / done
            self.curve = self.curve.after(before, variant.accuracy, reference=reference, times=times)
        return True

    def race(self, variant: VariantState) -> None:
        """Train a variant, which is through the first rung, for as long as it is promoted."""
        if not self.builder.options.recovery:
            return
        history, config = self.builder.history, self.policy.halving
        while True:
            decision = halving.decide(history, variant, self._improvement(variant), self.unit, config)
            history.append(decision)
            steps = halving.steps_of(variant.rungs, self.unit, config)
            may_go_on = decision.promoted and self.may_train and not self.explorer_of(variant).late
            if not (may_go_on and self.train(variant, steps)):
                return
            variant.rungs += 1

    def restore(self, variant: VariantState) -> None:
        """Let a variant of an interrupted run count among those that came as far as it did."""
        value = self._improvement(variant)
        self.builder.history.extend(halving.decided_before(variant, value, self.unit, self.policy.halving))

    def _improvement(self, variant: VariantState) -> float:
        config = self.policy.halving
        return self.evidence.improvement(variant.trials, config.factor ** (config.rungs - variant.rungs))


def _best_of(trials: Sequence[Trial], most: int) -> list[dict[str, Scheme]]:
    """Schemes of the trials that no other of them beats, the most accurate first."""
    scored = [trial for trial in trials if trial.accuracy is not None and trial.latency is not None]
    front = [scored[i] for i in pareto_front([trial.objectives for trial in scored])]
    front.sort(key=lambda trial: -trial.objectives.accuracy)
    distinct = {trial.candidate.key: dict(trial.candidate.schemes) for trial in front}
    return list(distinct.values())[:most]


def _distinct(assignments: Sequence[Mapping[str, Scheme]]) -> list[Mapping[str, Scheme]]:
    found: list[Mapping[str, Scheme]] = []
    for assignment in assignments:
        if assignment not in found:
            found.append(assignment)
    return found
