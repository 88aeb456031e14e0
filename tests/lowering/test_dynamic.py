"""Gemm and MatMul whose input is quantised at run time, on ONNX Runtime's processor provider."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends import get_backend
from bitfront.core import CalibrationSettings, ContentStore, Inputs, LoweringError, PrecisionConfig, Scheme
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import outputs_of, sqnr_db, uniform
from tests.references import make_reference

WIDTH = 128
DYNAMIC = "int8:mse:dynamic"
FLOOR_DB = 30.0


def _inputs(seed: int = 0) -> Inputs:
    return {"x": np.random.default_rng(seed).normal(size=(4, 5, WIDTH)).astype(np.float32)}


@cache
def _lowerer(masked: bool = False) -> Lowerer:
    """Two MatMul of one input, a third, a Gemm with a bias and a small one."""
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) / np.float32(11)

    nodes = [
        helper.make_node("MatMul", ["x", "q.weight"], ["a"], name="q"),
        helper.make_node("MatMul", ["x", "k.weight"], ["b"], name="k"),
        helper.make_node("Add", ["a", "b"], ["c"], name="add"),
        helper.make_node("Tanh", ["c"], ["d"], name="tanh"),
        helper.make_node("MatMul", ["d", "v.weight"], ["e"], name="v"),
        helper.make_node("Reshape", ["e", "rows"], ["f"], name="rows"),
        helper.make_node("Gemm", ["f", "g.weight", "g.bias"], ["g"], name="g", transB=1),
        helper.make_node("Gemm", ["g", "small.weight"], ["y"], name="small"),
    ]
    constants = {name: normal(WIDTH, WIDTH) for name in ("q.weight", "k.weight", "v.weight", "g.weight")}
    constants |= {"g.bias": normal(WIDTH), "small.weight": normal(WIDTH, 7), "rows": np.array([-1, WIDTH])}
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inputs = _inputs()
    if masked:
        inputs["x"][0, 0, 0] = -1e30
    reference = make_reference(model, "products")
    return Lowerer(reference, get_dialect("ort-cpu"), inputs, CalibrationSettings(), ContentStore(None))


def test_numerics() -> None:
    """Each takes it but the small one, and the numbers are those of 8 bits."""
    lowerer = _lowerer()
    schemes = uniform(lowerer, DYNAMIC)
    assert {name for name, scheme in schemes.items() if scheme.text == DYNAMIC} == {"q", "k", "v", "g"}
    refused = {layer.name: layer.refused for layer in lowerer.quantisable.layers}["small"][DYNAMIC]
    assert refused == "its 896 weights are fewer than the 16,384 from which it gains"
    (expected,) = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, _inputs(5))
    (found,) = outputs_of(lowerer.lower(schemes).data, _inputs(5))
    assert sqnr_db(expected, found) > FLOOR_DB
    (static,) = outputs_of(lowerer.lower(uniform(lowerer, "int8:mse")).data, _inputs(5))
    assert sqnr_db(expected, found) > sqnr_db(expected, static) - 3


@pytest.mark.parametrize("stored", ["q.weight_s", "g.weight_s"])
def test_the_floor_rejects_doubled_scales(stored: str) -> None:
    """The oracle sees a layer whose scales are doubled."""
    lowerer = _lowerer()
    (expected,) = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, _inputs(5))
    proto = onnx.load_from_string(lowerer.lower(uniform(lowerer, DYNAMIC)).data)
    (scales,) = [tensor for tensor in proto.graph.initializer if tensor.name == stored]
    scales.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scales) * 2, stored))
    (found,) = outputs_of(proto.SerializeToString(), _inputs(5))
    assert sqnr_db(expected, found) < FLOOR_DB


def test_one_quantiser_serves_all_readers() -> None:
    """What two layers read is quantised once; the runtime runs fused kernels."""
    lowerer = _lowerer()
    compiled = get_backend("ort-cpu").compile(lowerer.lower(uniform(lowerer, DYNAMIC)), threads=1)
    operators = list(compiled.operators())
    assert operators.count("DynamicQuantizeLinear") + operators.count("DynamicQuantizeMatMul") == 3
    assert operators.count("MatMulIntegerToFloat") + operators.count("DynamicQuantizeMatMul") == 4


def test_bytes_are_those_of_the_file() -> None:
    """What the search counts for a layer is what its constants take."""
    lowerer = _lowerer()
    graph = onnx.load_from_string(lowerer.lower(uniform(lowerer, DYNAMIC)).data).graph
    held = {tensor.name: len(tensor.raw_data) for tensor in graph.initializer}
    for name in ("q", "k", "v", "g"):
        expected = held[f"{name}.weight_8"] + held[f"{name}.weight_s"]
        assert lowerer.weight_bytes(name, Scheme.parse(DYNAMIC)) == expected


def test_a_masked_input_stays_floating() -> None:
    """One value of −1e30 would take the whole of the scale: refused, with the tensor's name."""
    lowerer = _lowerer(masked=True)
    with pytest.raises(LoweringError, match=r"layer 'q' cannot be int8:mse:dynamic: .*'x'"):
        lowerer.lower(uniform(lowerer, DYNAMIC))


def test_config_round_trip() -> None:
    """A config says that activations are dynamic, and reads back."""
    lowerer = _lowerer()
    config = lowerer.config(uniform(lowerer, DYNAMIC))
    assert PrecisionConfig.from_json(config.to_json(), "config.json") == config
