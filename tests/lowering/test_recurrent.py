"""LSTM, GRU and RNN: W and R are layers, stored smaller at no cost, or in a kernel that quantises its input itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends import get_backend
from bitfront.core import CalibrationSettings, ContentStore, Inputs, LoweringError, Scheme
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import outputs_of, sqnr_db, uniform
from tests.references import make_reference

STEPS, BATCH, WIDTH, HIDDEN = 6, 3, 10, 8
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
# Lowest signal-to-noise ratio of the hidden states in dB.
FLOOR_DB = {"fp16": 60.0, "int8:mse:weight-only": 36.0, "int4:mse:weight-only": 12.0, "int8:mse:dynamic": 28.0}


@dataclass(frozen=True)
class Case:
    """A recurrent operator with some of what it may have."""

    op: str
    direction: str = "forward"
    operands: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> int:
        """2 where it runs both ways."""
        return 2 if self.direction == "bidirectional" else 1


CASES = {
    **{f"{op.lower()}-{way}": Case(op, way) for op in GATES for way in ("forward", "reverse", "bidirectional")},
    "lstm-bias": Case("LSTM", operands=("B",)),
    "lstm-states": Case("LSTM", "bidirectional", ("B", "initial_h", "initial_c")),
    "lstm-lengths": Case("LSTM", "bidirectional", ("B", "sequence_lens")),
    "lstm-peepholes": Case("LSTM", operands=("B", "P")),
    "lstm-everything": Case("LSTM", "bidirectional", ("B", "sequence_lens", "initial_h", "initial_c", "P")),
    "lstm-clip": Case("LSTM", attributes={"clip": 0.4}),
    "lstm-input-forget": Case("LSTM", attributes={"input_forget": 1}),
    "lstm-activations": Case("LSTM", attributes={"activations": ["HardSigmoid", "Softsign", "Tanh"]}),
    "lstm-alphas": Case(
        "LSTM",
        attributes={
            "activations": ["HardSigmoid", "LeakyRelu", "Tanh"],
            "activation_alpha": [0.3, 0.1],
            "activation_beta": [0.4],
        },
    ),
    "gru-bias": Case("GRU", "bidirectional", ("B", "initial_h")),
    "gru-lengths": Case("GRU", operands=("B", "sequence_lens")),
    "gru-linear-before-reset": Case("GRU", operands=("B",), attributes={"linear_before_reset": 1}),
    "rnn-relu": Case("RNN", "bidirectional", ("B", "initial_h"), {"activations": ["Relu", "Relu"]}),
}
POSITIONS = {"B": 3, "sequence_lens": 4, "initial_h": 5, "initial_c": 6, "P": 7}


def _model(case: Case) -> onnx.ModelProto:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32) * np.float32(0.4)

    ways, gates = case.directions, GATES[case.op]
    values: dict[str, NDArray[Any]] = {
        "W": normal(ways, gates * HIDDEN, WIDTH),
        "R": normal(ways, gates * HIDDEN, HIDDEN),
        "B": normal(ways, 2 * gates * HIDDEN),
        "sequence_lens": np.array([6, 2, 4], np.int32),
        "initial_h": normal(ways, BATCH, HIDDEN),
        "initial_c": normal(ways, BATCH, HIDDEN),
        "P": normal(ways, 3 * HIDDEN),
    }
    inputs = ["x", "W", "R", *[""] * 5]
    for name in case.operands:
        inputs[POSITIONS[name]] = name
    while not inputs[-1]:
        inputs.pop()
    outputs = ["y", "h", "c"] if case.op == "LSTM" else ["y", "h"]
    node = helper.make_node(
        case.op, inputs, outputs, name="rnn", hidden_size=HIDDEN, direction=case.direction, **case.attributes
    )
    kept = {name: value for name, value in values.items() if name in inputs}
    graph = helper.make_graph(
        [node],
        "recurrent",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [STEPS, BATCH, WIDTH])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in kept.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _inputs(seed: int = 0) -> Inputs:
    return {"x": np.random.default_rng(seed).normal(size=(STEPS, BATCH, WIDTH)).astype(np.float32)}


def _lowerer(model: onnx.ModelProto, dialect: str = "ort-cpu") -> Lowerer:
    reference = make_reference(model, "recurrent")
    return Lowerer(reference, get_dialect(dialect), _inputs(), CalibrationSettings(), ContentStore(None))


@pytest.mark.parametrize("name", CASES)
def test_every_scheme_of_every_member(name: str) -> None:
    """Whatever an operator has, its answers in each scheme stay near those of the given file."""
    model = _model(CASES[name])
    lowerer = _lowerer(model)
    feeds = _inputs(5)
    expected = outputs_of(model.SerializeToString(), feeds)
    (group,) = lowerer.quantisable.groups
    assert [layer.name for layer in lowerer.quantisable.layers] == ["rnn.W", "rnn.R"]
    assert group.reason == "belong to 'rnn'"
    offered = {scheme.text for scheme in group.schemes} - {"fp32"}
    assert offered == {text for text in FLOOR_DB if text != "int8:mse:dynamic" or CASES[name].op == "LSTM"}
    for text in offered:
        found = outputs_of(lowerer.lower(uniform(lowerer, text)).data, feeds)
        worst = min(sqnr_db(e, f) for e, f in zip(expected, found, strict=True))
        assert worst >= FLOOR_DB[text], (text, worst)


def test_fp32_is_the_given_network() -> None:
    """FP32 as written answers bit for bit as the given file."""
    model = _model(CASES["lstm-everything"])
    lowerer = _lowerer(model)
    expected = outputs_of(model.SerializeToString(), _inputs(5))
    found = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, _inputs(5))
    for e, f in zip(expected, found, strict=True):
        np.testing.assert_array_equal(e, f)


@pytest.mark.parametrize("bug", ["doubled", "swapped-directions"])
@pytest.mark.parametrize("text", ["int8:mse:weight-only", "int8:mse:dynamic"])
def test_the_floor_rejects_wrong_scales(text: str, bug: str) -> None:
    """The oracle sees scales that are doubled, or those of the other direction."""
    lowerer = _lowerer(_model(CASES["lstm-bidirectional"]))
    proto = onnx.load_from_string(lowerer.lower(uniform(lowerer, text)).data)
    (scales,) = [tensor for tensor in proto.graph.initializer if tensor.name == "W_s"]
    value = numpy_helper.to_array(scales)
    scales.CopyFrom(numpy_helper.from_array(value * 2 if bug == "doubled" else value[::-1].copy(), "W_s"))
    expected = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, _inputs(5))
    found = outputs_of(proto.SerializeToString(), _inputs(5))
    assert min(sqnr_db(e, f) for e, f in zip(expected, found, strict=True)) < FLOOR_DB[text]


@pytest.mark.parametrize("text", ["fp16", "int8:mse:weight-only", "int4:mse:weight-only"])
def test_storage_is_unfolded_on_load(text: str) -> None:
    """ONNX Runtime folds stored weights when it loads the file, so that the operator runs as in FP32."""
    lowerer = _lowerer(_model(CASES["lstm-bidirectional"]))
    compiled = get_backend("ort-cpu").compile(lowerer.lower(uniform(lowerer, text)), threads=1)
    assert list(compiled.operators()) == ["LSTM"]


def test_scales_are_of_each_direction_and_gate_row() -> None:
    """A direction whose weights are a thousandth of the other's keeps its own scales."""
    model = _model(CASES["gru-bidirectional"])
    weight = model.graph.initializer[0]
    value = numpy_helper.to_array(weight).copy()
    value[1] /= 1000
    weight.CopyFrom(numpy_helper.from_array(value, weight.name))
    lowerer = _lowerer(model)
    rounded = lowerer.rounded(Scheme.parse("int8:mse:weight-only"))["rnn.W"]
    scales = rounded.scales.reshape(2, 3 * HIDDEN, 1)
    assert rounded.scales.shape == (lowerer.quantisable.layers[0].channels,)
    assert np.all(np.abs(rounded.integers * scales - value) <= scales * 0.5 + 1e-7)


def test_weights_may_be_stored_differently_but_share_a_kernel() -> None:
    """W and R may have storage types of their own; a kernel that quantises its input takes both or none."""
    lowerer = _lowerer(_model(CASES["lstm-bias"]))
    mixed = {"rnn.W": Scheme.parse("fp16"), "rnn.R": Scheme.parse("int4:mse:weight-only")}
    lowerer.lower(mixed)
    half = {"rnn.W": Scheme.parse("fp16"), "rnn.R": Scheme.parse("int8:mse:dynamic")}
    with pytest.raises(LoweringError, match=r"layer 'rnn.W' fp16 and 'rnn.R' int8:mse:dynamic"):
        lowerer.lower(half)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("ort-cuda", {"fp32", "int8:mse:weight-only", "int4:mse:weight-only"}),
        ("openvino", {"fp32", "fp16", "int8:mse:weight-only", "int4:mse:weight-only"}),
    ],
)
def test_other_dialects_store(dialect: str, expected: set[str]) -> None:
    """Runtimes that unfold weights on load offer storage."""
    for layer in _lowerer(_model(CASES["lstm-bias"]), dialect).quantisable.layers:
        assert {scheme.text for scheme in layer.schemes} == expected


def test_tensorrt_keeps_them() -> None:
    """A dialect that cannot store them says so."""
    quantisable = _lowerer(_model(CASES["lstm-bias"]), "tensorrt").quantisable
    assert quantisable.left_alone == {"rnn": "dialect 'tensorrt' keeps weights of LSTM as they are"}


@pytest.mark.parametrize("text", ["fp16", "int8:mse:weight-only", "int4:mse:weight-only"])
@pytest.mark.parametrize("name", ["lstm-states", "gru-bias", "rnn-relu"])
def test_openvino(name: str, text: str) -> None:
    """OpenVINO reads the stored form and answers alike."""
    backend = get_backend("openvino")
    lowerer = _lowerer(_model(CASES[name]), "openvino")
    expected, found = (
        backend.compile(lowerer.lower(uniform(lowerer, each)), threads=1).run(_inputs(5)) for each in ("fp32", text)
    )
    floor = {"fp16": 30.0}.get(text, FLOOR_DB[text])
    assert min(sqnr_db(e, f) for e, f in zip(expected, found, strict=True)) >= floor


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param("computed", "its R is computed at run time", id="computed"),
        pytest.param("output", "its W is also read by a subgraph, or is an output", id="output"),
        pytest.param("read", "its W is also read by ReduceSum 'sum'", id="read-elsewhere"),
    ],
)
def test_weights_that_are_no_layers(change: str, reason: str) -> None:
    """Weights that others read, or that are no constants, stay as they are, with the reason."""
    model = _model(CASES["gru-bias"])
    graph = model.graph
    if change == "computed":
        graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
        graph.node.insert(0, helper.make_node("Mul", ["R", "scale"], ["R_scaled"], name="mul"))
        graph.node[1].input[2] = "R_scaled"
    elif change == "output":
        shape = [2, 3 * HIDDEN, WIDTH]
        graph.output.append(helper.make_tensor_value_info("W", TensorProto.FLOAT, shape))
    else:
        graph.node.append(helper.make_node("ReduceSum", ["W", "axes"], ["total"], name="sum", keepdims=0))
        graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        graph.node.append(helper.make_node("Mul", ["total", "x2"], ["other"], name="mul"))
        graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, [1]))
        graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, None))
    found = collect_layers(model, get_dialect("ort-cpu"))
    assert not found.layers
    assert found.left_alone["rnn"] == reason
