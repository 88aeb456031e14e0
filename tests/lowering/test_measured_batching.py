"""Batch axes as runs show them: what two samples at once give beside one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array, DataError, UsageError
from bitfront.core.ragged import ragged
from bitfront.lowering.measured_batching import measured_batching, single_batching
from bitfront.lowering.reference import ReferenceModel, with_batch_axes, with_batching_of
from tests.references import make_reference

Shape = tuple[int | str | None, ...]


def node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], **attributes)


def reference(
    nodes: list[onnx.NodeProto],
    outputs: Mapping[str, Shape | None],
    *,
    inputs: Mapping[str, Shape] | None = None,
    weights: Mapping[str, Array] | None = None,
) -> ReferenceModel:
    """A network that multiplies ``x`` (n, 3, 4) by a matrix, and the nodes behind it; shapes are as declared."""
    held = {"w": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32), **(weights or {})}
    graph = helper.make_graph(
        [node("MatMul", ["x", "w"], "y"), *nodes],
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (inputs or {"x": ("n", 3, 4)}).items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return replace(make_reference(model, "net"), given=model)


def samples(count: int = 5, *shape: int) -> Array:
    found: Array = np.random.default_rng(1).standard_normal((count, *(shape or (3, 4)))).astype(np.float32)
    return found


TIME_MAJOR = [node("Transpose", ["y"], "t", perm=[1, 0, 2])]


@pytest.mark.parametrize("declared", [(None, None, None), (3, None, 4), (3, 1, 4), None])
def test_an_output_of_another_axis_is_found(declared: Shape | None) -> None:
    """An answer with the time first is told by running, whatever the file declares of it."""
    found = measured_batching(reference(TIME_MAJOR, {"t": declared}), {"x": samples()})
    assert found.batching.outputs["t"] == 1
    assert found.batching.output_axes("t") == (1,)
    assert found.batching.fixed is None
    assert not found.notices


def test_a_state_beside_unnamed_axes() -> None:
    """All axes without a name, and the next state (layers, n, width): the batch is dynamic, the state's axis is 1."""
    nodes = [node("Add", ["s", "row"], "next"), node("ReduceMean", ["y", "one"], "row", keepdims=0)][::-1]
    net = reference(
        nodes,
        {"row": (None, 4), "next": (None, None, None)},
        inputs={"x": (None, 3, 4), "s": (2, None, 4)},
        weights={"one": np.array([1])},
    )
    found = measured_batching(net, {"x": samples(), "s": samples(5, 2, 4)}).batching
    assert (dict(found.inputs), dict(found.outputs), found.fixed) == ({"x": 0, "s": 1}, {"row": 0, "next": 1}, None)


def test_a_constant_and_a_value_of_the_batch() -> None:
    """Outputs that count no samples are no reason to run one by one beside one that does."""
    nodes = [node("Identity", ["v"], "same"), node("ReduceMean", ["y"], "mean", keepdims=0)]
    net = reference(nodes, {"y": ("n", 3, 4), "same": (2,), "mean": ()}, weights={"v": np.ones(2, np.float32)})
    found = measured_batching(net, {"x": samples()}).batching
    assert (found.outputs["y"], found.outputs["same"], found.fixed) == (0, None, None)
    assert "same" in found.certain
    assert "mean" not in found.certain


ONE_BY_ONE: dict[str, tuple[list[onnx.NodeProto], dict[str, Shape | None], dict[str, Array], str]] = {
    # what it is → nodes, output, its declared shape, weights, what is said
    "a Reshape holds 1": (
        [node("Reshape", ["y", "to"], "r")],
        {"r": ("n", 12)},
        {"to": np.array([1, 12])},
        "fails on two at once",
    ),
    "samples change each other": (
        [node("ReduceMean", ["y", "zero"], "m"), node("Sub", ["y", "m"], "r")],
        {"r": ("n", 3, 4)},
        {"zero": np.array([0])},
        "output 'r' for two samples at once is not what it is for each",
    ),
    "a number": ([node("ReduceMean", ["y"], "r", keepdims=0)], {"r": ()}, {}, "no output has a row for each"),
}


@pytest.mark.parametrize("case", ONE_BY_ONE)
def test_samples_are_run_one_by_one_where_that_alone_is_right(case: str) -> None:
    """A batch that is dynamic by name alone becomes a fixed one of 1, with a notice that names the way out."""
    nodes, outputs, weights, said = ONE_BY_ONE[case]
    found = measured_batching(reference(nodes, outputs, weights=weights), {"x": samples()})
    assert found.batching.single
    assert said in found.notices[0]
    assert "--batch-axis" in found.notices[0]


def test_numbers_drawn_anew_are_no_mixing() -> None:
    """An output that differs from run to run says nothing of the batch."""
    net = reference([node("RandomNormalLike", ["y"], "r")], {"y": ("n", 3, 4), "r": ("n", 3, 4)})
    assert measured_batching(net, {"x": samples()}).batching.fixed is None


def test_a_value_a_sample_for_an_input_without_batch() -> None:
    """An input without a batch axis that differs by sample: each run is one sample."""
    net = reference([node("Mul", ["y", "rate"], "r")], {"r": ("n", 3, 4)}, inputs={"x": ("n", 3, 4), "rate": ()})
    shared = np.broadcast_to(np.float32(2), 5)
    assert measured_batching(net, {"x": samples(), "rate": shared}).batching.fixed is None
    assert single_batching(net, {"x": samples(), "rate": shared}) is net
    own: Array = np.arange(5, dtype=np.float32)
    for found in (measured_batching, single_batching):
        assert found(net, {"x": samples(), "rate": own}).batching.single
    assert single_batching(net, {"x": samples(), "rate": ragged([own, own[:2]])}).batching.single


def test_a_value_that_all_samples_repeat_is_shared() -> None:
    """Written out for each sample, a value is no more than shared; a state differs whatever it begins with."""
    net = reference([node("Mul", ["y", "rate"], "r")], {"r": ("n", 3, 4)}, inputs={"x": ("n", 3, 4), "rate": ()})
    repeated: Array = np.full(5, 2, np.float32)
    for same in (repeated, ragged(list(repeated))):
        assert single_batching(net, {"x": samples(), "rate": same}) is net
    assert measured_batching(net, {"x": samples(), "rate": repeated}).batching.fixed is None
    assert single_batching(net, {"x": samples(), "rate": repeated}, states=["rate"]).batching.single


@pytest.mark.parametrize("batch", [1, 4])
def test_a_value_a_sample_in_runs_of_several(batch: int) -> None:
    """A network that insists on runs of several samples cannot be fed one value for each."""
    inputs: dict[str, Shape] = {"x": (batch, 3, 4), "rate": ()}
    net = reference([node("Mul", ["y", "rate"], "r")], {"r": (batch, 3, 4)}, inputs=inputs)
    own = {"x": samples(8), "rate": np.arange(8, dtype=np.float32)}
    for check in (measured_batching, single_batching):
        if batch == 1:
            assert check(net, own) is net
            continue
        with pytest.raises(
            DataError, match=r"'rate' has no batch axis and a value of its own.*takes 4 samples"
        ) as caught:
            check(net, own)
        assert "--batch-axis rate=AXIS" in caught.value.hint


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.filterwarnings("error")
def test_outputs_with_infinities(sign: int) -> None:
    """A mask's infinities are the same however many samples are run."""
    mask = np.array([0, sign * np.inf, 0, 0], np.float32)
    net = reference([node("Add", ["y", "mask"], "m")], {"m": ("n", 3, 4)}, weights={"mask": mask})
    assert measured_batching(net, {"x": samples()}).batching.fixed is None


def test_inputs_that_do_not_run_are_left_to_what_reads_them_next() -> None:
    """Where one sample alone fails, nothing is said of batches."""
    net = reference([], {"y": ("n", 3, 4)})
    assert measured_batching(net, {"x": samples(5, 3, 5)}) is net
    assert measured_batching(net, {}) is net


def test_what_a_person_says_holds() -> None:
    """Axes that are said are those of the engine, and other inputs follow the name of the axis."""
    net = reference([], {"y": (None, None, 4)}, inputs={"x": ("time", "many", 4)})
    assert net.batching.inputs["x"] == 0
    assert with_batch_axes(net, {"x": 1}).batching.inputs["x"] == 1
    assert with_batch_axes(net, {"x": 1}).batching.fixed is None
    none = with_batch_axes(net, {"x": None}).batching
    assert none.single
    assert none.outputs["y"] is None
    assert with_batch_axes(net, {"y": 1}).batching.output_axes("y") == (1,)
    assert with_batch_axes(net, {"y": None}).batching.output_axes("y") == ()
    for told, word in (({"z": 0}, "'z' is no input or output"), ({"x": 3}, "has 3 axes")):
        with pytest.raises(UsageError, match=word):
            with_batch_axes(net, told)


def test_a_fixed_axis_that_is_said_fixes_the_batch() -> None:
    """A state of a fixed batch of 1 beside a dynamic input: once its axis is said, one sample is run at a time."""
    net = reference([], {"y": ("n", 3, 4)}, inputs={"x": ("n", 3, 4), "h": (4, 1, 8)})
    assert (net.batching.input_axis("h"), net.batching.fixed) == (None, None)
    found = with_batch_axes(net, {"h": 1}).batching
    assert (dict(found.inputs), found.fixed) == ({"x": 0, "h": 1}, 1)


def test_a_network_made_of_another_has_its_axes() -> None:
    """Outputs in order, whatever they are called; what only one of them has follows nothing."""
    further = [node("Relu", ["y"], "z"), node("Neg", ["y"], "v")]
    told = with_batch_axes(reference(further, {"y": None, "z": ("n", 3, 4), "v": None}), {"z": 1, "v": None, "x": 1})
    made = with_batching_of(reference([node("Relu", ["y"], "w2")], {"y": ("n", 3, 4), "w2": ("n", 3, 4)}), told)
    assert dict(made.batching.inputs) == {"x": 1}
    assert (made.batching.fixed, made.batching.certain) == (3, frozenset({"w2"}))
    assert made.batching.output_axes("w2") == (1,)
    assert set(made.batching.outputs) <= {"y", "w2"}
