"""Tensors that must share one quantiser, and its range: what a quantised Concat joins, through layout operators.

A Concat of 8-bit tensors copies bytes if all have the same scale and zero point; else each is requantised. The common
range covers all members', so nothing is clipped that was not before; a member with 1/k of that range loses log₂ k bits.
Where k would be more than ``WIDEST``, members keep quantisers of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

from bitfront.lowering.dialects.layout_ops import is_layout_op
from bitfront.lowering.graph import GraphView
from bitfront.lowering.placement import Placement

# Of the common range to a member's. SqueezeNet's branches differ by up to 2.3.
WIDEST = 3.0


def shared_ranges(
    view: GraphView, placement: Placement, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Tensor → common range, for those that quantised Concats join and whose ranges are near enough.

    Args:
        view: The graph.
        placement: What runs on 8-bit tensors.
        ranges: Tensor → (low, high) as calibrated.
    """
    leader: dict[str, str] = {}

    def find(tensor: str) -> str:
        while leader.setdefault(tensor, tensor) != tensor:
            tensor = leader[tensor]
        return tensor

    joined = set()
    for index, node in enumerate(view.nodes):
        if index not in placement.quantised or index in placement.fused_activations:
            continue
        if node.op_type == "Concat":
            tied = [*node.input, *node.output]
            joined.update(tied)
        elif is_layout_op(view, index):
            tied = [node.input[0], *node.output]
        else:
            continue
        for tensor in tied:
            leader[find(tensor)] = find(tied[0])
    groups: dict[str, list[str]] = {}
    for tensor in leader:
        groups.setdefault(find(tensor), []).append(tensor)
    shared = {}
    for members in groups.values():
        known = [(min(low, 0.0), max(high, 0.0)) for low, high in (ranges[name] for name in members if name in ranges)]
        if not known or joined.isdisjoint(members):
            continue
        low, high = min(low for low, _ in known), max(high for _, high in known)
        if all(high - low <= WIDEST * (own_high - own_low) for own_low, own_high in known):
            shared.update(dict.fromkeys(members, (low, high)))
    return shared
