"""The loss of pruning: one row per (prune group, sparsity), each pruned alone, with the loss that a search adds up.

    score   mean divergence (``sensitivity.divergence``, in the metric of the precisions' scores) of the network with
    this
            group alone pruned in one shot and its batch norm measured anew, from the network as it was given
    loss    the score, raised to that of every lower sparsity of the group: sampling noise must not sell channels
    trained the score of the group's highest level after a short training, at most the loss; lower levels are given the
            same share of theirs

Scored in torch, not on the runtime: the pruned FP32 module is what FP32 on the runtime is, and exporting one takes
seconds. Without training the losses say little of what recovery will leave: of two branches that cost the same, one
may be made up for by the layers behind it and the other by none. Seconds of training for each group tell them apart
(``score_trained``), where there is time. Inputs should be such as the network was not trained on.

Levels are fractions of a group's channels; branches go whole or stay. A level is dropped, with its reason, where
rounding leaves all channels or as many as a lower level, where the pruned network does not run, or where its outputs
are not finite. A group that may not be pruned has one row that says why. A score is kept under the digest of the
network, the data and all options.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bitfront.backends.batches import sample_count
from bitfront.core import ConfigError, ContentStore, Inputs, ModelError, digest
from bitfront.core.formatting import first_line
from bitfront.sensitivity.divergence import Outputs, divergence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bitfront.passes.data import TrainingData
    from bitfront.passes.prune import StructuredPrune
    from bitfront.passes.prune_groups import PruneGroup

_SCHEMA = 1
_KIND = "sparsity"
_BATCH = 128
_BATCH_NORM_SAMPLES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityRow:
    """A row of the sparsity table: one (group, sparsity).

    Attributes:
        group: Prune group's name.
        sparsity: Fraction of its channels that was asked for; 0 is the group as it is.
        kept: Channels that stay; of a branch, which counts as one, 1 or 0.
        channels: Channels there are.
        macs_share: Multiply-adds that go, over those of the network; NaN where it was not pruned.
        loss: Cleaned; NaN where the level is dropped.
        trained: What a short training leaves of it; NaN where that was not tried.
        dropped: Why the level leaves the space, or the group where the sparsity is 0; empty where it stays.
    """

    group: str
    sparsity: float
    kept: int
    channels: int
    macs_share: float
    loss: float
    trained: float = math.nan
    dropped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityTable:
    """The sparsity table: all rows, in the order of the groups.

    Attributes:
        divergence_metric: As ``choose_divergence_metric`` writes it.
        samples: Inputs each score was taken on.
        rows: Sparsity 0 first within each group, with loss 0, then ascending; groups that may not be pruned have that
            row alone, dropped.
    """

    divergence_metric: str
    samples: int
    rows: tuple[SparsityRow, ...]

    def losses(self) -> Mapping[str, dict[float, float]]:
        """Group → the sparsities that stay, ascending from 0 → loss, after training where that was tried."""
        table: dict[str, dict[float, float]] = {}
        for row in self.rows:
            if not row.dropped:
                table.setdefault(row.group, {})[row.sparsity] = row.loss if math.isnan(row.trained) else row.trained
        return table

    @property
    def trained_groups(self) -> frozenset[str]:
        """Names of the groups whose ``losses`` are after training."""
        return frozenset(row.group for row in self.rows if not math.isnan(row.trained))

    def frame(self) -> pd.DataFrame:
        """Columns group, sparsity, kept, channels, macs_share, loss, trained, dropped; the rows' order."""
        columns = ["group", "sparsity", "kept", "channels", "macs_share", "loss", "trained", "dropped"]
        return pd.DataFrame([[getattr(row, name) for name in columns] for row in self.rows], columns=columns)


def planned_sparsity_steps(groups: Sequence[PruneGroup], *, levels: Sequence[float], round_to: int) -> int:
    """Number of steps that ``score_sparsities`` reports."""
    return sum(row.sparsity > 0 and not row.dropped for row in _planned(groups, levels, round_to))


def score_sparsities(
    module: nn.Module,
    groups: Sequence[PruneGroup],
    data: TrainingData,
    inputs: Inputs,
    *,
    levels: Sequence[float] = (0.25, 0.5, 0.75),
    round_to: int,
    samples: int,
    divergence_metric: str,
    store: ContentStore,
    key: str,
    on_step: Callable[[str], None],
    importance: str = "taylor",
) -> SparsityTable:
    """Score each group that may be pruned alone at each level.

    Args:
        module: The trained network; left as it is.
        groups: Of ``passes.prune_groups.find_prune_groups``.
        data: For importances and batch norm.
        inputs: Unlabelled inputs to score on, one array per argument of ``forward``, (n, …) each.
        levels: Sparsities of channel groups, in (0, 1).
        round_to: Channels that stay are a multiple of it.
        samples: How many of ``inputs`` each score is taken on, from the first on.
        divergence_metric: As ``choose_divergence_metric`` writes it.
        store: Where scores are kept.
        key: Digest of the network.
        on_step: Told of each step, in a few words; ``planned_sparsity_steps`` says how many there will be.
        importance: Which channels go first, a name of ``passes.prune_importance.Importance``.

    Returns:
        One row per (group, level), cleaned.

    Raises:
        ConfigError: If a level is not in (0, 1).
        DataError: If the inputs do not fit each other, or the unpruned network's outputs are not finite.
        ModelError: If the unpruned module cannot be traced.
    """
    from bitfront.passes.prune import StructuredPrune
    from bitfront.passes.prune_importance import Importance

    if not all(0 < level < 1 for level in levels):
        listed = ", ".join(f"{level:g}" for level in levels)
        raise ConfigError(f"pruning: expected sparsities in (0, 1), got {listed}", "branches have no level but 1")
    options = StructuredPrune(
        importance=Importance(importance), round_to=round_to, batch_norm_samples=_BATCH_NORM_SAMPLES
    )
    used = {name: array[:samples] for name, array in inputs.items()}
    scorer = _Scorer(module, groups, data, used, options, divergence_metric, store, key)
    rows: list[SparsityRow] = []
    for row in _planned(groups, levels, round_to):
        if row.sparsity == 0 or row.dropped:
            rows.append(row)
        else:
            rows.append(scorer.scored(row))
            on_step(f"{row.group} {row.sparsity:g}")
    return SparsityTable(
        divergence_metric=divergence_metric, samples=sample_count(used), rows=with_monotone_losses(rows)
    )


def score_trained(
    table: SparsityTable,
    module: nn.Module,
    inputs: Inputs,
    trained: Callable[[Mapping[str, float]], nn.Module | None],
    warn: Callable[[str], None],
) -> SparsityTable:
    """Measure what training leaves of each group's loss.

    Args:
        table: Of ``module``, as ``score_sparsities`` gave it.
        module: The network as it was given.
        inputs: Unlabelled inputs to score on, (n, …) each; begin with those the table was scored on.
        trained: {group: sparsity} → the network pruned so and trained; None where there is no time left for it. Where
            it raises a ModelError, nothing of the group's loss is taken to go.
        warn: Told of each group whose training failed so.

    Returns:
        The table with ``trained``; as it was where ``trained`` gave None.

    Raises:
        DataError: If the inputs do not fit each other, or the unpruned network's outputs are not finite.
    """
    whole = torch_outputs(module, inputs)
    shares: dict[str, float] = {}
    for group, losses in table.losses().items():
        highest = max(losses)
        if losses[highest] <= 0:
            continue
        try:
            network = trained({group: highest})
        except ModelError as error:
            warn(f"sparsity: {group} keeps its score before training, because that training failed: {error}")
            shares[group] = 1.0
            continue
        if network is None:
            return table
        score = float(divergence(table.divergence_metric, whole, torch_outputs(network, inputs)).mean())
        shares[group] = min(score / losses[highest], 1.0) if math.isfinite(score) else 1.0
    rows = tuple(replace(row, trained=row.loss * shares.get(row.group, math.nan)) for row in table.rows)
    return replace(table, rows=rows)


def with_monotone_losses(rows: Sequence[SparsityRow]) -> tuple[SparsityRow, ...]:
    """The rows with ``loss`` raised to that of each lower sparsity of the group, or NaN with the reason it is dropped.

    Args:
        rows: ``loss`` is the score; within a group ascending in sparsity.
    """
    found: list[SparsityRow] = []
    highest: dict[str, float] = {}
    for row in rows:
        reason = row.dropped
        if not reason and not math.isfinite(row.loss):
            reason = f"the outputs of the network pruned so are not finite (score {row.loss:g})"
        if reason:
            found.append(replace(row, loss=math.nan, dropped=reason))
            continue
        highest[row.group] = max(highest.get(row.group, 0.0), row.loss)
        found.append(replace(row, loss=highest[row.group]))
    return tuple(found)


def _planned(groups: Sequence[PruneGroup], levels: Sequence[float], round_to: int) -> Iterator[SparsityRow]:
    """Every row of the table, its loss NaN where it has to be scored."""
    from bitfront.passes.prune_groups import Status

    for group in groups:
        prunable = group.status is Status.PRUNABLE
        whole = SparsityRow(
            group=group.name,
            sparsity=0.0,
            kept=group.channels,
            channels=group.channels,
            macs_share=0.0,
            loss=0.0,
            dropped="" if prunable else group.reason,
        )
        yield whole
        if not prunable:
            continue
        seen = {group.channels: 0.0}
        for level in (1.0,) if group.branch else sorted(set(levels)):
            kept = group.kept(level, round_to) * group.channels // len(group.units)
            reason = ""
            if kept == group.channels:
                reason = f"rounding leaves all {kept} channels"
            elif kept in seen:
                reason = f"rounding leaves {kept} of {group.channels} channels, as at {seen[kept]:g}"
            seen.setdefault(kept, level)
            yield replace(whole, sparsity=level, kept=kept, macs_share=math.nan, loss=math.nan, dropped=reason)


class _Scorer:
    """Prunes one group at a time and scores what comes out; the unpruned network is run when first needed."""

    def __init__(
        self,
        module: nn.Module,
        groups: Sequence[PruneGroup],
        data: TrainingData,
        inputs: Inputs,
        options: StructuredPrune,
        divergence_metric: str,
        store: ContentStore,
        key: str,
    ) -> None:
        self._module = module
        self._groups = groups
        self._data = data
        self._inputs = inputs
        self._options = options
        self._divergence_metric = divergence_metric
        self._store = store
        most = max(options.samples, options.batch_norm_samples)
        self._context = digest(
            *("sparsity", _SCHEMA, key, divergence_metric, options.to_json(), dict(inputs)),
            {name: array[:most] for name, array in data.inputs.items()},
            None if data.labels is None else data.labels[:most],
        )

    def scored(self, row: SparsityRow) -> SparsityRow:
        """The row with its multiply-adds and its score as the loss, or with why the network cannot be pruned so."""
        key = digest(self._context, row.group, row.sparsity)
        kept = self._store.get_json(_KIND, key)
        if kept is None:
            try:
                pruned = self._pruned(row)
                outputs = torch_outputs(pruned, self._inputs)
            except (ModelError, RuntimeError) as error:
                return replace(row, dropped=f"the network does not run pruned so ({first_line(error)})")
            kept = {
                "loss": float(divergence(self._divergence_metric, self._reference, outputs).mean()),
                "macs_share": 1 - self._macs(pruned) / self._whole_macs,
            }
            self._store.put_json(_KIND, key, kept)
        return replace(row, loss=kept["loss"], macs_share=kept["macs_share"])

    @cached_property
    def _importances(self) -> Mapping[str, Tensor]:
        return self._options.importances(self._module, self._groups, self._data)

    @cached_property
    def _reference(self) -> Outputs:
        return torch_outputs(self._module, self._inputs)

    @cached_property
    def _whole_macs(self) -> int:
        return self._macs(self._module)

    def _pruned(self, row: SparsityRow) -> nn.Module:
        options = replace(self._options, sparsity={row.group: row.sparsity})
        return options.apply(self._module, self._data, groups=self._groups, scores=self._importances)

    def _macs(self, module: nn.Module) -> int:
        from bitfront.passes.prune_counts import count_macs

        return count_macs(module, self._data.inputs)


def torch_outputs(module: nn.Module, inputs: Inputs) -> Outputs:
    """Outputs of a module on samples, one array per output, (n, …) each."""
    from bitfront.passes.data import TrainingData
    from bitfront.passes.device import device_of
    from bitfront.passes.equivalence import outputs_of

    batches = TrainingData(inputs=inputs).batches(_BATCH, device_of(module))
    parts = [outputs_of(module, batch.inputs) for batch in batches]
    return tuple(np.concatenate([part.cpu().numpy() for part in column]) for column in zip(*parts, strict=True))
