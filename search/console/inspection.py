"""Texts of ``search inspect``: rows of a network's operators with weights, and lines on what stays and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bitfront.core import SCHEMES
from bitfront.core.formatting import MISSING

if TYPE_CHECKING:
    from bitfront.backends.time_shares import TimeShares
    from bitfront.lowering.coverage import WeightHolder
    from bitfront.lowering.layers import Layer, QuantisableLayers

COLUMNS = ("layer", "operator", "weight", "parameters", "share", "group", "supported precisions")
TIME_COLUMN = "time"
_MOST_NAMES = 12  # of operators that one reason is given for


def columns(times: TimeShares | None) -> tuple[str, ...]:
    """Headings of the table, with the times where there are any."""
    place = COLUMNS.index("group")
    return (*COLUMNS[:place], *([TIME_COLUMN] if times else []), *COLUMNS[place:])


def holder_rows(
    holders: Sequence[WeightHolder], quantisable: QuantisableLayers, times: TimeShares | None = None
) -> list[tuple[str, ...]]:
    """The table's rows, one per operator with weights, one cell per column."""
    group_of = {name: group.name for group in quantisable.groups for name in group.layers}

    def row(holder: WeightHolder) -> tuple[str, ...]:
        layer = holder.layer
        groups = layer.conv_groups if layer else 1
        return (
            holder.name,
            holder.op + (f" (groups {groups})" if groups > 1 else ""),
            "×".join(str(size) for size in holder.shape),
            f"{holder.weights:,}" if holder.weights else "shared",
            f"{holder.share:.1%}" if holder.weights else MISSING,
            *([f"{times.named[holder.name]:.1%}"] if times else []),
            group_of[layer.name] if layer else MISSING,
            " ".join(scheme.text for scheme in layer.schemes) if layer else MISSING,
        )

    return [row(holder) for holder in holders]


def sum_lines(holders: Sequence[WeightHolder], times: TimeShares | None) -> list[str]:
    """Sentences on the shares of weights, and of time, that stay as they are."""
    fixed = sum(holder.share for holder in holders if holder.is_fixed)
    lines = [f"Weights that stay as they are: {fixed:.1%} of {sum(h.weights for h in holders):,}."]
    if times:
        improvable = sum(times.named[holder.name] for holder in holders if not holder.is_fixed)
        lines.append(
            f"Time in layers that may take another precision: {improvable:.1%}; in operators that stay as they are: "
            f"{sum(times.named.values()) - improvable:.1%}; in operators without weights, some of which follow the "
            f"layers around them: {sum(times.others.values()):.1%}"
        )
        kinds = [f"{kind} {share:.1%}" for kind, share in list(times.others.items())[:_MOST_NAMES] if share >= 0.0005]
        lines[-1] += f" ({', '.join(kinds)})." if kinds else "."
    return lines


def left_alone_lines(
    holders: Sequence[WeightHolder], quantisable: QuantisableLayers, times: TimeShares | None = None
) -> list[str]:
    """Operators with the reason that they share, a line each, those with most weights first."""
    share = {holder.name: holder.share for holder in holders}
    reasons = dict(quantisable.left_alone) | {holder.name: holder.reason for holder in holders if holder.reason}
    found: dict[str, list[str]] = {}
    for name, reason in sorted(reasons.items(), key=lambda item: -share.get(item[0], 0.0)):
        found.setdefault(reason, []).append(name)

    def shares(names: Sequence[str]) -> str:
        weights = f"{sum(share.get(name, 0.0) for name in names):.1%} of the weights"
        return f"{weights}, {sum(times.named[name] for name in names):.1%} of the time" if times else weights

    return [f"{_listed(names)}: {reason} ({shares(names)})" for reason, names in found.items()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def scheme_lines(layers: Sequence[Layer]) -> list[str]:
    """Schemes that some layer may take, each with its description, in the registry's order."""
    offered = {scheme.text for layer in layers for scheme in layer.schemes}
    return [f"{text}: {SCHEMES.description(text)}" for text in SCHEMES if text in offered]


def group_lines(quantisable: QuantisableLayers) -> list[str]:
    """Groups whose layers must share one scheme, and why."""
    return [
        f"{group.name}: {', '.join(group.layers)} ({group.reason})"
        for group in quantisable.groups
        if len(group.layers) > 1
    ]


def refusal_lines(layers: Sequence[Layer]) -> list[str]:
    """Reason → the layers and schemes it refuses, a line each, so that a reason shared by all is read once."""
    found: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        reasons: dict[str, list[str]] = {}
        for scheme, reason in layer.refused.items():
            reasons.setdefault(reason, []).append(scheme)
        for reason, schemes in reasons.items():
            found.setdefault((", ".join(schemes), reason), []).append(layer.name)
    return [
        f"{schemes}: {reason} ({'every layer' if len(names) == len(layers) else ', '.join(names)})"
        for (schemes, reason), names in found.items()
    ]
