"""Networks of a few operators, written out: one for each way in which files differ from what exporters of today write.

They take a second each, need no package but onnx, and are what the tests search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array
from bitfront.experiments.zoo.network import ZooNetwork, constant, feed_of, normal, tokens

_NUMBERS = np.random.default_rng(7)


def _weights(*shape: int) -> Array:
    return np.asarray(_NUMBERS.standard_normal(shape) / np.sqrt(shape[0]), dtype=np.float32)


_LAYERED = {"w1": _weights(16, 32), "b1": _weights(32), "w2": _weights(32, 4)}
_GATES = {"x_w": _weights(1, 64, 8), "h_w": _weights(1, 64, 16), "head": _weights(16, 4)}
_TABLE = {"table": _weights(200, 16), "head": _weights(16, 4)}


def _file(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, list[int | str | None]]],
    outputs: Mapping[str, list[int | str | None]],
    weights: Mapping[str, Array],
    opset: int = 17,
) -> Callable[[Path], bytes]:
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return lambda site: bytes(model.SerializeToString())  # noqa: ARG005


def _perceptron(x: str, y: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Gemm", [x, "w1", "b1"], [y + "_wide"], name=y + "_one"),
        helper.make_node("Relu", [y + "_wide"], [y + "_bent"]),
        helper.make_node("MatMul", [y + "_bent", "w2"], [y], name=y + "_two"),
    ]


def _branches() -> list[onnx.NodeProto]:
    """A choice between two networks by a flag that all samples share, as voice detectors choose by sampling rate."""
    shape = helper.make_tensor_value_info
    then = helper.make_graph(_perceptron("x", "a"), "then", [], [shape("a", TensorProto.FLOAT, None)])
    other = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w3"], ["b"], name="b_only")], "else", [],
        [shape("b", TensorProto.FLOAT, None)],
    )  # fmt: skip
    return [helper.make_node("If", ["flag"], ["y"], name="choice", then_branch=then, else_branch=other)]


_ROWS: dict[str, tuple[int, list[int | str | None]]] = {"x": (TensorProto.FLOAT, ["n", 16])}
TINY = (
    ZooNetwork(name="perceptron", origin="onnx", kind="two layers",
               model=_file(_perceptron("x", "y"), _ROWS, {"y": ["n", 4]}, _LAYERED), feed=feed_of(x=normal((1, 16)))),
    ZooNetwork(name="unnamed-batch", origin="onnx", kind="the batch has no name",
               model=_file([*_perceptron("x", "z"),
                            helper.make_node("Squeeze", ["s", "zero"], ["flat"]),
                            helper.make_node("Add", ["z", "flat"], ["y"])],
                           {"x": (TensorProto.FLOAT, [None, 16]), "s": (TensorProto.FLOAT, [1, None, 4])},
                           {"y": [None, 4]}, _LAYERED | {"zero": np.array([0], np.int64)}),
               feed=feed_of(x=normal((1, 16)), s=normal((1, 1, 4))), axes={"s": 1}),
    ZooNetwork(name="branches", origin="onnx", kind="layers in branches of If",
               model=_file(_branches(), _ROWS | {"flag": (TensorProto.BOOL, [])}, {"y": ["n", 4]},
                           _LAYERED | {"w3": _weights(16, 4)}),
               feed=feed_of(x=normal((1, 16)), flag=constant(np.array(True))), axes={"flag": None}),
    ZooNetwork(name="recurrent", origin="onnx", kind="LSTM, state on axis 1",
               model=_file([helper.make_node("LSTM", ["x", "x_w", "h_w", "", "", "h"], ["", "last"], hidden_size=16),
                            helper.make_node("Squeeze", ["last", "zero"], ["row"]),
                            helper.make_node("MatMul", ["row", "head"], ["y"], name="head_node")],
                           {"x": (TensorProto.FLOAT, [6, "n", 8]), "h": (TensorProto.FLOAT, [1, "n", 16])},
                           {"y": ["n", 4]}, _GATES | {"zero": np.array([0], np.int64)}),
               feed=feed_of(x=normal((6, 1, 8)), h=normal((1, 1, 16))), axes={"x": 1, "h": 1}),
    ZooNetwork(name="looked-up", origin="onnx", kind="embedding, mean, classifier",
               model=_file([helper.make_node("Gather", ["table", "ids"], ["rows"]),
                            helper.make_node("ReduceMean", ["rows"], ["mean"], axes=[1], keepdims=0),
                            helper.make_node("MatMul", ["mean", "head"], ["y"], name="head_node")],
                           {"ids": (TensorProto.INT64, ["n", 5])}, {"y": ["n", 4]}, _TABLE),
               feed=feed_of(ids=tokens((1, 5), 200))),
    ZooNetwork(name="old-file", origin="onnx", kind="opset 9",
               model=_file(_perceptron("x", "y"), _ROWS, {"y": ["n", 4]}, _LAYERED, opset=9),
               feed=feed_of(x=normal((1, 16)))),
)  # fmt: skip
