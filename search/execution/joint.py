"""The search when passes may change the network: precisions, prunings, students and training under the same limits.

    precisions of the given network ─► costs of pruning, timed ─► for each target below what precisions alone reach:
      joint solve ─► pruning, precisions ─► variant made ─► briefly distilled ─► tried ─┐
           ▲                                                                            ▼
      refitted models ◄──────────── successive halving ◄── expected hypervolume improvement
    ─► sampler over precisions and prunings ─► final fine-tuning of those who can enter the front

A variant is made once for each pruning and trained on from where it stood; all its candidates are tried on it as it is
then. The larger part of the training time is kept for the fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bitfront.core import Precision
from bitfront.search.execution.explorer import Explorer, TrialContext
from bitfront.search.execution.fine_tune import fine_tune
from bitfront.search.execution.proposed_variants import enter_proposals
from bitfront.search.execution.prune_costs import learn_costs, pruning_text
from bitfront.search.execution.pruned_variants import solved, solver_of, starting_bounds, target_of
from bitfront.search.execution.variants import VariantContext, VariantExecutor
from bitfront.search.policy.allocation import Allocation, before_fine_tuning
from bitfront.search.policy.variant import VariantState
from bitfront.search.proposals.sampler import FrontSampler, VariantOffer
from bitfront.search.results.finalize import TIME_LIMIT
from bitfront.search.space.pruning import SparsityIndices
from bitfront.search.space.space import Assignment, Encoding, Space
from bitfront.search.trial import Candidate, Origin, Trial, origin_of


class JointSearch:
    """A search over precisions and variants.

    Args:
        trials: What it takes to try candidates.
        context: What it takes to make variants.
        space: Of the given network, with its prunings.
    """

    def __init__(self, trials: TrialContext, context: VariantContext, space: Space) -> None:
        self.trials = trials
        self.builder = context.builder
        self.space = space
        self._sampler = FrontSampler(space, trials.evaluator.limits, trials.seed, trials.policy.sampler)
        self.study = context.open_study(space, self._sampler, "")
        self.explorer = Explorer(trials, space, self.study)
        self.executor = VariantExecutor(trials, context)
        self.executor.explorers[""] = self.explorer
        self._made: dict[SparsityIndices, VariantState] = {}
        self._new: VariantState | None = None

    def close(self) -> None:
        """Close the studies' databases."""
        for explorer in self.executor.explorers.values():
            explorer.study.close()

    def run(self, starts: Sequence[Assignment], earlier: Sequence[Trial] = ()) -> str | None:
        """Run the whole joint search; returns what ended it early, else None.

        Args:
            starts: Assignments worth trying first.
            earlier: Trials of an earlier run under other constraints.
        """
        trials, explorer, options = self.trials, self.explorer, self.builder.options
        config = trials.policy.allocation
        trials.listener.phase("search", trials.limits.trials)
        explorer.baselines()
        self._restore()
        explorer.allocation = Allocation(
            trial_fraction=config.precision_fraction, time_fraction=config.precision_fraction
        )
        explorer.all(explorer.seeds(starts, earlier, config.variant_seed_fraction))
        before = before_fine_tuning(trials.limits, self._training_s)
        explorer.allocation = Allocation(trial_fraction=config.variant_fraction, time_fraction=before)
        trials.listener.phase("networks", None)
        if options.pruning:
            learn_costs(explorer, self.builder)
            self._make_pruned()
        for one in options.structural:
            enter_proposals(self.executor, one)
        trials.listener.phase("sampling", None)
        explorer.allocation = Allocation(time_fraction=before)
        explorer.sample(
            lambda: self._sampler.exhausted(self.study.live), self._offer, made=self._with_network, after=self._after
        )
        explorer.allocation = Allocation()
        fine_tune(self.executor)
        return TIME_LIMIT if explorer.late else None

    @property
    def _training_s(self) -> float | None:
        options = self.builder.options
        return self.builder.context.budget.limit_s if options.recovery or options.artifact else None

    def _restore(self) -> None:
        """Take up the given architecture's variants where an interrupted run left them."""
        evidence, variants = self.executor.evidence, self.builder.variants
        structural = self.builder.pipeline.is_structural
        found: dict[str, list[Trial]] = {}
        for trial in self.explorer.trials:
            candidate = trial.candidate
            judged = candidate.variant and candidate.origin not in (Origin.COST_PROBE, Origin.ZERO_SHOT, Origin.QAT)
            # A network all of whose candidates were over a limit, and so not scored, was made all the same.
            if judged and (candidate.judges_variant or evidence.conclusive(trial)):
                found.setdefault(candidate.variant, []).append(trial)
        latest: dict[str, str] = {}
        for network in found:
            steps = variants.steps(network)
            base = variants.id_of([step for step in steps if structural(step)])
            if base not in latest or len(steps) > len(variants.steps(latest[base])):
                latest[base] = network
        for network in latest.values():
            steps, pruning = variants.steps(network), found[network][0].candidate.pruning
            trainings = sum(not structural(step) for step in steps)
            variant = VariantState(
                label=pruning_text(pruning),
                base=tuple(step for step in steps if structural(step)),
                pruning=pruning,
                id=network,
                steps=steps,
                trials=found[network],
                rungs=min(max(trainings, 1), self.trials.policy.halving.rungs),
            )
            if trainings:
                self.executor.note_network(variant, network)
            self.executor.variants.append(variant)
            self._made[self.space.sparsity_indices(self.explorer.encoding(found[network][0]))] = variant
            self.executor.restore(variant)

    def _make_pruned(self) -> None:
        number, bounds = 0, starting_bounds(self.executor)
        while (target := target_of(self.executor, number, bounds)) is not None:
            if self.explorer.full or self.explorer.late or not self.executor.may_train:
                return
            encoding = solved(self.executor, target, number, solver_of(self.explorer))
            if encoding is not None and self.space.sparsity_indices(encoding) not in self._made:
                variant = self._pruned(encoding)
                if variant is not None:
                    # The solution, and the lowest uniform precision beside it.
                    lowest = self.space.uniform(Precision.INT4)
                    self.executor.enter(variant, [self.space.decode(encoding), lowest])
            number += 1

    def _pruned(self, encoding: Encoding) -> VariantState | None:
        pruning = self.space.pruning(encoding)
        step = self.builder.prune_step(pruning)
        variant = self.executor.make(pruning_text(pruning), [step], pruning=pruning)
        if variant is not None:
            self._made[self.space.sparsity_indices(encoding)] = variant
        return variant

    def _offer(self) -> None:
        """Tell the sampler which variants there are, and whether it may ask for another."""
        few = len(self._made) < self.trials.policy.allocation.sampler_variant_fraction * self.trials.limits.trials
        may_add = bool(self.space.prunes) and few and self.executor.may_train and not self.explorer.late
        self._sampler.offer = VariantOffer(prunings=tuple(self._made), may_add=may_add)

    def _with_network(self, candidate: Candidate) -> Candidate:
        """Candidate that the sampler proposes, on the variant of its pruning; a new one is made."""
        if not candidate.pruning:
            return candidate
        encoding = self.space.encode(candidate.schemes, candidate.pruning)
        variant, origin = self._made.get(self.space.sparsity_indices(encoding)), candidate.origin
        if variant is None:
            variant = self._new = self._pruned(encoding)
            origin = origin_of(variant.base[0]) if variant else origin
        return replace(candidate, origin=origin, variant=variant.id if variant else "")

    def _after(self, trial: Trial) -> None:
        if self._new is not None:
            variant, self._new = self._new, None
            self.executor.variants.append(variant)
            variant.trials.append(trial)
            self.executor.race(variant)
            return
        evidence = self.executor.evidence
        for variant in self.executor.variants:
            if variant.id == trial.candidate.variant and evidence.conclusive(trial):
                variant.trials.append(trial)
