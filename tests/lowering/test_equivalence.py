"""The normalised network beside the given one: a step that changes answers is left out, rounding and chance are not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import bitfront.lowering.normalise
from bitfront.core import Array, CalibrationSettings, ContentStore, Inputs, ModelError, PrecisionConfig
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given, outputs_within_one
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.opset import with_opset
from bitfront.lowering.output_difference import Output, difference, disturbed_array, sqnr_db
from bitfront.lowering.reference import ReferenceModel
from tests.lowering.candidates import uniform
from tests.lowering.topologies import TOPOLOGIES, inputs_of
from tests.references import INTERPRETER, load_reference, make_reference

HALF, FLOAT, DOUBLE, BF16 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16


def _given(model: onnx.ModelProto, skipped: tuple[str, ...] = ()) -> ReferenceModel:
    return replace(make_reference(model, "net", skipped=skipped), given=model)


def _model(
    nodes: list[onnx.NodeProto],
    outputs: Mapping[str, int],
    weights: Mapping[str, Array],
    *,
    kind: int = FLOAT,
    shape: tuple[int | str, ...] = ("n", 16),
    opset: int = 21,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, out, None) for name, out in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _dense(kind: int = FLOAT, layers: int = 3) -> onnx.ModelProto:
    """MatMul and Relu in turn, in one floating type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = {f"w{i}": (_normal(16, 16, seed=i) / 4).astype(dtype) for i in range(layers)}
    nodes, last = [], "x"
    for i in range(layers):
        result = "y" if i == layers - 1 else f"r{i}"
        nodes += [helper.make_node("MatMul", [last, f"w{i}"], [f"a{i}"]), helper.make_node("Relu", [f"a{i}"], [result])]
        last = result
    return _model(nodes, {"y": kind}, weights, kind=kind)


def _batch_norms(count: int) -> onnx.ModelProto:
    """Conv and batch norm in turn, with statistics of very different sizes."""
    generator, last = np.random.default_rng(0), "x"
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, Array] = {}
    for i in range(count):
        weights[f"w{i}"] = _normal(16, 16, 1, seed=i) / 4
        for name, low, high in (("s", 0.01, 3), ("b", -1, 1), ("m", -1, 1), ("v", 1e-3, 4)):
            weights[f"{name}{i}"] = generator.uniform(low, high, 16).astype(np.float32)
        norms = [f"{name}{i}" for name in "sbmv"]
        nodes += [
            helper.make_node("Conv", [last, f"w{i}"], [f"a{i}"]),
            helper.make_node("BatchNormalization", [f"a{i}", *norms], [f"n{i}"]),
            helper.make_node("Tanh", [f"n{i}"], [f"t{i}"]),
        ]
        last = f"t{i}"
    return _model(nodes, {last: FLOAT}, weights, shape=("n", 16, 5))


def _scaled(proto: onnx.ModelProto, _: object) -> onnx.ModelProto:
    """A faulty step: the first floating weight comes out a thousandth too large."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(proto)
    tensor = next(tensor for tensor in wrong.graph.initializer if tensor.data_type == FLOAT)
    value = numpy_helper.to_array(tensor) * np.float32(1.001)
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return wrong


@pytest.mark.parametrize("step", ["dropouts", "constants", "batch-norms", "global-means"])
def test_a_faulty_step_is_left_out(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever step changes the answers is found, left out and named; the others stay."""
    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, step, _scaled)
    model = _dense()
    found = equivalent_to_given(_given(model), {"x": _normal(8, 16)})
    assert found.skipped_steps == (step,)
    assert f"left out of normalising: '{step}'; with it output 'y' differs by" in found.notices[0]
    assert found.fingerprint == make_reference(model, "net", skipped=(step,)).fingerprint
    feeds = {"x": _normal(8, 16, seed=1)}
    near = sqnr_db(INTERPRETER.load(model).run(feeds)[0], INTERPRETER.load(found.proto).run(feeds)[0])
    assert near > 120


def test_two_faulty_steps_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaving out one alone would not help."""
    for step in ("slices", "dropouts"):
        monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, step, _scaled)
    assert equivalent_to_given(_given(_dense()), {"x": _normal(8, 16)}).skipped_steps == ("dropouts", "slices")


def test_earlier_notices_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known of the network before a step was left out is told beside it, once."""
    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", _scaled)
    found = equivalent_to_given(replace(_given(_dense()), notices=("read one by one",)), {"x": _normal(8, 16)})
    before, left_out = found.notices
    assert before == "read one by one"
    assert "left out of normalising: 'slices'" in left_out


def test_a_step_that_breaks_the_graph_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that no runtime takes any more counts as changed."""

    def broken(proto: onnx.ModelProto, _: object) -> onnx.ModelProto:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(proto)
        wrong.graph.node[0].op_type = "NoSuchOperator"
        return wrong

    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "identities", broken)
    assert equivalent_to_given(_given(_dense()), {"x": _normal(8, 16)}).skipped_steps == ("identities",)


def test_a_faulty_conversion_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be left out ends in a sentence with the output and the figures."""
    monkeypatch.setattr(
        "bitfront.lowering.normalise.with_opset", lambda model, source: _scaled(with_opset(model, source), None)
    )
    with pytest.raises(ModelError, match=r"output 'y' differs by .*, an SQNR of \d+\.\d dB where rounding explains 90"):
        equivalent_to_given(_given(_dense()), {"x": _normal(8, 16)})


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_ordinary_networks_are_faithful(name: str) -> None:
    """Nothing is left out of a network as exporters write them."""
    reference = _given(TOPOLOGIES[name]())
    found = equivalent_to_given(reference, inputs_of(reference))
    assert (found.skipped_steps, found.notices) == ((), ())


@pytest.mark.parametrize("count", [1, 12])
def test_folded_batch_norms_are_rounding(count: int) -> None:
    """Batch norms of uneven statistics are folded, and that is no fault."""
    reference = _given(_batch_norms(count))
    assert "BatchNormalization" not in {node.op_type for node in reference.proto.graph.node}
    assert equivalent_to_given(reference, {"x": _normal(8, 16, 5)}).skipped_steps == ()


def test_cancellation_is_judged_by_what_it_costs_the_given_network() -> None:
    """A batch norm that takes a large mean away again rounds worse as given than folded: no fault of the folding."""
    generator = np.random.default_rng(0)
    large = np.full(16, 1e4, np.float32)
    weights: dict[str, Array] = {"w": _normal(16, 16, 1) / 4, "c": large, "m": large}
    weights |= {name: generator.uniform(0.5, 2, 16).astype(np.float32) for name in "sbv"}
    nodes = [
        helper.make_node("Conv", ["x", "w", "c"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "s", "b", "m", "v"], ["y"]),
    ]
    model, feeds = _model(nodes, {"y": FLOAT}, weights, shape=("n", 16, 5)), {"x": _normal(8, 16, 5)}
    found = equivalent_to_given(_given(model), feeds)
    assert (found.skipped_steps, found.notices) == ((), ())
    near = sqnr_db(*(INTERPRETER.load(each, optimised=False).run(feeds)[0] for each in (model, found.proto)))
    assert 40 < near < 85, "the test says nothing otherwise"


@pytest.mark.parametrize("kind", [HALF, DOUBLE], ids=["half", "double"])
@pytest.mark.parametrize("layers", [1, 8])
def test_other_types_are_judged_by_their_own_rounding(kind: int, layers: int) -> None:
    """A network given in FP16 or FP64 computes in FP32 afterwards, with inputs and outputs of the given type."""
    model = _dense(kind, layers)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    found = equivalent_to_given(_given(model), {"x": _normal(8, 16).astype(dtype)})
    assert (found.skipped_steps, found.notices) == ((), ())
    assert {tensor.data_type for tensor in found.proto.graph.initializer} == {FLOAT}
    feeds = {"x": _normal(8, 16, seed=1).astype(dtype)}
    (wanted,), (got,) = INTERPRETER.load(model).run(feeds), INTERPRETER.load(found.proto).run(feeds)
    assert got.dtype == wanted.dtype == dtype
    assert sqnr_db(wanted, got) > 50


def test_a_fault_shows_in_half_precision_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight five per cent off is more than FP16's rounding."""

    def off(proto: onnx.ModelProto, _: object) -> onnx.ModelProto:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(proto)
        tensor = wrong.graph.initializer[0]
        value = (numpy_helper.to_array(tensor) * 1.05).astype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
        return wrong

    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", off)
    found = equivalent_to_given(_given(_dense(HALF)), {"x": _normal(8, 16).astype(np.float16)})
    assert found.skipped_steps == ("slices",)


def test_a_network_that_does_not_run_as_given() -> None:
    """BF16, for which the runtime has no kernels, is searched in FP32, and it is said that nothing was compared."""
    model = _dense(BF16)
    (value,) = model.graph.input
    value.type.tensor_type.elem_type = FLOAT
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["xb"], to=BF16))
    model.graph.node[1].input[0] = "xb"
    model.graph.node.append(helper.make_node("Cast", ["y"], ["z"], to=FLOAT))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", FLOAT, None))
    found = equivalent_to_given(_given(model), {"x": _normal(8, 16)})
    assert "does not run in ONNX Runtime as given" in found.notices[0]
    assert INTERPRETER.load(found.proto).run({"x": _normal(8, 16)})[0].shape == (8, 16)


def test_random_outputs_are_not_compared() -> None:
    """What differs from run to run is no fault; what stands beside it is compared all the same."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("RandomNormalLike", ["y"], ["noise"]),
        helper.make_node("Add", ["y", "noise"], ["z"]),
    ]
    found = equivalent_to_given(
        _given(_model(nodes, {"y": FLOAT, "z": FLOAT}, {"w": _normal(16, 16)})), {"x": _normal(8, 16)}
    )
    assert found.skipped_steps == ()
    assert found.notices == ("'net': output 'z' differs from run to run as given, so it was not compared",)
    assert equivalent_to_given(found, {"x": _normal(8, 16)}).notices == found.notices  # said once


def test_dropout_in_training_mode_stays() -> None:
    """A Dropout that draws at random as given does so in the normalised network."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Dropout", ["a", "ratio", "training"], ["d"]),
        helper.make_node("Relu", ["d"], ["y"]),
    ]
    weights = {"w": _normal(16, 16), "ratio": np.array(0.5, np.float32), "training": np.array(True)}
    found = equivalent_to_given(_given(_model(nodes, {"y": FLOAT}, weights)), {"x": _normal(8, 16)})
    assert "Dropout" in {node.op_type for node in found.proto.graph.node}
    assert "differs from run to run" in found.notices[0]


def test_undefined_and_infinite_answers() -> None:
    """NaN where NaN was and infinity where infinity was are no difference."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Log", ["a"], ["l"]),
        helper.make_node("Div", ["l", "zero"], ["y"]),
    ]
    weights = {"w": _normal(16, 16), "zero": np.zeros(1, np.float32)}
    assert (
        equivalent_to_given(_given(_model(nodes, {"l": FLOAT, "y": FLOAT}, weights)), {"x": _normal(8, 16)}).notices
        == ()
    )


def test_ties_of_whole_numbers() -> None:
    """Positions of equal largest values may move with rounding; a class number that is another one may not."""
    weights = {
        f"{name}0": np.full(16, value, np.float32) for name, value in zip("sbmv", (1.3, 0.1, 0.2, 3), strict=True)
    }
    column = _normal(1, 16, 1)
    weights["w"] = np.repeat(column, 16, axis=0) * np.linspace(1, 1 + 3e-7, 16, dtype=np.float32).reshape(-1, 1, 1)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("BatchNormalization", ["a", "s0", "b0", "m0", "v0"], ["n"]),
        helper.make_node("ArgMax", ["n"], ["y"], axis=1, keepdims=0),
    ]
    model = _model(nodes, {"y": TensorProto.INT64}, weights, shape=("n", 16, 5))
    assert equivalent_to_given(_given(model), {"x": _normal(32, 16, 5)}).skipped_steps == ()


def test_wrong_whole_numbers_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step after which another class is the largest is left out."""

    def rolled(proto: onnx.ModelProto, _: object) -> onnx.ModelProto:
        wrong = onnx.ModelProto()
        wrong.CopyFrom(proto)
        (tensor,) = (tensor for tensor in wrong.graph.initializer if tensor.name == "w")
        tensor.CopyFrom(numpy_helper.from_array(np.roll(numpy_helper.to_array(tensor), 1, axis=1), "w"))
        return wrong

    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", rolled)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("ArgMax", ["a"], ["y"], axis=1)]
    model = _model(nodes, {"y": TensorProto.INT64}, {"w": _normal(16, 16)})
    found = equivalent_to_given(_given(model), {"x": _normal(8, 16)})
    assert found.skipped_steps == ("slices",)
    assert "output 'y' differs in 4 of 4 elements" in found.notices[0]


@pytest.mark.parametrize("batch", [1, 3, "n"])
@pytest.mark.parametrize("samples", [1, 2, 8])
def test_batches_of_any_size(batch: int | str, samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fixed batch is filled, from fewer samples too; a fault shows in each."""
    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", _scaled)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = _model(nodes, {"y": FLOAT}, {"w": _normal(16, 16)}, shape=(batch, 16))
    assert equivalent_to_given(_given(model), {"x": _normal(samples, 16)}).skipped_steps == ("slices",)


def test_an_input_without_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One value for all samples, which the engine holds once a sample, is fed as it is."""
    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", _scaled)
    nodes = [helper.make_node("Mul", ["x", "s"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    model = _model(nodes, {"y": FLOAT}, {"w": _normal(16, 16)})
    model.graph.input.append(helper.make_tensor_value_info("s", FLOAT, ()))
    found = equivalent_to_given(_given(model), {"x": _normal(8, 16), "s": np.full(8, 2, np.float32)})
    assert found.skipped_steps == ("slices",)


def test_disturbed_masks_stay_finite() -> None:
    """The least number of FP16 is a usual mask; a rounding more must neither leave the type's range nor warn of it."""
    least = np.finfo(np.float16).min
    found = disturbed_array(np.full(64, least), 2.0**-8, np.random.default_rng(0))
    assert np.isfinite(found).all()
    assert (found == least).any()
    assert (found > least).any()
    assert np.isinf(disturbed_array(np.full(4, -np.inf, np.float16), 2.0**-8, np.random.default_rng(0))).all()


def test_made_up_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without inputs some are made up; a network that does not take those is left as it is."""
    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", _scaled)
    assert equivalent_to_given(_given(_dense()), None).skipped_steps == ("slices",)
    nodes = [helper.make_node("Reshape", ["x", "s"], ["a"]), helper.make_node("MatMul", ["a", "w"], ["y"])]
    model = _model(nodes, {"y": FLOAT}, {"w": _normal(48, 16), "s": np.array([-1, 48])}, shape=("n", "m"))
    assert equivalent_to_given(_given(model), None).notices == ()


def test_a_config_rebuilds_a_network_without_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left out is in the config, and the artifact made again from it is the same."""
    monkeypatch.setitem(bitfront.lowering.normalise.OPTIONAL_STEPS, "slices", _scaled)
    path, inputs = tmp_path / "net.onnx", {"x": _normal(16, 16)}
    onnx.save(_dense(), str(path))
    lowerer = _lowerer(equivalent_to_given(load_reference(path), inputs), inputs)
    schemes = uniform(lowerer, "int8:mse")
    config = PrecisionConfig.from_json(lowerer.config(schemes).to_json(), "config")
    assert config.skipped_steps == ("slices",)
    again = apply_config(
        config,
        load_reference(path, skipped=config.skipped_steps),
        calibration=inputs,
        store=ContentStore(None),
        allow_new_weights=False,
    ).data
    assert again == lowerer.lower(schemes).data


def _lowerer(reference: ReferenceModel, inputs: Inputs) -> Lowerer:
    return Lowerer(reference, get_dialect("ort-cpu"), inputs, CalibrationSettings(), ContentStore(None))


@pytest.mark.parametrize("behind", ["Sigmoid", "Softmax", "Tanh"])
def test_an_absolute_error_of_a_bounded_output_explains_itself(behind: str) -> None:
    """Next to nothing behind a Sigmoid may differ by units in the last place of 1, other outputs by none of it."""
    nodes = [helper.make_node(behind, ["x"], ["s"]), helper.make_node("Reshape", ["s", "to"], ["y"])]
    model = _model([*nodes, helper.make_node("Neg", ["x"], ["n"])], {"y": FLOAT, "n": FLOAT}, {"to": np.array([-1])})
    assert outputs_within_one(model.graph) == {"y"}
    small = np.full((4, 4), 2e-7, np.float32)
    for last_place, told in ((2.0**-23, False), (0.0, True)):
        output = Output(name="y", value=small, disturbed=[small], last_place=last_place)
        assert bool(difference(output, small + np.float32(1.8e-7), strict=True)) == told
        assert difference(output, small + np.float32(1e-3), strict=True)
