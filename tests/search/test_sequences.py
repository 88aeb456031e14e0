"""Samples that are sequences: a network of one step, whose state is fed back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitfront.backends import get_backend
from bitfront.backends.sequences import run_sequences
from bitfront.core import Array, Artifact, DataError, UsageError
from bitfront.search.inputs.layout.sequences import check_sequences
from bitfront.search.inputs.layout.steps import recurrence_of, steps_of
from bitfront.search.inputs.loading import load, open_source
from bitfront.search.inputs.source import Source
from tests.references import load_reference
from tests.search.command_line import enter, outcome, write_npz
from tests.search.inputs.data.reading import Shape, model

SAMPLES, STEPS, CLASSES = 24, 5, 3
STATE = {"next": "state"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    onnx.save(cell(), "net.onnx")
    return tmp_path


WEIGHTS = {
    "w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32),
    "v": np.random.default_rng(1).standard_normal((8, CLASSES)).astype(np.float32),
    "zero": np.array([0]),
}


def cell() -> onnx.ModelProto:
    """One step: next = tanh(x·w · gain + state), state (1, n, 8); scores = next·v, (n, classes)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="in"),
        helper.make_node("Mul", ["h", "gain"], ["louder"]),
        helper.make_node("Add", ["state", "louder"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("Squeeze", ["next", "zero"], ["row"]),
        helper.make_node("MatMul", ["row", "v"], ["scores"], name="out"),
    ]
    inputs: dict[str, tuple[int, Shape]] = {
        "x": (TensorProto.FLOAT, ("n", 8)),
        "state": (TensorProto.FLOAT, (1, "n", 8)),
        "gain": (TensorProto.FLOAT, ()),
    }
    return model(nodes, inputs, {"scores": ("n", CLASSES), "next": (1, "n", 8)}, dict(WEIGHTS))


def scores(x: Array, state: Array | None = None) -> tuple[Array, Array]:
    """Scores of each step and the states that the steps began with, of one sequence (time, 8)."""
    current = np.zeros(8) if state is None else np.asarray(state, np.float64)
    begun, answered = [], []
    for step in np.asarray(x, np.float64):
        begun.append(current)
        current = np.tanh(step @ WEIGHTS["w"] * 0.5 + current)
        answered.append(current @ WEIGHTS["v"])
    return np.stack(answered), np.stack(begun)


def sequences(*lengths: int) -> list[Array]:
    generator = np.random.default_rng(2)
    return [generator.standard_normal((length, 8)).astype(np.float32) for length in lengths or (STEPS,) * SAMPLES]


def near(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float64), np.asarray(wanted, np.float64), atol=1e-4)


GAIN = np.array(0.5, np.float32)


@pytest.mark.parametrize("lengths", [(4, 4, 4), (2, 5, 2, 2)])
@pytest.mark.parametrize("begun", [False, True])
def test_steps_and_answers(lengths: tuple[int, ...], begun: bool) -> None:
    """Each step reads the state that the one before gave, from zeros or what was given; lengths may differ."""
    reference = load_reference(Path("net.onnx"))
    recurrence = recurrence_of(reference, STATE)
    brought = sequences(*lengths)
    first: Array = np.random.default_rng(3).standard_normal((len(lengths), 8)).astype(np.float32)
    arrays: dict[str, object] = {"x": brought, "gain": GAIN} | ({"state": first[None]} if begun else {})
    inputs = check_sequences(arrays, reference, STATE, "mine")
    wanted = [scores(x, first[index] if begun else None) for index, x in enumerate(brought)]

    steps = steps_of(inputs, reference, recurrence)
    assert steps["x"].shape == (sum(lengths), 8)
    assert steps["gain"].shape == (sum(lengths),)
    near(steps["state"][:, 0], np.concatenate([states for _, states in wanted]))

    compiled = get_backend("ort-cpu").compile(Artifact.onnx(reference.proto.SerializeToString()), threads=1)
    outputs = run_sequences(compiled, inputs, recurrence, batch=2)
    parts = [row for part in outputs.each[0].parts for row in part]
    for found, (answer, _) in zip(parts, wanted, strict=True):
        near(found, answer)


@pytest.mark.parametrize("form", ["one file", "a file each"])
def test_a_search(form: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Accuracy is that of whole sequences, and calibration reads every step of them."""
    brought = sequences() if form == "one file" else sequences(*(3 + index % 3 for index in range(SAMPLES)))
    labels = [int(scores(x)[0][-1].argmax()) for x in brought]
    (folder / "mine.py").write_text(
        "def last(outputs, labels):\n    return outputs[0][:, -1].argmax(axis=1) == labels\n", encoding="utf-8"
    )
    if form == "one file":
        write_npz(Path("calib.npz"), {"x": np.stack(brought), "gain": GAIN})
        write_npz(Path("eval.npz"), {"x": np.stack(brought), "gain": GAIN, "labels": np.array(labels)})
    else:
        for place in ("calib", "eval"):
            Path(place).mkdir()
            for index, (x, label) in enumerate(zip(brought, labels, strict=True)):
                write_npz(Path(f"{place}/{index:02d}.npz"), {"x": x, "gain": GAIN, "labels": np.array(label)})
    end = ".npz" if form == "one file" else ""
    argv = ["--model", "net.onnx", "--calib", f"calib{end}", "--eval", f"eval{end}", "--metric", "mine:last"]
    argv += ["--state", "next=state", "--max-drop", "0.5", "--trials", "4", "--sensitivity-samples", "8"]
    assert outcome([*argv, "--out", "run"]) == 0, capsys.readouterr().err
    results = json.loads((folder / "run" / "measurement.json").read_text())
    assert results["points"]["fp32"]["accuracy"]["value"] == 1.0


def test_what_does_not_fit_is_said() -> None:
    """Names that are none, sequences of other lengths, missing arrays."""
    reference = load_reference(Path("net.onnx"))
    for state in ({"x": "state"}, {"next": "nothing"}):
        with pytest.raises(UsageError, match="expected OUTPUT=INPUT"):
            recurrence_of(reference, state)
    x = np.stack(sequences(4, 4))
    with pytest.raises(DataError, match="no array for the network's input 'x'"):
        check_sequences({"gain": GAIN}, reference, STATE, "mine")
    with pytest.raises(DataError, match="with time second"):
        check_sequences({"x": x[..., :7], "gain": GAIN}, reference, STATE, "mine")
    with pytest.raises(DataError, match="'state'"):
        check_sequences({"x": x, "gain": GAIN, "state": x}, reference, STATE, "mine")


def test_a_network_of_one_sample_a_run(folder: Path) -> None:
    """A fixed batch of 1 is stepped sample by sample."""
    net = cell()
    for value in (*net.graph.input, *net.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == "n":
                axis.dim_value = 1
    onnx.save(net, "one.onnx")
    brought = sequences()
    for place in ("calib.npz", "eval.npz"):
        write_npz(Path(place), {"x": np.stack(brought), "gain": GAIN, "labels": np.arange(SAMPLES)})
    (folder / "mine.py").write_text("def none(outputs, labels):\n    return 0 * labels\n", encoding="utf-8")
    source = Source(
        model=Path("one.onnx"),
        calibration="calib.npz",
        evaluation="eval.npz",
        metric="mine:none",
        state=(("next", "state"),),
    )
    workload, reference = load(open_source(source), None)
    assert reference.fixed_batch == 1
    assert workload.calibration["x"].shape == (SAMPLES * STEPS, 8)
    assert workload.recurrence is not None
    near(workload.calibration["state"][:STEPS, 0], scores(brought[0])[1])
    compiled = get_backend("ort-cpu").compile(Artifact.onnx(reference.proto.SerializeToString()), threads=1)
    (found, _) = run_sequences(compiled, workload.evaluation.inputs, workload.recurrence).each
    assert found.whole is not None
    near(found.whole[2], scores(brought[2])[0])
