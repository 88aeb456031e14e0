"""``prune``: removes channels, attention heads and residual branches for good (``passes.prune``).

How much of each group goes is a variable of the search's space (``search.execution.prune_spaces``), so this pass
proposes no variants of its own: they are solved for, and ``step`` writes them down.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bitfront.core import RecipeStep, UsageError, digest
from bitfront.core.variant_info import PrunedGroup
from bitfront.search.arguments import values
from bitfront.search.passes.base import Argument, PassContext, StructuralPass

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bitfront.passes.prune import StructuredPrune
    from bitfront.passes.prune_groups import PruneGroup

IMPORTANCES = ("taylor", "fisher", "hessian", "magnitude")  # of ``passes.prune_importance``
BATCH_NORM_SAMPLES = 1024
SPARSITIES, ROUND_TO = (0.25, 0.5, 0.75), 8
_SCORES = "importances"


def _ascending(text: str) -> tuple[float, ...]:
    """Sparsities from ``0.25,0.5``, ascending, each once."""
    return tuple(sorted({values.number(part.strip()) for part in text.split(",") if part.strip()}))


def _multiple(text: str) -> int | None:
    """A positive whole number; None for ``auto``."""
    return None if text.strip() == "auto" else values.positive(text)


def _listed(sparsities: Sequence[float]) -> str:
    return ",".join(f"{sparsity:g}" for sparsity in sparsities)


@dataclass(frozen=True, kw_only=True)
class PrunePass(StructuralPass):
    """Structured pruning of channels and residual branches.

    Attributes:
        sparsities: Fractions of a group's channels that may go, ascending, without 0.
        round_to: Channels that stay are a multiple of it; None: what the runtime's kernels like.
        importance: What is removed first, one of ``IMPORTANCES``.
    """

    name: ClassVar[str] = "prune"
    summary: ClassVar[str] = "remove channels and branches"
    variant_kind: ClassVar[str] = "pruned"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "torch_pruning")
    arguments: ClassVar[tuple[Argument, ...]] = (
        Argument(
            flag="--sparsities",
            help=f"fractions of a group's channels that prune may remove (default: {_listed(SPARSITIES)})",
            metavar="LIST",
            parse=_ascending,
            text=_listed,
            json=list,
        ),
        Argument(
            flag="--round-to",
            help="channels that stay are a multiple of it; auto: what the runtime's kernels like (default: auto)",
            metavar="N",
            parse=_multiple,
            text=lambda multiple: "auto" if multiple is None else str(multiple),
            json=lambda multiple: multiple or "auto",
        ),
        Argument(
            flag="--importance",
            help=f"what prune removes first: %(choices)s (default: {IMPORTANCES[0]})",
            metavar="NAME",
            choices=IMPORTANCES,
        ),
    )

    sparsities: tuple[float, ...] = SPARSITIES
    round_to: int | None = None
    importance: str = IMPORTANCES[0]

    def __post_init__(self) -> None:
        ascending = list(self.sparsities) == sorted(set(self.sparsities))
        if not self.sparsities or not ascending or not all(0 < sparsity < 1 for sparsity in self.sparsities):
            got = _listed(self.sparsities) or "nothing"
            raise UsageError(
                f"--sparsities: expected ascending fractions between 0 and 1, got {got}", "as in 0.25,0.5,0.75"
            )
        if self.round_to is not None and self.round_to < 1:
            raise UsageError(f"--round-to: expected a positive whole number or auto, got {self.round_to}", "as in 8")
        if self.importance not in IMPORTANCES:
            raise UsageError(
                f"--importance: expected one of {', '.join(IMPORTANCES)}, got '{self.importance}'",
                f"{IMPORTANCES[0]} is the default",
            )

    def step(self, sparsity: Mapping[str, float]) -> RecipeStep:
        """Removal of channels and branches: prune group → sparsity; a branch goes at 1."""
        from bitfront.passes.prune import StructuredPrune
        from bitfront.passes.prune_importance import Importance

        options = StructuredPrune(
            sparsity={name: value for name, value in sparsity.items() if value > 0},
            importance=Importance(self.importance),
            round_to=self.round_to or ROUND_TO,
            batch_norm_samples=BATCH_NORM_SAMPLES,
        )
        return RecipeStep(name=self.name, options=options.to_json())

    def apply(self, step: RecipeStep, module: nn.Module, context: PassContext) -> nn.Module:
        """Return the pruned module; groups and importances of the given network are found once."""
        from bitfront.passes.prune import StructuredPrune

        options = StructuredPrune.from_json(step.options)
        if module is not context.base:
            return options.apply(module, context.data)
        scores = importances(context, options)
        return options.apply(module, context.data, groups=prune_groups(context), scores=scores)

    def removed(self, step: RecipeStep, context: PassContext) -> tuple[PrunedGroup, ...]:
        """Groups of channels and branches that the step removed."""
        sparsity: Mapping[str, float] = step.options.get("sparsity", {})
        found = []
        for group in prune_groups(context):
            if sparsity.get(group.name, 0) > 0:
                size = group.channels // len(group.units)
                kept = 0 if group.branch else group.kept(sparsity[group.name], step.options["round_to"]) * size
                found.append(PrunedGroup(name=group.name, branch=group.branch, channels=group.channels, kept=kept))
        return tuple(found)


def prune_groups(context: PassContext) -> tuple[PruneGroup, ...]:
    """Groups that can be pruned in the given network, and those that cannot with the reason; found once.

    Raises:
        ModelError: If the module cannot be traced.
    """
    from bitfront.passes.prune_groups import find_prune_groups

    return context.once("prune groups", lambda: find_prune_groups(context.base, context.data.inputs))


def importances(context: PassContext, options: StructuredPrune) -> dict[str, Tensor]:
    """Prune group → importance of its units in the given network, float64 (units,); computed once in a run's life."""
    import torch

    from bitfront.passes.device import best_device

    key = digest(
        context.fingerprint,
        context.data_digest,
        options.importance.value,
        options.samples,
        options.seed,
    )

    def find() -> dict[str, Tensor]:
        kept = context.store.get_arrays(_SCORES, key)
        if kept is None:
            working = copy.deepcopy(context.base).to(best_device())
            found = options.importances(working, prune_groups(context), context.data)
            kept = {name: scores.numpy() for name, scores in found.items()}
            context.store.put_arrays(_SCORES, key, kept)
        return {name: torch.from_numpy(scores) for name, scores in kept.items()}

    return context.once(f"importances {key}", find)
