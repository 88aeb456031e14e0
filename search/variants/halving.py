"""Which networks are trained on: successive halving over training steps, by Optuna's pruner.

Rung r of a network ends after 3^r units of training. A network stays in the race where its worth is among the best
third of those that came as far (Li et al., arXiv:1810.05934: asynchronous successive halving, so that no network
waits for another). One that drops out keeps what it learned, and may still be among the finalists.

The study lives in memory. In a resumed run the networks that were made before enter it with what they are worth by now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import optuna
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import TrialState

from bitfront.core import RecipeStep
from bitfront.search.trial import Trial

FACTOR = 3
RUNGS = 3
_FIRST = 2  # networks that come before any is trained on


@dataclass(slots=True, kw_only=True)
class Contender:
    """A network on its way through the rungs.

    Attributes:
        label: In words.
        base: The steps before any training of it.
        pruning: Prune group → sparsity.
        family: The student architecture; empty for the given one's.
        network: Key of the network as it is now.
        steps: How that was made.
        trials: Of the network as it is now.
        rungs: How many it has been through.
    """

    label: str
    base: tuple[RecipeStep, ...]
    pruning: Mapping[str, float] = field(default_factory=dict)
    family: str = ""
    network: str
    steps: tuple[RecipeStep, ...]
    trials: list[Trial] = field(default_factory=list)
    rungs: int = 0

    @property
    def accuracy(self) -> float | None:
        """Its best candidate's, on the search's data; None where nothing was scored."""
        return max((trial.accuracy.value for trial in self.trials if trial.accuracy), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One decision.

    Attributes:
        label: The network.
        rung: From 0.
        steps: Training steps so far.
        value: Its worth.
        accuracy: Its best candidate's, on the search's data; None where nothing was scored.
        promoted: Whether it was trained on.
    """

    label: str
    rung: int
    steps: int
    value: float
    accuracy: float | None
    promoted: bool


class Halving:
    """The race.

    Args:
        unit: Training steps of the first rung.
        worth: A contender's, after its latest training.
        history: Gets every decision.
    """

    def __init__(self, unit: int, worth: Callable[[Contender], float], history: list[Judged]) -> None:
        self.unit = unit
        self._history = history
        self._worth = worth
        pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR, bootstrap_count=_FIRST)
        self._study = optuna.create_study(direction="maximize", pruner=pruner)

    def steps_of(self, rung: int) -> int:
        """Training steps between the end of the rung before and the end of this one."""
        return self.unit * _units(rung)

    def run(self, contender: Contender, train: Callable[[Contender, int], bool]) -> None:
        """Lead a contender, trained through the first rung, as far as it comes.

        Args:
            contender: Has trials.
            train: (contender, training steps) → trains it on and tries it again; False where it could not.
        """
        entry = self._study.ask()
        while True:
            value = self._worth(contender)
            entry.report(value, FACTOR ** (contender.rungs - 1))
            last = contender.rungs == RUNGS
            promoted = not last and not entry.should_prune() and value > 0
            self._note(contender, contender.rungs - 1, value, promoted=promoted)
            if not promoted or not train(contender, self.steps_of(contender.rungs)):
                break
            contender.rungs += 1
        self._study.tell(entry, None if not last else value, TrialState.COMPLETE if last else TrialState.PRUNED)

    def restore(self, contender: Contender) -> None:
        """Let a contender of an interrupted run count among those that came as far as it did."""
        entry, value = self._study.ask(), self._worth(contender)
        for rung in range(contender.rungs):
            entry.report(value, FACTOR**rung)
            entry.should_prune()
            self._note(contender, rung, value, promoted=rung < contender.rungs - 1)
        self._study.tell(entry, state=TrialState.PRUNED)

    def _note(self, contender: Contender, rung: int, value: float, *, promoted: bool) -> None:
        self._history.append(
            Judged(
                label=contender.label,
                rung=rung,
                steps=self.unit * FACTOR**rung,
                value=value,
                accuracy=contender.accuracy,
                promoted=promoted,
            )
        )


def _units(rung: int) -> int:
    """Units of training that lead from the end of the rung before to the end of this one."""
    return 1 if rung == 0 else (FACTOR - 1) * int(FACTOR ** (rung - 1))
