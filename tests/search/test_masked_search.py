"""Searches of networks whose inputs, inner tensors and outputs hold −∞ on purpose."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.search.command_line import Files, outcome

LENGTH, WIDTH, CLASSES, COUNT = 6, 16, 4, 48


def _network() -> onnx.ModelProto:
    """Attention over positions that the input "mask" leaves, and a classifier whose bias rules one class out."""
    rng = np.random.default_rng(0)
    bias = np.array([0, -np.inf, 0, 0], np.float32)
    weights = {"wq": rng.normal(size=(WIDTH, WIDTH)) * 0.3, "wo": rng.normal(size=(WIDTH, CLASSES)), "axis": [1]}
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], "query"),
        helper.make_node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Add", ["s", "mask"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["o"]),
        helper.make_node("ReduceMean", ["o", "axis"], ["h"], keepdims=0),
        helper.make_node("Gemm", ["h", "wo", "b"], ["y"], "classifier"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", LENGTH, WIDTH]),
            helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", LENGTH, LENGTH]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [
            numpy_helper.from_array(np.asarray(value, np.int64 if name == "axis" else np.float32), name)
            for name, value in {**weights, "b": bias}.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _files(folder: Path) -> Files:
    files, rng = Files(folder=folder), np.random.default_rng(1)
    onnx.save(_network(), files.net)
    kept = rng.random((COUNT, LENGTH, LENGTH)) < 0.5
    inputs = {
        "x": rng.normal(size=(COUNT, LENGTH, WIDTH)).astype(np.float32),
        "mask": np.where(kept | np.eye(LENGTH, dtype=np.bool_), 0, -np.inf).astype(np.float32),
    }
    session = onnxruntime.InferenceSession(files.net, providers=["CPUExecutionProvider"])
    answers = np.asarray(session.run(None, inputs)[0])
    files.write_calib(**inputs)
    files.write_eval(**inputs, labels=answers.argmax(axis=1))
    return files


def test_a_masked_classifier_is_searched(tmp_path: Path) -> None:
    """Both layers are scored in numbers, the projection in INT8 too."""
    files, out = _files(tmp_path), tmp_path / "run"
    argv = files.argv("--trials", "3", "--sensitivity-samples", "16", "--max-drop", "0.5", "--quiet")
    assert outcome([*argv, "--backend", "fake", "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO((out / "sensitivity.csv").read_text(encoding="utf-8"))))
    assert {row["measure"] for row in rows} == {"kl:1"}
    scored = {(row["group"], row["choice"]): float(row["alone"]) for row in rows}
    assert 0 < scored["query", "int8:mse"] < scored["query", "int4:mse"]
    assert all(math.isfinite(value) for value in scored.values())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_mask_is_refused(value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and +∞ in an input are named as before."""
    files = _files(tmp_path)
    arrays = dict(np.load(files.calib))
    arrays["mask"][3, 1, 2] = value
    files.write_calib(**arrays)
    assert outcome(files.argv("--backend", "fake", "--max-drop", "0.5", "--out", str(tmp_path / "run"))) == 2
    assert "array 'mask': 1 values are NaN or infinite, the first at (3, 1, 2)" in capsys.readouterr().err
