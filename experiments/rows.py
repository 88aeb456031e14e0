"""Rows and cells shared by the studies' tables."""

from __future__ import annotations

from bitfront.core import FP32, LatencyStats, Scheme
from bitfront.lowering.lowerer import Lowerer

LATENCY = ("median ms", "p90 ms", "× FP32 [95 %]")


def uniform(lowerer: Lowerer, text: str) -> dict[str, Scheme]:
    """Layer name → the scheme of that text, FP32 where the layer does not offer it."""
    scheme = Scheme.parse(text)
    return {layer.name: scheme if scheme in layer.schemes else FP32 for layer in lowerer.quantisable.layers}


def latency_cells(latency: LatencyStats) -> tuple[str, ...]:
    """Cells of a table row, one per column of ``LATENCY``."""
    return (
        f"{latency.median_ms:.3f}",
        f"{latency.p90_ms:.3f}",
        f"{latency.ratio:.3f} [{latency.ratio_low:.3f}, {latency.ratio_high:.3f}]",
    )
