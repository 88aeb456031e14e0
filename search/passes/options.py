"""Passes that take part in a search: values validated once, and told to results and to the run's identity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bitfront.core import UsageError
from bitfront.core.naming import load_attribute
from bitfront.search.passes.base import ArtifactPass, Pass, StructuralPass, TrainingPass
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.registry import PASSES, selectable
from bitfront.search.run_folder.code_identity import code_identity

DEFAULT_TRAINING_LIMIT_S = 600.0  # where no budget is given

P = TypeVar("P", bound=Pass)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassOptions:
    """Passes of a search with their options, and how long they may train.

    Attributes:
        passes: One at least, each once; kept in the registry's order, those of other packages last.
        train_budget_s: Seconds of training in the whole run; None: what usually pays, at most
            ``DEFAULT_TRAINING_LIMIT_S``.
    """

    passes: tuple[Pass, ...]
    train_budget_s: float | None = None

    def __post_init__(self) -> None:
        known = list(selectable())
        if not self.passes:
            raise UsageError(f"--passes: expected some of {','.join(known)}, got nothing", f"as in --passes {known[0]}")
        ordered = sorted(self.passes, key=lambda one: known.index(one.name) if one.name in known else len(known))
        object.__setattr__(self, "passes", tuple(ordered))
        repeated = [one.name for at, one in enumerate(ordered) if one.name in {other.name for other in ordered[:at]}]
        if repeated:
            raise UsageError(f"--passes: '{repeated[0]}' is given twice", "give each pass once")
        for kind, what in ((TrainingPass, "variants"), (ArtifactPass, "artifacts")):
            trainers = [one.name for one in ordered if isinstance(one, kind)]
            if len(trainers) > 1:
                raise UsageError(f"--passes: {' and '.join(trainers)} both train {what}", "give one of them")
        if self.train_budget_s is not None and not 0 < self.train_budget_s < math.inf:
            raise UsageError(
                f"--train-budget: expected a positive number of minutes, got {self.train_budget_s / 60:g}", "as in 20"
            )

    @property
    def pruning(self) -> PrunePass | None:
        """The pass whose sparsities are variables of the search's space; None where it takes no part."""
        return self._only(PrunePass)

    @property
    def recovery(self) -> TrainingPass | None:
        """The pass that trains variants; None where none takes part."""
        return self._only(TrainingPass)  # type: ignore[type-abstract]

    @property
    def artifact(self) -> ArtifactPass | None:
        """The pass that trains finalists as the artifacts they will be; None where none takes part."""
        return self._only(ArtifactPass)  # type: ignore[type-abstract]

    @property
    def structural(self) -> tuple[StructuralPass, ...]:
        """Passes that make other modules; with training also those that take part by themselves."""
        own = [one for one in self.passes if isinstance(one, StructuralPass)]
        if self.recovery is not None:
            own += [one for kind in PASSES if not kind.selectable and isinstance(one := kind(), StructuralPass)]
        return tuple(own)

    @property
    def limit_s(self) -> float:
        """Seconds of training that may not be exceeded."""
        return DEFAULT_TRAINING_LIMIT_S if self.train_budget_s is None else self.train_budget_s

    @property
    def names(self) -> str:
        """Names of the passes as on the command line: ``prune,distill,qat``."""
        return ",".join(one.name for one in self.passes)

    def replacing(self, one: Pass) -> PassOptions:
        """The same with other options of one of the passes."""
        return replace(self, passes=tuple(one if each.name == one.name else each for each in self.passes))

    def to_json(self) -> dict[str, Any]:
        """Options of passes that take part, as results have them."""
        found: dict[str, Any] = {"passes": self.names, "train_budget_s": self.train_budget_s or "auto"}
        for one in self.passes:
            found |= one.options_json()
        return found

    def identity(self) -> dict[str, str]:
        """Option → value, what a run with passes may be resumed with; of the registry's passes also those left out."""
        found = {"--passes": self.names}
        for kind in selectable().values():
            found |= next((one for one in self.passes if one.name == kind.name), kind()).options_text()
        for one in self.passes:
            if ":" in one.name:
                found[f"the code of pass {one.name}"] = code_identity(load_attribute(one.name, "--passes"), one.name)
        return found

    def _only(self, kind: type[P]) -> P | None:
        return next((one for one in self.passes if isinstance(one, kind)), None)


def libraries(passes: Sequence[Pass]) -> tuple[str, ...]:
    """Modules that these passes need installed, each once."""
    return tuple(dict.fromkeys(library for one in passes for library in one.libraries))
