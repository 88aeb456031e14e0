"""Candidates of the topologies in TensorRT's dialect, run on ONNX Runtime's CPU provider."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from bitfront.backends.ort.cpu import open_session
from bitfront.core import FP32, CalibrationSettings, ContentStore, Inputs, Scheme
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.topologies import TOPOLOGIES, Net, inputs_of, reference_of
from tests.references import make_reference

# Optimised and not: what the runtime makes of a graph must not decide whether its numbers are right.
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")
MIXES = ("int8:mse", "fp16", "fp32", "int4:gptq:block64")


def wide_gemm() -> onnx.ModelProto:
    """Matrix products wide enough for blocks of 64 and 128."""
    net = Net(("batch", 4, 128))
    a = net.op("MatMul", ["x", net.weight("a.weight", 128, 256, fan_in=128)], "a")
    bias = net.constant("a.bias", np.linspace(-0.1, 0.1, 256).astype(np.float32))
    a = net.op("Relu", [net.op("Add", [a, bias], "ab")], "ra")
    flat = net.op("Reshape", [a, net.constant("shape", np.array([-1, 256], np.int64))], "flat")
    weight = net.weight("b.weight", 64, 256, fan_in=256)
    b = net.op(
        "Gemm", [flat, weight, net.constant("b.bias", np.linspace(-0.2, 0.2, 64).astype(np.float32))], "b", transB=1
    )
    return net.model([net.op("Gemm", [net.op("Relu", [b], "rb"), net.weight("c.weight", 64, 32, fan_in=64)], "c")])


def projection() -> onnx.ModelProto:
    """A residual block whose shortcut is a convolution, its input pooled."""
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    pooled = net.op("MaxPool", [a], "pa", kernel_shape=[2, 2], strides=[2, 2])
    shortcut = net.conv(pooled, "s", (32, 16), kernel=1)
    b = net.op("Relu", [net.conv(pooled, "b", (32, 16))], "rb")
    total = net.op("Relu", [net.op("Add", [shortcut, net.conv(b, "c", (32, 32))], "sum")], "rsum")
    return net.model([net.conv(total, "d", (16, 32))])


def small_values() -> onnx.ModelProto:
    """Weights and activations so small that their scales underflow in FP16."""
    model = TOPOLOGIES["chain"]()
    for tensor in model.graph.initializer:
        if tensor.name in ("a.weight", "a.bias"):
            value = onnx.numpy_helper.to_array(tensor) * np.float32(2e-7)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value.astype(np.float32), tensor.name))
    return model


OWN = {build.__name__: build for build in (wide_gemm, projection, small_values)}
NETWORKS = (*TOPOLOGIES, *OWN)


def network(name: str) -> ReferenceModel:
    return make_reference(OWN[name](), name) if name in OWN else reference_of(name)


@cache
def trt_lowerer(name: str) -> Lowerer:
    reference = network(name)
    return Lowerer(reference, get_dialect("tensorrt"), inputs_of(reference), CalibrationSettings(), ContentStore(None))


def mixed(lowerer: Lowerer, start: int = 0) -> dict[str, Scheme]:
    """Schemes by turns, the first that a layer may take from its turn on."""
    turns = [Scheme.parse(text) for text in MIXES]
    chosen = {}
    for index, layer in enumerate(lowerer.quantisable.layers):
        rotated = [turns[(start + index + step) % len(turns)] for step in range(len(turns))]
        chosen[layer.name] = next(scheme for scheme in (*rotated, FP32) if scheme in layer.schemes)
    return chosen


def run(model: bytes, inputs: Inputs, level: str) -> list[NDArray[np.generic]]:
    session = open_session(model, threads=1, level=level)
    results: list[NDArray[np.generic]] = session.run(None, dict(inputs))
    return results


def grouped(groups: int, channels: int, per_group: int) -> onnx.ModelProto:
    """One grouped convolution behind a plain one."""
    net = Net(("batch", 16, 8, 8))
    a = net.conv("x", "a", (channels, 16), kernel=1)
    weight = net.weight("b.weight", channels, per_group, 3, 3, fan_in=9 * per_group)
    return net.model([net.op("Conv", [a, weight], "b", group=groups, pads=[1, 1, 1, 1])])


def single_vector() -> onnx.ModelProto:
    """A matrix product with one row."""
    net = Net((1, 64))
    graph = net.model([net.op("MatMul", ["x", net.weight("a.weight", 64, 32, fan_in=64)], "a")])
    graph.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64)))
    return graph
