"""TensorRT under ONNX Runtime, as far as it goes without a GPU: options, caches, shapes, what is left to others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from bitfront.backends.ort.cuda import CUDA_OPTIONS
from bitfront.backends.ort.tensorrt import OrtTensorrtBackend, engine_folder, profile_shapes
from bitfront.core import Artifact, OutputError
from tests.backends import models
from tests.backends.substitute_ort import CUDA, TENSORRT, Log, install, substitute


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    log = Log(TENSORRT, CUDA)
    install(monkeypatch, substitute(log, tmp_path))
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "cache"))
    return log


def test_the_graph_decides_on_precision(log: Log) -> None:
    """FP16 and INT8 are off, TensorRT comes before CUDA, a batch asked for is fixed."""
    OrtTensorrtBackend().compile(Artifact.onnx(models.linear()), threads=1, batch_size=4)
    (tensorrt, options), (cuda, cuda_options) = log.requests[-1][0]
    assert (tensorrt, cuda) == (TENSORRT, CUDA)
    assert cuda_options == dict(CUDA_OPTIONS)
    assert (options["trt_fp16_enable"], options["trt_int8_enable"], options["trt_engine_hw_compatible"]) == ("0",) * 3
    assert {options[f"trt_profile_{kind}_shapes"] for kind in ("min", "opt", "max")} == {"x:4x3"}
    assert log.requests[-1][1] == 0


def test_models_share_timings_but_never_engines(log: Log) -> None:
    """Weights and batch are part of the engines' folder, which the provider's own key leaves out."""
    backend = OrtTensorrtBackend()
    for model, batch in (
        (models.linear(), 1),
        (models.linear(factor=2), 1),
        (models.linear(), 2),
        (models.linear(), 1),
    ):
        backend.compile(Artifact.onnx(model), threads=1, batch_size=batch)
    options = [request[0][0][1] for request in log.requests[-4:]]
    assert len({entry["trt_timing_cache_path"] for entry in options}) == 1
    folders = [entry["trt_engine_cache_path"] for entry in options]
    assert len(set(folders)) == 3
    assert folders[0] == folders[3]
    assert all(Path(folder).is_dir() for folder in folders)


def test_biases_stay_floating(log: Log) -> None:
    """TensorRT takes floating biases alone, so the pass that makes them integers is off."""
    OrtTensorrtBackend().compile(Artifact.onnx(models.linear()), threads=1, batch_size=1)
    assert log.left_out[-1] == ("WeightBiasQuantization",)


def test_operators_come_from_a_run(log: Log) -> None:
    """A graph with compiled nodes cannot be written, so operators are those the profiler sees."""
    compiled = OrtTensorrtBackend().compile(Artifact.onnx(models.convolution(2)), threads=1, batch_size=2)
    assert sum("Conv" in operator for operator in compiled.operators()) == 2
    assert log.sessions


def test_what_tensorrt_leaves_is_told(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of the probes that ran elsewhere are counted among the notes; so is TF32."""
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    notes = OrtTensorrtBackend().capabilities().notes
    assert "int4-matmul-block64: 1 on CPUExecutionProvider" in notes["not on TensorRT"]
    assert "NVIDIA_TF32_OVERRIDE=0" in notes["tf32"]
    assert "TF32 on" in OrtTensorrtBackend().fingerprint().runtime
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert "tf32" not in OrtTensorrtBackend().capabilities().notes
    assert "TF32 off" in OrtTensorrtBackend().fingerprint().runtime
    assert log.sessions


def test_sensitivities_are_scored_on_the_processor() -> None:
    """Its stand-in reads the same graphs."""
    assert OrtTensorrtBackend().proxy_backend().name == "ort-cpu"
    assert OrtTensorrtBackend().dialect == "tensorrt"


def test_shapes_are_fixed_where_only_the_batch_is_open() -> None:
    """Every input is listed; nothing is where a batch is fixed already, another axis is open, or none is asked for."""
    assert profile_shapes(models.two_by_two(), 3) == "left:3x4,right:3x4"
    assert profile_shapes(models.two_by_two(), None) == ""
    assert profile_shapes(models.linear(batch=2), 2) == ""
    assert profile_shapes(b"no model at all", 2) == ""
    node = helper.make_node("Relu", ["x"], ["y"])
    assert profile_shapes(models.build([node], {"x": ("n", "m")}, {"y": ("n", "m")}, {}), 2) == ""
    odd = helper.make_node("Relu", ["a:0"], ["y"])
    assert profile_shapes(models.build([odd], {"a:0": ("n", 2)}, {"y": ("n", 2)}, {}), 2) == ""


def test_old_engines_are_deleted(tmp_path: Path) -> None:
    """Of many folders the most recently used stay."""
    for number, key in enumerate("abcd"):
        folder = engine_folder(tmp_path, key, keep=10)
        (folder / "x.engine").write_bytes(b"plan")
        os.utime(folder, (number, number))
    engine_folder(tmp_path, "a", keep=2)
    assert {path.name for path in (tmp_path / "engines").iterdir()} == {"a", "d"}
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="for engines cannot be made"):
        engine_folder(tmp_path / "file", "a")


def test_results_are_the_networks(log: Log) -> None:
    """A run gives what the session gives."""
    compiled = OrtTensorrtBackend().compile(Artifact.onnx(models.linear()), threads=1)
    models.assert_close(compiled.run({"x": np.array([[1, 0, 0]], np.float32)})[0], np.array([[11, 22]]))
    assert log.sessions
