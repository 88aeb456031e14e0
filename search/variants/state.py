"""Where a recipe has come to, step by step, and a short memory of it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bitfront.core import RecipeStep, digest
from bitfront.lowering.lowerer import Lowerer
from bitfront.search.variants.trainings import Finished

if TYPE_CHECKING:
    from torch import nn

T = TypeVar("T")

_REMEMBERED = 8  # states and networks, so that one that is trained on is not pruned again


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a recipe has come to.

    Attributes:
        key: Digest of everything so far.
        steps: Done.
        module: With its masks on, if it has some.
        lowerer: Of a network that exists in its artifact's terms alone; None while there is a module to export.
        trained: What its trainings came to.
    """

    key: str
    steps: tuple[RecipeStep, ...] = ()
    module: nn.Module | None
    lowerer: Lowerer | None = None
    trained: tuple[Finished, ...] = ()


def done(state: State, step: RecipeStep, module: nn.Module | None, *trained: Finished) -> State:
    """The state after one more step."""
    return State(
        key=digest(state.key, step.key),
        steps=(*state.steps, step),
        module=module,
        trained=(*state.trained, *trained),
    )


def remember(kept: OrderedDict[str, T], key: str, value: T) -> None:
    """Keep a value, and let the oldest go."""
    kept[key] = value
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)
