"""Placement of 8-bit tensors: which operators run on them, decided for a whole graph at once.

Layers with quantised activations do. The operators between them follow their neighbours:

- *Layout* operators (Slice, MaxPool, Reshape, Relu, Clip …) only move or bound numbers, so they run on the 8-bit
  tensor itself, without loss, whenever what they read is one.
- *Arithmetic* operators (Add, Concat, Sigmoid …) get a quantiser of their own; they run quantised when everything they
  read comes from the 8-bit domain and a node in the 8-bit domain reads what they write.
- All others are floating; standing inside the 8-bit domain they do not break it: their results may be quantised again.

A *clamp* (Relu or Clip) that alone reads a quantised result is fused into it: the quantiser's range already ends where
the clamp would.

The answer is the greatest fixed point: everything that could run quantised starts so, and what breaks a rule is
taken out until nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import WEIGHTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Nodes that run on 8-bit tensors, by index.

    Attributes:
        quantised: Nodes that run on 8-bit tensors, layers included.
        fused_activations: Activation node → the quantised node whose output quantiser replaces it.
        required_int8: Tensors that some quantised node reads as 8 bit.
    """

    quantised: frozenset[int]
    fused_activations: dict[int, int]
    required_int8: frozenset[str]


def place(
    view: GraphView,
    layers: Collection[int],
    *,
    is_layout_op: Callable[[int], bool],
    is_arithmetic: Callable[[int], bool],
    is_clamp: Callable[[int], bool],
    may_write_floats: Callable[[int], bool],
) -> Placement:
    """The largest part of a graph that can run on 8-bit tensors.

    Args:
        view: The graph.
        layers: Node indices of layers with quantised activations.
        is_layout_op: Whether a node can run on an 8-bit tensor as it is, keeping its quantiser.
        is_arithmetic: Whether a node can run quantised with a quantiser of its own.
        is_clamp: Whether a node is a Relu or Clip that a quantiser's range can replace.
        may_write_floats: Whether a quantised layer may write a floating result when no reader requires 8 bits.
    """
    count = len(view.nodes)
    is_layer = [index in layers for index in range(count)]
    layout = [not is_layer[i] and is_layout_op(i) for i in range(count)]
    arithmetic = [not is_layer[i] and is_arithmetic(i) for i in range(count)]
    quantised = {i for i in range(count) if is_layer[i] or layout[i] or arithmetic[i]}
    while True:
        required = _required_int8(view, quantised, layout)
        writes = {
            i
            for i in quantised
            if not (may_write_floats(i) and not any(name in required for name in view.nodes[i].output))
        }
        domain = _domain(view, writes)
        broken = set()
        for i in quantised:
            if is_layer[i]:
                continue
            sources = [view.producer(name) for name in _data_inputs(view, i, is_layout_op=layout[i])]
            if layout[i]:
                kept = all(source in writes for source in sources)
            else:
                kept = all(source in domain for source in sources) and view.nodes[i].output[0] in required
            if not kept:
                broken.add(i)
        if not broken:
            break
        quantised -= broken
    fused = {}
    for i in quantised:
        result = view.nodes[i].output[0]
        readers = view.consumers(result)
        if layout[i] or len(readers) != 1 or view.is_output(result) or view.is_captured(result) or i not in writes:
            continue
        if readers[0] in quantised and is_clamp(readers[0]) and view.nodes[readers[0]].input[0] == result:
            fused[readers[0]] = i
    return Placement(quantised=frozenset(quantised), fused_activations=fused, required_int8=frozenset(required))


def _data_inputs(view: GraphView, index: int, *, is_layout_op: bool) -> list[str]:
    names = [name for name in view.nodes[index].input if name]
    return names[:1] if is_layout_op else [name for name in names if name not in view.initializers]


def _required_int8(view: GraphView, quantised: set[int], layout: list[bool]) -> set[str]:
    required: set[str] = set()
    for i in range(len(view.nodes) - 1, -1, -1):
        if i not in quantised:
            continue
        node = view.nodes[i]
        if layout[i]:
            if any(name in required for name in node.output):
                required.add(node.input[0])
        else:
            required.update(name for name in node.input if name and name not in view.initializers)
    return required


def _domain(view: GraphView, writes: set[int]) -> set[int]:
    """Nodes that write 8-bit tensors, and floating glue all of whose inputs come from such nodes."""
    domain = set(writes)
    for i, node in enumerate(view.nodes):
        if i in domain or node.op_type in WEIGHTED:
            continue
        sources = [view.producer(name) for name in node.input if name and name not in view.initializers]
        if sources and all(source in domain for source in sources):
            domain.add(i)
    return domain
