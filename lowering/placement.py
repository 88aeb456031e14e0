"""Which operators run on 8-bit tensors, decided for a whole graph at once.

Layers with quantised activations do. Glue follows its neighbours:

- *Moving* glue (Slice, MaxPool, Reshape, Relu, Clip …) only moves or bounds numbers, so it runs on the 8-bit
  tensor itself, without loss, whenever what it reads is one.
- *Computing* glue (Add, Concat, Sigmoid …) gets a quantiser of its own; it runs quantised when everything it
  reads comes from the 8-bit domain and somebody in the 8-bit domain reads what it writes.
- All other glue is floating; standing inside the 8-bit domain it does not break it: its result may be
  quantised again.

A Relu or Clip that alone reads a quantised result is *folded*: the quantiser's range already ends where it would.

The answer is the greatest fixed point: everything that could run quantised starts so, and what breaks a rule is
taken out until nothing does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from bitfront.lowering.graph import GraphView


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The decision, by node index.

    Attributes:
        quantised: Nodes that run on 8-bit tensors, layers included.
        folded: Activation node → the quantised node whose output quantiser replaces it.
        demanded: Tensors that some quantised node wants to read as 8 bit.
    """

    quantised: frozenset[int]
    folded: dict[int, int]
    demanded: frozenset[str]


def place(
    view: GraphView,
    layers: Collection[int],
    *,
    moving: Callable[[int], bool],
    computing: Callable[[int], bool],
    bounding: Callable[[int], bool],
    floats_out: Callable[[int], bool],
) -> Placement:
    """Decide for one graph.

    Args:
        view: The graph.
        layers: Node indices of layers with quantised activations.
        moving: Whether a node can run on an 8-bit tensor as it is, keeping its quantiser.
        computing: Whether a node can run quantised with a quantiser of its own.
        bounding: Whether a node is a Relu or Clip that a quantiser's range can replace.
        floats_out: Whether a quantised layer may write a floating result when nobody demands 8 bits.
    """
    count = len(view.nodes)
    is_layer = [index in layers for index in range(count)]
    is_layout_op = [not is_layer[i] and moving(i) for i in range(count)]
    is_arithmetic = [not is_layer[i] and computing(i) for i in range(count)]
    quantised = {i for i in range(count) if is_layer[i] or is_layout_op[i] or is_arithmetic[i]}
    while True:
        demanded = _demanded(view, quantised, is_layout_op)
        writes = {
            i for i in quantised if not (floats_out(i) and not any(name in demanded for name in view.nodes[i].output))
        }
        domain = _domain(view, writes)
        broken = set()
        for i in quantised:
            if is_layer[i]:
                continue
            sources = [view.producer(name) for name in _data_inputs(view, i, moving=is_layout_op[i])]
            if is_layout_op[i]:
                kept = all(source in writes for source in sources)
            else:
                kept = all(source in domain for source in sources) and view.nodes[i].output[0] in demanded
            if not kept:
                broken.add(i)
        if not broken:
            break
        quantised -= broken
    folded = {}
    for i in quantised:
        result = view.nodes[i].output[0]
        readers = view.consumers(result)
        if (
            is_layout_op[i]
            or len(readers) != 1
            or view.is_output(result)
            or view.is_captured(result)
            or i not in writes
        ):
            continue
        if readers[0] in quantised and bounding(readers[0]) and view.nodes[readers[0]].input[0] == result:
            folded[readers[0]] = i
    return Placement(quantised=frozenset(quantised), folded=folded, demanded=frozenset(demanded))


def _data_inputs(view: GraphView, index: int, *, moving: bool) -> list[str]:
    names = [name for name in view.nodes[index].input if name]
    return names[:1] if moving else [name for name in names if name not in view.initializers]


def _demanded(view: GraphView, quantised: set[int], is_layout_op: list[bool]) -> set[str]:
    demanded: set[str] = set()
    for i in range(len(view.nodes) - 1, -1, -1):
        if i not in quantised:
            continue
        node = view.nodes[i]
        if is_layout_op[i]:
            if any(name in demanded for name in node.output):
                demanded.add(node.input[0])
        else:
            demanded.update(name for name in node.input if name and name not in view.initializers)
    return demanded


def _domain(view: GraphView, writes: set[int]) -> set[int]:
    """Nodes that write 8-bit tensors, and floating glue all of whose inputs come from such nodes."""
    domain = set(writes)
    for i, node in enumerate(view.nodes):
        if i in domain or node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        sources = [view.producer(name) for name in node.input if name and name not in view.initializers]
        if sources and all(source in domain for source in sources):
            domain.add(i)
    return domain
