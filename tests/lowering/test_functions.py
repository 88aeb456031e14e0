"""Functions of a model are searched like the operators they stand for, and mean what ONNX Runtime makes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.graph import constants_of
from bitfront.lowering.reference import ReferenceModel
from tests.references import load_reference

DOMAIN = "mine"
OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
IMAGES = ("n", 8, 6, 6)
NORMAL = np.random.default_rng(0).normal


def weight(*shape: int) -> np.ndarray:
    return NORMAL(size=shape).astype(np.float32)


def call(name: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(name, inputs, [output], domain=DOMAIN, **attributes)


def constant(name: str, value: np.ndarray) -> NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def referring(node: NodeProto, kind: AttributeProto.AttributeType, **references: str) -> NodeProto:
    """The node, with attributes that are its function's: own name → the function's."""
    for name, reference in references.items():
        node.attribute.add(name=name, ref_attr_name=reference, type=kind)
    return node


def function(name: str, inputs: Sequence[str], nodes: Sequence[NodeProto], **more: Any) -> FunctionProto:
    """A function whose result is ``out``."""
    return helper.make_function(DOMAIN, name, inputs, ["out"], nodes, more.pop("opsets", OPSETS), **more)


def model(
    nodes: Sequence[NodeProto],
    weights: dict[str, np.ndarray],
    functions: Sequence[FunctionProto],
    shape: Sequence[int | str] = ("n", 8),
    answer: Sequence[int | str] | None = None,
) -> onnx.ModelProto:
    """From ``x`` to ``y``."""
    value = helper.make_tensor_value_info
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    ends = [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, answer)]
    graph = helper.make_graph(nodes, "g", *ends, constants)
    return helper.make_model(graph, functions=functions, opset_imports=OPSETS, ir_version=10)


LINEAR = function("Linear", ["a", "w"], [helper.make_node("MatMul", ["a", "w"], ["out"])])
CONV_NODE = helper.make_node("Conv", ["a", "w"], ["out"], pads=[1] * 4)
GROUPED = referring(CONV_NODE, AttributeProto.INT, group="groups")
CONV = function("Grouped", ["a", "w"], [GROUPED], attributes=["groups"])
DEFAULT = function("Grouped", ["a", "w"], [GROUPED], attribute_protos=[helper.make_attribute("groups", 2)])


def _passed() -> onnx.ModelProto:
    nodes = [call("Linear", ["x", "w"], "h"), call("Linear", ["h", "v"], "y")]
    return model(nodes, {"w": weight(8, 8), "v": weight(8, 4)}, [LINEAR])


def _held() -> onnx.ModelProto:
    held = function("Held", ["a"], [constant("w", weight(8, 8)), helper.make_node("MatMul", ["a", "w"], ["out"])])
    return model([call("Held", ["x"], "y")], {}, [held])


def _nested() -> onnx.ModelProto:
    outer = function("Outer", ["a", "w"], [call("Linear", ["a", "w"], "h"), helper.make_node("Relu", ["h"], ["out"])])
    return model([call("Outer", ["x", "w"], "y")], {"w": weight(8, 8)}, [outer, LINEAR])


def _attribute() -> onnx.ModelProto:
    return model([call("Grouped", ["x", "w"], "y", groups=2)], {"w": weight(8, 4, 3, 3)}, [CONV], IMAGES)


def _passed_on() -> onnx.ModelProto:
    inner = referring(call("Grouped", ["a", "w"], "out"), AttributeProto.INT, groups="parts")
    outer = function("Outer", ["a", "w"], [inner], attributes=["parts"])
    return model([call("Outer", ["x", "w"], "y", parts=2)], {"w": weight(8, 4, 3, 3)}, [outer, CONV], IMAGES)


def _default() -> onnx.ModelProto:
    return model([call("Grouped", ["x", "w"], "y")], {"w": weight(8, 4, 3, 3)}, [DEFAULT], IMAGES)


def _default_in_a_function() -> onnx.ModelProto:
    outer = function("Outer", ["a", "w"], [call("Grouped", ["a", "w"], "out")])
    return model([call("Outer", ["x", "w"], "y")], {"w": weight(8, 4, 3, 3)}, [outer, DEFAULT], IMAGES)


def _not_the_default() -> onnx.ModelProto:
    return model([call("Grouped", ["x", "w"], "y", groups=4)], {"w": weight(8, 2, 3, 3)}, [DEFAULT], IMAGES)


def _tensor_attribute() -> onnx.ModelProto:
    held = referring(helper.make_node("Constant", [], ["w"]), AttributeProto.TENSOR, value="weight")
    nodes = [held, helper.make_node("MatMul", ["a", "w"], ["out"])]
    own = function("Own", ["a"], nodes, attributes=["weight"])
    calls = [call("Own", [a], b, weight=numpy_helper.from_array(weight(8, 8))) for a, b in (("x", "h"), ("h", "y"))]
    return model(calls, {}, [own])


def _operators_name() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["a", "w"], ["h"]), helper.make_node("Relu", ["h"], ["out"])]
    return model([call("MatMul", ["x", "w"], "y")], {"w": weight(8, 8)}, [function("MatMul", ["a", "w"], nodes)])


def _operator_again() -> onnx.ModelProto:
    """A function of a standard operator's very name: ONNX Runtime has the operator."""
    nodes = [helper.make_node("Gemm", ["a", "w"], ["h"]), helper.make_node("Relu", ["h"], ["out"])]
    own = helper.make_function("", "MatMul", ["a", "w"], ["out"], nodes, OPSETS)
    return model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": weight(8, 8)}, [own])


def _older_opset() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["a", "w"], ["out"])]
    older = function("Linear", ["a", "w"], nodes, opsets=[helper.make_opsetid("", 17)])
    return model([call("Linear", ["x", "w"], "y")], {"w": weight(8, 8)}, [older])


def _further_domain() -> onnx.ModelProto:
    """Only the function imports the domain, and the shape of the output is told nowhere."""
    microsoft = "com.microsoft"
    nodes = [helper.make_node("MatMul", ["a", "w"], ["h"]), helper.make_node("Gelu", ["h"], ["out"], domain=microsoft)]
    own = function("Linear", ["a", "w"], nodes, opsets=[*OPSETS, helper.make_opsetid(microsoft, 1)])
    return model([call("Linear", ["x", "w"], "y")], {"w": weight(8, 8)}, [own])


def _overloads() -> onnx.ModelProto:
    plain = helper.make_node("MatMul", ["a", "w"], ["out"])
    turned = [helper.make_node("Neg", ["a"], ["h"]), helper.make_node("Gemm", ["h", "w"], ["out"])]
    both = [function("F", ["a", "w"], [plain], overload="one"), function("F", ["a", "w"], turned, overload="two")]
    nodes = [call("F", ["x", "w"], "h", overload="one"), call("F", ["h", "v"], "y", overload="two")]
    return model(nodes, {"w": weight(8, 8), "v": weight(8, 8)}, both)


SQUARE = ("MatMul", (8, 8), 1)
CASES: list[tuple[Callable[[], onnx.ModelProto], list[tuple[str, tuple[int, ...], int]]]] = [
    (_passed, [SQUARE, ("MatMul", (8, 4), 1)]),
    (_held, [SQUARE]),
    (_nested, [SQUARE]),
    (_attribute, [("Conv", (8, 4, 3, 3), 2)]),
    (_passed_on, [("Conv", (8, 4, 3, 3), 2)]),
    (_default, [("Conv", (8, 4, 3, 3), 2)]),
    (_default_in_a_function, [("Conv", (8, 4, 3, 3), 2)]),
    (_not_the_default, [("Conv", (8, 2, 3, 3), 4)]),
    (_tensor_attribute, [SQUARE, SQUARE]),
    (_operators_name, [SQUARE]),
    (_operator_again, [SQUARE]),
    (_older_opset, [SQUARE]),
    (_further_domain, [SQUARE]),
    (_overloads, [SQUARE, ("Gemm", (8, 8), 1)]),
]


@pytest.mark.parametrize(("made", "layers"), CASES, ids=[made.__name__.strip("_") for made, _ in CASES])
def test_layers_of_functions(
    made: Callable[[], onnx.ModelProto], layers: list[tuple[str, tuple[int, ...], int]], tmp_path: Path
) -> None:
    """Each weight is a layer that may be quantised, and the network answers as it was given."""
    given = made()
    found = _loaded(given, tmp_path)
    shape = [4 if isinstance(size, str) else size for size in _shape(given)]
    x = {"x": NORMAL(size=shape).astype(np.float32)}
    (wanted,), (answer,) = _run(given, x), _run(found.proto, x)
    np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-5)
    assert (equivalent_to_given(found, x).skipped_steps, found.proto.functions[:]) == ((), [])
    quantisable = collect_layers(found.proto, get_dialect("ort-cpu"))
    assert [(each.op, each.weight_shape, each.conv_groups) for each in quantisable.layers] == layers
    assert all(len(each.schemes) > 1 for each in quantisable.layers)
    assert not quantisable.left_alone


def test_data_of_branches_in_functions(tmp_path: Path) -> None:
    """Weights in another file are read wherever they stand."""
    value = helper.make_tensor_value_info("part", TensorProto.FLOAT, None)
    nodes = [constant("w", weight(8, 8)), helper.make_node("MatMul", ["a", "w"], ["part"])]
    branch = helper.make_graph(nodes, "branch", [], [value])
    other = helper.make_graph([helper.make_node("Neg", ["a"], ["part"])], "other", [], [value])
    deciding = [
        helper.make_node("ReduceMax", ["a"], ["most"], keepdims=0),
        constant("zero", np.array(0, np.float32)),
        helper.make_node("Greater", ["most", "zero"], ["flag"]),
        helper.make_node("If", ["flag"], ["out"], then_branch=branch, else_branch=other),
    ]
    given = model([call("Choice", ["x"], "y")], {}, [function("Choice", ["a"], deciding)])
    x = {"x": np.abs(NORMAL(size=(2, 8))).astype(np.float32)}
    wanted = _run(given, x)
    (tensor,) = (held for held in constants_of(given) if held.name == "w")
    (tmp_path / "data").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    np.testing.assert_allclose(_run(_loaded(given, tmp_path).proto, x), wanted, rtol=1e-5, atol=1e-5)


def _loaded(given: onnx.ModelProto, folder: Path) -> ReferenceModel:
    path = folder / "net.onnx"
    path.write_bytes(given.SerializeToString())
    return load_reference(path)


def _shape(given: onnx.ModelProto) -> list[int | str]:
    return [axis.dim_param or axis.dim_value for axis in given.graph.input[0].type.tensor_type.shape.dim]


def _run(given: onnx.ModelProto, x: dict[str, np.ndarray]) -> list[np.ndarray]:
    found: list[np.ndarray] = onnxruntime.InferenceSession(given.SerializeToString()).run(None, x)
    return found
