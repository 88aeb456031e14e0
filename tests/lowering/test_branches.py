"""Ifs whose condition is known before a run: the branch taken is searched, and answers as the given network does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array, CalibrationSettings, ConfigError, ContentStore, PrecisionConfig
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.fixed_inputs import check_fixed_inputs, fix_shared_inputs
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.normalise import steps_to_skip
from bitfront.lowering.output_difference import sqnr_db
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.candidates import uniform
from tests.references import INTERPRETER, make_reference

FLOAT, INT, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _body(name: str, nodes: list[onnx.NodeProto], weights: dict[str, Array], output: str = "r") -> onnx.GraphProto:
    constants = [numpy_helper.from_array(value, key) for key, value in weights.items()]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, FLOAT, None)], constants)


def _product(name: str, seed: int) -> onnx.GraphProto:
    """Both branches call their tensors alike, as exporters do."""
    return _body(name, [helper.make_node("MatMul", ["x", "w"], ["r"], name)], {"w": _normal(16, 16, seed=seed)})


def _if(condition: str, then: onnx.GraphProto, other: onnx.GraphProto, result: str = "y") -> onnx.NodeProto:
    return helper.make_node("If", [condition], [result], f"choice_{result}", then_branch=then, else_branch=other)


def _model(nodes: list[onnx.NodeProto], constants: dict[str, Array], *inputs: onnx.ValueInfoProto) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ("n", 16)), *inputs],
        [helper.make_tensor_value_info("y", FLOAT, ("n", 16))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def by_rate() -> onnx.ModelProto:
    """One branch for a rate of 16,000, and within the other another branch for 8,000."""
    inner = _body(
        "inner",
        [
            helper.make_node("Equal", ["rate", "half"], ["slow"], "is_slow"),
            _if("slow", _product("slow_layer", 1), _product("odd_layer", 2), "r"),
        ],
        {},
    )
    nodes = [
        helper.make_node("Equal", ["rate", "full"], ["fast"], "is_fast"),
        _if("fast", _product("fast_layer", 0), inner, "c"),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    constants = {"full": np.array(16000), "half": np.array(8000)}
    return _model(nodes, constants, helper.make_tensor_value_info("rate", INT, ()))


def _given(model: onnx.ModelProto) -> ReferenceModel:
    return replace(make_reference(model, "net"), given=model)


def _operators(reference: ReferenceModel) -> list[str]:
    return [node.op_type for node in reference.proto.graph.node]


def _rate(value: int, count: int = 8) -> Array:
    return np.broadcast_to(np.array(value), (count,))


@pytest.mark.parametrize(("rate", "layer"), [(16000, "fast_layer"), (8000, "slow_layer"), (1, "odd_layer")])
def test_a_shared_input_decides_a_branch(rate: int, layer: str) -> None:
    """The branch that the data takes stands in the graph, nested ones too; a notice says for which value."""
    model = by_rate()
    assert _operators(_given(model)).count("If") == 1
    data = {"x": _normal(8, 16), "rate": _rate(rate)}
    found = equivalent_to_given(fix_shared_inputs(_given(model), data, data), data)
    assert _operators(found) == ["MatMul", "Relu"]
    assert found.proto.graph.node[0].name == layer
    assert (found.fixed_inputs, found.applied_steps, found.skipped_steps) == ({"rate": rate}, ("branches",), ())
    assert f"input 'rate' is {rate} in all inputs given" in found.notices[0]
    feeds = {"x": _normal(4, 16, seed=5), "rate": np.array(rate)}
    (wanted,) = INTERPRETER.load(model, optimised=False).run(feeds)
    np.testing.assert_array_equal(INTERPRETER.load(found.proto, optimised=False).run(feeds)[0], wanted)


@pytest.mark.parametrize("other", [{"x": _normal(8, 16), "rate": _rate(8000)}, {"x": _normal(8, 16)}])
def test_an_input_that_differs_decides_nothing(other: dict[str, Array]) -> None:
    """Calibration at one rate and evaluation at another, or at none that is known, keep both branches."""
    reference = _given(by_rate())
    assert fix_shared_inputs(reference, {"x": _normal(8, 16), "rate": _rate(16000)}, other) is reference
    assert fix_shared_inputs(reference, None) is reference


def test_a_config_of_one_branch_refuses_other_data() -> None:
    """A network reduced to one branch is no network for data that takes the other."""
    data = {"x": _normal(8, 16), "rate": _rate(16000)}
    fixed = fix_shared_inputs(_given(by_rate()), data)
    check_fixed_inputs(fixed, data)
    check_fixed_inputs(fixed, {"x": _normal(8, 16)})
    for other in (_rate(8000), np.array([16000, 8000])):
        with pytest.raises(ConfigError, match=r"input 'rate' of 16000 alone.*the data has 8000") as caught:
            check_fixed_inputs(fixed, {"x": _normal(8, 16), "rate": other})
        assert "search the network again" in caught.value.hint


def test_an_input_with_samples_decides_nothing() -> None:
    """A condition on what is one value a sample, and one drawn at random, stay."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("RandomUniformLike", ["zero"], ["drawn"]),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node("Greater", ["drawn", "zero"], ["d"]),
        _if("c", _product("a", 0), _product("b", 1), "one"),
        _if("d", _product("e", 0), _product("f", 1), "two"),
        helper.make_node("Add", ["one", "two"], ["y"]),
    ]
    reference = _given(_model(nodes, {"zero": np.array(0, np.float32)}))
    assert _operators(reference).count("If") == 2
    assert fix_shared_inputs(reference, {"x": np.ones((8, 16), np.float32)}) is reference


def test_constant_conditions_need_no_data() -> None:
    """Branches that return constants, copies, or a tensor from outside come out right; in a Loop as well."""
    then = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["r"], "inside"),
            helper.make_node("Identity", ["r"], ["again"], "twice"),
            helper.make_node("Identity", ["x"], ["outside"], "copy"),
        ],
        "then",
        [],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in ("r", "again", "k", "outside")],
        [numpy_helper.from_array(_normal(16, 16), "w"), numpy_helper.from_array(_normal(16, seed=1), "k")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], [f"i{place}"], f"idle{place}") for place in range(4)],
        "other",
        [],
        [helper.make_tensor_value_info(f"i{place}", FLOAT, None) for place in range(4)],
    )
    results = ["a", "b", "c", "d"]
    body = helper.make_graph(
        [
            _if("yes", _product("looped", 3), _product("never", 4), "looped_r"),
            helper.make_node("Add", ["state", "looped_r"], ["next"], "add"),
            helper.make_node("Identity", ["go"], ["on"], "keep"),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", INT, ()),
            helper.make_tensor_value_info("go", BOOL, ()),
            helper.make_tensor_value_info("state", FLOAT, None),
        ],
        [helper.make_tensor_value_info("on", BOOL, ()), helper.make_tensor_value_info("next", FLOAT, None)],
    )
    nodes = [
        helper.make_node("Less", ["one", "two"], ["yes"], "less"),
        helper.make_node("If", ["yes"], results, "choice", then_branch=then, else_branch=other),
        helper.make_node("Sum", results, ["sum"], "sum"),
        helper.make_node("Loop", ["two", "", "sum"], ["y"], "loop", body=body),
    ]
    model = _model(nodes, {"one": np.array(1), "two": np.array(2)})
    found = equivalent_to_given(_given(model), {"x": _normal(8, 16)})
    assert (found.skipped_steps, found.notices) == ((), ())
    loop = next(node for node in found.proto.graph.node if node.op_type == "Loop")
    inner = [node.op_type for node in helper.get_attribute_value(loop.attribute[0]).node]
    assert "If" not in _operators(found)
    assert inner.count("MatMul") == 1
    assert "If" not in inner
    x = {"x": _normal(3, 16, seed=7)}
    (wanted,) = INTERPRETER.load(model, optimised=False).run(x)
    assert sqnr_db(wanted, INTERPRETER.load(found.proto).run(x)[0]) > 100


def test_a_config_gives_the_same_artifact() -> None:
    """It holds the input's value; one that was written before there was this step leaves the If."""
    model = by_rate()
    data = {"x": _normal(8, 16), "rate": _rate(16000)}
    found = equivalent_to_given(fix_shared_inputs(_given(model), data), data)
    store, dialect = ContentStore(None), get_dialect("ort-cpu")
    lowerer = Lowerer(found, dialect, data, CalibrationSettings(), store)
    schemes = uniform(lowerer, "int8:mse")
    config = PrecisionConfig.from_json(lowerer.config(schemes).to_json(), "config")
    assert (config.applied_steps, config.fixed_inputs) == (("branches",), {"rate": 16000.0})
    again = make_reference(
        model,
        "net",
        skipped=steps_to_skip(config.skipped_steps, config.applied_steps),
        fixed_inputs=config.fixed_inputs,
    )
    made = apply_config(config, again, calibration=data, store=store, allow_new_weights=False)
    assert made == lowerer.lower(schemes)
    old = make_reference(model, "net", skipped=steps_to_skip((), ()), fixed_inputs={})
    assert "If" in _operators(old)
