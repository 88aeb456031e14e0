"""Trainings of a run: each done once, within a budget over all of them, and kept with the seconds it took.

slot = digest(everything before the training, its options)      its state, saved as it goes
(slot, n)                                                       what it came to after n steps
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bitfront.core import ContentStore, RecipeStep, digest

if TYPE_CHECKING:
    from bitfront.passes.train import Supervision, Trained

SAVE_EVERY = 20  # steps between saved states
_KIND = "trained"
_CUT = "trained-until"


class TrainingBudget:
    """Seconds of training in a run.

    Args:
        limit_s: In all; None is without limit.

    Attributes:
        time_left: Seconds until all training has to end, whatever the budget has left; may fall below 0.
    """

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self.time_left: Callable[[], float] = lambda: math.inf
        self._noted: dict[str, float] = {}

    @property
    def spent_s(self) -> float:
        """Seconds of all trainings noted, each counted once."""
        return sum(self._noted.values())

    @property
    def left_s(self) -> float | None:
        """Seconds left, 0 at least; None without limit."""
        return self._left(0.0)

    def left_for(self, key: str) -> float | None:
        """Seconds that one training may take in all, those it has taken included."""
        return self._left(self._noted.get(key, 0.0))

    def note(self, key: str, seconds: float) -> None:
        """A training has taken so long by now; one that was kept from an earlier run counts too."""
        self._noted[key] = max(seconds, self._noted.get(key, 0.0))

    def _left(self, taken: float) -> float | None:
        left = math.inf if self.limit_s is None else self.limit_s - self.spent_s
        left = taken + min(left, max(self.time_left(), 0.0))
        return None if left == math.inf else max(0.0, left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished training.

    Attributes:
        values: Tensors, numbers, text, and containers of them.
        ended_at: Steps done where it was cut short; None where it ran to its end.
        seconds: What it took.
        loss: At its end.
    """

    values: Mapping[str, Any]
    ended_at: int | None
    seconds: float
    loss: float


class Trainings:
    """Trainer of modules, which takes trainings from the store where they are done.

    Args:
        store: Where they are kept.
        budget: Of all of them.
        on_step: Told of each training that was done.
    """

    def __init__(self, store: ContentStore, budget: TrainingBudget, on_step: Callable[[str], None]) -> None:
        self.store = store
        self.budget = budget
        self._on_step = on_step

    def finish(
        self,
        before: str,
        step: RecipeStep,
        steps: int,
        train: Callable[[Supervision], tuple[dict[str, Any], Trained]],
    ) -> Finished | None:
        """A training's result, done now or taken from the store.

        Args:
            before: Digest of all that the training depends on besides the step.
            step: Its options; with ``ended_at`` it ends there, whatever the budget has left.
            steps: As its options have it.
            train: Does it, and returns what is to be kept.

        Returns:
            None where there is no time for even one step.
        """
        slot = digest(before, step.ending_at(None).key)
        wanted = steps if step.ended_at is None else min(step.ended_at, steps)
        if wanted == 0:
            return None
        kept = self._kept(slot, wanted, steps)
        if kept is not None:
            return kept
        if step.ended_at is not None:
            return self._keep(slot, steps, *self._until(slot, wanted, train))
        cut = self.store.get_json(_CUT, slot)
        known = None if cut is None else self._kept(slot, int(cut), steps)
        left = self.budget.left_for(slot)
        if left is not None and left <= (known.seconds if known else 0.0):
            return known
        from bitfront.passes.checkpoint import StoredCheckpoint
        from bitfront.passes.train import Supervision

        checkpoint = StoredCheckpoint(self.store, slot)
        finished = self._keep(slot, steps, *train(Supervision(every=SAVE_EVERY, checkpoint=checkpoint, budget_s=left)))
        if finished.ended_at is not None:
            self.store.put_json(_CUT, slot, finished.ended_at)
        done = steps if finished.ended_at is None else finished.ended_at
        self._on_step(f"{step.name}: {done} of {steps} steps in {finished.seconds:.0f} s")
        return finished

    def _until(
        self, slot: str, wanted: int, train: Callable[[Supervision], tuple[dict[str, Any], Trained]]
    ) -> tuple[dict[str, Any], Trained]:
        """Train for so many steps exactly."""
        from bitfront.passes.checkpoint import StoredCheckpoint
        from bitfront.passes.train import Supervision

        # A report, where a training can be stopped, comes at multiples alone.
        every = max((n for n in range(SAVE_EVERY // 2, 2 * SAVE_EVERY) if wanted % n == 0), default=wanted)
        checkpoint = StoredCheckpoint(self.store, digest(slot, wanted))
        supervision = Supervision(every=every, checkpoint=checkpoint, watch=lambda _, at: at.step >= wanted)
        values, trained = train(supervision)
        if trained.steps != wanted:  # killed between its last state and its result, it went on from there
            supervision = Supervision(every=every, watch=lambda _, at: at.step >= wanted)
            values, trained = train(supervision)
        return values, trained

    def _keep(self, slot: str, steps: int, values: dict[str, Any], trained: Trained) -> Finished:
        from bitfront.passes.checkpoint import pack

        loss = trained.reports[-1].loss if trained.reports else math.nan
        state = {"values": values, "seconds": trained.seconds, "loss": loss}
        arrays = {"state": np.frombuffer(pack(state), np.uint8)}
        self.store.put_arrays(_KIND, digest(slot, trained.steps), arrays)
        self.budget.note(slot, trained.seconds)
        ended_at = None if trained.steps == steps else trained.steps
        return Finished(values=values, ended_at=ended_at, seconds=trained.seconds, loss=loss)

    def _kept(self, slot: str, done: int, steps: int) -> Finished | None:
        from bitfront.passes.checkpoint import unpack

        arrays = self.store.get_arrays(_KIND, digest(slot, done))
        state = None if arrays is None or "state" not in arrays else unpack(arrays["state"].tobytes())
        if state is None:
            return None
        self.budget.note(slot, state["seconds"])
        ended_at = None if done == steps else done
        return Finished(values=state["values"], ended_at=ended_at, seconds=state["seconds"], loss=state["loss"])
