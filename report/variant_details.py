"""Rows of text about each model variant and about the successive halving, for the page."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.core import MetricInfo, formatting
from bitfront.core.training_info import RungInfo, TrainInfo
from bitfront.core.variant_info import PrunedGroup, VariantInfo
from bitfront.report import variant_format
from bitfront.report.results import RunResults
from bitfront.report.tables import table


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantDetail:
    """Model variant, which several points may share.

    Attributes:
        label: The variant's.
        points: Ids of the table's points that are made from it, fastest first.
        recommended: Whether the recommended point is one of them.
        summary: Its size, what was pruned and the accuracy that training recovered, in one line.
        steps: (pass, training steps, time, last loss) of each step.
        groups: (group, channels before → after, fraction kept) of each narrowed group.
        branches: Names of the removed branches.
        file: Path of its FP32 graph, relative to the run folder; None where not written.
    """

    label: str
    points: tuple[str, ...]
    recommended: bool
    summary: str
    steps: tuple[tuple[str, str, str, str], ...]
    groups: tuple[tuple[str, str, str], ...]
    branches: tuple[str, ...]
    file: str | None


def variant_details(results: RunResults) -> tuple[VariantDetail, ...]:
    """Each model variant of the table's points once, in the table's order."""
    users: dict[VariantInfo, list[str]] = {}
    for row in table(results):
        network = results.points[row.id].network
        if network is not None:
            users.setdefault(network, []).append(row.id)
    return tuple(_detail(results, network, ids) for network, ids in users.items())


def _detail(results: RunResults, network: VariantInfo, ids: list[str]) -> VariantDetail:
    return VariantDetail(
        label=network.label,
        points=tuple(ids),
        recommended=results.recommended in ids,
        summary="; ".join(filter(None, variant_format.statements(network, results.metric))),
        steps=tuple(
            (
                step.name,
                f"{step.steps:,}" if step.steps else formatting.MISSING,
                formatting.duration(step.seconds),
                formatting.MISSING if step.loss is None else formatting.number(step.loss),
            )
            for step in network.steps
        ),
        groups=tuple(_group(group) for group in network.pruned if not group.branch),
        branches=tuple(group.name for group in network.pruned if group.branch),
        file=network.file,
    )


def _group(group: PrunedGroup) -> tuple[str, str, str]:
    return (group.name, f"{group.channels} → {group.kept}", f"{group.kept_fraction:.0%}")


def training_text(train: TrainInfo) -> str:
    """``6 min 12 s of 10 min 0 s of training; 14 model variants made, 9 trained, 3 promotions``."""
    budget = "" if train.budget_s is None else f" of {formatting.duration(train.budget_s)}"
    variants, promotions = "s" * (train.networks != 1), "s" * (train.promoted != 1)
    return (
        f"{formatting.duration(train.spent_s)}{budget} of training; {train.networks} model variant{variants} made, "
        f"{train.trained} trained, {train.promoted} promotion{promotions}"
    )


def halving_rows(train: TrainInfo, metric: MetricInfo) -> tuple[tuple[str, str, str, str, str], ...]:
    """(rung, network, training steps, metric, what became of it), best first in each rung."""

    def rank(row: RungInfo) -> tuple[int, float]:
        return (row.rung, float("inf") if row.value is None else -metric.oriented(row.value))

    return tuple(
        (
            str(row.rung),
            row.network,
            f"{row.steps:,}",
            formatting.metric_value(row.value, metric),
            "trained on" if row.kept else "stopped",
        )
        for row in sorted(train.history, key=rank)
    )
