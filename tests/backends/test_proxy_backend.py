"""Graphs for TensorRT on ONNX Runtime's processor provider: what scores their sensitivities computes what they say."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from bitfront.backends import OrtCpuBackend
from bitfront.backends.ort.cpu import float_bias_proxy
from bitfront.core import Artifact
from tests.backends import models


def _small_scales() -> tuple[bytes, float]:
    """An FP16 linear layer whose bias over s_x·s_w is beyond FP16, and its exact result for x = 0."""
    nodes = [
        helper.make_node("Cast", ["x"], ["x_h"], to=TensorProto.FLOAT16),
        helper.make_node("QuantizeLinear", ["x_h", "s_x", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "s_x", "zero"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["w_q", "s_w"], ["w"], axis=1),
        helper.make_node("Gemm", ["x_d", "w", "bias"], ["y_h"]),
        helper.make_node("QuantizeLinear", ["y_h", "s_y", "zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "s_y", "zero"], ["y_d"]),
        helper.make_node("Cast", ["y_d"], ["y"], to=TensorProto.FLOAT),
    ]
    bias = 8.0
    constants = {
        "s_x": np.float16(2**-12),
        "zero": np.int8(0),
        "w_q": np.full((16, 16), 3, np.int8),
        "s_w": np.full(16, 2**-12, np.float16),
        "bias": np.full(16, bias, np.float16),
        "s_y": np.float16(bias / 64),
    }
    arrays = {name: np.asarray(value) for name, value in constants.items()}
    return models.build(nodes, {"x": ("n", 16)}, {"y": ("n", 16)}, arrays), bias


@pytest.mark.parametrize("samples", [1, 3])
def test_half_biases_do_not_overflow(samples: int) -> None:
    """A bias far above s_x·s_w comes through."""
    model, bias = _small_scales()
    (y,) = float_bias_proxy().compile(Artifact.onnx(model), threads=1).run({"x": np.zeros((samples, 16), np.float32)})
    models.assert_close(y, np.full((samples, 16), bias))


def test_the_fingerprint_tells_the_two_apart() -> None:
    """What is cached for the stand-in is not the plain runtime's."""
    assert float_bias_proxy().fingerprint() != OrtCpuBackend().fingerprint()
    assert float_bias_proxy().name == OrtCpuBackend().name
