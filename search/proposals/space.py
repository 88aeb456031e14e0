"""What a search may decide: one choice a group, one sparsity a prune group, and the loss and bytes each costs.

Losses add up over groups (the sensitivity table's cleaned divergences), bytes add up over layers, and latency does
not add up, so it is no column here: ``latency_model`` learns it. What the space knows about latency is only
which choices run alike (the dialect's ``Arithmetic``), and therefore which choices cannot be worth trying:

- of choices that compile to the same arithmetic and size (they differ in rounding alone) only the best stays;
- a choice that costs no less loss *and* no fewer bytes than another of its arithmetic class is dominated.

FP32 always stays: everything is compared with it. A dominated choice that a uniform baseline needs stays too, marked
``baseline_only``: a baseline called "int8" that is INT4 in places would be a lie. Solver and sampler don't propose it.

Pruning (``prune_space``) scales a group's bytes with what is left of it; a group that is gone costs no loss and
no bytes, whatever its choice. So that equal networks have equal codes, codes are canonical: such a group's choice is
FP32, and a prune variable whose layers are all gone through others is at 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution

from bitfront.lowering.dialect import Arithmetic
from bitfront.lowering.inventory import Group, Inventory
from bitfront.precision import FP32, ConfigError, LayerChoice, Precision
from bitfront.search.proposals.prune_space import PREFIX, Levels, PruneSpace, Pruning, Remains
from bitfront.sensitivity.table import SensitivityTable

Assignment = Mapping[str, LayerChoice]  # group name → choice, every group of the space
Code = tuple[int, ...]  # index into each group's choices, then into each prune variable's sparsities

UNPRUNED: Pruning = {}

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
        members: Names of these layers; empty for one layer of the group's name.
        member_bytes: FP32 bytes of each of them; empty where they count alike.
        baseline_only: Dominated choices that stay for a uniform baseline's sake alone.
    """

    name: str
    choices: tuple[LayerChoice, ...]
    losses: tuple[float, ...]
    size_bytes: tuple[int, ...]
    arithmetic: tuple[Arithmetic, ...]
    layers: int = 1
    members: tuple[str, ...] = ()
    member_bytes: tuple[int, ...] = ()
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
        if self.members and len(self.members) != self.layers:
            raise ValueError(f"group '{self.name}': expected {self.layers} members, got {', '.join(self.members)}")
        if self.member_bytes and len(self.member_bytes) != len(self.members):
            raise ValueError(f"group '{self.name}': members and member_bytes differ in length")

    @property
    def shares(self) -> dict[str, float]:
        """Layer name → its share of the group's FP32 bytes."""
        names = self.members or (self.name,)
        total = sum(self.member_bytes)
        if not total:
            return dict.fromkeys(names, 1 / len(names))
        return {name: size / total for name, size in zip(names, self.member_bytes, strict=True)}

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
    """All groups with their choices, and all prune groups with their sparsities.

    Attributes:
        groups: In the network's order.
        edges: Pairs of indices into ``groups`` that are neighbours, without loops.
        dropped: What left the space and why.
        prunes: Prune variables; empty where nothing may be pruned.
        remains: What pruning leaves of the groups.
    """

    groups: tuple[GroupSpace, ...]
    edges: tuple[tuple[int, int], ...]
    dropped: tuple[Dropped, ...] = ()
    prunes: tuple[PruneSpace, ...] = ()
    remains: Remains = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        remains = Remains(members=tuple(group.shares for group in self.groups), prunes=self.prunes)
        object.__setattr__(self, "remains", remains)

    @property
    def cardinality(self) -> int:
        """How many assignments and prunings solver and sampler may propose, equal networks counted apart."""
        return math.prod((*(len(group.proposed) for group in self.groups), *(len(p.sparsities) for p in self.prunes)))

    def encode(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> Code:
        """The canonical indices of an assignment's choices and a pruning's sparsities.

        Raises:
            ConfigError: If a group is missing or takes a choice it does not have, or a sparsity is not offered.
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
        return self.canonical((*code, *self.remains.levels(pruning)))

    def decode(self, code: Code) -> dict[str, LayerChoice]:
        """The assignment an index tuple stands for; ``pruning`` gives the rest."""
        return {group.name: group.choices[i] for group, i in zip(self.groups, self.choices(code), strict=True)}

    def choices(self, code: Code) -> Code:
        """The groups' part of a code."""
        return code[: len(self.groups)]

    def levels(self, code: Code) -> Levels:
        """The prune variables' part of a code."""
        return code[len(self.groups) :]

    def pruning(self, code: Code) -> dict[str, float]:
        """The sparsities an index tuple stands for, without those that are 0."""
        pairs = zip(self.prunes, self.levels(code), strict=True)
        return {prune.name: prune.sparsities[level] for prune, level in pairs if level}

    def remaining(self, code: Code) -> tuple[float, ...]:
        """The part of each group that stays; 0 where all its layers are gone."""
        return self.remains.groups(self.levels(code))

    def canonical(self, code: Code) -> Code:
        """The code that stands for all those of the same network and precisions."""
        return self.remains.canonical(code)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's form of the space: name → categories (choice texts, sparsities as text)."""
        found = {group.name: [choice.text for choice in group.choices] for group in self.groups}
        found |= {prune.param: list(prune.texts) for prune in self.prunes}
        return {name: CategoricalDistribution(texts) for name, texts in found.items()}

    def to_params(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> dict[str, str]:
        """Optuna's form of an assignment and a pruning: name → choice text or sparsity."""
        params = {group.name: assignment[group.name].text for group in self.groups}
        levels = zip(self.prunes, self.remains.levels(pruning), strict=True)
        return params | {prune.param: prune.texts[level] for prune, level in levels}

    def from_params(self, params: Mapping[str, object]) -> dict[str, LayerChoice]:
        """Read the assignment from ``to_params``'s form.

        Raises:
            ConfigError: If a group is missing or takes a choice it does not have.
        """
        named = {n: LayerChoice.parse(str(text)) for n, text in params.items() if not n.startswith(PREFIX)}
        return self.decode(self.encode(named))

    def pruning_of(self, params: Mapping[str, object]) -> dict[str, float]:
        """Read the pruning from ``to_params``'s form, without what is 0; a missing variable is 0.

        Raises:
            ConfigError: If a variable or its sparsity is not the space's.
        """
        return self.remains.parse(params)

    def loss(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> float:
        """Sum of the losses of the groups that stay, and of the pruning's as it is before any training."""
        code = self.encode(assignment, pruning)
        left = self.remaining(code)
        rows = [g.losses[i] for g, i, part in zip(self.groups, self.choices(code), left, strict=True) if part]
        return math.fsum((*rows, *(p.losses[i] for p, i in zip(self.prunes, self.levels(code), strict=True))))

    def size_bytes(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> int:
        """Sum of the groups' bytes: the weights' share of the file."""
        return self.code_bytes(self.encode(assignment, pruning))

    def code_bytes(self, code: Code) -> int:
        """``size_bytes`` of an index tuple."""
        rows = zip(self.groups, self.choices(code), self.remaining(code), strict=True)
        return round(math.fsum(group.size_bytes[i] * part for group, i, part in rows))

    def uniform(self, precision: Precision) -> dict[str, LayerChoice]:
        """Every group at its best choice of ``precision``, else at the nearest higher precision it offers."""
        return {group.name: group.choices[group.lead(precision)] for group in self.groups}

    def baselines(self) -> list[tuple[str, dict[str, LayerChoice]]]:
        """Uniform assignments with their ids, ``fp32`` first; those that repeat an earlier one are left out."""
        found: dict[Code, str] = {}
        for precision in Precision:
            found.setdefault(self.encode(self.uniform(precision)), precision.value)
        return [(name, self.decode(code)) for code, name in found.items()]

    def describe(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> str:
        """Layers a choice, highest precision first, then what is pruned.

        For instance ``int8:mse ×18, int4:gptq ×2; pruned 25% conv1, conv2, 50% conv3; without layer3.1``.
        """
        left = self.remains.layers(self.remains.levels(pruning))
        counts: Counter[LayerChoice] = Counter()
        for group in self.groups:
            counts[assignment[group.name]] += group.layers - sum(left.get(layer) == 0 for layer in group.shares)
        ordered = sorted(+counts, key=lambda choice: (-choice.precision.bits, choice.text))
        kept = ", ".join(f"{choice.text} ×{counts[choice]}" for choice in ordered) or "as given"
        return "; ".join((kept, *self.remains.describe(pruning)))


def build_space(
    inventory: Inventory,
    table: SensitivityTable,
    precisions: Collection[Precision],
    size_of: Callable[[str, LayerChoice], int],
    arithmetic_of: Callable[[LayerChoice], Arithmetic],
    prunes: Sequence[PruneSpace] = (),
) -> Space:
    """The space of one network: what its groups may take, the table kept and ``precisions`` allow.

    Args:
        inventory: The network's groups and their neighbourhood.
        table: Cleaned losses.
        precisions: Precisions allowed; FP32 always is.
        size_of: (layer name, choice) → bytes in the file.
        arithmetic_of: What a choice computes in, which the dialect knows.
        prunes: What may be pruned.
    """
    losses = table.losses()
    reasons = {(row.group, row.choice): row.dropped for row in table.rows if row.dropped}
    groups, dropped = [], []
    for group in inventory.groups:
        space, left = _group_space(group, losses.get(group.name, {}), reasons, precisions, size_of, arithmetic_of)
        groups.append(space)
        dropped += left
    edges = tuple(sorted({(a, b) for a, b in inventory.edges if a != b}))
    return Space(groups=tuple(groups), edges=edges, dropped=tuple(dropped), prunes=tuple(prunes))


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
    whole = _space_of(group, kept, frozenset(), size_of)
    leads = {whole.choices[whole.lead(precision)] for precision in Precision}
    for choice, rival in beaten.items():
        if choice not in leads:
            dropped.append(Dropped(group=group.name, choice=choice, reason=_reason(choice, rival, kept)))
            del kept[choice]
    return _space_of(group, kept, frozenset(leads & set(beaten)), size_of), dropped


class _Row(NamedTuple):
    loss: float
    size: int
    arithmetic: Arithmetic


def _space_of(
    group: Group,
    kept: Mapping[LayerChoice, _Row],
    baseline_only: frozenset[LayerChoice],
    size_of: Callable[[str, LayerChoice], int],
) -> GroupSpace:
    return GroupSpace(
        name=group.name,
        choices=tuple(kept),
        losses=tuple(row.loss for row in kept.values()),
        size_bytes=tuple(row.size for row in kept.values()),
        arithmetic=tuple(row.arithmetic for row in kept.values()),
        layers=len(group.layers),
        members=group.layers,
        member_bytes=tuple(size_of(layer, FP32) for layer in group.layers),
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
