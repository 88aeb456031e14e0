"""What the page says of each network that is not the given one, and of the successive halving: rows of text."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.report import network_words, wording
from bitfront.report.network import NetworkInfo, PrunedGroup
from bitfront.report.results import RunResults
from bitfront.report.tables import table
from bitfront.report.training import RungInfo, TrainInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkDetail:
    """One made network, which several points may share.

    Attributes:
        label: The network's.
        points: Ids of the table's points that are made from it, fastest first.
        recommended: Whether the recommended point is one of them.
        summary: What is left of it and what training bought, in one line.
        steps: (pass, training steps, time, last loss) of each step.
        groups: (group, channels before → after, share that stays) of each narrowed group.
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


def network_details(results: RunResults) -> tuple[NetworkDetail, ...]:
    """Each network of the table's points once, in the table's order."""
    users: dict[NetworkInfo, list[str]] = {}
    for row in table(results):
        network = results.points[row.id].network
        if network is not None:
            users.setdefault(network, []).append(row.id)
    return tuple(_detail(results, network, ids) for network, ids in users.items())


def _detail(results: RunResults, network: NetworkInfo, ids: list[str]) -> NetworkDetail:
    return NetworkDetail(
        label=network.label,
        points=tuple(ids),
        recommended=results.recommended in ids,
        summary="; ".join(filter(None, network_words.statements(network, results.metric))),
        steps=tuple(
            (
                step.name,
                f"{step.steps:,}" if step.steps else wording.MISSING,
                wording.duration(step.seconds),
                wording.MISSING if step.loss is None else wording.number(step.loss),
            )
            for step in network.steps
        ),
        groups=tuple(_group(group) for group in network.pruned if not group.branch),
        branches=tuple(group.name for group in network.pruned if group.branch),
        file=network.file,
    )


def _group(group: PrunedGroup) -> tuple[str, str, str]:
    return (group.name, f"{group.channels} → {group.kept}", f"{group.share:.0%}")


def training_text(train: TrainInfo) -> str:
    """``6 min 12 s of 10 min 0 s of training; 14 networks made, 9 trained, 3 promotions``."""
    budget = "" if train.budget_s is None else f" of {wording.duration(train.budget_s)}"
    networks, promotions = "s" * (train.networks != 1), "s" * (train.promoted != 1)
    return (
        f"{wording.duration(train.spent_s)}{budget} of training; {train.networks} network{networks} made, "
        f"{train.trained} trained, {train.promoted} promotion{promotions}"
    )


def halving_rows(train: TrainInfo, metric: str) -> tuple[tuple[str, str, str, str, str], ...]:
    """(rung, network, training steps, metric, what became of it), best first in each rung."""

    def rank(row: RungInfo) -> tuple[int, float]:
        return (row.rung, float("inf") if row.value is None else -row.value)

    return tuple(
        (
            str(row.rung),
            row.network,
            f"{row.steps:,}",
            wording.accuracy(row.value, metric),
            "went on" if row.kept else "stopped",
        )
        for row in sorted(train.history, key=rank)
    )
