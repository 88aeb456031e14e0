"""What keeps a GPU provider from starting, and what to install."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfront.backends import OrtCpuBackend
from bitfront.backends.ort.gpu import NvidiaDevice, first_device, parse_devices
from bitfront.backends.ort.libraries import explain, load_provider, wheel_of
from bitfront.core import Artifact, BackendUnavailableError
from tests.backends import models
from tests.backends.substitute_ort import CPU, CUDA, TENSORRT, Log, substitute

_NOT_FOUND = "cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    ("library", "cuda", "hint"),
    [
        ("libcublasLt.so.12", "12.8", "pip install nvidia-cublas-cu12,"),
        ("libcublasLt.so.13", "13.0", "pip install nvidia-cublas,"),
        ("libcudnn.so.9", "13.0", "pip install 'nvidia-cudnn-cu13==9.*',"),
        ("libcudart.so.12", "12.8", "pip install nvidia-cuda-runtime-cu12,"),
        ("libnvinfer.so.10", "13.0", "pip install 'tensorrt-cu13==10.*',"),
        ("libnvonnxparser.so.10", "12.8", "pip install 'tensorrt-cu12==10.*',"),
        ("libcuda.so.1", "13.0", "install the driver of the GPU"),
        ("libstrange.so.4", "13.0", "install it, or CUDA 13.0 as a whole"),
    ],
)
def test_a_missing_library_is_named_with_what_brings_it(library: str, cuda: str, hint: str) -> None:
    """The linker's message becomes the library's name and the wheel that holds it."""
    said = f"Failed to load library libonnxruntime_providers_cuda.so with error: {library}: {_NOT_FOUND}"
    reason, advice = explain(said, cuda)
    assert reason.startswith(library)
    assert advice.startswith(hint)


def test_other_reasons_are_quoted() -> None:
    """What is not about a missing library is passed on, first line alone; an empty one is said to be empty."""
    assert explain("CUDA failure 35: driver too old\nmore", "13.0")[0] == "CUDA failure 35: driver too old"
    assert "CUDA 13" in explain("CUDA failure 35", "13.0")[1]
    assert explain("", "12.8")[0] == "no reason was given"
    assert wheel_of("libm", "6", "13.0") is None


def test_a_provider_whose_library_is_missing_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The provider's own library is loaded first, so what it lacks is known without the runtime's stderr."""
    module = substitute(Log(CUDA), tmp_path)
    monkeypatch.setattr("bitfront.backends.ort.libraries.load_onnxruntime", lambda _: module)
    loaded: list[str] = []

    def load(path: str) -> None:
        loaded.append(Path(path).name)
        if path.endswith("providers_cuda.so"):
            raise OSError(f"libcudnn.so.9: {_NOT_FOUND}")

    with pytest.raises(
        BackendUnavailableError, match=r"CUDAExecutionProvider cannot be loaded: libcudnn\.so\.9"
    ) as got:
        load_provider(CUDA, load)
    assert got.value.hint.startswith("pip install 'nvidia-cudnn-cu13==9.*'")
    assert loaded == ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"]
    assert load_provider(TENSORRT, load) is module


def test_the_wheel_without_gpu_support_is_recognised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the processor's wheel the hint replaces it; installing the other beside it would break both."""
    module = substitute(Log(), tmp_path, available=(CPU,))
    monkeypatch.setattr("bitfront.backends.ort.libraries.load_onnxruntime", lambda _: module)
    with pytest.raises(
        BackendUnavailableError, match=r"has no CUDAExecutionProvider, only CPUExecution.*without GPU"
    ) as got:
        load_provider(CUDA, lambda _: None)
    assert got.value.hint == "pip uninstall onnxruntime, then pip install 'bitfront[gpu]'"


def test_wheels_of_nvidia_are_made_known_quietly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runtime's own preloading is called and its chatter kept from the user; its failure is no error."""
    module = substitute(Log(CUDA), tmp_path)
    calls: list[int] = []

    def preload() -> None:
        calls.append(1)
        print("Failed to load libcufft.so.12")
        raise RuntimeError("Invalid parameter")

    module.preload_dlls = preload
    monkeypatch.setattr("bitfront.backends.ort.libraries.load_onnxruntime", lambda _: module)
    load_provider(CUDA, lambda _: None)
    assert calls == [1]
    assert capsys.readouterr().out == ""


def test_devices_are_read() -> None:
    """Names may hold commas; every line is a device."""
    text = "NVIDIA H100 80GB HBM3, 9.0, 550.54.15\nOdd, Name, 8.6, 535.1\n"
    assert parse_devices(text) == (
        NvidiaDevice(name="NVIDIA H100 80GB HBM3", capability="9.0", driver="550.54.15"),
        NvidiaDevice(name="Odd, Name", capability="8.6", driver="535.1"),
    )
    assert parse_devices("") == ()
    with pytest.raises(BackendUnavailableError, match="got 'No devices were found'"):
        parse_devices("No devices were found\n")


def test_the_first_visible_device_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's device 0 is the first of those this process may see."""
    asked: list[str] = []

    def ask(command: tuple[str, ...]) -> str:
        asked.append(command[-1])
        return "X, 8.0, 1.2"

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert first_device(ask).name == "X"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    first_device(ask)
    assert asked == ["--id=0", "--id=3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BackendUnavailableError, match="hides every GPU"):
        first_device(ask)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(BackendUnavailableError, match="lists no GPU"):
        first_device(lambda _: "\n")


def test_a_machine_without_driver_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-smi, or with one that fails, the device is unavailable with the reason."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendUnavailableError, match="nvidia-smi cannot be asked"):
        first_device()


def test_the_processor_runs_with_the_gpu_wheel_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``ort-cpu`` asks for nothing but its own provider, which every flavour has."""
    log = Log()
    module = substitute(log, tmp_path)
    for place in ("session", "cpu"):
        monkeypatch.setattr(f"bitfront.backends.ort.{place}.load_onnxruntime", lambda _: module)
    backend = OrtCpuBackend()
    models.assert_close(
        backend.compile(Artifact.onnx(models.linear()), threads=1).run({"x": np.array([[1, 0, 0]], np.float32)})[0],
        np.array([[11, 22]]),
    )
    assert log.requests == [(((CPU, {}),), 0)]
    assert backend.fingerprint().runtime == "onnxruntime 1.31.0"
