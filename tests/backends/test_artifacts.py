"""What backends take of an artifact: session settings are applied, or the artifact is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitfront.backends import Backend, OrtCpuBackend
from bitfront.backends.fake import FakeBackend
from bitfront.backends.openvino.backend import OpenVinoBackend
from bitfront.backends.ort.cuda import OrtCudaBackend
from bitfront.backends.ort.tensorrt import OrtTensorrtBackend
from bitfront.backends.probe_graphs import all_probes
from bitfront.core import Artifact, BackendError
from tests.backends import models
from tests.backends.substitute_ort import CUDA, TENSORRT, Log, install, substitute

# Leaves Q/DQ as they are written: what runs shows that the session got it.
KEY = "session.disable_quant_qdq"
SETTINGS = {KEY: "1"}
QUANTISED = next(probe.model for probe in all_probes() if probe.name == "int8-conv")


def test_settings_decide_what_runs() -> None:
    """On ONNX Runtime's processor provider the same file runs as its settings say, in the profile too."""
    backend = OrtCpuBackend()
    fused = backend.compile(Artifact.onnx(QUANTISED), threads=1)
    plain = backend.compile(Artifact.onnx(QUANTISED, SETTINGS), threads=1)
    assert "QLinearConv" in fused.operators()
    assert "QLinearConv" not in plain.operators()
    x = next(probe.x for probe in all_probes() if probe.name == "int8-conv")
    assert "QLinearConv" in {layer.kind for layer in fused.profile({"x": x})}
    assert "QLinearConv" not in {layer.kind for layer in plain.profile({"x": x})}


@pytest.mark.parametrize("kind", [OrtCudaBackend, OrtTensorrtBackend])
def test_settings_reach_sessions_on_gpus(
    kind: type[OrtCudaBackend | OrtTensorrtBackend], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each session of the model has them."""
    log = Log(TENSORRT, CUDA)
    install(monkeypatch, substitute(log, tmp_path))
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path / "cache"))
    kind().compile(Artifact.onnx(models.linear(), SETTINGS), threads=1, batch_size=1)
    assert log.sessions[-1].inner.get_session_options().get_session_config_entry(KEY) == "1"


@pytest.mark.parametrize("backend", [OpenVinoBackend(), FakeBackend()], ids=lambda backend: backend.name)
def test_settings_that_would_be_ignored_are_refused(backend: Backend) -> None:
    """By backends whose runtime has no such settings; the message names them."""
    with pytest.raises(BackendError, match=f"{backend.name} has no session settings, .* run with {KEY}"):
        backend.compile(Artifact.onnx(models.linear(), SETTINGS), threads=1)
