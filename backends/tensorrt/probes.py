"""Small graphs that probe what TensorRT does, in its dialect: symmetric quantisers, floating biases, one type a region.

Every constant and every sum is exact in FP16, so that a right result is right to the last digit whatever a kernel sums
up in; inputs lie off the quantiser's grid and partly beyond its range, so that a runtime that leaves a quantiser out
is seen. Shapes: feature maps (1, 16, 8, 8), kernels (16, 16, 3, 3) with padding 1, matrices (16, 128) · (128, 64).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends.base import ExecutedLayer
from bitfront.backends.probe_graphs import Probe

LAYER = "layer"
"""Name of the node that is probed."""
_OPSET, _IR_VERSION = 21, 10
_WINDOW: Mapping[str, Any] = MappingProxyType({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})
_X_SCALE = 2.0**-4
# Off the grid by less than half a step.
_OFF_GRID = 0.3
# An FP16 result is off by half a unit in its last place; a Winograd transform loses a little more.
_RELATIVE_ERROR = 2.0**-8
# INT4 is how weights are stored, not what a product runs in.
_COMPUTED_IN = ("fp16", "int8")

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def tensorrt_probes() -> tuple[Probe, ...]:
    """All probes, the same at each call."""
    rng = np.random.default_rng(0)
    x, rows = rng.integers(-20, 21, size=(1, 16, 8, 8)), rng.integers(-20, 21, size=(16, 128))
    # Beyond the range on either side: these are clipped.
    x[0, 0, 0, :2] = rows[0, :2] = 200, -200
    w, matrix = rng.integers(-2, 3, size=(16, 16, 3, 3)), rng.integers(-2, 3, size=(128, 64))
    # Exact for runtimes too that compute INT4 products on activations of 8 bits (ONNX Runtime on processors).
    signs, matrix4 = np.sign(rows), rng.integers(-7, 8, size=(128, 64))
    return (
        _float("fp16-conv", "Conv", x // 8, w),
        _float("fp16-matmul", "MatMul", rows // 8, matrix),
        _integer("int8-conv", "Conv", x, w, np.float32),
        _integer("int8-conv-half", "Conv", x, w, np.float16),
        _integer("int8-conv-transpose", "ConvTranspose", x, w, np.float32),
        _integer("int8-gemm", "Gemm", rows, matrix, np.float32),
        _integer("int8-matmul", "MatMul", rows, matrix, np.float32),
        _blocks("int4-matmul-block64", signs, matrix4, 64, np.float32),
        _blocks("int4-matmul-block128", signs, matrix4, 128, np.float32),
        _blocks("int4-matmul-half", signs, matrix4, 64, np.float16),
    )


def wrong_precision(name: str, layers: tuple[ExecutedLayer, ...]) -> str:
    """Precision that the probed layer runs in, if not the one it is written in; empty where right or not told.

    Args:
        name: The probe's.
        layers: What the engine of the probe runs.
    """
    wanted = name.split("-")[0]
    found = {layer.precision for layer in layers if LAYER in layer.nodes and layer.precision}
    if wanted not in _COMPUTED_IN or not found or wanted in found:
        return ""
    return f"correct but not run in {wanted}: runs in {', '.join(sorted(found))}"


def _float(name: str, op: str, x: Codes, w: Codes) -> Probe:
    """FP16 weights and bias between Casts."""
    values: dict[str, NDArray[Any]] = {"w": w.astype(np.float16)}
    nodes = [_cast("x", "x_half", TensorProto.FLOAT16), _layer(op, "x_half", "y_half", values, np.float16)]
    y = _exact(op, x.astype(np.float64), w.astype(np.float64), values)
    return _probe(name, x.astype(np.float32), y, [*nodes, _cast("y_half", "y", TensorProto.FLOAT)], values)


def _integer(name: str, op: str, x: Codes, w: Codes, dtype: type[np.floating]) -> Probe:
    """Q/DQ on the input, a dequantised INT8 weight with a scale per output channel."""
    axis = 0 if op == "Conv" else 1
    scales = 2.0 ** -(2 + np.arange(w.shape[axis]) % 3)
    real = ((x + np.where(x < 0, -_OFF_GRID, _OFF_GRID)) * _X_SCALE).astype(np.float32)
    values: dict[str, NDArray[Any]] = {
        "x_scale": np.asarray(_X_SCALE, dtype),
        "x_zero": np.asarray(0, np.int8),
        "w_codes": w.astype(np.int8),
        "w_scale": scales.astype(dtype),
        "w_zero": np.zeros(len(scales), np.int8),
    }
    half = dtype is np.float16
    source, result = ("x_half", "y_half") if half else ("x", "y")
    nodes = [
        helper.make_node("QuantizeLinear", [source, "x_scale", "x_zero"], ["x_codes"], name="x_codes"),
        helper.make_node("DequantizeLinear", ["x_codes", "x_scale", "x_zero"], ["x_float"], name="x_float"),
        helper.make_node("DequantizeLinear", ["w_codes", "w_scale", "w_zero"], ["w"], name="w", axis=axis),
        _layer(op, "x_float", result, values, dtype),
    ]
    if half:
        nodes = [_cast("x", source, TensorProto.FLOAT16), *nodes, _cast(result, "y", TensorProto.FLOAT)]
    along = scales.reshape([-1 if index == axis else 1 for index in range(w.ndim)])
    clipped = np.asarray(np.clip(x, -128, 127) * _X_SCALE, dtype=np.float64)
    return _probe(name, real, _exact(op, clipped, w * along, values), nodes, values)


def _blocks(name: str, x: Codes, w: Codes, block: int, dtype: type[np.floating]) -> Probe:
    """INT4 weights with one scale per ``block`` rows, which decides the type that the product runs in."""
    scales = 2.0 ** -(1 + np.arange(len(w) // block * w.shape[1]).reshape(-1, w.shape[1]) % 3)
    values: dict[str, NDArray[Any]] = {"w_codes": w.astype(ml_dtypes.int4), "w_scale": scales.astype(dtype)}
    half = dtype is np.float16
    source, result = ("x_half", "y_half") if half else ("x", "y")
    nodes = [
        helper.make_node("DequantizeLinear", ["w_codes", "w_scale"], ["w"], name="w", axis=0, block_size=block),
        helper.make_node("MatMul", [source, "w"], [result], name=LAYER),
    ]
    if half:
        nodes = [_cast("x", source, TensorProto.FLOAT16), *nodes, _cast(result, "y", TensorProto.FLOAT)]
    y = x.astype(np.float64) @ (w * np.repeat(scales, block, axis=0))
    return _probe(name, x.astype(np.float32), y, nodes, values)


def _layer(op: str, x: str, y: str, values: dict[str, NDArray[Any]], dtype: type[np.floating]) -> onnx.NodeProto:
    """The node, with a bias where its operator takes one; the bias joins ``values``."""
    inputs = [x, "w"]
    if op != "MatMul":
        weight = values["w_codes"] if "w_codes" in values else values["w"]
        channels = weight.shape[0 if op == "Conv" else 1]
        values["bias"] = (np.arange(channels) % 5 - 2).astype(dtype)
        inputs.append("bias")
    return helper.make_node(op, inputs, [y], name=LAYER, **(_WINDOW if op.startswith("Conv") else {}))


def _exact(op: str, x: Floats, w: Floats, values: Mapping[str, NDArray[Any]]) -> Floats:
    if op in ("Gemm", "MatMul"):
        y = x @ w
    else:
        # At stride 1 and this padding a transposed convolution is one with the kernel turned around.
        kernel = w if op == "Conv" else w[:, :, ::-1, ::-1].swapaxes(0, 1)
        windows = sliding_window_view(np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), axis=(2, 3))
        y = np.einsum("nihwkl,oikl->nohw", windows, kernel, optimize=True)
    if "bias" in values:
        y = y + values["bias"].astype(np.float64).reshape(1, -1, *(1,) * (y.ndim - 2))
    return np.asarray(y, dtype=np.float64)


def _cast(x: str, y: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [x], [y], name=y, to=to)


def _probe(
    name: str, x: NDArray[np.float32], y: Floats, nodes: list[onnx.NodeProto], values: Mapping[str, NDArray[Any]]
) -> Probe:
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y.shape)],
        [numpy_helper.from_array(value, key) for key, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    return Probe(
        name=name,
        model=bytes(model.SerializeToString()),
        x=x,
        expected=y,
        tolerance=_RELATIVE_ERROR * float(np.abs(y).max()),
        wanted=frozenset(),
        unwanted=frozenset(),
    )
