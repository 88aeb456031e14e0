"""What makes networks in a run, and the networks by key: what a candidate names, and a resumed run makes again.

A key is the digest of a network's steps, which are kept in the run's cache; making them again takes finished trainings
from there too.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from bitfront.core import ContentStore, RecipeStep, digest
from bitfront.search.measuring.stopwatch import Kind, Stopwatch
from bitfront.search.options import PassOptions
from bitfront.search.policy.halving import PromotionDecision

if TYPE_CHECKING:
    from bitfront.search.variants.maker import Maker, Network

_KIND = "network"
_PACE_STEPS = 4


class MadeNetworks(Mapping[str, "Network"]):
    """Networks by key.

    Args:
        maker: Makes them.
        store: Where their steps are kept.
        watch: Clocks their making as training.
    """

    def __init__(self, maker: Maker, store: ContentStore, watch: Stopwatch) -> None:
        self._maker = maker
        self._store = store
        self._watch = watch
        self._made: dict[str, Network] = {}

    def add(self, steps: Sequence[RecipeStep]) -> str:
        """Make a network; returns its key.

        A training that its budget cut short is in the network's own steps as it was.

        Raises:
            ModelError: If it cannot be made.
        """
        if self.key_of(steps) in self._made:
            return self.key_of(steps)
        with self._watch.timed(Kind.TRAINING):
            network = self._maker.make(steps)
        key = self.key_of(network.steps)
        if key not in self._made:
            self._store.put_json(_KIND, key, [step.to_json() for step in network.steps])
            self._made[key] = network
        return key

    @staticmethod
    def key_of(steps: Sequence[RecipeStep]) -> str:
        """The key of the network that these steps make, if no budget cuts them short."""
        return digest([step.key for step in steps])[:16]

    def steps(self, key: str) -> tuple[RecipeStep, ...]:
        """How a network is made, which an earlier process may have done.

        Raises:
            KeyError: If no such network was ever made in this run.
        """
        kept = self._store.get_json(_KIND, key)
        if kept is None:
            raise KeyError(key)
        return tuple(RecipeStep.from_json(step) for step in kept)

    def __getitem__(self, key: str) -> Network:
        if key not in self._made and self.add(self.steps(key)) != key:
            raise KeyError(key)
        return self._made[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


@dataclass(frozen=True)
class Making:
    """What a run with passes has besides others.

    Attributes:
        options: Which passes, and how.
        maker: Makes networks.
        made: Those it made.
        store: The run's cache.
        history: Decisions of successive halving so far.
    """

    options: PassOptions
    maker: Maker
    made: MadeNetworks
    store: ContentStore
    history: list[PromotionDecision] = field(default_factory=list)

    @cached_property
    def pace_s(self) -> float:
        """Seconds a distillation step of the given network takes; measured once in a run's life."""
        key = digest("pace", self.maker.key, self.maker.distil_step(_PACE_STEPS).key)
        kept = self.store.get_json("pace", key)
        if kept is None:
            from bitfront.passes.distil import Distil
            from bitfront.passes.train import Supervision

            options = Distil.from_json(self.maker.distil_step(_PACE_STEPS).options)
            student = copy.deepcopy(self.maker.module)
            every = Supervision(every=1)
            trained = options.train(student, self.maker.data, teacher=self.maker.module, supervision=every)
            at_s = [0.0, *(report.seconds for report in trained.reports)]
            # The fastest: a step is only ever slowed by what else the machine does.
            kept = {"seconds": max(min(after - before for before, after in pairwise(at_s)), 1e-4)}
            self.store.put_json("pace", key, kept)
        return float(kept["seconds"])

    def steps_of(self, epochs: int) -> int:
        """Distillation steps in which the training data are seen so often."""
        options = self.maker.distil_step(1).options
        return epochs * -(-len(self.maker.data) // int(options["training"]["batch_size"]))
