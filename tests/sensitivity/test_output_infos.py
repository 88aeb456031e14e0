"""Which outputs hold class scores: by Softmax, by a classifier's form, and by names that say otherwise."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.reference import make_reference
from bitfront.sensitivity.output_infos import output_infos
from tests.references import INTERPRETER

Shape = list[int | str]


def network(nodes: list[onnx.NodeProto], outputs: dict[str, Shape], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A graph of one input x, (n, 4), with weights w, (4, 3), and b, (3,)."""
    weights = {"w": np.ones((4, 3), np.float32), "b": np.ones(3, np.float32)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def axes(model: onnx.ModelProto) -> list[int | None]:
    """The axis of the classes of each output."""
    return [info.class_axis for info in output_infos(make_reference(model, "net.onnx", INTERPRETER))]


def linear(name: str) -> list[onnx.NodeProto]:
    """A matrix product with a bias."""
    return [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Add", ["product", "b"], [name])]


@pytest.mark.parametrize(
    ("name", "after", "expected"),
    [
        ("logits", None, 1),
        ("y", None, 1),
        ("embedding", None, None),
        ("boxes", None, None),
        ("y", "Softmax", 1),
        ("embedding", "LogSoftmax", 1),
        ("y", "Sigmoid", None),
        ("y", "Relu", None),
    ],
)
def test_one_output(name: str, after: str | None, expected: int | None) -> None:
    """A matrix product of the network's one output holds class scores, unless its name speaks of other numbers."""
    nodes = linear("inner" if after else name)
    nodes += [helper.make_node(after, ["inner"], [name])] if after else []
    assert axes(network(nodes, {name: ["n", 3]})) == [expected]


def test_several_outputs() -> None:
    """Only what a Softmax tells is believed."""
    nodes = [*linear("a"), helper.make_node("Softmax", ["a"], ["b2"])]
    assert axes(network(nodes, {"a": ["n", 3], "b2": ["n", 3]})) == [None, 1]


def test_samples_on_another_axis() -> None:
    """The axis is that of the array with the samples first."""
    nodes = [
        *linear("a"),
        helper.make_node("Softmax", ["a"], ["p"]),
        helper.make_node("Transpose", ["p"], ["y"], perm=[1, 0]),
    ]
    assert axes(network(nodes, {"y": [3, "n"]})) == [1]


def test_integers() -> None:
    """Hold no floating-point numbers."""
    model = network(
        [*linear("a"), helper.make_node("ArgMax", ["a"], ["y"], keepdims=0)], {"y": ["n"]}, TensorProto.INT64
    )
    (info,) = output_infos(make_reference(model, "net.onnx", INTERPRETER))
    assert (info.is_float, info.class_axis) == (False, None)
