"""OpenVINO on the processor."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bitfront.backends import Backend
from bitfront.backends.openvino.backend import OpenVinoBackend
from bitfront.core import Artifact, BackendError, BackendUnavailableError
from bitfront.lowering.dialects.openvino import FP16_HINT, PRECISION_KEY
from tests.backends import models
from tests.backends.conformance import BackendConformance

if find_spec("openvino") is None:  # imported, it would report so before anybody can stop it
    pytest.skip("OpenVINO is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def backend() -> Backend:
    return OpenVinoBackend()


class TestOpenVino(BackendConformance):
    pass


def _saying(value: str) -> bytes:
    model = onnx.load_model_from_string(models.convolution(2))
    model.metadata_props.add(key=PRECISION_KEY, value=value)
    return bytes(model.SerializeToString())


def test_operators_tell_their_precision(backend: Backend) -> None:
    """Relu is gone into its convolution, which runs in FP32, whatever the plugin's default is."""
    operators = backend.compile(Artifact.onnx(models.convolution(2)), threads=1).operators()
    assert operators.count("Convolution(f32)") == 2
    assert not any("Relu" in operator or operator.startswith("Const") for operator in operators)


def test_forms_of_the_dialect_are_supported(backend: Backend) -> None:
    """What the search offers on this runtime works here, in the precision that it is meant to."""
    found = backend.capabilities()
    for name in ("int8-conv", "int4-conv", "int8-gemm", "fp16-storage", "int4-weight-only", "int4-matmul-block"):
        assert found.supported[name], found.notes.get(name)


def test_batch_is_fixed_when_told(backend: Backend) -> None:
    """With a batch size the dynamic axis is that size; what is not dynamic stays."""
    assert backend.compile(Artifact.onnx(models.convolution(1)), threads=1, batch_size=3).input_shapes == {
        "x": (3, 2, 4, 4)
    }
    assert backend.compile(Artifact.onnx(models.linear(batch=2)), threads=1, batch_size=3).input_shapes == {"x": (2, 3)}


def test_half_precision_needs_the_artifacts_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """16 bits are asked for where the processor has them and the file allows them; FP32 else."""
    asked: list[str] = []

    def spy(self: OpenVinoBackend, network: Any, options: dict[str, Any], *batch: Any) -> Any:
        asked.append(options["INFERENCE_PRECISION_HINT"])
        return real(self, network, {**options, "INFERENCE_PRECISION_HINT": "f32"}, *batch)

    real = OpenVinoBackend._compile
    monkeypatch.setattr(OpenVinoBackend, "_compile", spy)
    for hint in ("bf16", ""):
        fresh = OpenVinoBackend()
        fresh.__dict__["_half_hint"] = hint
        for model in (_saying(FP16_HINT), _saying("else"), models.convolution(2)):
            fresh.compile(Artifact.onnx(model), threads=1)
    assert asked == ["bf16", "f32", "f32", "f32", "f32", "f32"]


def test_profile_names_the_artifacts_nodes(backend: Backend) -> None:
    """Each convolution shows with its node, a kernel and a time, if that is a microsecond or more."""
    x = np.ones((4096, 2, 4, 4), np.float32)
    layers = [
        layer
        for layer in backend.compile(Artifact.onnx(models.convolution(3)), threads=1, batch_size=len(x)).profile(
            {"x": x}
        )
        if layer.kind == "Convolution"
    ]
    assert [layer.nodes[0] for layer in layers] == ["conv0", "conv1", "conv2"]
    assert all(layer.detail and layer.latency_us is not None and layer.precision == "f32" for layer in layers)


def test_engine_and_footprint_agree(backend: Backend) -> None:
    """The exported model is as large as the footprint says; constants of a linear layer are its weights."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    engine, footprint = compiled.engine(), compiled.memory_usage()
    assert engine is not None
    assert footprint.engine_bytes == len(engine) > 0
    assert footprint.weight_bytes is not None
    assert footprint.weight_bytes >= (6 + 2) * 4


def test_timer_refuses_wrong_inputs(backend: Backend) -> None:
    """Inputs are looked at before anything is timed."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    with pytest.raises(BackendError, match="input 'x': expected type float32, got float64"):
        compiled.timer({"x": np.ones((1, 3))}, backend.clock)


def test_inputs_of_any_layout_are_read_rightly(backend: Backend) -> None:
    """An array that is not contiguous gives what its contiguous copy gives, and is not changed."""
    x = np.random.default_rng(0).normal(size=(4, 4, 2, 3)).astype(np.float32).transpose(3, 2, 0, 1)
    before = x.copy()
    (y,) = backend.compile(Artifact.onnx(models.convolution(1)), threads=1).run({"x": x})
    models.assert_close(y, 2 * np.maximum(x, 0))
    np.testing.assert_array_equal(x, before)


def test_several_threads_leave_the_cores_as_they_were(backend: Backend) -> None:
    """Compiling for two threads gives the same numbers and takes no cores away from this process."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    x = np.random.default_rng(0).normal(size=(4, 2, 4, 4)).astype(np.float32)
    one, two = (
        backend.compile(Artifact.onnx(models.convolution(3)), threads=threads).run({"x": x})[0] for threads in (1, 2)
    )
    models.assert_close(one, two, atol=1e-6)
    assert before == (os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set())


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenVINO the first use names the extra to install."""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "openvino":
            raise ImportError("No module named 'openvino'")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailableError, match="cannot be imported: No module named 'openvino'") as caught:
        OpenVinoBackend().fingerprint()
    assert caught.value.hint == "install it with: pip install 'bitfront[openvino]'"


def test_nothing_is_reported(tmp_path: Path) -> None:
    """Importing OpenVINO our way loads no telemetry and leaves no trace of it in the home folder."""
    code = (
        "import sys\n"
        "from bitfront.backends.openvino.package import load_openvino\n"
        "load_openvino()\n"
        "loaded = [n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m is not None]\n"
        "sys.exit(', '.join(loaded) or 0)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HOME": str(tmp_path)},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
