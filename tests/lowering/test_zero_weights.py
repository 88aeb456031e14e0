"""Biases of channels without weights, and of layers without inputs, on the artifact that the runtime executes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import CalibrationSettings, ContentStore, Inputs, RangeMethod
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import outputs_of, uniform
from tests.references import make_reference

Floats = NDArray[np.float32]

CHANNELS = 16
FREE = 5  # channels without weights, the first ones
SCHEMES = ("int8:nearest", "int8:mse", "int4:mse", "int4:gptq")
OPERATORS = ("Conv", "depthwise", "Gemm", "Gemm-transB", "MatMul-Add", "ConvTranspose")


def _model(op: str, weight: Floats, bias: Floats) -> onnx.ModelProto:
    """One layer of 16 inputs and outputs, and a Relu behind it; ``weight`` is (out, in)."""
    plane = op in ("Conv", "depthwise", "ConvTranspose")
    shape: list[int | str] = ["n", CHANNELS, 3, 3] if plane else ["n", CHANNELS]
    nodes = [helper.make_node("Relu", ["a"], ["y"], "relu")]
    if op == "Conv":
        nodes.insert(0, helper.make_node("Conv", ["x", "w", "b"], ["a"], "layer"))
        weight = weight[:, :, None, None]
    elif op == "depthwise":
        nodes.insert(0, helper.make_node("Conv", ["x", "w", "b"], ["a"], "layer", group=CHANNELS))
        weight = weight[:, :1, None, None]
    elif op == "ConvTranspose":
        nodes.insert(0, helper.make_node("ConvTranspose", ["x", "w", "b"], ["a"], "layer"))
        weight = weight.T[:, :, None, None]
    elif op == "MatMul-Add":
        nodes.insert(0, helper.make_node("Add", ["m", "b"], ["a"], "add"))
        nodes.insert(0, helper.make_node("MatMul", ["x", "w"], ["m"], "layer"))
        weight = weight.T
    else:
        turned = op == "Gemm-transB"
        nodes.insert(0, helper.make_node("Gemm", ["x", "w", "b"], ["a"], "layer", transB=int(turned)))
        weight = weight if turned else weight.T
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.ascontiguousarray(weight), "w"), numpy_helper.from_array(bias, "b")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _inputs(op: str, size: float, seed: int = 2) -> dict[str, Floats]:
    shape = (24, CHANNELS, 3, 3) if op in ("Conv", "depthwise", "ConvTranspose") else (24, CHANNELS)
    return {"x": (np.random.default_rng(seed).normal(size=shape) * size).astype(np.float32)}


def _parameters(size: float, tiny: float, *, activations: float, seed: int = 1) -> tuple[Floats, Floats]:
    """(out, in) weights, of which the first channels are zero or ``tiny``, and biases of ``size``.

    The other channels write about as much as their biases, from inputs of size ``activations``.
    """
    rng = np.random.default_rng(seed)
    weight = (rng.normal(size=(CHANNELS, CHANNELS)) * size / (4 * activations)).astype(np.float32)
    weight[:FREE] = (np.sign(weight[:FREE]) * np.float32(tiny)).astype(np.float32)
    return weight, (rng.uniform(0.3, 1, size=CHANNELS) * size).astype(np.float32)


def _lowerer(model: onnx.ModelProto, inputs: Inputs, dialect: str = "ort-cpu") -> Lowerer:
    return Lowerer(
        make_reference(model, "net.onnx"), get_dialect(dialect), inputs, CalibrationSettings(), ContentStore(None)
    )


def _steps_off(lowerer: Lowerer, artifact: bytes, inputs: Inputs, channels: slice) -> float:
    """The oracle: the largest difference to FP32 over the channels, in steps of a quantiser of the layer's result."""
    low, high = lowerer.ranges["y"]
    fp32, found = (
        outputs_of(model, inputs)[0][:, channels].astype(np.float64)
        for model in (lowerer.lower(uniform(lowerer, "fp32")).data, artifact)
    )
    return float(np.abs(fp32 - found).max() / ((high - low) / 255))


@pytest.mark.parametrize("dialect", ["ort-cpu", "openvino"])
@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("text", SCHEMES)
def test_channels_without_weights_keep_their_bias(op: str, text: str, dialect: str) -> None:
    """Half a step for the result's own quantiser, and half a step for the bias, where inputs are coarse."""
    inputs = _inputs(op, 100.0)
    lowerer = _lowerer(_model(op, *_parameters(0.5, 0.0, activations=100.0)), inputs, dialect)
    artifact = lowerer.lower(uniform(lowerer, text)).data
    assert _steps_off(lowerer, artifact, inputs, slice(0, FREE)) <= 1.01


@given(
    op=st.sampled_from(OPERATORS[:4]),
    text=st.sampled_from(SCHEMES),
    tiny=st.sampled_from((0.0, 1e-42, 1e-38, 1e-30, 1e-12, 1e-8)),
    activations=st.floats(-6, 5),
    biases=st.floats(-6, 5),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_bias_is_neither_lost_nor_saturated(
    op: str, text: str, tiny: float, activations: float, biases: float
) -> None:
    """Whatever the sizes of inputs and biases: weights of zero, denormal and tiny ones leave the bias as it is."""
    inputs = _inputs(op, 10.0**activations)
    model = _model(op, *_parameters(10.0**biases, tiny, activations=10.0**activations))
    lowerer = _lowerer(model, inputs)
    artifact = lowerer.lower(uniform(lowerer, text)).data
    assert _steps_off(lowerer, artifact, inputs, slice(0, FREE)) <= 1.01


@pytest.mark.parametrize("factor", [1e9, 1e-6], ids=["too-coarse", "too-fine"])
def test_the_oracle_sees_a_wrong_scale(factor: float) -> None:
    """A scale that loses the bias, and one that saturates it, fail."""
    inputs = _inputs("Conv", 100.0)
    lowerer = _lowerer(_model("Conv", *_parameters(0.5, 0.0, activations=100.0)), inputs)
    model = onnx.load_from_string(lowerer.lower(uniform(lowerer, "int8:mse")).data)
    (stored,) = [tensor for tensor in model.graph.initializer if tensor.name == "w_s"]
    scales = numpy_helper.to_array(stored).copy()
    scales[:FREE] *= factor
    stored.CopyFrom(numpy_helper.from_array(scales, "w_s"))
    assert _steps_off(lowerer, model.SerializeToString(), inputs, slice(0, FREE)) > 2


@pytest.mark.parametrize("method", list(RangeMethod))
@pytest.mark.parametrize("op", ["Conv", "Gemm", "MatMul-Add"])
@pytest.mark.parametrize("value", [0.0, 2.5, -1e-3], ids=["zero", "positive", "negative"])
def test_constant_inputs(op: str, value: float, method: RangeMethod) -> None:
    """Where an input is zero, or one number, on all samples, the layer's bias is kept, however large its weights."""
    inputs: dict[str, Any] = {"x": np.full_like(_inputs(op, 1.0)["x"], value)}
    weight, bias = _parameters(1e-4, 0.0, activations=1e-5 if value == 0 else abs(value))
    lowerer = Lowerer(
        make_reference(_model(op, weight, bias), "net.onnx"),
        get_dialect("ort-cpu"),
        inputs,
        CalibrationSettings(method=method),
        ContentStore(None),
    )
    artifact = lowerer.lower(uniform(lowerer, "int8:nearest")).data
    channels = slice(0, CHANNELS if value == 0 else FREE)
    assert _steps_off(lowerer, artifact, inputs, channels) <= 1.01


def test_inputs_that_are_zero_behind_glue() -> None:
    """A dead tensor in front of moving glue is given the range that the layer behind the glue wants."""
    model = _model("Conv", *_parameters(1e-4, 0.0, activations=1e-5))
    model.graph.node.insert(0, helper.make_node("MaxPool", ["x"], ["p"], "pool", kernel_shape=[1, 1]))
    model.graph.node[1].input[0] = "p"
    inputs: dict[str, Any] = {"x": np.zeros_like(_inputs("Conv", 1.0)["x"])}
    lowerer = _lowerer(model, inputs)
    assert lowerer.ranges["x"] == lowerer.ranges["p"]
    artifact = lowerer.lower(uniform(lowerer, "int8:nearest")).data
    assert _steps_off(lowerer, artifact, inputs, slice(0, CHANNELS)) <= 1.01


def test_a_dead_tensor_that_no_layer_reads_has_a_range() -> None:
    """Nothing asks for more than (0, 1)."""
    inputs: dict[str, Any] = {"x": np.zeros_like(_inputs("Gemm", 1.0)["x"])}
    lowerer = _lowerer(
        _model("Gemm", np.ones((CHANNELS, CHANNELS), np.float32), np.zeros(CHANNELS, np.float32)), inputs
    )
    assert set(lowerer.ranges.values()) == {(0.0, 1.0)}
