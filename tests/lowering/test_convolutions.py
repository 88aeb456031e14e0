"""Convolutions over one to three axes in 8 bits, and where their input gets channels of zeros."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends import get_backend
from bitfront.core import CalibrationSettings, ContentStore, Inputs
from bitfront.lowering.dialects.ort_cpu_rules import zeros_pay
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import FLOOR_DB, outputs_of, sqnr_db, uniform
from tests.references import make_reference


def _inputs(channels: int, size: tuple[int, ...], seed: int) -> Inputs:
    return {"x": np.random.default_rng(seed).normal(size=(8, channels, *size)).astype(np.float32)}


def _lowerer(channels: int, kernel: tuple[int, ...], size: tuple[int, ...], groups: int = 1) -> Lowerer:
    weight = np.random.default_rng(0).normal(size=(32, channels // groups, *kernel)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "conv.weight"], ["y"], group=groups, name="conv")
    graph = helper.make_graph(
        [node],
        "convolution",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", channels, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "conv.weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inputs, settings = _inputs(channels, size, 1), CalibrationSettings()
    return Lowerer(make_reference(model, "c"), get_dialect("ort-cpu"), inputs, settings, ContentStore(None))


@pytest.mark.parametrize(
    ("channels", "kernel", "size", "groups"),
    [
        pytest.param(8, (3,), (40,), 1, id="1-D"),
        pytest.param(32, (5,), (40,), 32, id="1-D-depthwise"),
        pytest.param(8, (3, 3), (9, 9), 1, id="2-D"),
        pytest.param(8, (3, 3, 3), (6, 6, 6), 1, id="3-D"),
        pytest.param(32, (3, 3, 3), (6, 6, 6), 32, id="3-D-depthwise"),
        pytest.param(3, (3, 3, 3), (6, 6, 6), 1, id="3-D-with-zeros"),
    ],
)
def test_integer_kernels(channels: int, kernel: tuple[int, ...], size: tuple[int, ...], groups: int) -> None:
    """The runtime runs each in integers, with the numbers of 8 bits."""
    lowerer = _lowerer(channels, kernel, size, groups)
    written, feeds = lowerer.lower(uniform(lowerer, "int8:mse")), _inputs(channels, size, 5)
    assert "QLinearConv" in get_backend("ort-cpu").compile(written, threads=1).operators()
    (expected,) = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, feeds)
    (found,) = outputs_of(written.data, feeds)
    assert sqnr_db(expected, found) > FLOOR_DB["int8:mse"]


@pytest.mark.parametrize(
    ("channels", "kernel", "pays"),
    [
        pytest.param(1, (512,), False, id="spectrum"),
        pytest.param(1, (7, 7), False, id="grey-stem"),
        pytest.param(3, (7, 7), True, id="colour-stem"),
        pytest.param(3, (16, 16), False, id="patches"),
        pytest.param(1, (3, 3), True, id="small-kernel"),
        pytest.param(5, (9,), True, id="sensors"),
    ],
)
def test_zeros_where_they_pay(channels: int, kernel: tuple[int, ...], pays: bool) -> None:
    """Channels of zeros are added where the study found them faster; the file does not grow with them."""
    assert zeros_pay(channels, -channels % 4, kernel) is pays
    lowerer = _lowerer(channels, kernel, tuple(max(taps, 16) for taps in kernel))
    written = onnx.load_from_string(lowerer.lower(uniform(lowerer, "int8:mse")).data)
    assert any(node.op_type == "Pad" and node.input[0] == "x_q" for node in written.graph.node) is pays
    (weight,) = [tensor for tensor in written.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert len(weight.raw_data) <= 32 * channels * int(np.prod(kernel)) + 160
