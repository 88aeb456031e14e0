"""What ``top1`` can read of a network's first output, and what of its inputs are numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.search.command_line import enter, outcome, write_npz

Shape = Sequence[int | str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    return tmp_path


def write(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, tuple[int, Shape]],
    *,
    columns: int = 4,
    zeros: bool = False,
    more: dict[str, tuple[int, Shape]] | None = None,
) -> list[str]:
    """``y`` = ``x`` (n, 8) · ``w`` (8, columns) with nodes after it, and data whose labels are ``y``'s answers."""
    rng = np.random.default_rng(0)
    w, x = rng.normal(size=(8, columns)).astype(np.float32), rng.normal(size=(40, 8)).astype(np.float32)
    inputs = {"x": (TensorProto.FLOAT, ("n", 8)), **(more or {})}
    infos = [
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in group.items()]
        for group in (inputs, outputs)
    ]
    constants = {"w": w, "one": np.ones(1, np.float32), "axis": np.array([1])}
    read = {name for node in nodes for name in node.input} | {"w"}
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items() if name in read]
    whole = [helper.make_node("MatMul", ["x", "w"], ["y"]), *nodes]
    graph = helper.make_graph(whole, "g", infos[0], infos[1], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, "net.onnx")
    answers = (x @ w).argmax(1) if columns > 1 else ((x @ w)[:, 0] > 0).astype(np.int64)
    write_npz(Path("calib.npz"), {"x": x})
    write_npz(Path("eval.npz"), {"x": x, "labels": 0 * answers if zeros else answers})
    return ["--model", "net.onnx", "--calib", "calib.npz", "--eval", "eval.npz", "--quiet", "--out", "run"]


FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
REDUCED = [helper.make_node("ReduceSum", ["y", "axis"], ["z"], keepdims=0)]
CONSTANT = [helper.make_node("Identity", ["one"], ["made"])]
Y: dict[str, tuple[int, Shape]] = {"y": (FLOAT, ("n", 4))}
UNREADABLE: dict[str, tuple[list[onnx.NodeProto], dict[str, tuple[int, Shape]], int, str]] = {
    "one logit": ([], {"y": (FLOAT, ("n", 1))}, 1, r"has shape (n, 1), one value a sample"),
    "one logit, unknown": ([], {"y": (FLOAT, ("n", "classes"))}, 1, r"one value a sample"),
    "one value": (REDUCED, {"z": (FLOAT, ("n",))}, 4, r"has shape (n,), one value a sample"),
    "constant first": (CONSTANT, {"made": (FLOAT, (1,)), **Y}, 4, r"has shape (1,), which has no row for each sample"),
    "map": (
        [helper.make_node("Unsqueeze", ["y", "axis"], ["z"])],
        {"z": (FLOAT, ("n", 1, 4))},
        4,
        "which is no classifier's: top1 expects (n, classes)",
    ),
}


@pytest.mark.parametrize("zeros", [False, True], ids=["mixed labels", "all labels 0"])
@pytest.mark.parametrize("case", UNREADABLE)
def test_top1_cannot_read_it(case: str, zeros: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """An output without a column a class is refused whatever the labels are, and the way out is named."""
    nodes, outputs, columns, message = UNREADABLE[case]
    assert outcome(write(nodes, outputs, columns=columns, zeros=zeros)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "--metric module:function" in said


def test_one_logit_with_a_metric_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """What the hint says is the way out: a metric that reads one column."""
    Path("mine.py").write_text("def sign(outputs, labels): return (outputs[0][:, 0] > 0) == labels\n")
    argv = write([], {"y": (FLOAT, ("n", 1))}, columns=1)
    more = ["--metric", "mine:sign", "--max-drop", "0.9", "--trials", "2", "--sensitivity-samples", "4"]
    assert outcome([*argv, *more]) == 0, capsys.readouterr().err


def test_text_is_no_input(capsys: pytest.CaptureFixture[str]) -> None:
    """A network that reads text is named, rather than the data."""
    argv = write(
        [helper.make_node("Identity", ["s"], ["t"])],
        {**Y, "t": (STRING, ("n",))},
        more={"s": (STRING, ("n",))},
    )
    assert outcome(argv) == 2
    assert "'net.onnx': input 's' takes text" in capsys.readouterr().err


COMMANDS: dict[str, list[str]] = {
    "search, model": ["--model", "PIPE", "--calib", "calib.npz", "--eval", "eval.npz"],
    "search, calibration": ["--model", "net.onnx", "--calib", "PIPE", "--eval", "eval.npz"],
    "search, evaluation": ["--model", "net.onnx", "--calib", "calib.npz", "--eval", "PIPE"],
    "sensitivity, model": ["sensitivity", "--model", "PIPE", "--calib", "calib.npz"],
    "sensitivity, calibration": ["sensitivity", "--model", "net.onnx", "--calib", "PIPE"],
    "inspect": ["inspect", "PIPE"],
    "measure": ["measure", "PIPE"],
    "measure, inputs": ["measure", "net.onnx", "--inputs", "PIPE"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_waits_for_a_pipe(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipe in place of a file is refused at once by every command: opening one would wait for its writer."""
    write([], Y)
    os.mkfifo("PIPE")
    assert outcome(COMMANDS[command]) == 2
    assert "'PIPE': expected an" in capsys.readouterr().err
