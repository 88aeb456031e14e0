"""BF16 inputs and outputs on ONNX Runtime, which its Python arrays cannot hold."""

from __future__ import annotations

import time

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends import get_backend
from bitfront.backends.ort.interpreter import OrtInterpreter
from bitfront.core import Artifact, BackendError, CalibrationSettings, ContentStore
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import uniform
from tests.references import make_reference

BF16 = TensorProto.BFLOAT16
WEIGHT = np.random.default_rng(0).standard_normal((8, 4)).astype(ml_dtypes.bfloat16)
X = np.random.default_rng(1).standard_normal((6, 8)).astype(np.float32)


def _network() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", BF16, ["n", 8])],
        [helper.make_tensor_value_info("y", BF16, ["n", 4])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _lowerer() -> Lowerer:
    reference = make_reference(_network(), "net")
    assert reference.input_types == {"x": "float32"}
    return Lowerer(reference, get_dialect("ort-cpu"), {"x": X}, CalibrationSettings(), ContentStore(None))


def _expected() -> NDArray[np.float32]:
    product: NDArray[np.float32] = X.astype(ml_dtypes.bfloat16).astype(np.float32) @ WEIGHT.astype(np.float32)
    return product.astype(ml_dtypes.bfloat16).astype(np.float32)


@pytest.mark.parametrize("text", ["fp32", "int8:mse"])
def test_a_network_in_bf16_is_lowered_and_run(text: str) -> None:
    """Inputs and outputs stay BF16 in the file; float32 goes in, is rounded, and comes out."""
    lowerer = _lowerer()
    written = lowerer.lower(uniform(lowerer, text))
    graph = onnx.load_from_string(written.data).graph
    assert {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)} == {BF16}
    compiled = get_backend("ort-cpu").compile(written, threads=1)
    (found,) = compiled.run({"x": X})
    assert found.dtype == np.float32
    assert np.abs(np.asarray(found, np.float32) - _expected()).max() <= (0.0 if text == "fp32" else 0.1)
    times = compiled.timer({"x": X}, time.perf_counter_ns)(3)
    assert times.shape == (3,)
    assert (times > 0).all()
    assert compiled.profile({"x": X})


def test_wrong_inputs_are_named() -> None:
    """A wrong shape or type is said as of any other input."""
    lowerer = _lowerer()
    compiled = get_backend("ort-cpu").compile(lowerer.lower(uniform(lowerer, "fp32")), threads=1)
    with pytest.raises(BackendError, match="input 'x': expected shape"):
        compiled.run({"x": X[:, :3]})
    with pytest.raises(BackendError, match="expected type float32"):
        compiled.timer({"x": X.astype(np.float64)}, time.perf_counter_ns)


def test_the_interpreter_keeps_the_type() -> None:
    """What is folded stays BF16."""
    model = _network()
    model.graph.node[0].op_type = "Identity"
    del model.graph.node[0].input[1:], model.graph.initializer[:]
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 8
    (found,) = OrtInterpreter().load(model, optimised=False).run({"x": X})
    assert found.dtype == ml_dtypes.bfloat16
    assert np.array_equal(found, X.astype(ml_dtypes.bfloat16))


def test_what_the_runtime_lacks_is_named() -> None:
    """The processor provider has no MatMul in BF16."""
    with pytest.raises(BackendError, match=r"MatMul.*product"):
        get_backend("ort-cpu").compile(Artifact.onnx(_network().SerializeToString()), threads=1)
