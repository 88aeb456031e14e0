"""Networks without a batch, from beginning to end: a file is a sample, whatever its shapes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from bitfront.core import Array, DataError, Labelled
from bitfront.search.inputs.loading import load, open_source
from bitfront.search.inputs.source import Source
from tests.search.command_line import enter, outcome, write_npz
from tests.search.inputs.data.reading import Shape, model

SAMPLES, CLASSES = 24, 3


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    return tmp_path


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended, and what it said, in one line."""

    code: int
    err: str


def ran(argv: list[str], capsys: pytest.CaptureFixture[str]) -> Ran:
    code = outcome(argv)
    return Ran(code, " ".join(capsys.readouterr().err.split()))


def graph_network() -> onnx.ModelProto:
    """A graph network: atoms (atoms, 8) and bonds (2, bonds), each atom's neighbours added up; scores of the graph."""
    generator = np.random.default_rng(0)
    weights: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
        "w": generator.standard_normal((8, 16)).astype(np.float32),
        "v": generator.standard_normal((16, CLASSES)).astype(np.float32),
        "zero": np.array([0]),
        "first": np.array(0),
        "second": np.array(1),
    }
    nodes = [
        onnx.helper.make_node("MatMul", ["atoms", "w"], ["h"], name="embed"),
        onnx.helper.make_node("Gather", ["bonds", "first"], ["from"]),
        onnx.helper.make_node("Gather", ["bonds", "second"], ["to"]),
        onnx.helper.make_node("Gather", ["h", "from"], ["a"]),
        onnx.helper.make_node("Gather", ["h", "to"], ["b"]),
        onnx.helper.make_node("Mul", ["a", "b"], ["message"]),
        onnx.helper.make_node("ReduceMean", ["message", "zero"], ["pooled"], keepdims=1),
        onnx.helper.make_node("MatMul", ["pooled", "v"], ["scores"], name="head"),
    ]
    inputs: dict[str, tuple[int, Shape]] = {
        "atoms": (TensorProto.FLOAT, ("num_atoms", 8)),
        "bonds": (TensorProto.INT64, (2, "num_bonds")),
    }
    return model(nodes, inputs, {"scores": (1, CLASSES)}, weights)


def graphs() -> list[dict[str, Array]]:
    generator = np.random.default_rng(1)
    found: list[dict[str, Array]] = []
    for _ in range(SAMPLES):
        atoms, bonds = generator.integers(3, 9), generator.integers(2, 12)
        found.append(
            {
                "atoms": generator.standard_normal((atoms, 8)).astype(np.float32),
                "bonds": generator.integers(0, atoms, (2, bonds)),
            }
        )
    return found


def write(samples: list[dict[str, Array]]) -> None:
    for place in ("calib", "eval"):
        Path(place).mkdir()
    for index, sample in enumerate(samples):
        write_npz(Path(f"calib/{index:02d}.npz"), sample)
        write_npz(Path(f"eval/{index:02d}.npz"), {**sample, "labels": np.array(index % CLASSES)})


def source(**more: object) -> Source:
    return Source(model=Path("net.onnx"), calibration="calib", evaluation="eval", **more)  # type: ignore[arg-type]


def test_a_search_on_graphs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Graphs of different sizes, a file each: every run is one graph, and layers of the network become smaller."""
    onnx.save(graph_network(), "net.onnx")
    write(graphs())
    argv = ["--model", "net.onnx", "--calib", "calib", "--eval", "eval", "--max-drop", "1", "--trials", "4"]
    found = ran([*argv, "--sensitivity-samples", "4", "--out", "run"], capsys)
    assert found.code == 0, found.err
    assert "each file is taken for one sample" in found.err
    points = json.loads((folder / "run" / "measurement.json").read_text())["points"]
    assert len(points) > 1
    config = str(next((folder / "run" / "configs").glob("*.json")))
    applied = ran(["apply", config, "--model", "net.onnx", "--calib", "calib", "-o", "again.onnx"], capsys)
    assert applied.code == 0, applied.err


def test_files_with_one_label_for_several_rows() -> None:
    """A file with rows along what looks like a batch and one label is one sample."""
    net = model(
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
            onnx.helper.make_node("ReduceMean", ["h", "zero"], ["y"], keepdims=0),
        ],
        {"x": (TensorProto.FLOAT, ("frames", 8))},
        {"y": (CLASSES,)},
        {"w": np.ones((8, CLASSES), np.float32), "zero": np.array([0])},
    )
    onnx.save(net, "net.onnx")
    write([{"x": np.ones((3 + index % 4, 8), np.float32)} for index in range(SAMPLES)])
    workload, reference = load(open_source(source()), None)
    assert reference.batching.single
    assert len(workload.evaluation) == len(workload.calibration["x"]) == SAMPLES


def test_what_is_said_comes_before_what_files_show() -> None:
    """With --batch-axis nothing is taken from the files."""
    onnx.save(graph_network(), "net.onnx")
    write(graphs())
    with pytest.raises(DataError, match=r"different numbers of samples|expected shape"):
        load(open_source(source(batch_axes=(("atoms", 0), ("bonds", 1)))), None)
    _, reference = load(open_source(source(batch_axes=(("atoms", None), ("bonds", None)))), None)
    assert reference.batching.single


def test_lists_of_samples_from_python(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A workload may bring lists of arrays of different shapes, for inputs with and without a batch axis."""
    onnx.save(graph_network(), "net.onnx")
    brought = graphs()

    evaluation = Labelled(
        inputs={key: tuple(sample[key] for sample in brought) for key in ("atoms", "bonds")},  # type: ignore[misc]
        labels=np.arange(SAMPLES) % CLASSES,
    )
    calibration = {key: [sample[key] for sample in brought] for key in ("atoms", "bonds")}
    module = ModuleType("graphs_of_a_person")
    module.workload = SimpleNamespace(  # type: ignore[attr-defined]
        name="graphs", model=folder / "net.onnx", metric="top1", calibration=calibration, evaluation=evaluation
    )
    monkeypatch.setitem(sys.modules, "graphs_of_a_person", module)
    asked = Source(workload="graphs_of_a_person:workload", batch_axes=(("atoms", None), ("bonds", None)))
    workload, reference = load(open_source(asked), None)
    assert reference.batching.single
    np.testing.assert_array_equal(workload.calibration["atoms"][3], brought[3]["atoms"])


@pytest.mark.parametrize("command", ["inspect", "measure"])
def test_commands_take_batch_axes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command that reads a network takes the option, and says what is wrong with it."""
    net = graph_network()
    onnx.save(net, "net.onnx")
    found = ran([command, "net.onnx", "--batch-axis", "nothing=0"], capsys)
    assert found.code == 2
    assert "'nothing' is no input or output; inputs: atoms, bonds; outputs: scores" in found.err
    found = ran([command, "net.onnx", "--batch-axis", "atoms=first"], capsys)
    assert found.code == 2
    assert "expected NAME=AXIS" in found.err
    if command == "inspect":
        found = ran([command, "net.onnx", "--batch-axis", "atoms=none", "bonds=none"], capsys)
        assert found.code == 0, found.err
    else:
        write_npz(Path("one.npz"), graphs()[0])
        argv = [command, "net.onnx", "--inputs", "one.npz", "--batch-axis", "atoms=none", "bonds=none"]
        found = ran(argv, capsys)
        assert found.code == 0, found.err
