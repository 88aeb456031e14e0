"""Tensors that must share one quantiser, and its range: what a quantised Concat joins, through glue that only moves.

A Concat of 8-bit tensors copies bytes if all have the same scale and zero point; else each is requantised. The common
range is the widest of the members', so nothing is clipped that was not before; narrow members lose resolution.
"""

from __future__ import annotations

from collections.abc import Mapping

from lowering.dialects.glue import is_moving
from lowering.graph import GraphView
from lowering.placement import Placement


def shared_ranges(
    view: GraphView, placement: Placement, ranges: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Tensor → common range, for those that quantised Concats join; tensors without a range are left out.

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
        if index not in placement.quantised or index in placement.folded:
            continue
        if node.op_type == "Concat":
            tied = [*node.input, *node.output]
            joined.update(tied)
        elif is_moving(view, index):
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
        known = [ranges[tensor] for tensor in members if tensor in ranges]
        if known and not joined.isdisjoint(members):
            common = (min(low for low, _ in known), max(high for _, high in known))
            shared.update(dict.fromkeys(members, common))
    return shared
