"""Shares of a model's time by operator, from what its runtime tells of the operators that it ran.

A runtime names what it fused after the nodes in it, and often adds words of its own: ``fused conv1``,
``fc/MatMulAddFusion``. So a node that is asked for has the time of every operator in whose name it stands as a whole;
time of several nodes at once is divided evenly. Operators with bodies (If, Loop, Scan) do not count beside what ran in
them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bitfront.backends.base import ExecutedLayer

_WITH_BODIES = ("If", "Loop", "Scan")
_BLOCKED = "_nchwc"  # ONNX Runtime's word for its own layout of channels


@dataclass(frozen=True, slots=True)
class TimeShares:
    """Shares of a model's time, 0 to 1, which sum to 1.

    Attributes:
        named: Node → its share, every node that was asked for.
        others: Operator type → the share of the other operators of it, the largest first.
    """

    named: Mapping[str, float]
    others: Mapping[str, float]


def time_shares(
    executed: Sequence[ExecutedLayer], names: Collection[str], results: Mapping[str, str] = MappingProxyType({})
) -> TimeShares | None:
    """Divide a model's time among the named nodes and the types of the others; None where no times are told.

    Args:
        executed: What ran.
        names: Nodes, or layers by the names that their nodes bear.
        results: Tensor → the one of ``names`` that it is a result of: some runtimes name what they fused after it.
    """
    timed = [layer for layer in executed if layer.latency_us is not None and layer.kind not in _WITH_BODIES]
    total = sum(layer.latency_us or 0.0 for layer in timed)
    if not total:
        return None
    named, others = dict.fromkeys(names, 0.0), dict[str, float]()
    longest = sorted(named, key=len, reverse=True)
    for layer in timed:
        share = (layer.latency_us or 0.0) / total
        found = list(
            dict.fromkeys(name for node in layer.nodes or (layer.name,) for name in _named(node, longest, results))
        )
        for name in found:
            named[name] += share / len(found)
        if not found:
            others[layer.kind] = others.get(layer.kind, 0.0) + share
    return TimeShares(named=named, others=dict(sorted(others.items(), key=lambda item: -item[1])))


def _named(node: str, longest: Sequence[str], results: Mapping[str, str]) -> list[str]:
    """Names that stand in a node's, the node's own alone where it is one of them; a longer one hides those in it."""
    node = node.removesuffix(_BLOCKED)
    if node in longest:
        return [node]
    if node in results:
        return [results[node]]
    found = []
    for name in longest:
        pattern = rf"(?<![\w./]){re.escape(name)}(?![\w.])"
        if re.search(pattern, node):
            found.append(name)
            node = re.sub(pattern, " ", node)
    return found
