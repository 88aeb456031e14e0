"""What was done to a network, in words: for tables, hover texts and the page's details."""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.report import wording
from bitfront.report.network import NetworkInfo

GIVEN = "given"


def name(network: NetworkInfo | None) -> str:
    """A network in a word or two, for a column of a table."""
    return GIVEN if network is None else network.label


def sizes(network: NetworkInfo) -> str:
    """``0.41 × multiply-adds, 0.37 × parameters``."""
    macs, parameters = wording.ratio(network.macs_share), wording.ratio(network.parameters_share)
    return f"{macs} multiply-adds, {parameters} parameters"


def pruned(network: NetworkInfo) -> str:
    """``4 groups narrowed, 1 branch removed``; empty where nothing was pruned."""
    return losses([group.branch for group in network.pruned])


def losses(branches: Sequence[bool]) -> str:
    """The same of groups of which each is a branch or not."""
    removed = sum(branches)
    narrowed = len(branches) - removed
    parts = [f"{narrowed} group{'s' * (narrowed != 1)} narrowed"] if narrowed else []
    parts += [f"{removed} branch{'es' * (removed != 1)} removed"] if removed else []
    return ", ".join(parts)


def training(network: NetworkInfo) -> str:
    """``3 min 12 s``, or ``none``."""
    return wording.duration(network.train_s) if network.train_s or network.trained_steps else "none"


def bought(network: NetworkInfo, metric: str) -> str:
    """Accuracy in FP32 before and after recovery: ``61.20 → 91.30 %``."""
    before, after = network.untrained_accuracy, network.fp32_accuracy
    if before is None and after is None:
        return wording.MISSING
    unit = " %" if before is not None and after is not None else ""
    return f"{wording.accuracy(before, metric).removesuffix(unit)} → {wording.accuracy(after, metric)}"


def statements(network: NetworkInfo, metric: str) -> tuple[str, str, str]:
    """What is left, what was pruned (empty without) and what training bought."""
    steps = f", {network.trained_steps:,} steps" if network.trained_steps else ""
    return (
        sizes(network),
        pruned(network),
        f"training {training(network)}{steps}; in FP32 {bought(network, metric)}",
    )
