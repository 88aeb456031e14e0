"""Sequences as people bring them: files, folders, objects; with labels or without."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bitfront.core import Array, DataError, EngineError, UsageError, WorkloadError
from bitfront.core.ragged import is_ragged
from bitfront.search.inputs.loading import LoadedWorkload, load, load_network, open_source
from bitfront.search.inputs.source import Source
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import PrunePass
from tests.search.command_line import enter, outcome, write_npz
from tests.search.inputs.data.reading import Shape, model
from tests.search.test_sequences import GAIN, SAMPLES, STEPS, cell, scores, sequences

SHORT = ["--state", "next=state", "--max-drop", "0.9", "--trials", "3", "--sensitivity-samples", "8"]
STATE = (("next", "state"),)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    onnx.save(cell(), "net.onnx")
    write_npz(Path("calib.npz"), {"x": np.stack(sequences()), "gain": GAIN})
    return tmp_path


def loaded(**options: object) -> LoadedWorkload:
    source = Source(model=Path("net.onnx"), state=STATE, **({"calibration": "calib.npz"} | options))  # type: ignore[arg-type]
    return load(open_source(source), None)[0]


def write_folder(name: str, files: list[dict[str, Array]]) -> None:
    Path(name).mkdir()
    for index, arrays in enumerate(files):
        write_npz(Path(f"{name}/{index:02d}.npz"), arrays)


@pytest.mark.parametrize("evaluation", [[], ["--eval", "calib.npz"], ["--eval", "calib.npz", "--metric", "cosine"]])
def test_without_labels(evaluation: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Candidates are compared with the network as given, on sequences of their own or on half of those there are."""
    argv = ["--model", "net.onnx", "--calib", "calib.npz", *evaluation, *SHORT, "--out", "run"]
    assert outcome(argv) == 0, capsys.readouterr().err
    found = json.loads(Path("run/measurement.json").read_text())
    assert found["points"]["fp32"]["accuracy"]["value"] == pytest.approx(1.0, abs=1e-4)
    told = json.dumps(found["settings"]["data"])
    assert ("kept out of calibration" in told) == (not evaluation)
    assert "samples of calib.npz" in told


def test_a_file_a_sequence() -> None:
    """Lengths differ, shared values and first states are those of each, and ``samples`` limits the files."""
    brought = sequences(*(2 + index % 3 for index in range(8)))
    states = [np.full((1, 1, 8), index / 9, np.float32) for index in range(8)]
    gains = [np.array(0.25 + index / 8, np.float32) for index in range(8)]
    files = [{"x": x, "state": s, "gain": g} for x, s, g in zip(brought, states, gains, strict=True)]
    write_folder("each", files)
    found = loaded(calibration="each", evaluation="each", metric="agreement", data_options=(("eval:samples", "6"),))
    lengths = [len(x) for x in brought]
    assert len(found.calibration["x"]) == sum(lengths)
    begins = np.cumsum([0, *lengths[:-1]])
    np.testing.assert_allclose(found.calibration["state"][begins][:, 0, 0], np.arange(8) / 9, atol=1e-6)
    assert np.array_equal(found.calibration["gain"], np.repeat(np.stack(gains), lengths))
    assert len(found.evaluation) == 6
    assert is_ragged(found.evaluation.inputs["x"])
    write_npz(Path("each/03.npz"), {"x": brought[3], "gain": gains[3]})
    with pytest.raises(DataError, match="7 of 8 files have an array 'state'"):
        loaded(calibration="each", evaluation="each", metric="agreement")


def test_arrays_in_files_of_their_own() -> None:
    """``.npy`` files hold sequences too."""
    np.save("x.npy", np.stack(sequences()))
    np.save("gain.npy", GAIN)
    np.save("labels.npy", np.zeros(SAMPLES, np.int64))
    spec = "x=x.npy,gain=gain.npy"
    found = loaded(calibration=spec, evaluation=f"{spec},labels=labels.npy", metric="mae")
    assert found.calibration["x"].shape == (SAMPLES * STEPS, 8)
    assert found.data_sources["evaluation"]["form"] == "npy"


def test_nothing_that_changes_from_step_to_step() -> None:
    """Where every other input is shared, the axis that counts samples is asked for."""
    nodes = [helper.make_node("Add", ["rate", "state"], ["next"])]
    shapes: Mapping[str, tuple[int, Shape]] = {
        "rate": (TensorProto.FLOAT, (8,)),
        "state": (TensorProto.FLOAT, ("n", 8)),
    }
    onnx.save(model(nodes, dict(shapes), {"next": ("n", 8)}, {}), "net.onnx")
    write_npz(Path("calib.npz"), {"rate": np.zeros((4, 3, 8), np.float32), "state": np.zeros((4, 8), np.float32)})
    with pytest.raises(UsageError, match="none of the inputs rate has an axis") as caught:
        loaded(evaluation="calib.npz")
    assert "--batch-axis rate=0" in caught.value.hint


def test_a_branch_that_all_sequences_decide() -> None:
    """It is taken, as where samples are no sequences; data of the other branch is refused by a config's network."""
    onnx.save(deciding(), "net.onnx")
    source = Source(model=Path("net.onnx"), calibration="calib.npz", evaluation="calib.npz", state=STATE)
    _, reference = load(open_source(source), None)
    assert dict(reference.fixed_inputs) == {"gain": 0.5}
    assert not any(node.op_type == "If" for node in reference.proto.graph.node)
    assert load_network(source)[0].fixed_inputs == reference.fixed_inputs


def deciding() -> onnx.ModelProto:
    """``cell`` whose gain counts only where it is below 1."""
    net = cell()
    taken = helper.make_graph(
        [helper.make_node("Mul", ["h", "gain"], ["a"])], "low", [], [helper.make_tensor_value_info("a", 1, None)]
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["h"], ["b"])], "high", [], [helper.make_tensor_value_info("b", 1, None)]
    )
    one = helper.make_node("Constant", [], ["one"], value_float=1.0)
    less = helper.make_node("Less", ["gain", "one"], ["low"])
    branch = helper.make_node("If", ["low"], ["louder"], then_branch=taken, else_branch=other)
    nodes = list(net.graph.node)
    assert nodes[1].op_type == "Mul"
    net.graph.ClearField("node")
    net.graph.node.extend([nodes[0], one, less, branch, *nodes[2:]])
    return net


def test_an_input_called_labels() -> None:
    """It is an input still, beside the labels that an object brings."""
    net = cell()
    for node in net.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = "labels" if name == "x" else name
    net.graph.input[0].name = "labels"
    onnx.save(net, "net.onnx")
    x = np.stack(sequences())
    found, _ = load(open_source(Source(workload="mine:workload")), None) if write_object(x) else (None, None)
    assert found is not None
    np.testing.assert_array_equal(found.evaluation.inputs["labels"], x)
    assert found.evaluation.labels.shape == (SAMPLES,)


def write_object(x: Array) -> bool:
    np.save("x.npy", x)
    text = """
import numpy as np
from pathlib import Path
from bitfront.core import Labelled
class Mine:
    name, model, metric = "mine", Path("net.onnx"), "mae"
    state = {"next": "state"}
    calibration = {"labels": np.load("x.npy"), "gain": np.float32(0.5)}
    evaluation = Labelled(inputs=calibration, labels=np.zeros(len(calibration["labels"])))
workload = Mine()
"""
    return Path("mine.py").write_text(text, encoding="utf-8") > 0


MODULE = """
import numpy as np
import torch
from bitfront.core import Labelled

class Cell(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.leave = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)
    def forward(self, x, state):
        state = torch.tanh(self.enter(x) + state)
        return self.leave(state), state

x = np.random.default_rng(0).standard_normal((24, 5, 8)).astype(np.float32)
first = np.zeros((24, 8), np.float32)
class Mine:
    name, model, metric = "cell", Cell(), "agreement"
    state = {"nothing": "state"}
    calibration = {"x": x, "state": first}
    evaluation = Labelled.without_labels(calibration)
workload = Mine()
bare = Mine()
bare.calibration = {"x": x}
"""


def test_a_torch_module() -> None:
    """It is exported from the first step; a state's first values are needed for that, and no pass trains it."""
    Path("mine.py").write_text(MODULE, encoding="utf-8")
    source = Source(workload="mine:workload")
    with pytest.raises(UsageError, match="expected OUTPUT=INPUT; outputs: ") as caught:
        load(open_source(source), None)
    output = caught.value.message.split("outputs: ")[1].split(";")[0].split(", ")[1]
    source = Source(workload="mine:workload", state=((output, "state"),))
    found, reference = load(open_source(source), None)
    assert found.calibration["x"].shape == (120, 8)
    assert np.asarray(found.calibration["state"])[1].any()
    assert reference.input_shapes["x"] == (None, 8)
    with pytest.raises(WorkloadError, match="no array 'state'"):
        load(open_source(Source(workload="mine:bare")), None)
    with pytest.raises(EngineError, match="sequences with a state"):
        load(open_source(source), None, PassOptions(passes=(PrunePass(),)))


def test_labels_of_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    """A metric gets them as it gets the outputs of a run, whatever the lengths; a state that is none is said first."""
    brought = sequences(*(2 + index % 3 for index in range(SAMPLES)))
    files = [{"x": x, "gain": GAIN, "labels": scores(x)[0].argmax(axis=1)} for x in brought]
    write_folder("each", files)
    Path("steps.py").write_text(
        "def right(outputs, labels):\n    return (outputs[0].argmax(-1) == labels).mean(-1)\n", encoding="utf-8"
    )
    argv = ["--model", "net.onnx", "--calib", "each", "--eval", "each", "--metric", "steps:right", *SHORT]
    assert outcome([*argv, "--out", "run"]) == 0, capsys.readouterr().err
    found = json.loads(Path("run/measurement.json").read_text())
    assert found["points"]["fp32"]["accuracy"]["value"] == 1.0
    opened = open_source(
        Source(model=Path("net.onnx"), calibration="each", evaluation="each", state=(("next", "nothing"),))
    )
    with pytest.raises(UsageError, match="--state next=nothing: expected OUTPUT=INPUT"):
        load(opened, None)
