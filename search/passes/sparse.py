"""``sparse``: sets weights to zero, N of every M neighbours or a fraction of all (``passes.prune_weights``).

Trainings that follow leave the zeros where they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bitfront.core import RecipeStep, UsageError
from bitfront.search.passes.base import Argument, PassContext, Proposal, StructuralPass

if TYPE_CHECKING:
    from torch import nn

BATCH_NORM_SAMPLES = 1024
MOST_M = 1024
_N_OF_M = re.compile(r"([0-9]{1,4}):([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class SparsePattern:
    """A sparsity pattern: N:M, as ``2:4``, or the fraction of all weights that become zero, as ``0.8``.

    Attributes:
        text: As typed.
    """

    text: str

    def __post_init__(self) -> None:
        if not (0 < self.n < self.m <= MOST_M or 0 < self.fraction < 1):
            raise UsageError(
                f"--sparse-weights: expected N:M with N below M and M at most {MOST_M}, or a fraction between 0 and 1, "
                f"got '{self.text[:80]}'",
                "as in 2:4,0.8",
            )

    @property
    def n(self) -> int:
        """Weights that stay among any ``m`` neighbours; 0 for a fraction."""
        found = _N_OF_M.fullmatch(self.text)
        return int(found[1]) if found else 0

    @property
    def m(self) -> int:
        """Number of neighbours among which ``n`` weights stay; 0 for a fraction."""
        found = _N_OF_M.fullmatch(self.text)
        return int(found[2]) if found else 0

    @property
    def fraction(self) -> float:
        """Fraction of all weights that become zero; 0 for N:M, NaN where the text is neither."""
        try:
            return 0.0 if self.m else float(self.text) if self.text.isascii() and "_" not in self.text else math.nan
        except ValueError:
            return math.nan

    @property
    def label(self) -> str:
        """``2:4``, ``80 % zeros``."""
        return f"{self.n}:{self.m}" if self.m else f"{self.fraction:.0%} zeros".replace("%", " %")

    @property
    def architecture(self) -> str:
        """``2of4``, ``80%zeros``: names files, which may hold no colon."""
        return self.label.replace(" ", "").replace(":", "of")


DEFAULT_PATTERNS = (SparsePattern("2:4"),)


def _patterns(text: str) -> tuple[SparsePattern, ...]:
    """Patterns from ``2:4,0.8``, each once."""
    return tuple(dict.fromkeys(SparsePattern(part.strip()) for part in text.split(",") if part.strip()))


def _listed(patterns: Sequence[SparsePattern]) -> str:
    return ",".join(pattern.text for pattern in patterns)


@dataclass(frozen=True, kw_only=True)
class SparsePass(StructuralPass):
    """N:M and unstructured sparsity.

    Attributes:
        sparse_weights: Patterns, a variant each.
    """

    name: ClassVar[str] = "sparse"
    summary: ClassVar[str] = "set weights to zero"
    variant_kind: ClassVar[str] = "sparse"
    arguments: ClassVar[tuple[Argument, ...]] = (
        Argument(
            flag="--sparse-weights",
            help="weights that sparse sets to zero, a variant for each pattern: N:M, or a fraction of all weights "
            f"(default: {_listed(DEFAULT_PATTERNS)})",
            metavar="LIST",
            parse=_patterns,
            text=_listed,
            json=lambda patterns: [pattern.text for pattern in patterns],
        ),
    )

    sparse_weights: tuple[SparsePattern, ...] = DEFAULT_PATTERNS

    def __post_init__(self) -> None:
        if not self.sparse_weights:
            raise UsageError("--sparse-weights: expected patterns, got nothing", "as in 2:4,0.8")

    def step(self, pattern: SparsePattern) -> RecipeStep:
        """A pattern over all layers."""
        from bitfront.passes.prune_weights import NMPrune, UnstructuredPrune

        options = NMPrune(n=pattern.n, m=pattern.m) if pattern.m else UnstructuredPrune(sparsity=pattern.fraction)
        return RecipeStep(name=self.name, options=options.to_json())

    def proposals(self, context: PassContext) -> Sequence[Proposal]:  # noqa: ARG002 - the same for every network
        """A variant for each pattern."""
        return [
            Proposal(label=pattern.label, step=self.step(pattern), architecture=pattern.architecture)
            for pattern in self.sparse_weights
        ]

    def apply(self, step: RecipeStep, module: nn.Module, context: PassContext) -> nn.Module:
        """A copy with masks on its weights, its batch norm measured anew."""
        from bitfront.passes.batch_norm import reestimate_batch_norm
        from bitfront.passes.prune_weights import NMPrune, UnstructuredPrune, masked

        kind = NMPrune if "n" in step.options else UnstructuredPrune
        sparse = masked(module, kind.from_json(step.options).masks(module))
        reestimate_batch_norm(sparse, context.data.inputs, samples=BATCH_NORM_SAMPLES)
        return sparse

    def label(self, step: RecipeStep, variant: str) -> str:  # noqa: ARG002 - the pattern says enough
        """``2:4``, ``80 % zeros``."""
        options: Mapping[str, Any] = step.options
        return SparsePattern(f"{options['n']}:{options['m']}" if "n" in options else str(options["sparsity"])).label
