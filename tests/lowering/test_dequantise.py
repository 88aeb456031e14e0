"""Networks that are quantised already: their layers in floating point answer as the integers do, and are searched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

import bitfront.lowering.dequantised_operators as operators
from bitfront.core import Array
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.output_difference import sqnr_db
from bitfront.lowering.reference import ReferenceModel
from tests.references import INTERPRETER, make_reference

FLOAT = TensorProto.FLOAT


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _float(nodes: list[onnx.NodeProto], weights: Mapping[str, Any], shape: tuple[int, ...]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ("n", *shape))],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _images() -> onnx.ModelProto:
    """Convolutions, a Relu that quantisers swallow, a residual sum, a pool, a Gemm."""
    weights = {
        "a.weight": _normal(8, 3, 3, 3) / 5,
        "a.bias": _normal(8, seed=1),
        "b.weight": _normal(8, 8, 3, 3, seed=2) / 8,
        "b.bias": _normal(8, seed=3),
        "fc.weight": _normal(5, 8, seed=4),
        "fc.bias": _normal(5, seed=5),
    }
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["c1"], "a", pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu"),
        helper.make_node("Conv", ["r1", "b.weight", "b.bias"], ["c2"], "b", pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Add", ["c2", "r1"], ["s"], "sum"),
        helper.make_node("MaxPool", ["s"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"], "mean"),
        helper.make_node("Flatten", ["p"], ["f"], "flat"),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
    ]
    return _float(nodes, weights, (3, 8, 8))


def _words() -> onnx.ModelProto:
    """MatMul with a bias behind it, a product of two activations, an LSTM."""
    weights = {
        "up.weight": _normal(16, 16) / 4,
        "up.bias": _normal(16, seed=1),
        "w": _normal(1, 32, 16, seed=2) / 4,
        "r": _normal(1, 32, 8, seed=3) / 4,
        "bias": _normal(1, 64, seed=4) / 4,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "up.weight"], ["m"], "up"),
        helper.make_node("Add", ["m", "up.bias"], ["a"], "add"),
        helper.make_node("Transpose", ["a"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t"], ["s"], "scores"),
        helper.make_node("Softmax", ["s"], ["p"], "soft"),
        helper.make_node("MatMul", ["p", "a"], ["v"], "mixed"),
        helper.make_node("Transpose", ["v"], ["seq"], "first", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["seq", "w", "r", "bias"], ["", "y"], "rnn", hidden_size=8),
    ]
    return _float(nodes, weights, (6, 16))


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, *shape: int) -> None:
        self._feeds = iter([{"x": _normal(4, *shape, seed=seed)} for seed in range(8)])

    def get_next(self) -> Mapping[str, Any] | None:
        return next(self._feeds, None)


def _static(layout: QuantFormat, **options: Any) -> Callable[[Path], onnx.ModelProto]:
    def make(folder: Path) -> onnx.ModelProto:
        onnx.save(_images(), folder / "float.onnx")
        quantize_static(folder / "float.onnx", folder / "net.onnx", _Reader(3, 8, 8), quant_format=layout, **options)
        return onnx.load(folder / "net.onnx")

    return make


def _dynamic(build: Callable[[], onnx.ModelProto], **options: Any) -> Callable[[Path], onnx.ModelProto]:
    def make(folder: Path) -> onnx.ModelProto:
        onnx.save(build(), folder / "float.onnx")
        operators = ["MatMul", "LSTM", "Conv", "Gemm"]
        quantize_dynamic(folder / "float.onnx", folder / "net.onnx", op_types_to_quantize=operators, **options)
        return onnx.load(folder / "net.onnx")

    return make


def _fused(build: Callable[[], onnx.ModelProto]) -> Callable[[Path], onnx.ModelProto]:
    """What ONNX Runtime makes of a dynamically quantised network: DynamicQuantizeMatMul, MatMulIntegerToFloat."""

    def make(folder: Path) -> onnx.ModelProto:
        _dynamic(build)(folder)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "fused.onnx")
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(folder / "net.onnx"), options, providers=["CPUExecutionProvider"])
        return onnx.load(folder / "fused.onnx")

    return make


def _blocks(level: int, symmetric: bool) -> Callable[[Path], onnx.ModelProto]:
    def make(_: Path) -> onnx.ModelProto:
        quantiser = MatMulNBitsQuantizer(
            _words(), block_size=16, is_symmetric=symmetric, accuracy_level=level, nodes_to_exclude=["scores", "mixed"]
        )
        quantiser.process()
        return cast(onnx.ModelProto, quantiser.model.model)

    return make


NETWORKS: dict[str, tuple[Callable[[Path], onnx.ModelProto], tuple[int, ...], int]] = {
    # how it is made, shape of a sample, layers
    "static Q/DQ": (_static(QuantFormat.QDQ), (3, 8, 8), 3),
    "static Q/DQ, a scale a channel": (_static(QuantFormat.QDQ, per_channel=True), (3, 8, 8), 3),
    "static Q/DQ of 8 signed bits": (
        _static(QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8),
        (3, 8, 8),
        3,
    ),
    "static QLinear": (_static(QuantFormat.QOperator), (3, 8, 8), 3),
    "static QLinear, a scale a channel": (_static(QuantFormat.QOperator, per_channel=True), (3, 8, 8), 3),
    "dynamic Conv": (_dynamic(_images, weight_type=QuantType.QUInt8), (3, 8, 8), 3),
    "dynamic MatMul and LSTM": (_dynamic(_words), (6, 16), 1),
    "dynamic, a scale a channel": (_dynamic(_words, per_channel=True), (6, 16), 1),
    "dynamic, fused": (_fused(_words), (6, 16), 1),
    "blocks of 4 bits": (_blocks(0, True), (6, 16), 1),
    "blocks of 4 bits with zero points": (_blocks(0, False), (6, 16), 1),
    "blocks of 4 bits on 8-bit activations": (_blocks(4, True), (6, 16), 1),
}


def _given(model: onnx.ModelProto) -> ReferenceModel:
    return replace(make_reference(model, "net"), given=model)


@pytest.mark.parametrize("name", NETWORKS)
def test_quantised_layers_are_searched(name: str, tmp_path: Path) -> None:
    """Every layer is found, no integer operator is left, and answers are the given ones but for their quantisation."""
    make, shape, layers = NETWORKS[name]
    model = make(tmp_path)
    found = equivalent_to_given(_given(model), {"x": _normal(4, *shape, seed=50)})
    assert found.skipped_steps == ()
    quantisable = collect_layers(found.proto, get_dialect("ort-cpu"))
    assert len([layer for layer in quantisable.layers if layer.op != "LSTM"]) == layers
    operators = {node.op_type for node in found.proto.graph.node}
    assert not [op for op in operators if "Quantize" in op or "Integer" in op or op.startswith("Q") or "NBits" in op]
    feeds = {"x": _normal(4, *shape, seed=60)}
    wanted = INTERPRETER.load(model, optimised=False).run(feeds)[0]
    exact = found.applied_steps == ("quantised-weights",)
    assert sqnr_db(wanted, INTERPRETER.load(found.proto).run(feeds)[0]) > (100 if exact else 20)
    assert bool(found.notices) != exact


def test_wrong_floating_forms_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A floating form that answers otherwise than quantisation explains is not taken; the layers stay as given."""
    model = _static(QuantFormat.QOperator)(tmp_path)
    right = operators._linear_conv

    def wrong(node: onnx.NodeProto, forms: Any) -> bool:
        right(node, forms)
        value = forms.floats[node.output[0]]
        forms.floats[node.output[0]] = forms.node("Add", [value, value], forms.fresh("twice"))
        return False

    monkeypatch.setitem(operators.RULES, ("", "QLinearConv"), wrong)
    found = equivalent_to_given(_given(model), {"x": _normal(4, 3, 8, 8)})
    assert found.skipped_steps == ("quantised-arithmetic",)
    assert "its quantised layers stay as they are: in floating point output 'y' differs by" in found.notices[-1]
    assert "where its own quantisation explains" in found.notices[-1]
    assert "QLinearConv" in {node.op_type for node in found.proto.graph.node}


def test_files_stay_small() -> None:
    """A table and a weight given in 8 bits are written in 8 bits where the layer stays in FP32."""
    codes = np.random.default_rng(0).integers(-127, 127, (64, 32)).astype(np.int8)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["q"], "look"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["e"], "dq"),
        helper.make_node("DequantizeLinear", ["codes", "ss", "zz"], ["w"], "dqw", axis=1),
        helper.make_node("MatMul", ["e", "w"], ["y"], "fc"),
    ]
    constants: dict[str, Array] = {
        "table": codes,
        "s": np.array(0.1, np.float32),
        "z": np.array(3, np.int8),
        "codes": codes[:32],
        "ss": np.linspace(0.1, 1, 32).astype(np.float32),
        "zz": np.zeros(32, np.int8),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ("n", 3))],
        [helper.make_tensor_value_info("y", FLOAT, ("n", 3, 32))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    found = equivalent_to_given(_given(model), {"ids": np.arange(24).reshape(8, 3)})
    assert (found.skipped_steps, found.applied_steps) == ((), ("quantised-weights",))
    layers = collect_layers(found.proto, get_dialect("ort-cpu")).layers
    assert [(layer.op, layer.weight_shape) for layer in layers] == [("Gather", (64, 32)), ("MatMul", (32, 32))]
    assert set(found.sources) == {layer.weight for layer in layers}


_TWICE = [helper.make_node("DequantizeLinear", ["m", scale], [to]) for scale, to in (("s", "a"), ("t", "b"))]
_READS = {
    "looked up": [helper.make_node("Gather", ["q", "i"], ["m"]), *_TWICE],
    "cut out": [
        helper.make_node("ReduceMax", ["i"], ["largest"], keepdims=1),
        helper.make_node("Add", ["largest", "one"], ["end"]),
        helper.make_node("Slice", ["q", "zero", "end", "zero"], ["m"]),
        *_TWICE,
    ],
    "along two axes": [helper.make_node("DequantizeLinear", ["q", "v"], [to], axis=k) for k, to in enumerate("ab")],
}


@pytest.mark.parametrize("way", _READS)
def test_integers_with_two_scales(way: str) -> None:
    """Integers that are read in two scales, or along two axes, have two floating forms."""
    weights = {
        "q": np.random.default_rng(0).integers(-99, 99, (8, 8)).astype(np.int8),
        "s": np.float32(0.01),
        "t": np.float32(0.07),
        "v": np.linspace(0.01, 0.08, 8, dtype=np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
    }
    nodes = [*_READS[way], helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Add", ["c", "x"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, (8, 8)),
            helper.make_tensor_value_info("i", TensorProto.INT64, (8,)),
        ],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    feeds: dict[str, Array] = {"x": _normal(8, 8), "i": np.arange(8)[::-1].copy()}
    found = equivalent_to_given(_given(model), feeds)
    assert (found.skipped_steps, found.notices) == ((), ())
    assert "DequantizeLinear" not in {node.op_type for node in found.proto.graph.node}
    (wanted,), (got,) = (INTERPRETER.load(each).run(feeds) for each in (model, found.proto))
    assert sqnr_db(wanted, got) > 90
