"""Small networks with results computed by hand or by numpy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array

Shape = Sequence[int | str]


def assert_close(found: Array, expected: Array, atol: float = 1e-5) -> None:
    """The same shape, and every element within ``atol``."""
    np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=0, atol=atol)


def build(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, NDArray[Any]],
) -> bytes:
    """A float network's bytes."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def linear(batch: int | str = "n", factor: float = 1.0) -> bytes:
    """Outputs factor · x · [[1, 2], [3, 4], [5, 6]] + [10, 20], x being (batch, 3)."""
    return build(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="linear")],
        {"x": (batch, 3)},
        {"y": (batch, 2)},
        {
            "w": np.array([[1, 2], [3, 4], [5, 6]], np.float32) * np.float32(factor),
            "b": np.array([10, 20], np.float32),
        },
    )


def convolution(layers: int = 1) -> bytes:
    """``layers`` times a 1×1 convolution that doubles each of two channels, with Relu; x is (n, 2, 4, 4)."""
    nodes, last = [], "x"
    for index in range(layers):
        nodes.append(helper.make_node("Conv", [last, "w"], [f"c{index}"], name=f"conv{index}"))
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], name=f"relu{index}"))
        last = f"r{index}"
    nodes[-1].output[0] = "y"
    weight = np.eye(2, dtype=np.float32).reshape(2, 2, 1, 1) * 2
    return build(nodes, {"x": ("n", 2, 4, 4)}, {"y": ("n", 2, 4, 4)}, {"w": weight})


def two_by_two() -> bytes:
    """Inputs ``left`` and ``right`` (n, 4); outputs ``total`` (their sum) and ``gap`` (left − right), in that order."""
    return build(
        [
            helper.make_node("Sub", ["left", "right"], ["gap"], name="sub"),
            helper.make_node("Add", ["left", "right"], ["total"], name="add"),
        ],
        {"left": ("n", 4), "right": ("n", 4)},
        {"total": ("n", 4), "gap": ("n", 4)},
        {},
    )


def branching() -> bytes:
    """Outputs Sin(x) if the sum of x is positive, else Cos(x): a network with subgraphs; x is (4,)."""
    branches = {}
    for name, op in (("then_branch", "Sin"), ("else_branch", "Cos")):
        node = helper.make_node(op, ["x"], [f"{op}_y"], name=op)
        output = helper.make_tensor_value_info(f"{op}_y", TensorProto.FLOAT, (4,))
        branches[name] = helper.make_graph([node], name, [], [output])
    return build(
        [
            helper.make_node("ReduceSum", ["x"], ["sum"], name="sum", keepdims=0),
            helper.make_node("Greater", ["sum", "zero"], ["positive"], name="positive"),
            helper.make_node("If", ["positive"], ["y"], name="if", **branches),
        ],
        {"x": (4,)},
        {"y": (4,)},
        {"zero": np.asarray(0, np.float32)},
    )
