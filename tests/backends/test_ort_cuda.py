"""ONNX Runtime on a GPU, as far as it goes without one: options, binding, fall-backs, what is withheld."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from bitfront.backends.ort.cuda import CUDA_OPTIONS, OrtCudaBackend, OrtGpuModel
from bitfront.backends.ort.cuda_probe import convolution, verdict
from bitfront.backends.ort.session import CPU_PROVIDER, SessionSetup, start_session
from bitfront.core import Artifact, BackendError, BackendUnavailableError, Precision, UsageError
from tests.backends import models
from tests.backends.substitute_ort import CUDA, Log, Session, install, substitute

_X = np.array([[1, 0, 0]], np.float32)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Log:
    log = Log(CUDA)
    install(monkeypatch, substitute(log, tmp_path))
    return log


def test_provider_and_options_are_handed_over(log: Log) -> None:
    """Every session asks for the CUDA provider with TF32 off, and for no fall-back."""
    OrtCudaBackend().compile(Artifact.onnx(models.linear()), threads=1)
    for providers, enable_fallback in log.requests:
        assert providers == ((CUDA, dict(CUDA_OPTIONS)),)
        assert enable_fallback == 0
    assert CUDA_OPTIONS["use_tf32"] == "0"
    assert CUDA_OPTIONS["cudnn_conv_algo_search"] == "EXHAUSTIVE"


def test_a_provider_left_out_silently_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A session that runs on the processor instead is an error that says so, before anything is measured."""
    install(monkeypatch, substitute(Log(), tmp_path))
    with pytest.raises(BackendUnavailableError, match="expected to run on CUDAExecutionProvider, got CPUExecution"):
        OrtCudaBackend().compile(Artifact.onnx(models.linear()), threads=1)


def test_a_device_that_does_not_start_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What CUDA says when the first network runs becomes the reason."""
    install(monkeypatch, substitute(Log(CUDA), tmp_path))

    def fail(*_: object) -> None:
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected\nstack")

    monkeypatch.setattr(Session, "run", fail)
    with pytest.raises(BackendUnavailableError, match="cannot start: CUDA failure 100: no CUDA-capable") as caught:
        OrtCudaBackend().capabilities()
    assert "nvidia-smi" in caught.value.hint


def test_timed_runs_copy_nothing(log: Log) -> None:
    """Inputs go to the device once, outputs stay in the buffers of the first run, each run is waited for."""
    model = OrtCudaBackend().compile(Artifact.onnx(models.two_by_two()), threads=1)
    session = log.sessions[-1]
    inputs = {"right": np.full((1, 4), 2, np.float32), "left": np.full((1, 4), 5, np.float32)}
    ticks = iter(range(0, 1000, 10))
    timer = model.timer(inputs, lambda: next(ticks))
    (binding,) = session.bindings
    made = dict(binding.outputs)
    assert list(made) == ["total", "gap"]
    assert all(value is not None for value in made.values())
    assert timer(3).tolist() == [10, 10, 10]
    assert timer(2).tolist() == [10, 10]
    assert log.uploads == [("cuda", 0)] * 2
    assert session.bound_runs == 1 + 5
    assert binding.synchronised == 5
    assert binding.outputs == made


def test_timing_refuses_wrong_inputs(log: Log) -> None:
    """What is wrong with an input is said before anything is bound."""
    model = OrtCudaBackend().compile(Artifact.onnx(models.linear()), threads=1)
    with pytest.raises(BackendError, match=r"ort-cuda: input 'x': expected type float32, got float64"):
        model.timer({"x": _X.astype(np.float64)}, lambda: 0)
    assert log.sessions[-1].bindings == []


def test_failures_while_timing_are_typed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that fails in a timed run gives our error, not its own."""
    timer = OrtCudaBackend().compile(Artifact.onnx(models.linear()), threads=1).timer({"x": _X}, lambda: 0)

    def fail(*_: object) -> None:
        raise RuntimeError("CUDNN_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(Session, "run_with_iobinding", fail)
    with pytest.raises(BackendError, match="ort-cuda: running the model failed: CUDNN_STATUS_EXECUTION_FAILED"):
        timer(1)
    assert log.sessions


def test_results_and_operators_come_from_the_session(log: Log) -> None:
    """Outputs are the network's, and the profile says where each operator ran."""
    model = OrtCudaBackend().compile(Artifact.onnx(models.linear()), threads=1)
    models.assert_close(model.run({"x": _X})[0], np.array([[11, 22]]))
    (layer,) = model.profile({"x": _X})
    assert (layer.kind, layer.precision, layer.detail) == ("Gemm", "fp32", "CPUExecutionProvider")
    assert layer.latency_us is not None
    assert log.sessions


def test_no_threads_are_refused(log: Log) -> None:
    """Zero threads is bad usage here as elsewhere."""
    with pytest.raises(UsageError, match="expected a positive whole number, got 0"):
        OrtCudaBackend().compile(Artifact.onnx(models.linear()), threads=0)
    assert not log.sessions


def test_fingerprint_names_device_and_libraries(log: Log) -> None:
    """GPU, driver, architecture and versions are in the key."""
    found = OrtCudaBackend().fingerprint()
    assert (found.device, found.instructions) == ("GPU X, driver 550.1", ("sm_90",))
    assert found.runtime.startswith("onnxruntime 1.31.0, CUDA 13.0, cuDNN ")
    assert log.sessions


@pytest.mark.parametrize(
    ("fp16", "int8", "withheld"), [(0.5, 1.3, True), (0.5, 0.7, True), (0.5, 0.3, False), (1.1, 0.9, False)]
)
def test_int8_has_to_beat_both_floating_forms(fp16: float, int8: float, withheld: bool) -> None:
    """INT8 is withheld unless it is faster than FP32 and FP16, with the ratios seen."""
    reason = verdict({"fp32": 1.0, "fp16": fp16, "int8": int8})
    assert bool(reason) == withheld
    assert not withheld or (f"{int8:.2f} ×" in reason and f"{fp16:.2f} ×" in reason)


def test_withheld_is_probed_once(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's reason is what is withheld; asking again does not probe again."""
    asked: list[object] = []

    def slow(backend: object) -> str:
        asked.append(backend)
        return "too slow"

    monkeypatch.setattr("bitfront.backends.ort.cuda.integer_shortcoming", slow)
    backend = OrtCudaBackend()
    assert backend.unprofitable_precisions() == backend.unprofitable_precisions() == {Precision.INT8: "too slow"}
    assert asked == [backend]
    monkeypatch.setattr("bitfront.backends.ort.cuda.integer_shortcoming", lambda _: "")
    assert OrtCudaBackend().unprofitable_precisions() == {}
    assert not log.sessions


def test_the_probed_forms_agree() -> None:
    """FP16 and INT8 compute the convolution that FP32 does, so their times compare; another scale would show."""
    from bitfront.backends import get_backend

    x = np.random.default_rng(0).normal(size=(1, 256, 28, 28)).astype(np.float32)
    full, half, integer = (
        get_backend("ort-cpu").compile(Artifact.onnx(convolution(form)), threads=1).run({"x": x})[0].astype(np.float64)
        for form in ("fp32", "fp16", "int8")
    )
    assert np.abs(half - full).max() < 0.01
    assert np.abs(integer - full).max() < 0.3
    assert np.abs(integer * 1.2 - full).max() > 0.3


def test_binding_is_the_runtimes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the processor for a device, the runtime's own bindings are made, run and timed as they are on a GPU."""
    monkeypatch.setattr("bitfront.backends.ort.cuda.DEVICE", "cpu")
    setup = SessionSetup(extra="cpu", providers=((CPU_PROVIDER, {}),))
    model = OrtGpuModel(start_session(models.two_by_two(), setup), models.two_by_two(), "bound", setup)
    inputs = {"right": np.full((3, 4), 2, np.float32), "left": np.full((3, 4), 5, np.float32)}
    assert (model.timer(inputs, time.perf_counter_ns)(4) > 0).all()
    binding = model._bound(inputs)
    model._session.run_with_iobinding(binding)
    total, gap = binding.copy_outputs_to_cpu()
    models.assert_close(total, np.full((3, 4), 7))
    models.assert_close(gap, np.full((3, 4), 3))
