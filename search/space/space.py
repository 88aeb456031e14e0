"""Space of a search: one scheme a group, one sparsity a prune group, and the loss and bytes each costs.

Losses add up over groups (the sensitivity table's cleaned divergences), bytes add up over layers, and latency does
not add up, so it is no column here: ``latency_model`` learns it. What the space knows about latency is only
which schemes run alike (the dialect's ``ComputeType``), and therefore which schemes cannot be worth trying:

- of schemes that compute in the same type and take the same bytes (they differ in rounding alone) only the best stays;
- a scheme that costs no less loss *and* no fewer bytes than another of its compute type is dominated.

FP32 always stays: everything is compared with it. A dominated scheme that a uniform baseline needs stays too, marked
``baseline_only``: a baseline called "int8" that is INT4 in places would be a lie. Solver and sampler don't propose it.

Pruning (``prune_space``) scales a group's bytes with what is left of it; a group that is gone costs no loss and
no bytes, whatever its scheme. So that equal networks have equal encodings, encodings are canonical: such a group's
scheme is FP32, and a prune variable whose layers are all gone through others is at 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from optuna.distributions import BaseDistribution, CategoricalDistribution

from bitfront.core import FP32, ConfigError, Precision, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.layers import PrecisionGroup, QuantisableLayers
from bitfront.search.space.pruning import PREFIX, PruneVariable, Pruning, PruningEffects, SparsityIndices
from bitfront.sensitivity.table import SensitivityTable

Assignment = Mapping[str, Scheme]  # group name → scheme, every group of the space
Encoding = tuple[int, ...]  # index into each group's schemes, then into each prune variable's sparsities

UNPRUNED: Pruning = {}

_ASCENDING = (Precision.INT4, Precision.INT8, Precision.FP16, Precision.FP32)  # lowest first


COMPUTE_ORDER = (
    *(ComputeType.INT8, ComputeType.DYNAMIC_INT8, ComputeType.WEIGHT_ONLY),
    *(ComputeType.FP16, ComputeType.FP32),
)
"""In the order in which a uniform precision prefers them."""


class ActivationType(Enum):
    """The type of the tensors a layer reads and writes; a runtime converts where those of two neighbours differ."""

    FLOAT = "float"
    HALF = "half"
    INTEGER = "integer"

    @classmethod
    def of(cls, compute_type: ComputeType) -> ActivationType:
        """Weights with a scale per block are multiplied with floating activations."""
        return {ComputeType.INT8: cls.INTEGER, ComputeType.FP16: cls.HALF}.get(compute_type, cls.FLOAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpace:
    """Schemes of one group, with their losses and bytes.

    Attributes:
        name: The group's name.
        schemes: What it may become, ``fp32`` first, the rest in the dialect's order.
        losses: Loss of each scheme, ≥ 0.
        size_bytes: Bytes each scheme takes in the file, over all the group's layers.
        compute_types: What each scheme computes in on the runtime; FP32 in ``FLOAT``.
        layers: How many layers share the scheme.
        members: Names of these layers; empty for one layer of the group's name.
        member_bytes: FP32 bytes of each of them; empty where they count alike.
        baseline_only: Dominated schemes that stay for a uniform baseline's sake alone.
    """

    name: str
    schemes: tuple[Scheme, ...]
    losses: tuple[float, ...]
    size_bytes: tuple[int, ...]
    compute_types: tuple[ComputeType, ...]
    layers: int = 1
    members: tuple[str, ...] = ()
    member_bytes: tuple[int, ...] = ()
    baseline_only: frozenset[Scheme] = frozenset()

    def __post_init__(self) -> None:
        if not self.schemes or self.schemes[0] != FP32:
            raise ValueError(f"group '{self.name}': expected fp32 as the first scheme")
        if not len(self.schemes) == len(self.losses) == len(self.size_bytes) == len(self.compute_types):
            raise ValueError(f"group '{self.name}': schemes, losses, size_bytes and compute_types differ in length")
        if self.compute_types[0] is not ComputeType.FP32:
            raise ValueError(
                f"group '{self.name}': expected fp32 to compute in fp32, got {self.compute_types[0].value}"
            )
        for scheme, loss in zip(self.schemes, self.losses, strict=True):
            if not (math.isfinite(loss) and loss >= 0):
                raise ValueError(f"group '{self.name}': loss of {scheme.text} is {loss}")
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
        """Indices of the schemes that solver and sampler may propose."""
        if not self.baseline_only:
            return tuple(range(len(self.schemes)))
        return tuple(i for i, scheme in enumerate(self.schemes) if scheme not in self.baseline_only)

    def lead(self, precision: Precision) -> int:
        """Index of the best scheme at ``precision``, else at the nearest higher precision offered.

        Integer arithmetic comes before block-wise, half and float, then the lowest loss decides.
        """
        for level in _ASCENDING[_ASCENDING.index(precision) :]:
            found = [i for i, scheme in enumerate(self.schemes) if scheme.precision is level]
            if found:
                return min(found, key=lambda i: (COMPUTE_ORDER.index(self.compute_types[i]), self.losses[i], i))
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A scheme that left the space, with the reason."""

    group: str
    scheme: Scheme
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All groups with their schemes, and all prune groups with their sparsities.

    Attributes:
        groups: In the network's order.
        edges: Pairs of indices into ``groups`` that are neighbours, without loops.
        dropped: What left the space and why.
        prunes: Prune variables; empty where nothing may be pruned.
        pruning_effects: What pruning leaves of the groups.
    """

    groups: tuple[GroupSpace, ...]
    edges: tuple[tuple[int, int], ...]
    dropped: tuple[Dropped, ...] = ()
    prunes: tuple[PruneVariable, ...] = ()
    pruning_effects: PruningEffects = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        effects = PruningEffects(members=tuple(group.shares for group in self.groups), prunes=self.prunes)
        object.__setattr__(self, "pruning_effects", effects)

    @property
    def cardinality(self) -> int:
        """Number of assignments and prunings that solver and sampler may propose, equal networks counted apart."""
        return math.prod((*(len(group.proposed) for group in self.groups), *(len(p.sparsities) for p in self.prunes)))

    def with_prunes(self, prunes: Sequence[PruneVariable]) -> Space:
        """Return the space of the same groups with these prune variables."""
        return replace(self, prunes=tuple(prunes))

    def encode(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> Encoding:
        """The canonical indices of an assignment's schemes and a pruning's sparsities.

        Raises:
            ConfigError: If a group is missing or takes a scheme it does not have, or a sparsity is not offered.
        """
        encoding = []
        for group in self.groups:
            scheme = assignment.get(group.name)
            if scheme is None or scheme not in group.schemes:
                raise ConfigError(
                    f"group '{group.name}': expected one of {', '.join(c.text for c in group.schemes)}, "
                    f"got {scheme.text if scheme else 'nothing'}",
                    "the assignment belongs to another space: use the same model, backend and --precisions",
                )
            encoding.append(group.schemes.index(scheme))
        return self.canonical((*encoding, *self.pruning_effects.sparsity_indices(pruning)))

    def decode(self, encoding: Encoding) -> dict[str, Scheme]:
        """The assignment an index tuple stands for; ``pruning`` gives the rest."""
        return {group.name: group.schemes[i] for group, i in zip(self.groups, self.schemes(encoding), strict=True)}

    def schemes(self, encoding: Encoding) -> Encoding:
        """The groups' part of an encoding."""
        return encoding[: len(self.groups)]

    def sparsity_indices(self, encoding: Encoding) -> SparsityIndices:
        """The prune variables' part of a encoding."""
        return encoding[len(self.groups) :]

    def pruning(self, encoding: Encoding) -> dict[str, float]:
        """The sparsities an index tuple stands for, without those that are 0."""
        pairs = zip(self.prunes, self.sparsity_indices(encoding), strict=True)
        return {prune.name: prune.sparsities[level] for prune, level in pairs if level}

    def kept_fractions(self, encoding: Encoding) -> tuple[float, ...]:
        """The part of each group that stays; 0 where all its layers are gone."""
        return self.pruning_effects.groups(self.sparsity_indices(encoding))

    def canonical(self, encoding: Encoding) -> Encoding:
        """The encoding that stands for all those of the same network and precisions."""
        return self.pruning_effects.canonical(encoding)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's form of the space: name → categories (scheme texts, sparsities as text)."""
        found = {group.name: [scheme.text for scheme in group.schemes] for group in self.groups}
        found |= {prune.param: list(prune.texts) for prune in self.prunes}
        return {name: CategoricalDistribution(texts) for name, texts in found.items()}

    def to_params(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> dict[str, str]:
        """Optuna's form of an assignment and a pruning: name → scheme text or sparsity."""
        params = {group.name: assignment[group.name].text for group in self.groups}
        levels = zip(self.prunes, self.pruning_effects.sparsity_indices(pruning), strict=True)
        return params | {prune.param: prune.texts[level] for prune, level in levels}

    def from_params(self, params: Mapping[str, object]) -> dict[str, Scheme]:
        """Read the assignment from ``to_params``'s form.

        Raises:
            ConfigError: If a group is missing or takes a scheme it does not have.
        """
        named = {n: Scheme.parse(str(text)) for n, text in params.items() if not n.startswith(PREFIX)}
        return self.decode(self.encode(named))

    def pruning_of(self, params: Mapping[str, object]) -> dict[str, float]:
        """Read the pruning from ``to_params``'s form, without what is 0; a missing variable is 0.

        Raises:
            ConfigError: If a variable or its sparsity is not the space's.
        """
        return self.pruning_effects.parse(params)

    def loss(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> float:
        """Sum of the losses of the groups that stay, and of the pruning's as it is before any training."""
        encoding = self.encode(assignment, pruning)
        left = self.kept_fractions(encoding)
        rows = [g.losses[i] for g, i, part in zip(self.groups, self.schemes(encoding), left, strict=True) if part]
        return math.fsum(
            (*rows, *(p.losses[i] for p, i in zip(self.prunes, self.sparsity_indices(encoding), strict=True)))
        )

    def size_bytes(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> int:
        """Sum of the groups' bytes: the weights' share of the file."""
        return self.encoding_bytes(self.encode(assignment, pruning))

    def encoding_bytes(self, encoding: Encoding) -> int:
        """``size_bytes`` of an index tuple."""
        rows = zip(self.groups, self.schemes(encoding), self.kept_fractions(encoding), strict=True)
        return round(math.fsum(group.size_bytes[i] * part for group, i, part in rows))

    def uniform(self, precision: Precision) -> dict[str, Scheme]:
        """Every group at its best choice of ``precision``, else at the nearest higher precision it offers."""
        return {group.name: group.schemes[group.lead(precision)] for group in self.groups}

    def baselines(self) -> list[tuple[str, dict[str, Scheme]]]:
        """Uniform assignments with their ids, ``fp32`` first; those that repeat an earlier one are left out."""
        found: dict[Encoding, str] = {}
        for precision in Precision:
            found.setdefault(self.encode(self.uniform(precision)), precision.value)
        return [(name, self.decode(encoding)) for encoding, name in found.items()]

    def describe(self, assignment: Assignment, pruning: Pruning = UNPRUNED) -> str:
        """Layers a scheme, highest precision first, then what is pruned.

        For instance ``int8:mse ×18, int4:gptq ×2; pruned 25% conv1, conv2, 50% conv3; without layer3.1``.
        """
        left = self.pruning_effects.layers(self.pruning_effects.sparsity_indices(pruning))
        counts: Counter[Scheme] = Counter()
        for group in self.groups:
            counts[assignment[group.name]] += group.layers - sum(left.get(layer) == 0 for layer in group.shares)
        ordered = sorted(+counts, key=lambda scheme: (-scheme.precision.bits, scheme.text))
        kept = ", ".join(f"{scheme.text} ×{counts[scheme]}" for scheme in ordered) or "as given"
        return "; ".join((kept, *self.pruning_effects.describe(pruning)))


def build_space(
    quantisable: QuantisableLayers,
    table: SensitivityTable,
    precisions: Collection[Precision],
    size_of: Callable[[str, Scheme], int],
    compute_type_of: Callable[[Scheme], ComputeType],
    prunes: Sequence[PruneVariable] = (),
) -> Space:
    """The space of one network: what its groups may take, the table kept and ``precisions`` allow.

    Args:
        quantisable: The network's groups and their neighbourhood.
        table: Cleaned losses.
        precisions: Precisions allowed; FP32 always is.
        size_of: (layer name, scheme) → bytes in the file.
        compute_type_of: What a scheme computes in, which the dialect knows.
        prunes: What may be pruned.
    """
    losses = table.losses()
    reasons = {(row.group, row.scheme): row.dropped for row in table.rows if row.dropped}
    groups, dropped = [], []
    for group in quantisable.groups:
        space, left = _group_space(group, losses.get(group.name, {}), reasons, precisions, size_of, compute_type_of)
        groups.append(space)
        dropped += left
    edges = tuple(sorted({(a, b) for a, b in quantisable.edges if a != b}))
    return Space(groups=tuple(groups), edges=edges, dropped=tuple(dropped), prunes=tuple(prunes))


def _group_space(
    group: PrecisionGroup,
    losses: Mapping[Scheme, float],
    reasons: Mapping[tuple[str, Scheme], str],
    precisions: Collection[Precision],
    size_of: Callable[[str, Scheme], int],
    compute_type_of: Callable[[Scheme], ComputeType],
) -> tuple[GroupSpace, list[Dropped]]:
    kept: dict[Scheme, _Row] = {}
    dropped = []
    for scheme in (FP32, *(c for c in group.schemes if c != FP32)):
        loss = 0.0 if scheme == FP32 else losses.get(scheme, math.nan)
        if scheme != FP32 and scheme.precision not in precisions:
            dropped.append(Dropped(group=group.name, scheme=scheme, reason=f"{scheme.precision.value} is not allowed"))
        elif not (math.isfinite(loss) and loss >= 0):
            reason = reasons.get((group.name, scheme), f"its loss is {loss}")
            dropped.append(Dropped(group=group.name, scheme=scheme, reason=reason))
        else:
            size = sum(size_of(layer, scheme) for layer in group.layers)
            kept[scheme] = _Row(loss, size, compute_type_of(scheme))
    beaten = {scheme: rival for scheme in kept if scheme != FP32 and (rival := _dominator(scheme, kept)) is not None}
    whole = _space_of(group, kept, frozenset(), size_of)
    leads = {whole.schemes[whole.lead(precision)] for precision in Precision}
    for scheme, rival in beaten.items():
        if scheme not in leads:
            dropped.append(Dropped(group=group.name, scheme=scheme, reason=_reason(scheme, rival, kept)))
            del kept[scheme]
    return _space_of(group, kept, frozenset(leads & set(beaten)), size_of), dropped


class _Row(NamedTuple):
    loss: float
    size: int
    compute_type: ComputeType


def _space_of(
    group: PrecisionGroup,
    kept: Mapping[Scheme, _Row],
    baseline_only: frozenset[Scheme],
    size_of: Callable[[str, Scheme], int],
) -> GroupSpace:
    return GroupSpace(
        name=group.name,
        schemes=tuple(kept),
        losses=tuple(row.loss for row in kept.values()),
        size_bytes=tuple(row.size for row in kept.values()),
        compute_types=tuple(row.compute_type for row in kept.values()),
        layers=len(group.layers),
        members=group.layers,
        member_bytes=tuple(size_of(layer, FP32) for layer in group.layers),
        baseline_only=baseline_only,
    )


def _dominator(scheme: Scheme, kept: Mapping[Scheme, _Row]) -> Scheme | None:
    """The best choice of the same arithmetic that is no worse in loss and bytes; of equals the first one wins."""
    order = {c: i for i, c in enumerate(kept)}
    row = kept[scheme]
    rivals = [
        rival
        for rival, other in kept.items()
        if other.compute_type is row.compute_type
        and other.loss <= row.loss
        and other.size <= row.size
        and (other != row or order[rival] < order[scheme])
    ]
    return min(rivals, key=lambda rival: (kept[rival].loss, kept[rival].size, order[rival]), default=None)


def _reason(scheme: Scheme, rival: Scheme, kept: Mapping[Scheme, _Row]) -> str:
    row, other = kept[scheme], kept[rival]
    return (
        f"dominated by {rival.text}, which runs the same way: loss {other.loss:.3g} against {row.loss:.3g}, "
        f"{other.size:,} against {row.size:,} bytes"
    )
