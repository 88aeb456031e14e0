"""The variants of one search: ids that candidates name and a resumed run makes again, and the pace of their training.

An id is the digest of a variant's steps, which are kept in the run's cache; making a variant again takes finished
trainings from there too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from bitfront.core import ContentStore, RecipeStep, digest
from bitfront.search.measuring.stopwatch import Kind, Stopwatch
from bitfront.search.passes.base import PassContext, TrainingPass
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.policy.halving import PromotionDecision
from bitfront.search.variants.pipeline import PassPipeline, Variant

_STEPS, _PACE = "network", "pace"  # kinds of entries in the store
_PACE_STEPS = 4


class VariantStore(Mapping[str, Variant]):
    """Variant id → variant; of an earlier process's ids the variants are made again.

    Args:
        pipeline: Makes them.
        store: Where their steps are kept.
        watch: Clocks their making as training.
    """

    def __init__(self, pipeline: PassPipeline, store: ContentStore, watch: Stopwatch) -> None:
        self._pipeline = pipeline
        self._store = store
        self._watch = watch
        self._made: dict[str, Variant] = {}

    def add(self, steps: Sequence[RecipeStep]) -> str:
        """Make a variant; returns its id.

        A training that its budget cut short is in the variant's own steps with its end.

        Raises:
            EngineError: If it cannot be made.
        """
        if self.id_of(steps) in self._made:
            return self.id_of(steps)
        with self._watch.timed(Kind.TRAINING):
            variant = self._pipeline.make(steps)
        key = self.id_of(variant.steps)
        if key not in self._made:
            self._store.put_json(_STEPS, key, [step.to_json() for step in variant.steps])
            self._made[key] = variant
        return key

    @staticmethod
    def id_of(steps: Sequence[RecipeStep]) -> str:
        """The id of the variant that these steps make, if no budget cuts them short; empty for no steps."""
        return digest([step.key for step in steps])[:16] if steps else ""

    def steps(self, key: str) -> tuple[RecipeStep, ...]:
        """Steps by which a variant is made, which an earlier process may have done.

        Raises:
            KeyError: If no such variant was ever made in this run.
        """
        kept = self._store.get_json(_STEPS, key)
        if kept is None:
            raise KeyError(key)
        return tuple(RecipeStep.from_json(step) for step in kept)

    def __getitem__(self, key: str) -> Variant:
        if key not in self._made and self.add(self.steps(key)) != key:
            raise KeyError(key)
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass
class VariantBuilder:
    """Passes, pipeline and variants of a search with passes.

    Attributes:
        options: Which passes, and how.
        pipeline: Makes variants.
        variants: Those it made, by id.
        history: Decisions of successive halving so far.
    """

    options: PassOptions
    pipeline: PassPipeline
    variants: VariantStore
    history: list[PromotionDecision] = field(default_factory=list)

    @property
    def context(self) -> PassContext:
        """The given network, its data and trainings."""
        return self.pipeline.context

    def training_step(self, steps: int, base: Sequence[RecipeStep] = ()) -> RecipeStep:
        """Step of so many training steps of a variant of the steps ``base``, by the pass that trains variants."""
        return self._trainer.step(self.context, steps, from_scratch=self.pipeline.is_from_scratch(base))

    @cached_property
    def seconds_per_step(self) -> float:
        """Seconds that a training step of the given network takes; measured once in a run's life."""
        context, step = self.context, self.training_step(_PACE_STEPS)
        key = digest("pace", context.key, step.key)
        kept = context.store.get_json(_PACE, key)
        if kept is None:
            from bitfront.passes.train import Supervision

            trained = self._trainer.train(step, copy.deepcopy(context.base), context, Supervision(every=1))
            at_s = [0.0, *(report.seconds for report in trained.reports)]
            # The fastest: a step is only ever slowed by what else the machine does.
            kept = {"seconds": max(min(after - before for before, after in pairwise(at_s)), 1e-4)}
            context.store.put_json(_PACE, key, kept)
        return float(kept["seconds"])

    def steps_of_epochs(self, epochs: int) -> int:
        """Training steps in which the training data are seen so often."""
        return epochs * -(-len(self.context.data) // self._trainer.batch_size_of(self.training_step(1)))

    def prune_step(self, sparsity: Mapping[str, float]) -> RecipeStep:
        """Removal of channels and branches, prune group → sparsity, where pruning takes part."""
        assert self.options.pruning is not None, "the space has sparsities"
        return self.options.pruning.step(sparsity)

    @property
    def _trainer(self) -> TrainingPass:
        """The pass that trains variants; its pace stands for that of artifacts, too, where none is asked for."""
        return self.options.recovery or DistillPass()
