"""The zoo's results as a table: a row for each version of each network, and the cells that are lost to another tool."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from bitfront.core.cells import csv_text
from bitfront.experiments.zoo.examine import INT8, PEERS, RECOMMENDED, Examined, QuantisedModel

COLUMNS = (
    "network", "exit", "seconds", "layers", "covered", "integer", "version", "bytes", "median ms", "ratio", "ratio low",
    "ratio high", "sqnr dB", "agreement", "lost", "schemes", "problems",
)  # fmt: skip


def losses(examined: Examined, max_drop: float) -> dict[str, list[str]]:
    """Version of ours → where another tool's, no less faithful than the drop allows or than ours, is better.

    Latency is lost where the intervals of the ratios to the given file do not meet; size where the file is larger.
    """
    found: dict[str, list[str]] = {}
    floor = -10 * math.log10(max_drop)
    by_name = {artifact.name: artifact for artifact in examined.artifacts}
    peers = [by_name[name] for name in PEERS if name in by_name]
    for ours in (by_name[name] for name in (INT8, RECOMMENDED) if name in by_name):
        rivals = [peer for peer in peers if peer.sqnr_db >= min(floor, ours.sqnr_db)]
        words = [f"slower than {peer.name}" for peer in rivals if _slower(ours, peer)]
        words += [f"larger than {peer.name}" for peer in rivals if ours.size_bytes > peer.size_bytes]
        if words:
            found[ours.name] = words
    return found


def rows(all_examined: Iterable[Examined], max_drop: float) -> list[tuple[str, ...]]:
    """Rows of the table, one for each version of each network; a network of which nothing runs has one too."""
    made = []
    for examined in all_examined:
        lost = losses(examined, max_drop)
        coverage = examined.coverage
        head = (
            examined.network,
            "ended" if examined.exit_code is None else str(examined.exit_code),
            f"{examined.seconds:.0f}",
            str(coverage.layers) if coverage else "",
            _share(coverage.searchable, coverage.weights) if coverage else "",
            _share(coverage.integer, coverage.weights) if coverage else "",
        )
        problems = "; ".join(examined.problems)
        for artifact in examined.artifacts or (None,):
            cells = ("",) * 8 if artifact is None else _cells(artifact)
            words = "; ".join(lost.get(artifact.name, ())) if artifact else ""
            schemes = examined.text if artifact and artifact.name == RECOMMENDED else ""
            made.append((*head, *cells, words and f"LOST: {words}", schemes, problems))
            problems = ""
    return made


def as_csv(table: Sequence[tuple[str, ...]]) -> str:
    """The table as CSV."""
    return csv_text(COLUMNS, table)


def as_markdown(table: Sequence[tuple[str, ...]]) -> str:
    """The table as Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *table]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _slower(ours: QuantisedModel, peer: QuantisedModel) -> bool:
    if ours.latency is None or peer.latency is None:
        return False
    return ours.latency.ratio_low > peer.latency.ratio_high


def _cells(artifact: QuantisedModel) -> tuple[str, ...]:
    latency = artifact.latency
    times = ("",) * 4
    if latency is not None:
        times = (
            f"{latency.median_ms:.3f}",
            f"{latency.ratio:.3f}",
            f"{latency.ratio_low:.3f}",
            f"{latency.ratio_high:.3f}",
        )
    same = "" if artifact.agreement is None else f"{artifact.agreement:.3f}"
    return (artifact.name, str(artifact.size_bytes), *times, f"{artifact.sqnr_db:.1f}", same)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else "0"
