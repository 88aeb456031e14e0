"""Which nodes run on 8-bit tensors, in graphs of a few: what is fused, what is quantised, who asks for 8 bits."""

from __future__ import annotations

import onnx

from bitfront.lowering.graph import GraphView
from bitfront.lowering.placement import Placement, place
from tests.lowering.topologies import Net


def placed(model: onnx.ModelProto, *layers: str) -> tuple[GraphView, Placement]:
    """Relu is layout and clamp, Add arithmetic; layers always write 8 bits."""
    view = GraphView(model.graph)
    index = {node.output[0]: at for at, node in enumerate(view.nodes)}

    def is_op(*ops: str) -> set[int]:
        return {at for at, node in enumerate(view.nodes) if node.op_type in ops}

    relus, sums = is_op("Relu"), is_op("Add")
    found = place(
        view,
        {index[name] for name in layers},
        is_layout_op=relus.__contains__,
        is_arithmetic=sums.__contains__,
        is_clamp=relus.__contains__,
        may_write_floats=lambda _: False,
    )
    return view, found


def names(view: GraphView, nodes: object) -> set[str]:
    return {view.nodes[at].output[0] for at in nodes}  # type: ignore[attr-defined]


def test_a_relu_that_alone_reads_a_result_is_fused() -> None:
    """Into the layer before it."""
    net = Net()
    first = net.op("Relu", [net.conv("x", "a", (16, 16))], "r")
    view, found = placed(net.model([net.conv(first, "b", (16, 16))]), "a", "b")
    fused = {view.nodes[at].output[0]: view.nodes[into].output[0] for at, into in found.fused_activations.items()}
    assert fused == {"r": "a"}


def test_a_relu_beside_another_reader_is_not_fused() -> None:
    """The other one needs what is below zero."""
    net = Net()
    a = net.conv("x", "a", (16, 16))
    b, c = net.conv(net.op("Relu", [a], "r"), "b", (16, 16)), net.conv(a, "c", (16, 16))
    view, found = placed(net.model([b, c]), "a", "b", "c")
    assert found.fused_activations == {}
    assert names(view, found.quantised) == {"a", "r", "b", "c"}


def test_a_relu_behind_an_output_is_not_fused() -> None:
    """The network's output is what it was."""
    net = Net()
    a = net.conv("x", "a", (16, 16))
    _, found = placed(net.model([a, net.conv(net.op("Relu", [a], "r"), "b", (16, 16))]), "a", "b")
    assert found.fused_activations == {}


def test_a_sum_is_quantised_where_somebody_reads_eight_bits() -> None:
    """And all it reads is 8 bits already."""
    net = Net()
    a, b = net.conv("x", "a", (16, 16)), net.conv("x", "b", (16, 16))
    read = net.model([net.conv(net.op("Add", [a, b], "s"), "c", (16, 16))])
    for layers, quantised in ((("a", "b", "c"), True), (("a", "b"), False), (("a", "c"), False)):
        view, found = placed(read, *layers)
        assert ("s" in names(view, found.quantised)) == quantised, layers
