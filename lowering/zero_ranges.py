"""Ranges of tensors that are zero on all calibration inputs, fine enough for the layers that read them.

Any range holds zeros. But the bias of an integer layer is a multiple of s_x·s_w, so the range of its input decides how
well the bias is resolved, and where the input is zero the layer answers with nothing but its bias. Such a tensor's
range is (0, u) with

    u = min over the layers that read it of (range of what the layer writes) / max|w|,    at most 1

so that s_x·s_w is at most 1/7 of a step of the layer's result (127 integers to max|w|, or 7 at 4 bits). Operators that
only move values hand u on. What inputs other than those of the calibration hold there is clipped to u: no range could
be right for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import WEIGHTED
from bitfront.lowering.ranges import is_bounded, is_zero

Ranges = Mapping[str, tuple[float, float]]

_ACTIVATIONS = frozenset(("Relu", "Clip"))
_WIDEST = 1.0
# A scale of it / 255 is a normal float32, and so is its product with a weight's of 1e-3.
_NARROWEST = 1e-30


def replace_zero_ranges(view: GraphView, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """The calibrated ranges, with usable ones in place of (0, 0) for tensors that are zero throughout.

    Args:
        view: The graph.
        ranges: Tensor → (low, high) as calibrated; (0, 0) for those that are zero throughout.
    """
    found = dict(ranges)
    last_first = [*view.inputs, *(name for node in view.nodes for name in node.output)][::-1]
    for tensor in last_first:
        if tensor in ranges and is_zero(ranges[tensor]):
            highs = [high for high in _wanted(view, tensor, ranges, found) if high > 0]
            found[tensor] = (0.0, float(np.clip(min(highs, default=_WIDEST), _NARROWEST, _WIDEST)))
    return found


def _wanted(view: GraphView, tensor: str, ranges: Ranges, found: Ranges) -> Iterator[float]:
    """Upper ends that the readers of a tensor ask for; those of tensors behind it are in ``found``."""
    for index in view.consumers(tensor):
        node = view.nodes[index]
        weight = view.array(node.input[1]) if node.op_type in WEIGHTED and node.input[0] == tensor else None
        if weight is not None:
            largest = float(np.abs(weight).max(initial=0.0))
            written = [_span(ranges, name) for name in _results(view, node.output[0])]
            spans = [span for span in written if span > 0]
            if largest > 0 and spans:
                yield min(spans) / largest
        else:
            yield from (found[name][1] for name in node.output if name in ranges and is_zero(ranges[name]))


def _results(view: GraphView, tensor: str) -> list[str]:
    """Names of a layer's output and of the activations behind it that its quantiser may replace."""
    readers = [view.nodes[index] for index in view.consumers(tensor)]
    return [tensor, *(str(node.output[0]) for node in readers if node.op_type in _ACTIVATIONS)]


def _span(ranges: Ranges, tensor: str) -> float:
    low, high = ranges.get(tensor, (0.0, 0.0))
    return max(high, 0.0) - min(low, 0.0) if is_bounded((low, high)) else 0.0
