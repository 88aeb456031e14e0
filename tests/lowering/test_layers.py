"""The quantisable: layers by module path, groups, neighbours, and what is left alone with its reason."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitfront.core import UsageError
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.layers import QuantisableLayers
from tests.lowering.candidates import lowerer_of
from tests.lowering.topologies import Net
from tests.references import make_reference


def quantisable_of(model: onnx.ModelProto) -> QuantisableLayers:
    return collect_layers(make_reference(model, "net").proto, get_dialect("ort-cpu"))


def test_names_are_module_paths() -> None:
    """A weight called ``path.weight`` gives the layer ``path``; a weight without such a name the node's name."""
    net = Net()
    a = net.conv("x", "layer1.0.conv1", (16, 16))
    net.conv(a, "b", (16, 16), weight=net.weight("onnx::Conv_42", 16, 16, 3, 3, fan_in=144))
    quantisable = quantisable_of(net.model(["b"]))
    assert [layer.name for layer in quantisable.layers] == ["layer1.0.conv1", "n_b"]
    assert quantisable.layers[0].parameters == 16 * 16 * 9


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("concat", [("a",), ("b", "c"), ("d",)]),
        ("shared_weight", [("a", "a#2"), ("c",)]),
        ("chain", [("a",), ("b",), ("c",)]),
    ],
)
def test_groups(name: str, groups: list[tuple[str, ...]]) -> None:
    """Shared weights and shared inputs tie layers together; every layer is in one group."""
    quantisable = lowerer_of(name).quantisable
    assert [group.layers for group in quantisable.groups] == groups
    for group in quantisable.groups:
        assert bool(group.reason) == (len(group.layers) > 1)


def test_neighbours() -> None:
    """Edges follow the data through glue, past one join but not past the next."""
    net = Net()
    stream = net.op("Relu", [net.conv("x", "stem", (16, 16))], "r")
    for block in range(3):
        conv = net.conv(stream, f"conv{block}", (16, 16))
        stream = net.op("Add", [stream, conv], f"sum{block}")
    net.conv(stream, "head", (16, 16))
    quantisable = quantisable_of(net.model(["head"]))
    assert [group.name for group in quantisable.groups] == ["stem", "conv0", "conv1", "conv2", "head"]
    assert quantisable.edges == ((0, 1), (0, 2), (1, 2), (2, 3), (3, 4))


def test_left_alone_with_reasons() -> None:
    """Weighted operators that are no layers are listed with the reason."""
    net = Net(("batch", 8))
    table = net.weight("table.weight", 8, 8, fan_in=8)
    net.op("MatMul", ["x", "x2"], "dynamic")
    net.op("MatMul", [table, "transposed"], "left")
    net.op("Gather", [table, net.constant("index", np.array([0], np.int64))], "row")
    net.op("MatMul", ["x", table], "tied")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner.weight"], ["out"], name="inside")],
        "body",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    net.weight("inner.weight", 8, 8, fan_in=8)
    net.nodes.append(helper.make_node("If", ["flag"], ["chosen"], name="choice", then_branch=body, else_branch=body))
    net.nodes.insert(0, helper.make_node("Transpose", ["x"], ["transposed"], name="t"))
    net.nodes.insert(1, helper.make_node("Transpose", ["x"], ["x2"], name="t2"))
    model = net.model(["dynamic", "left", "row", "tied", "chosen"])
    model.graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, ()))
    quantisable = quantisable_of(model)
    assert quantisable.layers == ()
    reasons = {name: reason for name, reason in quantisable.left_alone.items()}
    assert "computed at run time" in reasons["n_dynamic"]
    assert "left one" in reasons["n_left"]
    assert "also read by" in reasons["n_tied"]
    assert any("subgraph of If" in reason for reason in reasons.values())


def test_quantised_operators_are_left_alone_by_name() -> None:
    """What computes on quantised weights already is listed, in bodies too."""
    net = Net(("batch", 8))
    q, zero = net.constant("q", np.ones((8, 8), np.int8)), net.constant("zero", np.array(0, np.uint8))
    one = net.constant("one", np.array(1, np.float32))
    net.nodes.append(helper.make_node("DynamicQuantizeLinear", ["x"], ["xq", "xs", "xz"], name="dynamic"))
    net.op("MatMulInteger", ["xq", q, "xz"], "whole")
    net.nodes.append(helper.make_node("DequantizeLinear", [q, one], ["w"], name="dq"))
    net.nodes.append(helper.make_node("Transpose", ["w"], ["wt"], name="turned", perm=[1, 0]))
    net.op("MatMul", ["x", "wt"], "floating")
    net.nodes.append(
        helper.make_node("QLinearMatMul", ["xq", one, zero, q, one, zero, one, zero], ["ql"], name="qlinear")
    )
    packed = net.constant("packed", np.zeros((16, 1, 16), np.uint8))
    scales = net.constant("scales", np.ones((16, 1), np.float32))
    sizes: dict[str, Any] = {"K": 8, "N": 16, "bits": 4, "block_size": 32}
    net.nodes.append(
        helper.make_node("MatMulNBits", ["x", packed, scales], ["nbits"], name="nbits", domain="com.microsoft", **sizes)
    )
    body = helper.make_graph(
        [helper.make_node("LSTM", ["x", "w", "r"], ["", "h"], name="inside", hidden_size=8)],
        "body",
        [],
        [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)],
    )
    net.nodes.append(helper.make_node("If", ["flag"], ["chosen"], name="choice", then_branch=body, else_branch=body))
    model = net.model(["whole", "floating", "ql", "nbits"])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = collect_layers(model, get_dialect("ort-cpu"))
    assert found.layers == ()
    already = {name for name, reason in found.left_alone.items() if reason == "it is quantised already"}
    assert already == {"n_whole", "n_floating", "qlinear", "nbits"}
    assert found.left_alone["inside"] == "it stands in a subgraph of If 'choice'"


def test_an_empty_weight_is_no_layer() -> None:
    """A weight without elements has nothing to round."""
    net = Net(("batch", 0))
    net.op("MatMul", ["x", net.constant("w", np.zeros((0, 4), np.float32))], "none")
    assert quantisable_of(net.model(["none"])).left_alone == {"n_none": "its weight is empty, of shape (0, 4)"}


def test_refusals_have_reasons() -> None:
    """Every scheme a layer cannot take comes with a reason."""
    up = next(layer for layer in lowerer_of("conv_transpose").quantisable.layers if layer.name == "up")
    assert "no integer ConvTranspose" in up.refused["int8:mse"]
    assert "for Gemm and MatMul" in up.refused["int4:mse:block32"]
    assert [scheme.text for scheme in up.schemes] == ["fp32", "fp16", "int8:mse:weight-only", "int4:gptq:weight-only"]


def test_unknown_dialect() -> None:
    """An unknown dialect names the known ones."""
    with pytest.raises(UsageError, match="unknown dialect 'tpu'"):
        get_dialect("tpu")
