"""What outputs are measured in: by declarations, by how graphs end, and by what outputs are."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array, OutputsRead, WorkloadError, as_metric, top1
from bitfront.sensitivity.divergence_metric import (
    OutputForm,
    OutputReading,
    choose_divergence_metric,
    metric_in_words,
    output_readings,
)


def _node(op: str, source: str, result: str, **attributes: object) -> onnx.NodeProto:
    operands = [source, "w"] if op in ("MatMul", "Conv", "Mul") else [source]
    return helper.make_node(op, operands, [result], **attributes)  # type: ignore[arg-type]


def _network(*operators: tuple[str, dict[str, object]]) -> onnx.ModelProto:
    """A chain from "x" to "y"."""
    names = ["x", *(f"t{i}" for i in range(len(operators) - 1)), "y"]
    chain = zip(operators, pairwise(names), strict=True)
    graph = helper.make_graph(
        [_node(op, source, result, **attributes) for (op, attributes), (source, result) in chain],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 4), np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


def _chosen(read: Sequence[OutputReading], outputs: Sequence[Array], samples: int) -> str:
    return choose_divergence_metric(read, [OutputForm.of(output) for output in outputs], samples)


def _metric_of(model: onnx.ModelProto, declared: OutputsRead, *outputs: Array) -> str:
    return _chosen(output_readings(model, declared), outputs, len(outputs[0]))


def _rows(*shape: int, dtype: type[np.generic] = np.float32) -> Array:
    return (np.random.default_rng(0).normal(size=shape) * 9).astype(dtype)


@pytest.mark.parametrize(
    ("operators", "shape", "declared", "divergence_metric"),
    [
        ([("MatMul", {})], (5, 4), None, "nsr"),
        ([("MatMul", {})], (5, 4), "classes", "kl:1"),
        ([("MatMul", {})], (5, 4), ("classes",), "kl:1"),
        ([("MatMul", {}), ("Softmax", {"axis": -1})], (5, 4), None, "kl:1"),
        ([("MatMul", {}), ("LogSoftmax", {"axis": -1})], (5, 7, 4), None, "kl:2"),
        ([("MatMul", {}), ("Softmax", {"axis": -1})], (5, 4), "values", "nsr"),
        ([("MatMul", {}), ("Softmax", {"axis": -1}), ("Identity", {})], (5, 4), None, "kl:1"),
        ([("MatMul", {}), ("Softmax", {"axis": -1}), ("Mul", {})], (5, 4), None, "nsr"),
        ([("MatMul", {}), ("Sigmoid", {})], (5, 4), None, "nsr"),
        ([("MatMul", {})], (5, 7, 4), "classes", "kl:2"),
        ([("Conv", {})], (5, 4, 7), "classes", "kl:1"),
        ([("Conv", {}), ("Relu", {})], (5, 4, 7, 6), "classes", "kl:1"),
        ([("Conv", {}), ("Transpose", {"perm": [0, 2, 1]})], (5, 7, 4), "classes", "kl:2"),
        ([("MatMul", {}), ("Transpose", {"perm": [0, 2, 1]})], (5, 4, 7), "classes", "kl:1"),
        ([("Softmax", {"axis": 1}), ("Transpose", {"perm": [0, 2, 3, 1]})], (5, 7, 6, 4), None, "kl:3"),
        ([("Flatten", {})], (5, 4), "classes", "kl:1"),
        ([("Tan", {})], (5, 4, 1, 1), "classes", "kl:1"),
        ([("Tan", {})], (5, 7, 4), "classes", "kl:2"),
        ([("MatMul", {})], (5, 1), "classes", "nsr"),
        ([("MatMul", {})], (5,), "classes", "nsr"),
    ],
    ids=str,
)
def test_one_output(
    operators: Sequence[tuple[str, dict[str, object]]],
    shape: tuple[int, ...],
    declared: OutputsRead,
    divergence_metric: str,
) -> None:
    """Declarations come first, then the graph's end; the axis of the classes is the graph's or the usual one."""
    assert _metric_of(_network(*operators), declared, _rows(*shape)) == divergence_metric


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.str_])
def test_answers_are_compared(dtype: type[np.generic]) -> None:
    """Classes found by an ArgMax, and words, either are right or wrong, whatever is declared."""
    for declared in (None, "classes", "values"):
        assert _metric_of(_network(("ArgMax", {})), declared, _rows(5, 3, dtype=dtype)) == "changed"


READ = (OutputReading(kind="classes", axis=-1), OutputReading(kind="values"), OutputReading(kind="unread"))


def test_several_outputs() -> None:
    """Each has its rule; constants and outputs without a row a sample do not count, unless there are no others."""
    scores, boxes, other = _rows(5, 4), _rows(5, 4), _rows(5, 9)
    fixed, scalar = np.ones((5, 4), np.float32), np.float32(3)
    assert _chosen(READ, (scores, boxes, other), 5) == "kl:1,nsr,-"
    assert _chosen(READ, (scores, fixed, other), 5) == "kl:1,-,-"
    assert _chosen(READ, (scores, np.asarray(scalar), other), 5) == "kl:1,-,-"
    assert _chosen(READ, (fixed, fixed, other), 5) == "kl:1,nsr,-"
    assert _chosen(READ, (np.asarray(scalar), boxes[:3], other), 5) == "-,-,nsr"


def test_top1_reads_the_first_output() -> None:
    """Hidden states beside the scores do not count."""
    model = _network(("MatMul", {}))
    model.graph.output.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, None))
    assert _metric_of(model, top1.outputs_are, _rows(5, 4), _rows(5, 9)) == "kl:1,-"
    assert _metric_of(model, None, _rows(5, 4), _rows(5, 9)) == "nsr,nsr"


def test_words() -> None:
    """Every part of a metric is named."""
    assert metric_in_words("kl:1") == "mean KL divergence from the FP32 output, in nats"
    assert metric_in_words("nsr,kl:2,-") == (
        "mean KL divergence from the FP32 output, in nats plus noise-to-signal power ratio of the output"
    )
    assert metric_in_words("changed").startswith("share of answers")


class _Metric:
    def __init__(self, outputs_are: object) -> None:
        self.outputs_are = outputs_are

    def __call__(self, outputs: tuple[Array, ...], labels: Array) -> float:
        return float(len(outputs[0]) == len(labels))


def test_declarations() -> None:
    """A metric's attribute is read through partial; without one, nothing is known."""
    assert top1.outputs_are == as_metric(partial(top1)).outputs_are == ("classes",)
    assert as_metric(lambda outputs, labels: float(len(outputs) + len(labels))).outputs_are is None
    assert as_metric(_Metric("values")).outputs_are == as_metric(partial(_Metric("values"))).outputs_are == "values"
    assert as_metric(_Metric(["unread", "classes"])).outputs_are == ("unread", "classes")


@pytest.mark.parametrize("wrong", ["logits", ("classes", 3), (), 7, ("unread",), {"y": "classes"}], ids=str)
def test_wrong_declarations_are_refused(wrong: object) -> None:
    """The message says what may stand there."""
    with pytest.raises(
        WorkloadError, match="outputs_are: expected one of classes, values, unread, or a sequence of them"
    ):
        as_metric(_Metric(wrong))
