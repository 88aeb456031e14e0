"""The small graphs that capabilities are probed with, each with its exact result; written as ONNX Runtime wants them.

Shapes: feature maps (1, 16, 8, 8), kernels (16, 16, 3, 3) with padding 1, matrices (64, 32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Artifact

_OPSET, _IR_VERSION = 21, 10
_X_SCALE, _X_ZERO = 0.02, 128
_WINDOW: Mapping[str, Any] = MappingProxyType({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
# Float32 arithmetic on a few hundred products, relative to the sum of their magnitudes.
_FLOAT_ERROR = 2e-6

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """A small graph with the result and the operators that a runtime should make of it.

    Attributes:
        name: What is probed.
        model: Its bytes; one input ``x``, one output ``y``.
        x: Input.
        expected: Output in exact arithmetic, before its own quantisation.
        tolerance: Largest absolute error that the quantisation allows.
        wanted: Operator types that must be left after the runtime's optimisation.
        unwanted: Operator types that must not.
    """

    name: str
    model: bytes
    x: NDArray[np.float32]
    expected: Floats
    tolerance: float
    wanted: frozenset[str]
    unwanted: frozenset[str]

    @property
    def artifact(self) -> Artifact:
        """The graph as what backends compile."""
        return Artifact.onnx(self.model)


def all_probes() -> Iterator[Probe]:
    """All probes, the same at each call."""
    rng = np.random.default_rng(0)
    x_codes = rng.integers(0, 256, size=(1, 16, 8, 8))
    rows = rng.integers(0, 256, size=(4, 64))
    w8, w4 = rng.integers(-127, 128, size=(16, 16, 3, 3)), rng.integers(-7, 8, size=(16, 16, 3, 3))
    matrix8, matrix4 = rng.integers(-127, 128, size=(64, 32)), rng.integers(-7, 8, size=(64, 32))
    yield _integer("int8-conv", "Conv", x_codes, w8, bits=8)
    yield _integer("int4-conv", "Conv", x_codes, w4, bits=4)
    # All integers at their ends: where sums of two products saturate at 16 bits, the result is off by half.
    yield _integer("int8-full-range", "Conv", np.full_like(x_codes, 255), np.full_like(w8, 127), bits=8, x_zero=0)
    yield _integer("int8-conv-transpose", "ConvTranspose", x_codes, w8, bits=8)
    yield _integer("int8-gemm", "Gemm", rows, matrix8, bits=8)
    yield _fp16_storage(x_codes, rng.normal(size=w8.shape))
    yield _weight_only("int8-weight-only", x_codes, w8, bits=8)
    yield _weight_only("int4-weight-only", x_codes, w4, bits=4)
    yield _matmul_blocks("int4-matmul-block", rows, matrix4, block=32)


def _integer(name: str, op: str, x_codes: Codes, w_codes: Codes, *, bits: int, x_zero: int = _X_ZERO) -> Probe:
    """Q/DQ on input, weight (per channel) and output, and a float bias."""
    axis = 0 if op == "Conv" else 1
    channels = w_codes.shape[axis]
    w_scales, bias = np.linspace(0.004, 0.012, channels), np.linspace(-0.5, 0.5, channels)
    x = _dequantised(x_codes, x_zero)
    y = _FLOAT[op](x.astype(np.float64), w_codes * _along(w_scales, axis, w_codes.ndim)) + _along(bias, 1, x.ndim)
    y_scale, y_zero = _quantiser(y)
    stored, unpack, unpacked = _stored(w_codes, bits)
    nodes = [
        _node("QuantizeLinear", ["x", "x_scale", "x_zero"], "x_quantised"),
        _node("DequantizeLinear", ["x_quantised", "x_scale", "x_zero"], "x_float"),
        *unpack,
        helper.make_node("DequantizeLinear", [unpacked, "w_scale", "w_zero"], ["w"], name="w", axis=axis),
        helper.make_node(op, ["x_float", "w", "bias"], ["y_float"], name="layer", **({} if op == "Gemm" else _WINDOW)),
        _node("QuantizeLinear", ["y_float", "y_scale", "y_zero"], "y_quantised"),
        _node("DequantizeLinear", ["y_quantised", "y_scale", "y_zero"], "y"),
    ]
    constants = {
        "x_scale": np.float32(_X_SCALE),
        "x_zero": np.uint8(x_zero),
        "w_scale": w_scales.astype(np.float32),
        "w_zero": np.zeros(channels, np.int8),
        "bias": bias.astype(np.float32),
        "y_scale": np.float32(y_scale),
        "y_zero": np.uint8(y_zero),
    }
    return Probe(
        name=name,
        model=_model(x, y, nodes, [stored, *_initialisers(constants)]),
        x=x,
        expected=y,
        # Half a step of the output, half a step of the bias that the runtime makes INT32, and a little arithmetic.
        tolerance=y_scale * 0.501 + _X_SCALE * float(w_scales.max()) / 2 + _FLOAT_ERROR * float(np.abs(y).max()),
        wanted=frozenset({"Conv": {"QLinearConv"}, "Gemm": {"QGemm"}}.get(op, set())),
        unwanted=frozenset({op, "Cast"}),
    )


def _fp16_storage(x_codes: Codes, w: Floats) -> Probe:
    """Weights stored in 16 bits, a Cast in front of the layer."""
    half = w.astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["w_half"], ["w"], name="w", to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w"], ["y"], name="layer", **_WINDOW),
    ]
    return _folded("fp16-storage", x_codes, half.astype(np.float64), nodes, _initialisers({"w_half": half}))


def _weight_only(name: str, x_codes: Codes, w_codes: Codes, *, bits: int) -> Probe:
    """Integer weights stored, Cast and Mul in front of a float layer."""
    scales = _along(np.linspace(0.004, 0.012, len(w_codes)), 0, w_codes.ndim).astype(np.float32)
    stored, _, _ = _stored(w_codes, bits)
    nodes = [
        helper.make_node("Cast", ["w_codes"], ["w_unscaled"], name="w_unscaled", to=TensorProto.FLOAT),
        _node("Mul", ["w_unscaled", "w_scale"], "w"),
        helper.make_node("Conv", ["x", "w"], ["y"], name="layer", **_WINDOW),
    ]
    w = np.asarray(w_codes * scales, dtype=np.float64)
    return _folded(name, x_codes, w, nodes, [stored, *_initialisers({"w_scale": scales})])


def _folded(
    name: str, x_codes: Codes, w: Floats, nodes: list[onnx.NodeProto], initialisers: list[TensorProto]
) -> Probe:
    x = _dequantised(x_codes, _X_ZERO)
    y = _conv(x.astype(np.float64), w)
    return Probe(
        name=name,
        model=_model(x, y, nodes, initialisers),
        x=x,
        expected=y,
        tolerance=_FLOAT_ERROR * float(_conv(np.abs(x.astype(np.float64)), np.abs(w)).max()),
        wanted=frozenset(),
        unwanted=frozenset({"Cast", "Mul", "DequantizeLinear"}),
    )


def _matmul_blocks(name: str, x_codes: Codes, w_codes: Codes, *, block: int) -> Probe:
    """4-bit weights with one scale per ``block`` rows; the runtime may compute on 8-bit activations."""
    blocks = len(w_codes) // block
    scales = np.linspace(0.05, 0.15, blocks * w_codes.shape[1]).reshape(blocks, -1).astype(np.float32)
    w = w_codes * np.repeat(scales, block, axis=0).astype(np.float64)
    x = _dequantised(x_codes, _X_ZERO)
    nodes = [
        helper.make_node("DequantizeLinear", ["w_codes", "w_scale"], ["w"], name="w", axis=0, block_size=block),
        _node("MatMul", ["x", "w"], "y"),
    ]
    y = x.astype(np.float64) @ w
    # A row's block of activations becomes 8-bit with a step of its largest value / 127.
    steps = np.repeat(np.abs(x).reshape(len(x), blocks, block).max(axis=2) / 127, block, axis=1)
    return Probe(
        name=name,
        model=_model(x, y, nodes, [_stored(w_codes, 4)[0], *_initialisers({"w_scale": scales})]),
        x=x,
        expected=y,
        tolerance=float((steps / 2 @ np.abs(w)).max()) + _FLOAT_ERROR * float((np.abs(x) @ np.abs(w)).max()),
        wanted=frozenset({"MatMulNBits"}),
        unwanted=frozenset({"MatMul", "DequantizeLinear"}),
    )


def _conv(x: Floats, w: Floats) -> Floats:
    """3×3, stride 1, padding 1: (n, in, h, w), (out, in, 3, 3) → (n, out, h, w)."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
    return np.asarray(np.einsum("nihwkl,oikl->nohw", windows, w, optimize=True), dtype=np.float64)


def _conv_transpose(x: Floats, w: Floats) -> Floats:
    """Transposed convolution, here a convolution with the kernel turned around; ``w`` is (in, out, 3, 3)."""
    return _conv(x, w[:, :, ::-1, ::-1].swapaxes(0, 1))


def _matmul(x: Floats, w: Floats) -> Floats:
    return np.asarray(x @ w, dtype=np.float64)


_FLOAT: Mapping[str, Callable[[Floats, Floats], Floats]] = MappingProxyType(
    {"Conv": _conv, "ConvTranspose": _conv_transpose, "Gemm": _matmul}
)


def _dequantised(integers: Codes, zero: int) -> NDArray[np.float32]:
    return ((integers - zero) * _X_SCALE).astype(np.float32)


def _along(values: Floats, axis: int, ndim: int) -> Floats:
    return values.reshape([-1 if index == axis else 1 for index in range(ndim)])


def _quantiser(y: Floats) -> tuple[float, int]:
    """Scale and U8 zero point that cover ``y`` and 0 without clipping."""
    low, high = min(0.0, float(y.min())), max(0.0, float(y.max()))
    zero = round(255 * -low / (high - low))
    return max(high / max(255 - zero, 1), -low / max(zero, 1)), zero


def _stored(integers: Codes, bits: int) -> tuple[TensorProto, list[onnx.NodeProto], str]:
    """The initialiser ``w_codes``; nodes that make it INT8, which fold at load; the INT8 tensor's name."""
    if bits == 8:
        return numpy_helper.from_array(integers.astype(np.int8), "w_codes"), [], "w_codes"
    cast = helper.make_node("Cast", ["w_codes"], ["w_int8"], name="w_int8", to=TensorProto.INT8)
    return numpy_helper.from_array(integers.astype(ml_dtypes.int4), "w_codes"), [cast], "w_int8"


def _initialisers(constants: Mapping[str, Any]) -> list[TensorProto]:
    return [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]


def _node(op: str, inputs: list[str], output: str) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=output)


def _model(x: NDArray[np.float32], y: Floats, nodes: list[onnx.NodeProto], initialisers: list[TensorProto]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y.shape)],
        initialisers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())
