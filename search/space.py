"""What a search may decide: one choice a group, with the loss and the bytes each choice costs.

Losses add up over groups (the sensitivity table's cleaned divergences), bytes add up over layers, and latency does
not add up, so it is no column here: ``search.latency_model`` learns it. What the space knows about latency is only
which choices run alike (the dialect's ``Arithmetic``), and therefore which choices cannot be worth trying:

- of choices that compile to the same arithmetic and size (they differ in rounding alone) only the best stays;
- a choice that costs no less loss *and* no fewer bytes than another of its arithmetic class is dominated.

FP32 always stays: everything is compared with it. A dominated choice that a uniform baseline needs stays too, marked
``baseline_only``: a baseline called "int8" that is INT4 in places would be a lie. Solver and sampler don't propose it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution

from lowering.dialect import Arithmetic
from lowering.inventory import Group, Inventory
from precision import FP32, ConfigError, LayerChoice, Precision
from sensitivity.table import SensitivityTable

Assignment = Mapping[str, LayerChoice]  # group name → choice, every group of the space
Code = tuple[int, ...]  # index into each group's choices, in the space's order of groups

_LADDER = (Precision.INT4, Precision.INT8, Precision.FP16, Precision.FP32)  # lowest first


ARITHMETICS = (Arithmetic.INTEGER, Arithmetic.BLOCK, Arithmetic.HALF, Arithmetic.FLOAT)
"""In the order in which a uniform precision prefers them."""


class Domain(Enum):
    """The type of the tensors a layer reads and writes; a runtime converts where those of two neighbours differ."""

    FLOAT = "float"
    HALF = "half"
    INTEGER = "integer"

    @classmethod
    def of(cls, arithmetic: Arithmetic) -> Domain:
        """Weights with a scale per block are multiplied with floating activations."""
        return {Arithmetic.INTEGER: cls.INTEGER, Arithmetic.HALF: cls.HALF}.get(arithmetic, cls.FLOAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpace:
    """One group's choices.

    Attributes:
        name: The group's name.
        choices: What it may become, ``fp32`` first, the rest in the inventory's order.
        losses: Loss of each choice, ≥ 0.
        size_bytes: Bytes each choice takes in the file, over all the group's layers.
        arithmetic: What each choice computes in on the runtime; FP32 in ``FLOAT``.
        layers: How many layers share the choice.
        baseline_only: Dominated choices that stay for a uniform baseline's sake alone.
    """

    name: str
    choices: tuple[LayerChoice, ...]
    losses: tuple[float, ...]
    size_bytes: tuple[int, ...]
    arithmetic: tuple[Arithmetic, ...]
    layers: int = 1
    baseline_only: frozenset[LayerChoice] = frozenset()

    def __post_init__(self) -> None:
        if not self.choices or self.choices[0] != FP32:
            raise ValueError(f"group '{self.name}': expected fp32 as the first choice")
        if not len(self.choices) == len(self.losses) == len(self.size_bytes) == len(self.arithmetic):
            raise ValueError(f"group '{self.name}': choices, losses, size_bytes and arithmetic differ in length")
        if self.arithmetic[0] is not Arithmetic.FLOAT:
            raise ValueError(f"group '{self.name}': expected float arithmetic of fp32, got {self.arithmetic[0].value}")
        for choice, loss in zip(self.choices, self.losses, strict=True):
            if not (math.isfinite(loss) and loss >= 0):
                raise ValueError(f"group '{self.name}': loss of {choice.text} is {loss}")

    @property
    def proposed(self) -> tuple[int, ...]:
        """Indices of the choices that solver and sampler may propose."""
        if not self.baseline_only:
            return tuple(range(len(self.choices)))
        return tuple(i for i, choice in enumerate(self.choices) if choice not in self.baseline_only)

    def lead(self, precision: Precision) -> int:
        """Index of the best choice at ``precision``, else at the nearest higher precision offered.

        Integer arithmetic comes before block-wise, half and float, then the lowest loss decides.
        """
        for level in _LADDER[_LADDER.index(precision) :]:
            found = [i for i, choice in enumerate(self.choices) if choice.precision is level]
            if found:
                return min(found, key=lambda i: (ARITHMETICS.index(self.arithmetic[i]), self.losses[i], i))
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A choice that left the space, with the reason."""

    group: str
    choice: LayerChoice
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All groups with their choices.

    Attributes:
        groups: In the network's order.
        edges: Pairs of indices into ``groups`` that are neighbours, without loops.
        dropped: What left the space and why.
    """

    groups: tuple[GroupSpace, ...]
    edges: tuple[tuple[int, int], ...]
    dropped: tuple[Dropped, ...] = ()

    @property
    def cardinality(self) -> int:
        """How many assignments solver and sampler may propose."""
        return math.prod(len(group.proposed) for group in self.groups)

    def encode(self, assignment: Assignment) -> Code:
        """Indices of an assignment's choices.

        Raises:
            ConfigError: If a group is missing or takes a choice it does not have.
        """
        code = []
        for group in self.groups:
            choice = assignment.get(group.name)
            if choice is None or choice not in group.choices:
                raise ConfigError(
                    f"group '{group.name}': expected one of {', '.join(c.text for c in group.choices)}, "
                    f"got {choice.text if choice else 'nothing'}",
                    "the assignment belongs to another space: use the same model, backend and --precisions",
                )
            code.append(group.choices.index(choice))
        return tuple(code)

    def decode(self, code: Code) -> dict[str, LayerChoice]:
        """The assignment an index tuple stands for."""
        return {group.name: group.choices[i] for group, i in zip(self.groups, code, strict=True)}

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's form of the space: group name → categories (choice texts)."""
        return {group.name: CategoricalDistribution([choice.text for choice in group.choices]) for group in self.groups}

    def to_params(self, assignment: Assignment) -> dict[str, str]:
        """Optuna's form of an assignment: group name → choice text."""
        return {group.name: assignment[group.name].text for group in self.groups}

    def from_params(self, params: Mapping[str, object]) -> dict[str, LayerChoice]:
        """Read ``to_params``'s form.

        Raises:
            ConfigError: If a group is missing or takes a choice it does not have.
        """
        named = {name: LayerChoice.parse(str(text)) for name, text in params.items()}
        return self.decode(self.encode(named))

    def loss(self, assignment: Assignment) -> float:
        """Sum of the groups' losses."""
        return math.fsum(g.losses[i] for g, i in zip(self.groups, self.encode(assignment), strict=True))

    def size_bytes(self, assignment: Assignment) -> int:
        """Sum of the groups' bytes: the weights' share of the file."""
        return sum(g.size_bytes[i] for g, i in zip(self.groups, self.encode(assignment), strict=True))

    def uniform(self, precision: Precision) -> dict[str, LayerChoice]:
        """Every group at its best choice of ``precision``, else at the nearest higher precision it offers."""
        return self.decode(tuple(group.lead(precision) for group in self.groups))

    def baselines(self) -> list[tuple[str, dict[str, LayerChoice]]]:
        """Uniform assignments with their ids, ``fp32`` first; those that repeat an earlier one are left out."""
        found: dict[Code, str] = {}
        for precision in Precision:
            found.setdefault(self.encode(self.uniform(precision)), precision.value)
        return [(name, self.decode(code)) for code, name in found.items()]

    def describe(self, assignment: Assignment) -> str:
        """Layers a choice, highest precision first: ``int8:mse ×18, int4:gptq ×2``."""
        counts: Counter[LayerChoice] = Counter()
        for group in self.groups:
            counts[assignment[group.name]] += group.layers
        ordered = sorted(counts, key=lambda choice: (-choice.precision.bits, choice.text))
        return ", ".join(f"{choice.text} ×{counts[choice]}" for choice in ordered)


def build_space(
    inventory: Inventory,
    table: SensitivityTable,
    precisions: Collection[Precision],
    size_of: Callable[[str, LayerChoice], int],
    arithmetic_of: Callable[[LayerChoice], Arithmetic],
) -> Space:
    """The space of one network: what its groups may take, the table kept and ``precisions`` allow.

    Args:
        inventory: The network's groups and their neighbourhood.
        table: Cleaned losses.
        precisions: Precisions allowed; FP32 always is.
        size_of: (layer name, choice) → bytes in the file.
        arithmetic_of: What a choice computes in, which the dialect knows.
    """
    losses = table.losses()
    reasons = {(row.group, row.choice): row.dropped for row in table.rows if row.dropped}
    groups, dropped = [], []
    for group in inventory.groups:
        space, left = _group_space(group, losses.get(group.name, {}), reasons, precisions, size_of, arithmetic_of)
        groups.append(space)
        dropped += left
    edges = tuple(sorted({(a, b) for a, b in inventory.edges if a != b}))
    return Space(groups=tuple(groups), edges=edges, dropped=tuple(dropped))


def _group_space(
    group: Group,
    losses: Mapping[LayerChoice, float],
    reasons: Mapping[tuple[str, LayerChoice], str],
    precisions: Collection[Precision],
    size_of: Callable[[str, LayerChoice], int],
    arithmetic_of: Callable[[LayerChoice], Arithmetic],
) -> tuple[GroupSpace, list[Dropped]]:
    kept: dict[LayerChoice, _Row] = {}
    dropped = []
    for choice in (FP32, *(c for c in group.choices if c != FP32)):
        loss = 0.0 if choice == FP32 else losses.get(choice, math.nan)
        if choice != FP32 and choice.precision not in precisions:
            dropped.append(Dropped(group=group.name, choice=choice, reason=f"{choice.precision.value} is not allowed"))
        elif not (math.isfinite(loss) and loss >= 0):
            reason = reasons.get((group.name, choice), f"its loss is {loss}")
            dropped.append(Dropped(group=group.name, choice=choice, reason=reason))
        else:
            size = sum(size_of(layer, choice) for layer in group.layers)
            kept[choice] = _Row(loss, size, arithmetic_of(choice))
    beaten = {choice: rival for choice in kept if choice != FP32 and (rival := _dominator(choice, kept)) is not None}
    whole = _space_of(group, kept, frozenset())
    leads = {whole.choices[whole.lead(precision)] for precision in Precision}
    for choice, rival in beaten.items():
        if choice not in leads:
            dropped.append(Dropped(group=group.name, choice=choice, reason=_reason(choice, rival, kept)))
            del kept[choice]
    return _space_of(group, kept, frozenset(leads & set(beaten))), dropped


class _Row(NamedTuple):
    loss: float
    size: int
    arithmetic: Arithmetic


def _space_of(group: Group, kept: Mapping[LayerChoice, _Row], baseline_only: frozenset[LayerChoice]) -> GroupSpace:
    return GroupSpace(
        name=group.name,
        choices=tuple(kept),
        losses=tuple(row.loss for row in kept.values()),
        size_bytes=tuple(row.size for row in kept.values()),
        arithmetic=tuple(row.arithmetic for row in kept.values()),
        layers=len(group.layers),
        baseline_only=baseline_only,
    )


def _dominator(choice: LayerChoice, kept: Mapping[LayerChoice, _Row]) -> LayerChoice | None:
    """The best choice of the same arithmetic that is no worse in loss and bytes; of equals the first one wins."""
    order = {c: i for i, c in enumerate(kept)}
    row = kept[choice]
    rivals = [
        rival
        for rival, other in kept.items()
        if other.arithmetic is row.arithmetic
        and other.loss <= row.loss
        and other.size <= row.size
        and (other != row or order[rival] < order[choice])
    ]
    return min(rivals, key=lambda rival: (kept[rival].loss, kept[rival].size, order[rival]), default=None)


def _reason(choice: LayerChoice, rival: LayerChoice, kept: Mapping[LayerChoice, _Row]) -> str:
    row, other = kept[choice], kept[rival]
    return (
        f"dominated by {rival.text}, which runs the same way: loss {other.loss:.3g} against {row.loss:.3g}, "
        f"{other.size:,} against {row.size:,} bytes"
    )
