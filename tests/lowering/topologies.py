"""Small networks, one for each shape that fusion on a runtime depends on; seeded weights of realistic size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Inputs
from bitfront.lowering.reference import ReferenceModel
from tests.references import make_reference


class Net:
    """Collects nodes and weights of one network with input ``x``."""

    def __init__(self, shape: tuple[int | str, ...] = ("batch", 16, 12, 12)) -> None:
        self.rng = np.random.default_rng(7)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.shape = shape

    def constant(self, name: str, array: NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int, fan_in: int) -> str:
        return self.constant(name, self.rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32))

    def op(self, op: str, inputs: list[str], result: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [result], name=f"n_{result}", **attributes))
        return result

    def conv(
        self,
        source: str,
        name: str,
        channels: tuple[int, int],
        *,
        kernel: int = 3,
        stride: int = 1,
        group: int = 1,
        weight: str = "",
    ) -> str:
        outs, ins = channels
        fan_in = ins // group * kernel * kernel
        weight = weight or self.weight(f"{name}.weight", outs, ins // group, kernel, kernel, fan_in=fan_in)
        bias = self.constant(f"{name}.bias", self.rng.normal(0, 0.1, outs).astype(np.float32))
        pads = [kernel // 2] * 4
        return self.op("Conv", [source, weight, bias], name, strides=[stride] * 2, pads=pads, group=group)

    def model(self, outputs: list[str], opset: int = 21) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.initializers,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def chain() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    b = net.op("Relu", [net.conv(a, "b", (24, 16), stride=2)], "rb")
    return net.model([net.conv(b, "c", (8, 24))])


def residual() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    b = net.op("Relu", [net.conv(a, "b", (16, 16))], "rb")
    total = net.op("Relu", [net.op("Add", [net.conv(b, "c", (16, 16)), a], "sum")], "rsum")
    return net.model([net.conv(total, "d", (8, 16))])


def concat() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (8, 16), kernel=1)], "ra")
    b = net.op("Relu", [net.conv(a, "b", (16, 8), kernel=1)], "rb")
    c = net.op("Relu", [net.conv(a, "c", (16, 8))], "rc")
    return net.model([net.conv(net.op("Concat", [b, c], "cat", axis=1), "d", (8, 32), kernel=1)])


def depthwise() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16), kernel=1)], "ra")
    b = net.op("Relu", [net.conv(a, "b", (16, 16), group=16)], "rb")
    return net.model([net.conv(b, "c", (8, 16), kernel=1)])


def conv_transpose() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    weight = net.weight("up.weight", 16, 4, 2, 2, fan_in=16)
    up = net.op("ConvTranspose", [a, weight], "up", strides=[2, 2], kernel_shape=[2, 2], group=2)
    return net.model([net.conv(net.op("Relu", [up], "rup"), "b", (4, 8))])


def gemm() -> onnx.ModelProto:
    net = Net(("batch", 64))
    a = net.op(
        "Gemm", ["x", net.weight("a.weight", 48, 64, fan_in=64), net.constant("a.bias", _bias(48))], "a", transB=1
    )
    b = net.op("Gemm", [net.op("Relu", [a], "ra"), net.weight("b.weight", 48, 40, fan_in=48)], "b")
    return net.model([net.op("MatMul", [net.op("Relu", [b], "rb"), net.weight("c.weight", 40, 10, fan_in=40)], "c")])


def sequence_matmul() -> onnx.ModelProto:
    net = Net(("batch", 6, 32))
    a = net.op("MatMul", ["x", net.weight("a.weight", 32, 64, fan_in=32)], "a")
    a = net.op("Relu", [net.op("Add", [a, net.constant("a.bias", _bias(64))], "ab")], "ra")
    return net.model([net.op("MatMul", [a, net.weight("b.weight", 64, 12, fan_in=64)], "b")])


def shared_weight() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    b = net.op("Relu", [net.conv(a, "b", (16, 16), weight="a.weight")], "rb")
    return net.model([net.conv(b, "c", (8, 16))])


def straight_out() -> onnx.ModelProto:
    net = Net()
    return net.model([net.conv("x", "a", (16, 16))])


def two_consumers() -> onnx.ModelProto:
    net = Net()
    a = net.conv("x", "a", (16, 16))
    left = net.conv(net.op("Relu", [a], "ra"), "b", (16, 16))
    right = net.op("Sigmoid", [a], "sa")
    return net.model([net.op("Mul", [left, right], "product"), "a"])


def clips() -> onnx.ModelProto:
    net = Net()
    low, high = net.constant("zero", np.array(0, np.float32)), net.constant("six", np.array(6, np.float32))
    a = net.op("Clip", [net.conv("x", "a", (16, 16)), low, high], "ca")
    b = net.op("Clip", [net.conv(a, "b", (16, 16), group=16), low, high], "cb")
    return net.model([net.conv(b, "c", (8, 16), kernel=1)])


def pooling() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    pooled = net.op("MaxPool", [a], "pa", kernel_shape=[2, 2], strides=[2, 2])
    b = net.op("Relu", [net.conv(pooled, "b", (32, 16))], "rb")
    averaged = net.op("AveragePool", [b], "pb", kernel_shape=[2, 2], strides=[2, 2])
    c = net.op("Relu", [net.conv(averaged, "c", (32, 32))], "rc")
    flat = net.op("Flatten", [net.op("GlobalAveragePool", [c], "gap")], "flat")
    return net.model([net.op("Gemm", [flat, net.weight("d.weight", 10, 32, fan_in=32)], "d", transB=1)])


def padded_shortcut() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    b = net.op("Relu", [net.conv(a, "b", (32, 16), stride=2)], "rb")
    c = net.conv(b, "c", (32, 32))
    constants = [
        net.constant(name, np.array(value, np.int64))
        for name, value in (("starts", [0]), ("ends", [2**62]), ("height", [2]), ("width", [3]), ("steps", [2]))
    ]
    starts, ends, height, width, steps = constants
    rows = net.op("Slice", [a, starts, ends, height, steps], "rows")
    half = net.op("Slice", [rows, starts, ends, width, steps], "half")
    pads = net.constant("pads", np.array([0, 8, 0, 0, 0, 8, 0, 0], np.int64))
    shortcut = net.op("Pad", [half, pads], "shortcut")
    total = net.op("Relu", [net.op("Add", [shortcut, c], "sum")], "rsum")
    return net.model([net.conv(total, "d", (8, 32))])


def squeeze_excite() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    squeezed = net.op("GlobalAveragePool", [a], "gap")
    b = net.op("Relu", [net.conv(squeezed, "b", (8, 16), kernel=1)], "rb")
    gate = net.op("Sigmoid", [net.conv(b, "c", (16, 8), kernel=1)], "gate")
    return net.model([net.conv(net.op("Mul", [a, gate], "scaled"), "d", (8, 16))])


def image_stem() -> onnx.ModelProto:
    net = Net(("batch", 3, 16, 16))
    a = net.op("Relu", [net.conv("x", "a", (16, 3), stride=2)], "ra")
    b = net.conv("x", "b", (20, 3), stride=2)
    return net.model([net.conv(net.op("Concat", [a, b], "cat", axis=1), "c", (8, 36), kernel=1)])


def narrow() -> onnx.ModelProto:
    net = Net(("batch", 3, 16, 16))
    a = net.op("Relu", [net.conv("x", "a", (8, 3), stride=2)], "ra")
    b = net.op("Relu", [net.conv(a, "b", (8, 8), group=8)], "rb")
    c = net.op("Relu", [net.conv(b, "c", (24, 8), kernel=1)], "rc")
    d = net.op("Relu", [net.conv(c, "d", (24, 24), group=24)], "rd")
    return net.model([net.conv(d, "e", (20, 24), kernel=1)])


def two_inputs() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    flat = net.op("Flatten", [net.op("GlobalAveragePool", [a], "gap")], "flat")
    net.op("Gemm", ["y", net.weight("b.weight", 16, 8, fan_in=8)], "b", transB=1)
    both = net.op("Concat", [flat, net.op("Relu", ["b"], "rb")], "both", axis=1)
    net.op("Gemm", [both, net.weight("c.weight", 10, 32, fan_in=32)], "c", transB=1)
    model = net.model(["c", "flat"])
    model.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", 8)))
    return model


def captured() -> onnx.ModelProto:
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    net.conv(a, "b", (8, 16))
    value = helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)
    branches = {
        f"{name}_branch": helper.make_graph([helper.make_node(op, ["ra"], ["chosen"])], name, [], [value])
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    largest = net.op("ReduceMax", ["x"], "largest", keepdims=0)
    flag = net.op("Greater", [largest, net.constant("never", np.array(1e6, np.float32))], "flag")
    net.nodes.append(helper.make_node("If", [flag], ["picked"], name="if", **branches))
    return net.model(["b", "picked"])


def hard_gate() -> onnx.ModelProto:
    net = Net()
    a = net.op("HardSwish", [net.conv("x", "a", (16, 16))], "ha")
    b = net.op("HardSigmoid", [net.conv(a, "b", (16, 16), kernel=1)], "hb")
    return net.model([net.conv(net.op("Mul", [a, b], "scaled"), "c", (8, 16))])


def _bias(count: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(0, 0.1, count).astype(np.float32)


TOPOLOGIES: dict[str, Callable[[], onnx.ModelProto]] = {
    build.__name__: build
    for build in (
        chain,
        residual,
        concat,
        depthwise,
        conv_transpose,
        gemm,
        sequence_matmul,
        shared_weight,
        straight_out,
        two_consumers,
        clips,
        pooling,
        padded_shortcut,
        squeeze_excite,
        image_stem,
        narrow,
        two_inputs,
        captured,
        hard_gate,
    )
}


def reference_of(name: str) -> ReferenceModel:
    return make_reference(TOPOLOGIES[name](), name)


def inputs_of(reference: ReferenceModel, samples: int = 48, seed: int = 11) -> Inputs:
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 1, (samples, *(axis or 1 for axis in shape[1:]))).astype(np.float32)
        for name, shape in reference.input_shapes.items()
    }
