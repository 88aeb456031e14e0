"""The bias correction that comes with rounded weights reaches the written layer: added once, with its sign, by channel.

A correction of known size is written in each form a dialect has for a layer, and read off the outputs: they move by it,
within one step of the output's quantiser, against the same artifact without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from bitfront.core import CalibrationSettings, ContentStore, Inputs, Scheme
from bitfront.lowering.dialect import LoweringRequest
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import as_written
from tests.lowering.topologies import Net
from tests.references import make_reference

SAMPLES = 48
RANGE = (-40.0, 40.0)  # of every layer's output: holds it with and without the correction
STEP = 80 / 255


def conv() -> onnx.ModelProto:
    net = Net(("batch", 8, 6, 6))
    return net.model([net.conv("x", "y", (8, 8))])


def conv_without_bias() -> onnx.ModelProto:
    model = conv()
    del model.graph.node[0].input[2]
    return model


def depthwise() -> onnx.ModelProto:
    net = Net(("batch", 16, 6, 6))
    return net.model([net.conv("x", "y", (16, 16), group=16)])


def conv_transpose() -> onnx.ModelProto:
    net = Net(("batch", 8, 5, 5))
    weight, bias = net.weight("y.weight", 8, 6, 3, 3, fan_in=72), net.constant("y.bias", _ramp(6))
    return net.model([net.op("ConvTranspose", ["x", weight, bias], "y")])


def gemm(**attributes: float) -> onnx.ModelProto:
    net = Net(("batch", 64))
    weight, bias = net.weight("y.weight", 64, 64, fan_in=64), net.constant("y.bias", _ramp(64))
    return net.model([net.op("Gemm", ["x", weight, bias], "y", transB=1, **attributes)])


def gemm_with_beta() -> onnx.ModelProto:
    return gemm(beta=0.5)


def gemm_without_bias() -> onnx.ModelProto:
    net = Net(("batch", 64))
    return net.model([net.op("Gemm", ["x", net.weight("y.weight", 64, 64, fan_in=64)], "y", transB=1)])


def matmul() -> onnx.ModelProto:
    net = Net(("batch", 64))
    return net.model([net.op("MatMul", ["x", net.weight("y.weight", 64, 64, fan_in=64)], "y")])


def _ramp(count: int) -> NDArray[np.float32]:
    return np.linspace(-0.5, 0.75, count).astype(np.float32)


# Network → what a correction of 1 adds to the output.
EFFECT: dict[Callable[[], onnx.ModelProto], float] = {
    conv: 1.0,
    conv_without_bias: 1.0,
    depthwise: 1.0,
    conv_transpose: 1.0,
    gemm: 1.0,
    gemm_with_beta: 0.5,
    gemm_without_bias: 1.0,
    matmul: 0.0,  # has no bias to correct
}
DIALECTS = ("ort-cpu", "openvino", "ort-cuda", "tensorrt")
TEXTS = (
    "int8:gptq",
    "int4:gptq",
    "int8:gptq:weight-only",
    "int4:gptq:weight-only",
    "int4:mse:block32",
    "int4:gptq:block64",
)


@cache
def lowerer_of(build: Callable[[], onnx.ModelProto], dialect: str) -> Lowerer:
    # Without the step that makes beta 1.
    reference = make_reference(build(), build.__name__, skipped=("layer-forms",))
    return Lowerer(reference, get_dialect(dialect), _inputs(reference.proto), CalibrationSettings(), ContentStore(None))


def _inputs(proto: onnx.ModelProto) -> Inputs:
    shape = [axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    # Not centred: a rounding error of a weight then moves the mean of its channel.
    return {"x": np.random.default_rng(4).normal(0.5, 1, (SAMPLES, *shape)).astype(np.float32)}


def _written(lowerer: Lowerer, scheme: Scheme, correction: NDArray[np.float32] | None) -> bytes:
    (layer,) = lowerer.quantisable.layers
    weight = replace(lowerer.rounded(scheme)[layer.name], bias_correction=correction)
    request = LoweringRequest(
        reference=lowerer.reference.proto,
        layers=(layer,),
        schemes={layer.name: scheme},
        ranges={**lowerer.ranges, "y": RANGE},
        weights={layer.name: weight},
    )
    return bytes(lowerer.dialect.write(request).SerializeToString())


def _cases() -> list[object]:
    """Every network in every form that a dialect offers and a correction can come with."""
    return [
        pytest.param(build, dialect, text, id=f"{build.__name__}-{dialect}-{text}")
        for build in EFFECT
        for dialect in DIALECTS
        for text in TEXTS
        if Scheme.parse(text) in lowerer_of(build, dialect).quantisable.layers[0].schemes
    ]


@pytest.mark.parametrize(("build", "dialect", "text"), _cases())
def test_outputs_move_by_the_correction(build: Callable[[], onnx.ModelProto], dialect: str, text: str) -> None:
    """Each channel by its own, up in some and down in others."""
    lowerer, scheme = lowerer_of(build, dialect), Scheme.parse(text)
    inputs = _inputs(lowerer.reference.proto)
    plain = as_written(_written(lowerer, scheme, None), inputs)[0].astype(np.float64)
    channels = plain.shape[1]
    correction = np.where(np.arange(channels) % 2, 6.0, -9.0).astype(np.float32)
    moved = as_written(_written(lowerer, scheme, correction), inputs)[0].astype(np.float64)
    wanted = (EFFECT[build] * correction).reshape(1, -1, *[1] * (plain.ndim - 2))
    assert np.abs(moved - plain - wanted).max() <= 1.01 * STEP


def test_every_dialect_and_form_is_tried() -> None:
    """The list above is not empty where it matters."""
    tried = {(dialect, text) for case in _cases() for _, dialect, text in [case.values]}  # type: ignore[attr-defined]
    for dialect in ("ort-cpu", "openvino"):
        assert {(dialect, text) for text in ("int4:gptq", "int4:gptq:weight-only")} <= tried
    assert ("ort-cpu", "int4:mse:block32") in tried
    assert ("ort-cuda", "int4:gptq:weight-only") in tried
    assert ("tensorrt", "int4:gptq:block64") in tried


@pytest.mark.parametrize("build", [build for build in EFFECT if EFFECT[build]], ids=lambda build: build.__name__)
def test_means_are_those_of_the_float_network(build: Callable[[], onnx.ModelProto]) -> None:
    """Rounded to 4 bits, a layer's output keeps the mean of every channel; without its correction it does not."""
    lowerer, scheme = lowerer_of(build, "ort-cpu"), Scheme.parse("int4:gptq:weight-only")
    (layer,) = lowerer.quantisable.layers
    inputs = _inputs(lowerer.reference.proto)

    def means(model: bytes) -> NDArray[np.float64]:
        output = as_written(model, inputs)[0].astype(np.float64)
        return np.asarray(output.mean(axis=tuple(axis for axis in range(output.ndim) if axis != 1)))

    exact = means(lowerer.reference.proto.SerializeToString())
    spread = np.abs(means(_written(lowerer, scheme, None)) - exact).max()
    assert spread > 1e-3, "the test says nothing otherwise"
    assert np.abs(means(lowerer.lower({layer.name: scheme}).data) - exact).max() < 0.1 * spread
