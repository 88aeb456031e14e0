"""A search of a network that no single file holds, with lowered limits: points of two files, which apply repeats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bitfront.core.artifact import load_artifact
from bitfront.lowering import weight_files
from bitfront.search.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a classifier of two layers and external data, and its inputs; 20 kB are beyond one file."""
    monkeypatch.setattr(weight_files, "DETACHED_NETWORK", 8_000)
    monkeypatch.setattr(weight_files, "DETACHED_TENSOR", 4_000)
    monkeypatch.setattr(weight_files, "LIMIT", 20_000)
    generator = np.random.default_rng(0)
    weights = {"w": (64, 96), "v": (96, 16)}
    tensors = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32) / 8, name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "v"], ["y"], name="second"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=1024)
    inputs = generator.standard_normal((64, 64)).astype(np.float32)
    np.savez(tmp_path / "calib.npz", x=inputs)
    np.savez(tmp_path / "eval.npz", x=inputs, labels=generator.integers(0, 16, 64))
    return tmp_path


def test_search_and_apply(folder: Path) -> None:
    """Every point that is too large for one file is two, and is written again from its config byte for byte."""
    run = folder / "run"
    model, calibration = str(folder / "net.onnx"), str(folder / "calib.npz")
    data = ["--model", model, "--calib", calibration, "--eval", str(folder / "eval.npz")]
    status = main([*data, "--out", str(run), "--max-drop", "1", "--trials", "2", "--sensitivity-samples", "8"])
    assert status == 0
    points = sorted((run / "configs").glob("*.json"))
    kinds = set()
    for config in points:
        written = load_artifact(run / "models" / f"{config.stem}.onnx")
        again = folder / "again" / f"{config.stem}.onnx"
        assert main(["apply", str(config), "--model", model, "--calib", calibration, "-o", str(again)]) == 0
        assert again.read_bytes() == (run / "models" / f"{config.stem}.onnx").read_bytes()
        assert load_artifact(again).size_bytes == written.size_bytes
        kinds.add(len(written.files))
    assert kinds == {1, 2}  # FP32 is beyond the limit, INT4 is not
