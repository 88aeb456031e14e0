"""Products with constants in other forms than layers': each becomes a layer, and answers as it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.output_difference import sqnr_db
from bitfront.lowering.reference import ReferenceModel
from tests.references import INTERPRETER, make_reference

FLOAT = TensorProto.FLOAT
Shape = tuple[int | str, ...]


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _model(nodes: list[onnx.NodeProto], shapes: dict[str, Shape], constants: Mapping[str, Any]) -> onnx.ModelProto:
    kinds = {"ids": TensorProto.INT32, "segments": TensorProto.INT32, "mask": TensorProto.INT32}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kinds.get(name, FLOAT), shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def _searched(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> ReferenceModel:
    """The normalised network, after it was compared with the given one on other inputs."""
    found = equivalent_to_given(replace(make_reference(model, "net"), given=model), feeds)
    assert (found.skipped_steps, found.notices) == ((), ())
    wanted = INTERPRETER.load(model, optimised=False).run(feeds)[0]
    assert sqnr_db(wanted, INTERPRETER.load(found.proto).run(feeds)[0]) > 100
    return found


def _layers(reference: ReferenceModel) -> list[tuple[str, tuple[int, ...]]]:
    found = collect_layers(reference.proto, get_dialect("ort-cpu"))
    assert not found.left_alone
    return [(layer.op, layer.weight_shape) for layer in found.layers]


EINSUMS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], list[tuple[int, ...]]]] = {
    # equation, x, weight, layers
    "projection": ("bsd,df->bsf", (3, 5, 32), (32, 48), [(32, 48)]),
    "weight first": ("df,bsd->bsf", (3, 5, 32), (32, 48), [(32, 48)]),
    "transposed weight": ("bsd,fd->bsf", (3, 5, 32), (48, 32), [(32, 48)]),
    "heads out": ("bsd,dhk->bhsk", (3, 5, 32), (32, 4, 12), [(32, 48)]),
    "heads in": ("bshk,hkd->bsd", (3, 5, 4, 12), (4, 12, 32), [(48, 32)]),
    "transposed result": ("bsd,df->fbs", (3, 5, 32), (32, 48), [(32, 48)]),
    "middle axis": ("bds,df->bfs", (3, 32, 5), (32, 48), [(32, 48)]),
    "ellipsis": ("...d,df->...f", (3, 5, 7, 32), (32, 48), [(32, 48)]),
    "experts": ("ecd,edf->ecf", (4, 5, 32), (4, 32, 48), [(32, 48)] * 4),
    "experts, more axes": ("becd,edf->becf", (3, 4, 5, 32), (4, 32, 48), [(32, 48)] * 4),
    "one input for all experts": ("bsd,edf->bsef", (3, 5, 32), (4, 32, 48), [(32, 192)]),
    "block diagonal": ("bshk,hkd->bshd", (3, 5, 4, 16), (4, 16, 32), [(16, 32)] * 4),
}


@pytest.mark.parametrize("name", EINSUMS)
def test_projections_in_einsum(name: str) -> None:
    """An Einsum that is a projection becomes one MatMul, or one an expert."""
    equation, shape, dims, layers = EINSUMS[name]
    names = ["w", "x"] if name == "weight first" else ["x", "w"]
    axes: Shape = shape if shape[0] == dims[0] and "edf" in equation else ("n", *shape[1:])
    node = helper.make_node("Einsum", names, ["y"], "projection", equation=equation)
    found = _searched(_model([node], {"x": axes}, {"w": _normal(*dims) / 5}), {"x": _normal(*shape, seed=1)})
    assert _layers(found) == [("MatMul", dims) for dims in layers]


def test_weighted_experts() -> None:
    """What experts answer, weighted and summed, is one MatMul of all experts' weights."""
    node = helper.make_node("Einsum", ["x", "w", "g"], ["y"], "mixed", equation="nteo,eod,nte->ntd")
    model = _model([node], {"x": ("n", 5, 4, 32), "g": ("n", 5, 4)}, {"w": _normal(4, 32, 48) / 5})
    found = _searched(model, {"x": _normal(3, 5, 4, 32, seed=1), "g": _normal(3, 5, 4, seed=2)})
    assert _layers(found) == [("MatMul", (128, 48))]


LEFT: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    # equation of what is no projection, or no constant's
    "sum over one operand": ("bsd,ef->bsf", {}, (32, 48)),
    "elementwise": ("bsd,sd->bsd", {}, (5, 32)),
    "outer product": ("bsd,ef->bsdef", {}, (32, 48)),
    "diagonal": ("bsd,dd->bsd", {}, (32, 32)),
    "small": ("bsd,df->bsf", {}, (32, 4)),
}


@pytest.mark.parametrize("name", LEFT)
def test_other_einsums_stay(name: str) -> None:
    """What no layer can express, and what is not worth it, is left and named."""
    equation, _, dims = LEFT[name]
    node = helper.make_node("Einsum", ["x", "w"], ["y"], "other", equation=equation)
    found = make_reference(_model([node], {"x": ("n", 5, 32)}, {"w": _normal(*dims)}), "net")
    assert "Einsum" in [made.op_type for made in found.proto.graph.node]
    assert "other" in collect_layers(found.proto, get_dialect("ort-cpu")).left_alone


MATMULS: dict[str, tuple[list[str], tuple[int, ...], tuple[int, ...], list[tuple[int, ...]]]] = {
    # operands, x, weight, layers
    "left": (["w", "x"], (3, 32, 5), (48, 32), [(32, 48)]),
    "left of more axes": (["w", "x"], (3, 2, 32, 5), (48, 32), [(32, 48)]),
    "one matrix": (["x", "w"], (3, 5, 32), (1, 32, 48), [(32, 48)]),
    "one matrix, more axes": (["x", "w"], (5, 32), (1, 1, 32, 48), [(32, 48)]),
    "shared input": (["x", "w"], (5, 32), (4, 32, 48), [(32, 192)]),
    "shared input of more axes": (["x", "w"], (3, 1, 5, 32), (4, 32, 48), [(32, 192)]),
    "parts": (["x", "w"], (3, 4, 5, 32), (4, 32, 48), [(32, 48)] * 4),
}


@pytest.mark.parametrize("name", MATMULS)
def test_matmuls(name: str) -> None:
    """Constants on the left, and several matrices at once."""
    operands, shape, dims, layers = MATMULS[name]
    node = helper.make_node("MatMul", operands, ["y"], "product")
    model = _model([node], {"x": ("n", *shape[1:])}, {"w": _normal(*dims) / 5})
    found = _searched(model, {"x": _normal(*shape, seed=1)})
    assert _layers(found) == [("MatMul", dims) for dims in layers]


@pytest.mark.parametrize(
    ("attributes", "bias"),
    [
        ({"alpha": 0.5}, (6,)),
        ({"beta": 0.25, "transB": 1}, (6,)),
        ({"transA": 1, "alpha": 2.0, "beta": 3.0}, (6,)),
        ({}, (1, 6)),
        ({}, (1,)),
        ({}, ()),
        ({"beta": 0.5}, (4, 1)),
        ({}, (4, 6)),
        ({"beta": 0.5, "transB": 1}, None),
    ],
)
def test_gemm_forms(attributes: dict[str, Any], bias: tuple[int, ...] | None) -> None:
    """Every Gemm of a constant matrix can compute on integers."""
    dims = (6, 8) if attributes.get("transB") else (8, 6)
    shape = (8, 4) if attributes.get("transA") else (4, 8)
    shapes: dict[str, Shape] = {"x": shape}
    constants, feeds = {"w": _normal(*dims)}, {"x": _normal(*shape, seed=1)}
    if bias is None:
        shapes["b"] = (4, 6)
        feeds["b"] = _normal(4, 6, seed=2)
    else:
        constants["b"] = _normal(*bias, seed=2)
    model = _model([helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", **attributes)], shapes, constants)
    found = _searched(model, feeds)
    (layer,) = collect_layers(found.proto, get_dialect("ort-cpu")).layers
    assert "int8:mse" in [scheme.text for scheme in layer.schemes]


@pytest.mark.parametrize(("op", "bias"), [("Conv", (8, 1, 1)), ("Conv", (1, 8, 1, 1)), ("ConvTranspose", (8, 1, 1))])
def test_biases_behind_convolutions(op: str, bias: tuple[int, ...]) -> None:
    """A constant for each channel goes into the convolution."""
    weight = _normal(*((8, 4, 3, 3) if op == "Conv" else (4, 8, 3, 3)))
    nodes = [
        helper.make_node(op, ["x", "w"], ["c"], "conv"),
        helper.make_node("Add", ["b", "c"], ["a"], "add"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    model = _model(nodes, {"x": ("n", 4, 6, 6)}, {"w": weight, "b": _normal(*bias, seed=2)})
    found = _searched(model, {"x": _normal(2, 4, 6, 6, seed=1)})
    assert [node.op_type for node in found.proto.graph.node] == [op, "Relu"]


@pytest.mark.parametrize("bias", [(6,), (8, 6, 6), (8, 1, 6)])
def test_other_sums_stay(bias: tuple[int, ...]) -> None:
    """A constant for each column or position is no bias."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], "conv"), helper.make_node("Add", ["c", "b"], ["y"], "add")]
    model = _model(nodes, {"x": ("n", 4, 8, 8)}, {"w": _normal(8, 4, 3, 3), "b": _normal(*bias, seed=2)})
    found = _searched(model, {"x": _normal(2, 4, 8, 8, seed=1)})
    assert [node.op_type for node in found.proto.graph.node] == ["Conv", "Add"]


@pytest.mark.parametrize(
    ("attributes", "mask"),
    [({}, False), ({"unidirectional": 1}, False), ({}, True), ({"qkv_hidden_sizes": [16, 16, 32]}, False)],
)
def test_attention(attributes: dict[str, Any], mask: bool) -> None:
    """The projection of queries, keys and values is a layer."""
    width = sum(attributes.get("qkv_hidden_sizes", [32] * 3))
    inputs = ["x", "w", "b", *(["mask"] if mask else [])]
    node = helper.make_node("Attention", inputs, ["y"], "heads", domain="com.microsoft", num_heads=4, **attributes)
    shapes: dict[str, Shape] = {"x": ("n", 6, 32), **({"mask": ("n", 6)} if mask else {})}
    model = _model([node], shapes, {"w": _normal(32, width) / 5, "b": _normal(width, seed=2)})
    feeds = {"x": _normal(3, 6, 32, seed=1)}
    if mask:
        feeds["mask"] = (np.arange(6) < np.array([[6], [4], [2]])).astype(np.int32)
    assert _layers(_searched(model, feeds)) == [("MatMul", (32, width))]


@pytest.mark.parametrize("mask", [False, True])
def test_embeddings(mask: bool) -> None:
    """Tables of words, positions and segments are looked up as layers."""
    inputs = ["ids", "segments", "words", "places", "kinds", "scale", "shift", *(["mask"] if mask else [])]
    nodes = [
        helper.make_node("EmbedLayerNormalization", inputs, ["e", "lengths"], "embed", domain="com.microsoft"),
        helper.make_node(
            "Attention",
            ["e", "w", "b", *(["lengths"] if mask else [])],
            ["y"],
            "heads",
            domain="com.microsoft",
            num_heads=4,
        ),
    ]
    shapes: dict[str, Shape] = {name: ("n", "s") for name in ("ids", "segments", *(["mask"] if mask else []))}
    constants = {
        "words": _normal(50, 32),
        "places": _normal(40, 32, seed=1),
        "kinds": _normal(2, 32, seed=2),
        "scale": _normal(32, seed=3),
        "shift": _normal(32, seed=4),
        "w": _normal(32, 96, seed=5) / 5,
        "b": _normal(96, seed=6),
    }
    feeds: dict[str, Array] = {
        "ids": np.arange(18).reshape(3, 6).astype(np.int32),
        "segments": (np.arange(18).reshape(3, 6) % 2).astype(np.int32),
    }
    if mask:
        feeds["mask"] = (np.arange(6) < np.array([[6], [4], [2]])).astype(np.int32)
    found = _searched(_model(nodes, shapes, constants), feeds)
    assert _layers(found)[:2] == [("Gather", (50, 32)), ("Gather", (40, 32))]
    assert _layers(found)[-1] == ("MatMul", (32, 96))
