"""Words for a model variant: for tables, tooltips and the page's details."""

from __future__ import annotations

from collections.abc import Sequence

from bitfront.core import MetricInfo, formatting
from bitfront.core.variant_info import VariantInfo

GIVEN = "given"


def name(network: VariantInfo | None) -> str:
    """A model variant in a word or two, for a column of a table."""
    return GIVEN if network is None else network.label


def sizes(network: VariantInfo) -> str:
    """``0.41 × multiply-adds, 0.37 × parameters``."""
    macs, parameters = formatting.ratio(network.macs_share), formatting.ratio(network.parameters_share)
    return f"{macs} multiply-adds, {parameters} parameters"


def pruned(network: VariantInfo) -> str:
    """``4 groups narrowed, 1 branch removed``; empty where nothing was pruned."""
    return pruned_groups([group.branch for group in network.pruned])


def pruned_groups(branches: Sequence[bool]) -> str:
    """``4 groups narrowed, 1 branch removed`` of pruned groups; ``branches`` says of each whether it is a branch."""
    removed = sum(branches)
    narrowed = len(branches) - removed
    parts = [f"{narrowed} group{'s' * (narrowed != 1)} narrowed"] if narrowed else []
    parts += [f"{removed} branch{'es' * (removed != 1)} removed"] if removed else []
    return ", ".join(parts)


def training(network: VariantInfo) -> str:
    """``3 min 12 s``, or ``none``."""
    return formatting.duration(network.train_s) if network.train_s or network.trained_steps else "none"


def recovered(network: VariantInfo, metric: MetricInfo) -> str:
    """Accuracy in FP32 before and after recovery: ``61.20 → 91.30 %``."""
    before, after = network.untrained_accuracy, network.fp32_accuracy
    if before is None and after is None:
        return formatting.MISSING
    unit = " %" if before is not None and after is not None else ""
    return f"{formatting.metric_value(before, metric).removesuffix(unit)} → {formatting.metric_value(after, metric)}"


def statements(network: VariantInfo, metric: MetricInfo) -> tuple[str, str, str]:
    """Size, pruning (empty where nothing was pruned), and training with the accuracy recovered by it."""
    steps = f", {network.trained_steps:,} steps" if network.trained_steps else ""
    return (
        sizes(network),
        pruned(network),
        f"training {training(network)}{steps}; in FP32 {recovered(network, metric)}",
    )
