"""Networks in which nothing can be decided: FP32 as given is the only point, and the reasons are told everywhere."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import CalibrationSettings, ContentStore, Precision
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.layers import QuantisableLayers
from bitfront.lowering.lowerer import Lowerer
from bitfront.report.results import RunResults
from bitfront.report.tables import front_rows
from bitfront.search.space.only_fp32 import why_only_fp32
from tests.references import make_reference
from tests.search.command_line import Files, enter, network, outcome, write_files

RNG = np.random.default_rng(0)
SMALL = ("--trials", "4", "--sensitivity-samples", "8", "--max-drop", "0.5", "--quiet")


def _model(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray[Any, Any]], shape: tuple[int, ...] = (16,)
) -> onnx.ModelProto:
    """From "x" (n, *shape) to "y" (n, 4)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _normal(*shape: int) -> np.ndarray[Any, Any]:
    return RNG.normal(size=shape).astype(np.float32)


def _recurrent() -> onnx.ModelProto:
    """One of its weights is scaled by what the network reads."""
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Mul", ["given", "m"], ["R"]),
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["t", "W", "R"], ["", "h"], "rnn", hidden_size=4),
        helper.make_node("Squeeze", ["h", "zero"], ["y"]),
    ]
    return _model(nodes, {"W": _normal(1, 16, 8), "given": _normal(1, 16, 4), "zero": np.array([0])}, (5, 8))


def _integer() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("Cast", ["a"], ["q"], to=TensorProto.UINT8),
        helper.make_node("MatMulInteger", ["q", "w"], ["i"], "product"),
        helper.make_node("Cast", ["i"], ["y"], to=TensorProto.FLOAT),
    ]
    return _model(nodes, {"w": RNG.integers(-99, 99, (16, 4)).astype(np.int8)})


def _weightless() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Reshape", ["x", "to"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["y"], axes=[1], keepdims=0),
    ]
    return _model(nodes, {"to": np.array([-1, 4, 4])})


def _branches() -> onnx.ModelProto:
    """Both branches of an If multiply element by element by a weight of their own, which is no layer."""
    bodies = {}
    for name in ("then_branch", "else_branch"):
        result = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
        node = helper.make_node("Mul", ["x", f"{name}_w"], [f"{name}_y"], f"{name}_product")
        bodies[name] = helper.make_graph(
            [node], name, [], [result], [numpy_helper.from_array(_normal(1, 16), f"{name}_w")]
        )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["m"], keepdims=0),
        helper.make_node("Greater", ["m", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], "choice", **bodies),
    ]
    return _model(nodes, {"zero": np.array(0, np.float32)})


NETWORKS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "recurrent": (_recurrent, "its R is computed at run time"),
    "integer": (_integer, "it is quantised already"),
    "weightless": (_weightless, "none of its operators holds weights"),
    "branches": (_branches, "it stands in a subgraph of If"),
}


def _files(folder: Path, model: onnx.ModelProto) -> Files:
    folder.mkdir(parents=True, exist_ok=True)
    files = Files(folder=folder)
    onnx.save(model, files.net)
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    x = RNG.normal(size=(40, *shape)).astype(np.float32)
    files.write_calib(x=x)
    files.write_eval(x=x, labels=np.arange(40) % 4)
    return files


def _results(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "measurement.json").read_text(encoding="utf-8")))


def _rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "sensitivity.csv").read_text(encoding="utf-8"))))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_search_ends_with_the_given_network(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 with the network as given; the reasons are in the results, the summary and the report."""
    make, reason = NETWORKS[name]
    files = _files(tmp_path, make())
    assert outcome(files.argv(*SMALL, "--backend", "fake", "--out", str(tmp_path / "run"))) == 0
    said, results = capsys.readouterr().out, _results(tmp_path / "run")
    # Where its FP32 form is of another size or speed, the file as given is a point of its own.
    given = "given" if "given" in results["points"] else "fp32"
    assert set(results["points"]) == {"fp32", given}
    assert results["front"] == [given]
    assert results["recommended"] == given
    assert all(row[-1] for row in front_rows(RunResults.load(tmp_path / "run")))  # layers: a dash where there are none
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    for text in ("FP32 as given is the only point", reason):
        assert text in said
        assert text in page
        assert any(text in line for line in results["only_fp32"])


def test_budgets_decide_on_the_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the one point misses is told; resuming measures nothing anew."""
    files = _files(tmp_path, _recurrent())
    argv = files.argv(*SMALL, "--backend", "fake", "--out", str(tmp_path / "run"), "--budget-mb", "0.000001")
    assert outcome(argv) == 3
    assert "Nearest by" in capsys.readouterr().out
    assert outcome([*argv, "--resume"]) == 3
    assert "its R is computed at run time" in capsys.readouterr().out
    assert outcome(["report", str(tmp_path / "run")]) == 0


def test_several_backends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each ends with the one point."""
    files = _files(tmp_path, _integer())
    argv = files.argv(*SMALL, "--backend", "ort-cpu,fake", "--out", str(tmp_path / "run"))
    assert outcome(argv) == 0
    assert "The network has no layer" in capsys.readouterr().out
    for backend in ("ort-cpu", "fake"):
        results = _results(tmp_path / "run" / backend)
        assert "fp32" in results["points"]
        assert results["only_fp32"][0].startswith("The network has no layer")


@pytest.mark.parametrize("name", NETWORKS)
def test_sensitivity_and_inspect_say_so(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0, a sentence, the reason, and an empty table."""
    make, reason = NETWORKS[name]
    files = _files(tmp_path, make())
    out = tmp_path / "scores"
    argv = ["sensitivity", "--model", str(files.net), "--calib", str(files.calib), "--quiet", "--out", str(out)]
    assert outcome([*argv, "--backend", "fake"]) == 0
    said = capsys.readouterr().out
    assert "The network has no layer that can take another precision" in said
    assert reason in said
    assert _rows(out) == []
    assert outcome(["inspect", str(files.net)]) == 0
    said = capsys.readouterr().out
    assert "No layer of this network can take another precision" in said
    assert reason.replace("none of its", "None of its") in said


def test_weights_of_branches_are_told_with_their_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inspection and results say the same of them."""
    files = _files(tmp_path, _branches())
    told = "else_branch_product, then_branch_product: it stands in a subgraph of If 'choice' (100.0% of the weights)"
    assert outcome(["inspect", str(files.net)]) == 0
    said = capsys.readouterr().out
    assert told in " ".join(said.split())
    assert "Weights that stay as they are: 100.0% of 32." in said
    assert outcome(files.argv(*SMALL, "--backend", "fake", "--out", str(tmp_path / "run"))) == 0
    assert told in _results(tmp_path / "run")["only_fp32"]


def test_layers_that_may_take_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """FP32 alone was asked for; and layers whose every scheme is refused are told with why."""
    files = write_files(tmp_path)
    argv = files.argv(*SMALL, "--backend", "fake", "--precisions", "fp32", "--out", str(tmp_path / "run"))
    assert outcome(argv) == 0
    assert "no other precision was asked for" in capsys.readouterr().out
    model = network()
    lowerer = Lowerer(
        make_reference(model, "net"), get_dialect("ort-cpu"), None, CalibrationSettings(), ContentStore(None)
    )
    (first, *reasons) = why_only_fp32(lowerer, tuple(Precision), ["conv int8:mse: its outputs are not finite"] * 2)
    assert first.startswith("No layer may take another precision than FP32")
    assert reasons.count("conv int8:mse: its outputs are not finite") == 1


def test_one_layer_alone(tmp_path: Path) -> None:
    """A network of one group is searched like any other."""
    model = _model([helper.make_node("MatMul", ["x", "w"], ["y"], "fc")], {"w": _normal(16, 4)})
    files = _files(tmp_path, model)
    assert outcome(files.argv(*SMALL, "--backend", "fake", "--out", str(tmp_path / "run"))) == 0
    assert {"fp32", "int8"} <= set(_results(tmp_path / "run")["points"])


def test_long_lists_are_cut() -> None:
    """Twenty reasons and a count of the others."""
    alone = {f"rnn{i}": f"its weight {i} is computed at run time" for i in range(30)}
    quantisable = QuantisableLayers(layers=(), groups=(), edges=(), left_alone=alone)
    lowerer = SimpleNamespace(quantisable=quantisable, reference=make_reference(_weightless(), "net"))
    found = why_only_fp32(cast(Lowerer, lowerer), tuple(Precision))
    assert len(found) == 22
    assert found[-1] == "and 10 more"


def test_a_metric_of_numbers_is_scored_by_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a run the metric decides on the measure, and sensitivity.csv says which it was; a wrong word is refused."""
    files = write_files(tmp_path)
    enter(tmp_path, monkeypatch)
    text = "def near(outputs, labels):\n    return -((outputs[0][:, 0] - labels) ** 2)\n"
    text += "def scored(outputs, labels):\n    return near(outputs, labels)\nscored.outputs_are = 'classes'\n"
    text += "def wrong(outputs, labels):\n    return near(outputs, labels)\nwrong.outputs_are = 'logits'\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    for name, measure in (("near", "nsr"), ("scored", "kl:1")):
        argv = files.argv("--backend", "fake", *SMALL, "--max-drop", "1000", "--precisions", "int8")
        assert outcome([*argv, "--metric", f"mine:{name}", "--trials", "2", "--out", str(tmp_path / name)]) == 0
        assert {row["measure"] for row in _rows(tmp_path / name)} == {measure}
    assert outcome(files.argv("--backend", "fake", "--metric", "mine:wrong", "--out", str(tmp_path / "wrong"))) == 2
