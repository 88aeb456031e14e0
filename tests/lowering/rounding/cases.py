"""Single layers of every layout, and small networks to round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import FP32, Scheme, WeightScheme
from bitfront.lowering.layers import Layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One weighted node.

    Attributes:
        op: Its operator.
        shape: Of its weight.
        inputs: Shape of its first operand.
        attributes: Of the node.
    """

    op: str
    shape: tuple[int, ...]
    inputs: tuple[int, ...]
    attributes: dict[str, Any]


CASES = {
    "conv": Case(op="Conv", shape=(6, 4, 3, 3), inputs=(2, 4, 7, 6), attributes={"pads": [1, 0, 2, 1]}),
    "conv-stride-dilation": Case(
        op="Conv", shape=(5, 3, 3, 2), inputs=(2, 3, 9, 8), attributes={"strides": [2, 3], "dilations": [2, 1]}
    ),
    "conv-grouped": Case(op="Conv", shape=(6, 2, 3, 3), inputs=(2, 4, 6, 6), attributes={"group": 2}),
    "conv-depthwise": Case(
        op="Conv", shape=(5, 1, 3, 3), inputs=(2, 5, 6, 6), attributes={"group": 5, "pads": [1, 1, 1, 1]}
    ),
    "conv-same-upper": Case(
        op="Conv", shape=(4, 3, 3, 3), inputs=(2, 3, 8, 7), attributes={"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    ),
    "conv-same-lower": Case(op="Conv", shape=(4, 3, 2, 2), inputs=(2, 3, 5, 5), attributes={"auto_pad": "SAME_LOWER"}),
    "conv-valid": Case(op="Conv", shape=(4, 3, 3, 3), inputs=(2, 3, 5, 5), attributes={"auto_pad": "VALID"}),
    "conv-1d": Case(op="Conv", shape=(4, 3, 5), inputs=(2, 3, 11), attributes={"pads": [2, 2]}),
    "transpose": Case(
        op="ConvTranspose",
        shape=(4, 3, 3, 2),
        inputs=(2, 4, 5, 4),
        attributes={"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]},
    ),
    "transpose-grouped": Case(
        op="ConvTranspose", shape=(6, 2, 3, 3), inputs=(2, 6, 4, 4), attributes={"group": 3, "dilations": [1, 2]}
    ),
    "transpose-crop": Case(
        op="ConvTranspose",
        shape=(3, 2, 2, 2),
        inputs=(2, 3, 5, 5),
        attributes={"strides": [2, 2], "pads": [2, 2, 2, 2]},
    ),
    "transpose-same": Case(
        op="ConvTranspose",
        shape=(3, 2, 4, 4),
        inputs=(2, 3, 5, 5),
        attributes={"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "gemm": Case(op="Gemm", shape=(7, 5), inputs=(6, 7), attributes={}),
    "gemm-transb": Case(op="Gemm", shape=(5, 7), inputs=(6, 7), attributes={"transB": 1}),
    "gemm-transa": Case(op="Gemm", shape=(5, 7), inputs=(7, 6), attributes={"transA": 1, "transB": 1}),
    "matmul": Case(op="MatMul", shape=(7, 5), inputs=(2, 3, 7), attributes={}),
}


def layer_of(case: Case, name: str = "layer") -> Layer:
    """The case's layer, as the quantisable would list it."""
    rows = case.op == "Conv" or (case.op == "Gemm" and case.attributes.get("transB", 0) == 1)
    return Layer(
        name=name,
        node=f"n_{name}",
        op=case.op,
        weight=f"{name}.weight",
        weight_shape=case.shape,
        channel_axis=0 if rows else 1,
        conv_groups=int(case.attributes.get("group", 1)),
        parameters=int(np.prod(case.shape)),
        schemes=(FP32,),
        refused={},
    )


def node_of(case: Case, name: str = "layer", source: str = "x", bias: str = "") -> onnx.NodeProto:
    """The case's node, writing ``name``."""
    operands = [source, f"{name}.weight", *([bias] if bias else [])]
    return helper.make_node(case.op, operands, [name], name=f"n_{name}", **case.attributes)


def model_of(
    nodes: list[onnx.NodeProto], weights: dict[str, NDArray[Any]], inputs: tuple[int | str, ...], output: str
) -> onnx.ModelProto:
    """A model from ``x`` to ``output``."""
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def residual_network(batch: int | str = "batch") -> tuple[onnx.ModelProto, list[Layer]]:
    """Conv a → Relu → depthwise b → Add with a's Relu → pool → Gemm c: all kinds of live tensors."""
    rng = np.random.default_rng(3)
    cases = {
        "a": Case(op="Conv", shape=(8, 3, 3, 3), inputs=(), attributes={"pads": [1] * 4}),
        "b": Case(op="Conv", shape=(8, 1, 3, 3), inputs=(), attributes={"pads": [1] * 4, "group": 8}),
        "c": Case(op="Gemm", shape=(5, 8), inputs=(), attributes={"transB": 1}),
    }
    weights: dict[str, NDArray[Any]] = {}
    for name, case in cases.items():
        weights[f"{name}.weight"] = rng.normal(0, 0.4, case.shape).astype(np.float32)
        weights[f"{name}.bias"] = rng.normal(0, 0.2, case.shape[0]).astype(np.float32)
    nodes = [
        node_of(cases["a"], "a", "x", "a.bias"),
        helper.make_node("Relu", ["a"], ["ra"], name="ra"),
        node_of(cases["b"], "b", "ra", "b.bias"),
        helper.make_node("Add", ["b", "ra"], ["s"], name="s"),
        helper.make_node("GlobalAveragePool", ["s"], ["p"], name="p"),
        helper.make_node("Flatten", ["p"], ["f"], name="f"),
        node_of(cases["c"], "c", "f", "c.bias"),
    ]
    return model_of(nodes, weights, (batch, 3, 8, 8), "c"), [layer_of(case, name) for name, case in cases.items()]


def images(samples: int, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Correlated inputs for ``residual_network``."""
    noise = np.random.default_rng(seed).normal(0, 1, (samples, 3, 8, 8)).astype(np.float32)
    return {"x": np.cumsum(noise, axis=-1, dtype=np.float32) * 0.5}


def weight_scheme(word: str, bits: int = 4, group_size: int | None = None) -> WeightScheme:
    """The weights of a scheme, by the word of its methods."""
    return Scheme.parse(f"int{bits}:{word}" + (f":block{group_size}" if group_size else "")).weights
