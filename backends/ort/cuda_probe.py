"""Whether INT8 gains anything on a GPU under ONNX Runtime's CUDA provider: three forms of one convolution, timed.

The provider runs QuantizeLinear and DequantizeLinear as operators of their own, around a floating kernel; this is
measured rather than assumed, so that a version that fuses them gets INT8 offered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends.base import Backend
from bitfront.backends.timing import TimingSettings, time_paired
from bitfront.core import Artifact

_CHANNELS, _SIZE = 256, 28
_OPSET, _IR_VERSION = 21, 10
_SETTINGS = TimingSettings(slot_ms=5.0, min_rounds=8, max_rounds=24, max_seconds_per_model=1.0)
_NAMES = ("fp32", "fp16", "int8")


def integer_shortcoming(backend: Backend) -> str:
    """Reason for not offering INT8 on the backend; empty where it is worth offering.

    Raises:
        BackendError: If a form does not compile or run.
    """
    compiled = {name: backend.compile(Artifact.onnx(convolution(name)), threads=1) for name in _NAMES}
    x = np.random.default_rng(0).normal(size=(1, _CHANNELS, _SIZE, _SIZE)).astype(np.float32)
    stats = time_paired(compiled, "fp32", {"x": x}, _SETTINGS, threads=1, batch_size=1, clock=backend.clock)
    return verdict({name: entry.ratio for name, entry in stats.items()})


def verdict(ratios: Mapping[str, float]) -> str:
    """Reason why INT8 is unprofitable, from each form's time over FP32's; empty if it beats both floating forms."""
    best = min(ratios["fp32"], ratios["fp16"])
    if ratios["int8"] < best:
        return ""
    return (
        f"a {_CHANNELS}-channel 3×3 convolution with Q/DQ takes {ratios['int8']:.2f} × the time of FP32 here, in FP16 "
        f"{ratios['fp16']:.2f} ×: this runtime does not compute it in integers"
    )


def convolution(form: str) -> bytes:
    """Build one form of the convolution: ``fp32``, ``fp16`` with Casts around, or ``int8`` with Q/DQ around."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.03, (_CHANNELS, _CHANNELS, 3, 3)).astype(np.float32)
    window: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    constants: dict[str, NDArray[Any]] = {}
    if form == "int8":
        scale = np.float32(np.abs(weight).max() / 127)
        constants = {
            "w8": np.rint(weight / scale).astype(np.int8),
            "ws": np.full(_CHANNELS, scale, np.float32),
            "s": np.array(0.04, np.float32),
            "t": np.array(0.06, np.float32),
            "z": np.array(128, np.uint8),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
            helper.make_node("DequantizeLinear", ["w8", "ws"], ["w"], axis=0),
            helper.make_node("Conv", ["xf", "w"], ["yf"], **window),
            helper.make_node("QuantizeLinear", ["yf", "t", "z"], ["yq"]),
            helper.make_node("DequantizeLinear", ["yq", "t", "z"], ["y"]),
        ]
    elif form == "fp16":
        constants = {"w": weight.astype(np.float16)}
        nodes = [
            helper.make_node("Cast", ["x"], ["xh"], to=TensorProto.FLOAT16),
            helper.make_node("Conv", ["xh", "w"], ["yh"], **window),
            helper.make_node("Cast", ["yh"], ["y"], to=TensorProto.FLOAT),
        ]
    else:
        constants = {"w": weight}
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], **window)]
    shape = (1, _CHANNELS, _SIZE, _SIZE)
    graph = helper.make_graph(
        nodes,
        form,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
