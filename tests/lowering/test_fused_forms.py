"""Networks that ONNX Runtime saved after optimising them: what it fused is written as the operators it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.references import make_reference

CASES: dict[str, tuple[str, dict[str, Any], int, list[str]]] = {
    # operator, attributes, operands, what it becomes
    "conv": ("FusedConv", {"activation": "Relu", "pads": [1] * 4}, 3, ["Conv", "Relu"]),
    "conv, sum": ("FusedConv", {"activation": "Relu", "pads": [1] * 4}, 4, ["Conv", "Add", "Relu"]),
    "conv, clip": (
        "FusedConv",
        {"activation": "Clip", "activation_params": [0.1, 0.6], "pads": [1] * 4},
        2,
        ["Conv", "Clip"],
    ),
    "conv, leaky": (
        "FusedConv",
        {"activation": "LeakyRelu", "activation_params": [0.3], "pads": [1] * 4},
        3,
        ["Conv", "LeakyRelu"],
    ),
    "gemm": ("FusedGemm", {"activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.5}, 3, ["Gemm", "LeakyRelu"]),
    "matmul": ("FusedMatMul", {"alpha": 0.25, "transB": 1}, 2, ["MatMul", "Mul"]),
    "matmul, left as it is": ("FusedMatMul", {"transA": 1}, 2, ["FusedMatMul"]),
}


@pytest.mark.parametrize("case", CASES)
def test_fused_operators_are_split(case: str) -> None:
    """The normalised network has the operators that were fused, and answers as the given one."""
    op, attributes, operands, wanted = CASES[case]
    generator = np.random.default_rng(0)
    shape, weight, bias = ((4, 6, 6), (4, 4, 3, 3), (4,)) if op == "FusedConv" else ((4,), (4, 4), (4,))
    constants = {"w": weight, "b": bias}
    names = ["x", "w", "b", "x"][:operands]
    value = helper.make_tensor_value_info
    batch = 4 if "transA" in attributes else "n"
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)],
        "g",
        [value("x", TensorProto.FLOAT, (batch, *shape))],
        [value("y", TensorProto.FLOAT, (batch, *shape))],
        [
            numpy_helper.from_array(generator.normal(size=constants[name]).astype(np.float32), name)
            for name in names
            if name in constants
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    found = make_reference(model, "net").proto
    assert [node.op_type for node in found.graph.node] == wanted
    x = generator.normal(size=(4, *shape)).astype(np.float32)
    np.testing.assert_allclose(_run(found, x), _run(model, x), rtol=1e-5, atol=1e-5)


def _run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"x": x})[0]
    return found
