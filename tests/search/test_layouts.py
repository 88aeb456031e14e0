"""Networks whose samples are not on the first axis of everything, through every command."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import Array, Artifact
from tests.search.command_line import enter, outcome, write_npz

METRIC = """
def last(outputs, labels):
    assert outputs[0].shape[0] == 3 and outputs[0].shape[1] == len(labels), outputs[0].shape
    assert outputs[2].shape == (1,), outputs[2].shape
    return outputs[0][-1].argmax(-1) == labels
"""
COUNT, WIDTH, CLASSES, TIMES = 40, 16, 4, 3
SHORT = ["--trials", "3", "--sensitivity-samples", "6", "--precisions", "fp32,int8", "--quiet"]


def recurrent(batch: int | str) -> onnx.ModelProto:
    """From state (times, batch, width), rate () and x (batch, width), answers (times, batch, classes) and two more."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(WIDTH, WIDTH)) / 4, "v": rng.normal(size=(WIDTH, CLASSES)), "version": np.ones(1)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], name="enter"),
        helper.make_node("Mul", ["t", "rate"], ["r"]),
        helper.make_node("Add", ["state", "r"], ["s"]),
        helper.make_node("Relu", ["s"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["answers"], name="leave"),
        helper.make_node("ReduceMean", ["answers"], ["mean"], keepdims=0),
        helper.make_node("Identity", ["version"], ["made"]),
    ]

    def values(shapes: dict[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    graph = helper.make_graph(
        nodes,
        "recurrent",
        values({"state": [TIMES, batch, WIDTH], "rate": [], "x": [batch, WIDTH]}),
        values({"answers": [TIMES, batch, CLASSES], "mean": [], "made": [1]}),
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def inputs(count: int, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {
        "x": rng.normal(size=(count, WIDTH)).astype(np.float32),
        "state": rng.normal(size=(TIMES, count, WIDTH)).astype(">f4"),
        "rate": np.array(0.5, np.float32),
    }


@pytest.fixture(params=["n", 4], ids=["dynamic", "fixed"])
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A folder with the network and its data; labels are its own answers."""
    enter(tmp_path, monkeypatch)
    onnx.save(recurrent(request.param), "net.onnx")
    Path("mine.py").write_text(METRIC)
    write_npz(Path("calib.npz"), inputs(16, seed=1))
    fed = inputs(COUNT, seed=2)
    alone = OrtCpuBackend().compile(Artifact.onnx(recurrent(COUNT).SerializeToString()), threads=1)
    native = {name: np.asarray(array, np.float32) for name, array in fed.items()}
    labels = np.asarray(alone.run(native)[0])[-1].argmax(-1)
    write_npz(Path("eval.npz"), {**fed, "labels": labels})
    return ["--model", "net.onnx", "--calib", "calib.npz"]


def test_a_search(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """FP32 answers as the network does for each sample's own state; ranges are those of the inputs; apply rebuilds."""
    argv = [*source, "--eval", "eval.npz", "--metric", "mine:last", "--max-drop", "0.9", "--out", "run", *SHORT]
    assert outcome(argv) == 0, capsys.readouterr().err
    points = json.loads(Path("run/measurement.json").read_text())["points"]
    assert points["fp32"]["accuracy"]["value"] == 1.0
    assert points["int8"]["accuracy"]["value"] > 0.8
    ranges = json.loads(Path("run/configs/int8.json").read_text())["ranges"]
    assert ranges["x"][1] == pytest.approx(np.asarray(inputs(16, seed=1)["x"]).max(), rel=1e-5)
    for id_ in ("int8",):
        built = ["apply", f"run/configs/{id_}.json", *source, "-o", "out.onnx"]
        assert outcome(built) == 0, capsys.readouterr().err
        assert Path("out.onnx").read_bytes() == Path(f"run/models/{id_}.onnx").read_bytes()
    assert outcome(["measure", "net.onnx", "out.onnx", "--inputs", "eval.npz"]) == 0, capsys.readouterr().err


def test_the_other_commands(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Sensitivities are scored on rows of the answers, GPTQ is fed alike, and shapes say where samples lie."""
    assert outcome(["sensitivity", *source, "--quiet", "--sensitivity-samples", "6", "--out", "scores"]) == 0
    with Path("scores/sensitivity.csv").open(newline="") as file:
        alone = {(row["group"], row["choice"]): float(row["alone"]) for row in csv.DictReader(file)}
    assert all(0 <= value < 1 for value in alone.values()), alone
    assert any("gptq" in scheme and value > 0 for (_, scheme), value in alone.items())
    assert outcome(["measure", "net.onnx"]) == 0, capsys.readouterr().err
    assert outcome(["inspect", "net.onnx"]) == 0
    said = capsys.readouterr().out
    assert "rate ()" in said
    assert "state (3, n, 16)" in said or "state (3, 4, 16)" in said


def test_on_openvino(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Another runtime is fed and timed alike, and fixes the batch on the axis where it is."""
    pytest.importorskip("openvino")
    argv = ["measure", source[1], "--backend", "openvino", "--inputs", "calib.npz"]
    assert outcome(argv) == 0, capsys.readouterr().err
    from bitfront.backends.openvino.backend import OpenVinoBackend

    model = Path(source[1]).read_bytes()
    fixed = recurrent(4).SerializeToString() == model
    shapes = OpenVinoBackend().compile(Artifact.onnx(model), threads=1, batch_size=4 if fixed else 2).input_shapes
    assert dict(shapes) == {"state": (3, 4 if fixed else 2, 16), "rate": (), "x": (4 if fixed else 2, 16)}


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        pytest.param("state", (40, TIMES, WIDTH), r"'state': expected shape (3, n, 16), got (40, 3, 16)", id="first"),
        pytest.param("rate", (40, 2), "'rate': expected shape (), got (40, 2)", id="two a sample"),
        pytest.param("rate", (39,), "'rate' 39, 'x' 40", id="fewer rates"),
        pytest.param("state", (TIMES, 39, WIDTH), "'state' 39, 'x' 40", id="fewer"),
        pytest.param("state", (TIMES, 0, WIDTH), "'state': holds zero samples", id="none"),
    ],
)
def test_arrays_of_another_layout(
    name: str, shape: tuple[int, ...], message: str, source: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """An array that lies otherwise than the network reads it is refused, saying where the samples belong."""
    arrays = {**inputs(COUNT, seed=2), "labels": np.zeros(COUNT, np.int64), name: np.zeros(shape, np.float32)}
    write_npz(Path("eval.npz"), arrays)
    assert outcome([*source, "--eval", "eval.npz", "--metric", "mine:last"]) == 2
    assert message in capsys.readouterr().err


def test_a_value_a_sample_for_what_is_shared(source: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Samples are run one by one then, which a fixed batch of several does not allow."""
    arrays = inputs(COUNT, seed=2)
    rates: Array = np.linspace(0.1, 0.9, COUNT).astype(np.float32)
    write_npz(Path("eval.npz"), {**arrays, "rate": rates})
    argv = [*source, "--eval", "eval.npz", "--metric", "agreement", "--max-drop", "0.9", "--out", "run", *SHORT[:-1]]
    if recurrent(4).SerializeToString() == Path("net.onnx").read_bytes():
        assert outcome(argv) == 2
        assert "takes 4 samples" in capsys.readouterr().err
        return
    assert outcome(argv) == 0, capsys.readouterr().err
    assert "one by one" in capsys.readouterr().err
    assert json.loads(Path("run/measurement.json").read_text())["points"]["fp32"]["accuracy"]["value"] == 1.0
