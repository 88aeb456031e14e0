"""ONNX operators as torch functions compute what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import LoweringError
from bitfront.passes.qat_network import ArtifactNetwork
from tests.lowering.candidates import lowerer_of
from tests.lowering.topologies import TOPOLOGIES, inputs_of
from tests.passes.qat_nets import ran, simulated

Constants = list[NDArray[Any]]


def ints(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def floats(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).uniform(0.5, 1.5, shape).astype(np.float32)


# Operator → constant operands behind x (2, 4, 6, 6), attributes, number of results.
CASES: dict[str, tuple[str, Constants, dict[str, Any], int]] = {
    "conv-unequal-pads": ("Conv", [floats(4, 2, 3, 3)], {"group": 2, "pads": [0, 1, 2, 1]}, 1),
    "conv-transpose": ("ConvTranspose", [floats(4, 3, 2, 2), floats(3)], {"strides": [2, 2]}, 1),
    "max-pool-unequal-pads": ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, 1),
    "average-pool": ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 1),
    "average-pool-counts-pads": (
        "AveragePool",
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        1,
    ),
    "reduce-mean": ("ReduceMean", [ints(1, 3)], {"keepdims": 0}, 1),
    "reshape": ("Reshape", [ints(0, -1, 12)], {}, 1),
    "flatten": ("Flatten", [], {"axis": 2}, 1),
    "transpose": ("Transpose", [], {"perm": [0, 2, 3, 1]}, 1),
    "unsqueeze": ("Unsqueeze", [ints(0, -1)], {}, 1),
    "slice-backwards": ("Slice", [ints(-1), ints(-(2**62)), ints(2), ints(-2)], {}, 1),
    "slice": ("Slice", [ints(1, 0), ints(2**62, 5), ints(1, 3), ints(1, 2)], {}, 1),
    "pad-reflect": ("Pad", [ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}, 1),
    "pad-value": ("Pad", [ints(0, 1, 0, 2, 0, 0, 2, 1), np.array(0.5, np.float32)], {}, 1),
    "gather": ("Gather", [np.array([[0, -1], [2, 1]], np.int64)], {"axis": 1}, 1),
    "split": ("Split", [ints(1, 3)], {"axis": 1}, 2),
    "softmax": ("Softmax", [], {"axis": 1}, 1),
    "layer-norm": ("LayerNormalization", [floats(6), floats(6)], {"axis": -1}, 1),
    "batch-norm": ("BatchNormalization", [floats(4), floats(4), floats(4), floats(4)], {}, 1),
    "leaky-relu": ("LeakyRelu", [], {"alpha": 0.2}, 1),
    "hard-sigmoid": ("HardSigmoid", [], {"alpha": 0.3}, 1),
    "gelu": ("Gelu", [], {"approximate": "tanh"}, 1),
    "erf": ("Erf", [], {}, 1),
    "clip-above": ("Clip", [np.array(-0.5, np.float32), np.array(0.5, np.float32)], {}, 1),
    "cast": ("Cast", [], {"to": TensorProto.DOUBLE}, 1),
    "div": ("Div", [floats(4, 1, 1)], {}, 1),
}


def model_of(op: str, constants: Constants, attributes: dict[str, Any], results: int) -> onnx.ModelProto:
    names = [f"c{index}" for index in range(len(constants))]
    outputs = [f"y{index}" for index in range(results)]
    kind = attributes["to"] if op == "Cast" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], outputs, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 4, 6, 6))],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(array, name) for array, name in zip(constants, names, strict=True)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("case", CASES)
def test_operator(case: str) -> None:
    """One operator in one form gives the runtime's result."""
    model = model_of(*CASES[case])
    inputs = {"x": np.random.default_rng(0).normal(size=(2, 4, 6, 6)).astype(np.float32)}
    found = simulated(ArtifactNetwork(model, {}, ()), inputs)
    for expected, actual in zip(ran(model.SerializeToString(), inputs), found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(TOPOLOGIES) - {"captured"}))
def test_reference(name: str) -> None:
    """A whole reference network gives the runtime's outputs."""
    reference = lowerer_of(name).reference
    inputs = inputs_of(reference, samples=4)
    found = simulated(ArtifactNetwork(reference.proto, {}, ()), inputs)
    for expected, actual in zip(ran(reference.proto.SerializeToString(), inputs), found, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "constants", "attributes", "message"),
    [
        ("Mod", [floats(1)], {"fmod": 1}, "operator Mod .* is not handled"),
        ("Conv", [floats(4, 4, 3, 3)], {"auto_pad": "SAME_UPPER"}, "operator Conv .* has auto_pad"),
        ("Pad", [ints(0, 1, 0, 1)], {"mode": "wrap"}, "operator Pad .* has mode wrap"),
    ],
)
def test_what_is_not_handled_is_named(op: str, constants: Constants, attributes: dict[str, Any], message: str) -> None:
    """An operator, or a form of one, that training does not know is refused by name."""
    with pytest.raises(LoweringError, match=message):
        simulated(ArtifactNetwork(model_of(op, constants, attributes, 1), {}, ()), {"x": floats(2, 4, 6, 6)})
