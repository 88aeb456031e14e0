"""Weights of which only the storage is chosen: in bodies of If, Loop and Scan, and read by other operators as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import FP32, CalibrationSettings, ContentStore, Inputs, LoweringError
from bitfront.lowering.apply import apply_config
from bitfront.lowering.coverage import weight_holders
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import outputs_of, sqnr_db
from tests.references import make_reference

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
WIDTH, HIDDEN = 48, 32
STORED = ("fp16", "int8:mse:weight-only", "int4:mse:weight-only")
FLOOR_DB = dict(zip(STORED, (60.0, 32.0, 8.0), strict=True))


def _normal(*shape: int, seed: int) -> NDArray[np.float32]:
    values: NDArray[np.float64] = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])
    return values.astype(np.float32)


def _value(name: str, kind: int = FLOAT, shape: Sequence[str | int | None] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _constants(**values: NDArray[np.generic]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


def _model(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], *inputs: onnx.ValueInfoProto) -> bytes:
    axes = ("n", WIDTH) if not inputs else (5, "n", WIDTH)
    graph = helper.make_graph(
        nodes, "g", [_value("x", FLOAT, ("n", WIDTH)), *inputs], [_value("y", FLOAT, axes)], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def loop() -> bytes:
    """Three rounds: a weight of the body, one of the graph around it, and one that the body reads transposed."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["h", "own"], ["a"], "own_product"),
            helper.make_node("Gemm", ["a", "outer", "bias"], ["b"], "outer_product", transB=1),
            helper.make_node("Transpose", ["turned"], ["t"], "turn", perm=[1, 0]),
            helper.make_node("MatMul", ["b", "t"], ["c"], "turned_product"),
            helper.make_node("Tanh", ["c"], ["h_next"], "tanh"),
            helper.make_node("Identity", ["go"], ["go_on"], "on"),
        ],
        "body",
        [_value("round", INT, ()), _value("go", BOOL, ()), _value("h", FLOAT, ("n", WIDTH))],
        [_value("go_on", BOOL, ()), _value("h_next", FLOAT, ("n", WIDTH))],
        _constants(own=_normal(WIDTH, WIDTH, seed=1)),
    )
    constants = _constants(
        outer=_normal(WIDTH, WIDTH, seed=2),
        turned=_normal(WIDTH, WIDTH, seed=3),
        bias=_normal(WIDTH, seed=4),
        rounds=np.array(3),
        always=np.array(True),
    )
    return _model([helper.make_node("Loop", ["rounds", "always", "x"], ["y"], "loop", body=body)], constants)


def _branch(name: str, seed: int) -> onnx.GraphProto:
    """Both branches call their tensors alike, as exporters do."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["r"], f"{name}_product")]
    return helper.make_graph(nodes, name, [], [_value("r")], _constants(w=_normal(WIDTH, WIDTH, seed=seed)))


def choice() -> bytes:
    """A branch by the sign of the first number, each with a weight of its own."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], "top", keepdims=0),
        helper.make_node("Greater", ["top", "zero"], ["flag"], "flag"),
        helper.make_node(
            "If", ["flag"], ["y"], "choice", then_branch=_branch("then", 5), else_branch=_branch("other", 6)
        ),
    ]
    return _model(nodes, _constants(zero=np.array(0, np.float32)))


def scan() -> bytes:
    """A recurrent cell over time by Scan, its kernel and an embedding of the graph around it."""
    body = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "id"], ["e"], "look_up"),
            helper.make_node("MatMul", ["e", "kernel"], ["k"], "kernel_product"),
            helper.make_node("Add", ["h", "k"], ["s"], "sum"),
            helper.make_node("Tanh", ["s"], ["h_next"], "tanh"),
            helper.make_node("Identity", ["h_next"], ["out"], "out"),
        ],
        "body",
        [_value("h", FLOAT, ("n", WIDTH)), _value("id", INT, ("n",))],
        [_value("h_next", FLOAT, ("n", WIDTH)), _value("out", FLOAT, ("n", WIDTH))],
    )
    nodes = [
        helper.make_node("Scan", ["x", "ids"], ["last", "y"], "scan", body=body, num_scan_inputs=1, scan_input_axes=[1])
    ]
    constants = _constants(table=_normal(64, HIDDEN, seed=7), kernel=_normal(HIDDEN, WIDTH, seed=8))
    return _model(nodes, constants, _value("ids", INT, ("n", 5)))


def shared() -> bytes:
    """A matrix that a MatMul multiplies by and an Add reads too."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("ReduceSum", ["w", "axes"], ["s"], "total", keepdims=0),
        helper.make_node("Mul", ["s", "x"], ["m"], "scale"),
        helper.make_node("Add", ["a", "m"], ["y"], "add"),
    ]
    return _model(nodes, _constants(w=_normal(WIDTH, WIDTH, seed=9), axes=np.array([0])))


CASES = {
    "loop": (loop, ["own_product", "outer_product", "turned_product"]),
    "if": (choice, ["other_product", "then_product"]),
    "scan": (scan, ["look_up", "kernel_product"]),
    "shared": (shared, ["product"]),
}


def _inputs(case: str) -> Inputs:
    generator = np.random.default_rng(0)
    inputs = {"x": generator.standard_normal((16, WIDTH)).astype(np.float32)}
    return inputs | ({"ids": generator.integers(0, 64, (16, 5))} if case == "scan" else {})


def _lowerer(case: str, dialect: str = "ort-cpu") -> Lowerer:
    # The sum over a constant is not folded, so that another operator still reads it.
    skipped = ("constants", "simplify") if case == "shared" else ()
    reference = make_reference(onnx.load_from_string(CASES[case][0]()), case, skipped=skipped)
    return Lowerer(reference, get_dialect(dialect), _inputs(case), CalibrationSettings(), ContentStore(None))


@pytest.mark.parametrize("case", CASES)
def test_layers_are_found_and_none_of_their_weights_is_fixed(case: str) -> None:
    """Each weight is a layer in a group of its own, offered what says how it is stored, and refused the rest."""
    lowerer = _lowerer(case)
    found = lowerer.quantisable
    assert [layer.node for layer in found.layers] == CASES[case][1]
    assert len(found.groups) == len(found.layers)
    for layer in found.layers:
        assert layer.stored_only
        assert [scheme.text for scheme in layer.schemes] == ["fp32", *STORED]
    products = [layer for layer in found.layers if layer.op != "Gather"]
    assert all("int8:mse" in layer.refused for layer in products)
    holders = weight_holders(lowerer.reference, found)
    assert not [holder.name for holder in holders if holder.is_fixed and holder.weights]


@pytest.mark.parametrize("text", STORED)
@pytest.mark.parametrize("case", CASES)
def test_stored_weights_answer_as_the_network_does(case: str, text: str) -> None:
    """The file shrinks by about as much as its weights, and answers up to their rounding."""
    lowerer, inputs = _lowerer(case), _inputs(case)
    schemes = {
        layer.name: next(each for each in layer.schemes if each.text == text) for layer in lowerer.quantisable.layers
    }
    written, plain = lowerer.lower(schemes), lowerer.lower(dict.fromkeys(schemes, FP32))
    onnx.checker.check_model(onnx.load_from_string(written.data), full_check=True)
    (wanted,), (found,) = (outputs_of(data, inputs)[-1:] for data in (plain.data, written.data))
    assert sqnr_db(wanted, found) >= FLOOR_DB[text]
    weights = sum(layer.parameters for layer in lowerer.quantisable.layers)
    bits = {"fp16": 16, "int8:mse:weight-only": 8, "int4:mse:weight-only": 4}[text]
    assert plain.size_bytes - written.size_bytes > 0.7 * weights * (32 - bits) / 8
    if text == "int4:mse:weight-only":
        assert sqnr_db(wanted, found) < 60, "weights are rounded"


@pytest.mark.parametrize("index", [0, 1])
def test_branches_that_call_their_weights_alike_are_stored_apart(index: int) -> None:
    """What one branch's weight becomes leaves the other's as it is."""
    lowerer = _lowerer("if")
    layers = lowerer.quantisable.layers
    schemes = {layer.name: FP32 for layer in layers}
    written = lowerer.lower(schemes | {layers[index].name: layers[index].schemes[-1]})
    plain = lowerer.lower(schemes)
    for sign, place in ((-1, 0), (1, 1)):
        inputs = {"x": sign * np.abs(_inputs("if")["x"])}
        (wanted,), (found,) = outputs_of(plain.data, inputs), outputs_of(written.data, inputs)
        assert np.array_equal(wanted, found) == (place != index)


def test_weights_beyond_fp16_are_refused_by_name() -> None:
    """A weight of a body that FP16 cannot hold names its layer."""
    model = onnx.load_from_string(shared())
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(_normal(WIDTH, WIDTH, seed=9) * np.float32(1e6), "w"))
    reference = make_reference(model, "large", skipped=("constants", "simplify"))
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), None, CalibrationSettings(), ContentStore(None))
    (layer,) = lowerer.quantisable.layers
    with pytest.raises(LoweringError, match="'product'"):
        lowerer.lower({layer.name: layer.schemes[1]})


def test_configs_from_before_leave_the_weights_as_they_are() -> None:
    """A config that does not name layers that are only stored is applied, with these in FP32."""
    lowerer = _lowerer("loop")
    schemes = {layer.name: FP32 for layer in lowerer.quantisable.layers}
    older = replace(lowerer.config(schemes), layers={})
    made = apply_config(older, lowerer.reference, calibration=None, store=ContentStore(None), allow_new_weights=False)
    assert made.data == lowerer.lower(schemes).data


def test_a_dialect_without_such_storage_says_so() -> None:
    """Weights in bodies stay as they are where the runtime does not fold them."""
    found = _lowerer("loop", "tensorrt").quantisable
    assert found.layers == ()
    assert "tensorrt" in found.left_alone["own_product"]
