"""TensorRT's backend over a stand-in for the library: what it asks for, what it keeps, what it says when refused."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from onnx import helper

from bitfront.backends.base import Backend
from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.backends.tensorrt.backend import TensorRtBackend, TensorRtTf32Backend
from bitfront.backends.tensorrt.build import MOST_SAMPLES, WORKSPACE_BYTES
from bitfront.backends.tensorrt.cuda import driver_version, load_cuda
from bitfront.core import Artifact, BackendError, BackendUnavailableError, MemoryUsage, Precision
from tests.backends import models
from tests.backends.conformance import BackendConformance
from tests.backends.substitute_cuda import RUN_MS, FakeCuda
from tests.backends.substitute_tensorrt import Control, install

_X = np.array([[1, 0, 0], [0, 1, 1]], np.float32)


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Control:
    control = Control()
    install(monkeypatch, control)
    monkeypatch.setenv("BITFRONT_CACHE", str(tmp_path))
    return control


@pytest.fixture
def backend(control: Control) -> Backend:
    return TensorRtBackend(lambda: control.cuda)


class TestTensorRtOnAStandIn(BackendConformance):
    pass


@pytest.mark.parametrize(("version", "flags"), [("10.16.1.11", 1 << 1), ("11.4.0.106", 0)])
def test_networks_are_strongly_typed(
    monkeypatch: pytest.MonkeyPatch, control: Control, version: str, flags: int
) -> None:
    """TensorRT 10 is asked for it by the flag that it tells the bit of, 11 has nothing else."""
    control.version = version
    install(monkeypatch, control)
    TensorRtBackend(lambda: control.cuda).compile(Artifact.onnx(models.linear()), threads=1)
    assert control.networks == [flags]


@pytest.mark.parametrize(("kind", "flags"), [(TensorRtBackend, set()), (TensorRtTf32Backend, {"TF32"})])
def test_builds_are_configured(control: Control, kind: type[TensorRtBackend], flags: set[str]) -> None:
    """FP32 is FP32 unless the backend is named after TF32; sparse kernels may be taken; names stay in the plan."""
    kind(lambda: control.cuda).compile(Artifact.onnx(models.linear()), threads=1, batch_size=4)
    (config,) = control.configs
    assert config.flags == flags | {"SPARSE_WEIGHTS"}
    assert config.pools == {"WORKSPACE": WORKSPACE_BYTES}
    assert (config.avg_timing_iterations, config.profiling_verbosity) == (8, "DETAILED")
    assert config.profiles == [{"x": ([4, 3], [4, 3], [4, 3])}]


def test_a_batch_left_open_has_a_range(control: Control, backend: Backend) -> None:
    """Without a batch size the engine takes 1 to 64 samples, and says so to who gives more."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    assert control.configs[0].profiles == [{"x": ([1, 3], [MOST_SAMPLES, 3], [MOST_SAMPLES, 3])}]
    with pytest.raises(BackendError, match="input 'x': expected 1 to 64 samples, got 65"):
        compiled.run({"x": np.zeros((65, 3), np.float32)})


def test_a_fixed_batch_needs_no_profile(control: Control, backend: Backend) -> None:
    """A network with a batch of its own keeps it, whatever is asked for."""
    assert backend.compile(Artifact.onnx(models.linear(batch=2)), threads=1, batch_size=7).input_shapes == {"x": (2, 3)}
    assert control.configs[0].profiles == []


def test_other_dynamic_axes_are_refused(backend: Backend) -> None:
    """An axis other than the batch is named."""
    model = models.build([helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", "m")}, {"y": ("n", "m")}, {})
    with pytest.raises(BackendError, match="input 'x': axis 1 is dynamic; only the first, the batch, may be"):
        backend.compile(Artifact.onnx(model), threads=1)


def test_engines_are_built_once(control: Control, backend: Backend) -> None:
    """The same bytes and batch are built once; no batch takes what was built; weights and batch tell engines apart."""
    for factor, batch in ((1, 2), (1, 2), (1, None), (2, 2), (1, 3)):
        backend.compile(Artifact.onnx(models.linear(factor=factor)), threads=1, batch_size=batch)
    assert len(control.configs) == control.loads == 3


def test_few_engines_are_kept(control: Control, backend: Backend) -> None:
    """The least recently used of five goes; the others stay."""
    for factor in (1, 2, 3, 4, 1, 5):
        backend.compile(Artifact.onnx(models.linear(factor=factor)), threads=1, batch_size=1)
    assert len(control.configs) == 5
    backend.compile(Artifact.onnx(models.linear(factor=1)), threads=1, batch_size=1)
    assert len(control.configs) == 5
    backend.compile(Artifact.onnx(models.linear(factor=2)), threads=1, batch_size=1)
    assert len(control.configs) == 6


def test_builds_share_timings_on_disk(control: Control, backend: Backend, tmp_path: Path) -> None:
    """What one build found, the next one starts from; the file is named after device and version."""
    backend.compile(Artifact.onnx(models.linear()), threads=1)
    file = tmp_path / "tensorrt" / "Test-GPU-sm-90-11.4.0.106.cache"
    assert file.read_bytes() == b"t"
    backend.compile(Artifact.onnx(models.linear(factor=2)), threads=1)
    given = control.configs[1].cache
    assert given is not None
    assert given.entries == {"t"}


def test_the_parser_names_the_node(control: Control, backend: Backend) -> None:
    """What the parser refuses is named with its operator; further errors are counted."""
    control.parser_errors = [("conv0", "Conv", "[8] Assertion failed: no such kernel\n"), ("relu0", "Relu", "bad")]
    with pytest.raises(
        BackendError,
        match=r"refused a model of \d+ bytes: node 'conv0' \(Conv\): Assertion failed: no such .* \(and 1 more\)",
    ) as caught:
        backend.compile(Artifact.onnx(models.convolution(1)), threads=1)
    assert "operator matrix" in caught.value.hint


def test_a_build_that_fails_names_the_node(control: Control, backend: Backend) -> None:
    """The logger's last errors are the reason; nodes mentioned in them come first; an earlier build's are forgotten."""
    control.build_errors = ["[E] Error Code 10: Internal Error (Could not find any implementation for node conv0.)"]
    with pytest.raises(
        BackendError, match=r"node 'conv0': Internal Error \(Could not find any implementation for node conv0"
    ):
        backend.compile(Artifact.onnx(models.convolution(11)), threads=1)
    control.build_errors = ["IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (conv10 has no scale)"]
    with pytest.raises(BackendError, match=r"(?m)node 'conv10': API Usage Error \(conv10 has no scale\)$"):
        backend.compile(Artifact.onnx(models.convolution(11)), threads=1)


def test_broken_rules_are_the_hint(control: Control, backend: Backend) -> None:
    """A graph that breaks published rules is refused with the rule and the node."""
    quantised = models.build(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantiser"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="dequantiser"),
        ],
        {"x": ("n", 3)},
        {"y": ("n", 3)},
        {"s": np.asarray(0.5, np.float32), "z": np.asarray(3, np.int8)},
    )
    control.build_errors = ["no"]
    with pytest.raises(BackendError, match="refused a model") as caught:
        backend.compile(Artifact.onnx(quantised), threads=1)
    assert "breaks rules that TensorRT has for such networks" in caught.value.hint
    assert "node 'quantiser': expected a constant zero point of 0" in caught.value.hint


def test_a_run_that_fails_tells_the_reason(control: Control, backend: Backend) -> None:
    """The logger's last error goes with it."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    control.runs = False
    with pytest.raises(BackendError, match=r"tensorrt: running the engine failed: Cuda Runtime \(no memory\)"):
        compiled.run({"x": _X})


def test_timing_keeps_a_queue_of_two(control: Control, backend: Backend) -> None:
    """The next run is given to the device before the last one is waited for, and inputs are uploaded once."""
    timer = backend.compile(Artifact.onnx(models.linear()), threads=1).timer({"x": _X}, backend.clock)
    assert control.cuda.log.count("upload") == 1
    control.cuda.log.clear()
    assert timer(3).tolist() == [round(RUN_MS * 1e6)] * 3
    steps = " ".join(control.cuda.log)
    assert steps.split(" ", 2)[2] == (
        "replay record 1 replay record 2 record 3 replay record 4 wait 2 record 5 replay record 6 wait 4 wait 6 "
        f"synchronise {control.cuda.streams}"
    )


def test_timers_do_not_disturb_each_other(control: Control, backend: Backend) -> None:
    """Each has a stream and buffers of its own, and results of ``run`` stay right."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    timers = [compiled.timer({"x": _X * factor}, backend.clock) for factor in (1, 2)]
    before = compiled.run({"x": _X})[0]
    for timer in timers:
        timer(2)
    models.assert_close(compiled.run({"x": _X})[0], before)
    assert control.cuda.streams == 3


def test_what_cannot_be_captured_is_launched(
    control: Control, backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a captured graph runs are launched one by one, and the log says that this counts."""
    control.cuda.capture_fails = "operation not permitted\nwhen stream is capturing"
    with caplog.at_level(logging.WARNING):
        timer = backend.compile(Artifact.onnx(models.linear()), threads=1).timer({"x": _X}, backend.clock)
    assert "tensorrt: not captured as a CUDA graph, so launching counts: operation not permitted" in caplog.text
    control.cuda.log.clear()
    assert (timer(2) > 0).all()
    assert control.cuda.log.count("launch") == 3
    assert "replay" not in control.cuda.log


def test_layers_are_told_with_their_times(control: Control, backend: Backend) -> None:
    """The profile is the inspector's layers with the profiler's mean times, and operators are those fused in each."""
    compiled = backend.compile(Artifact.onnx(models.convolution(1)), threads=1)
    layers = compiled.profile({"x": np.ones((1, 2, 4, 4), np.float32)})
    assert [(layer.nodes, layer.precision, layer.latency_us) for layer in layers] == [
        (("conv0",), "fp32", 500.0),
        (("relu0",), "fp32", 500.0),
    ]
    assert compiled.operators() == ("Conv(Conv)", "Relu(Relu)")
    assert control.loads == 1


def test_the_footprint_is_told(backend: Backend) -> None:
    """Bytes of the plan, weights and scratch memory; the plan itself."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    plan = compiled.engine()
    assert plan is not None
    assert compiled.memory_usage() == MemoryUsage(engine_bytes=len(plan), weight_bytes=123, activation_bytes=4096)


def test_every_probe_passes_on_the_stand_in(control: Control, backend: Backend) -> None:
    """Probes are those of this dialect; what runs in another precision than was written is told."""
    found = backend.capabilities()
    assert found.notes == {}
    assert {"int8-conv", "fp16-conv", "int4-matmul-block64"} <= set(found.supported)
    assert len(control.configs) == len(found.supported)  # each is built once
    control.inspector = (
        '{"Layers": [{"Name": "l", "LayerType": "conv", "Inputs": [{"Format/Datatype": "Float"}], '
        '"Metadata": "[ONNX Layer: layer]"}]}'
    )
    other = TensorRtBackend(lambda: control.cuda).capabilities()
    assert other.notes["int8-conv"] == "correct but not run in int8: runs in fp32"
    assert not other.supported["fp16-conv"]
    assert other.supported["int4-matmul-block64"]


def test_old_devices_gain_nothing(control: Control) -> None:
    """A precision without fast kernels on the GPU's generation is withheld with the reason; newer ones have all."""
    assert TensorRtBackend(lambda: control.cuda).unprofitable_precisions() == {}
    old = TensorRtBackend(lambda: FakeCuda((7, 0))).unprofitable_precisions()
    assert set(old) == {Precision.INT8, Precision.INT4}
    assert old[Precision.INT8] == "Test GPU (sm_70) has no INT8 tensor cores, which came with sm_72"


def test_the_fingerprint_tells_versions_and_math(control: Control) -> None:
    """A plan is tied to device, architecture and exact version; TF32 makes another runtime of it."""
    found = TensorRtBackend(lambda: control.cuda).fingerprint()
    assert (found.device, found.instructions) == ("Test GPU", ("sm_90",))
    assert found.runtime == "tensorrt 11.4.0.106 (CUDA 13.0, driver 580.1)"
    assert TensorRtTf32Backend(lambda: control.cuda).fingerprint().runtime.endswith("driver 580.1, TF32)")


def test_sensitivities_are_scored_on_the_processor() -> None:
    """Engines take long to build, so another runtime of the same dialect stands in."""
    assert isinstance(TensorRtBackend().proxy_backend(), OrtCpuBackend)
    assert TensorRtBackend().dialect == TensorRtTf32Backend().dialect == "tensorrt"


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TensorRT there is what to install."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    for ask in (TensorRtBackend().fingerprint, TensorRtBackend().capabilities):
        with pytest.raises(BackendUnavailableError, match="TensorRT cannot be imported") as caught:
            ask()
        assert "pip install 'bitfront[tensorrt]'" in caught.value.hint


def test_an_old_version_is_told(monkeypatch: pytest.MonkeyPatch, control: Control) -> None:
    """Versions before strong typing's are refused."""
    control.version = "8.6.1"
    install(monkeypatch, control)
    with pytest.raises(BackendUnavailableError, match=r"expected version 10\.0 or newer, got 8\.6\.1"):
        TensorRtBackend(lambda: control.cuda).fingerprint()


def test_a_builder_that_cannot_start_is_told(control: Control, backend: Backend) -> None:
    """The binding's TypeError becomes a reason: what the logger said."""
    control.starts = False
    with pytest.raises(
        BackendUnavailableError, match=r"TensorRT 11\.4\.0\.106 cannot start: CUDA initialization failure"
    ) as caught:
        backend.compile(Artifact.onnx(models.linear()), threads=1)
    assert "nvidia-smi" in caught.value.hint


@pytest.mark.parametrize(
    ("cuda", "available", "message"),
    [
        (None, False, r"torch 2\.0 was built without CUDA"),
        ("13.0", False, r"torch 2\.0 \(CUDA 13\.0\) finds no usable GPU"),
    ],
)
def test_torch_without_a_device_is_told(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, available: bool, message: str
) -> None:
    """Which of the two is missing: CUDA in torch, or the GPU."""
    torch = ModuleType("torch")
    parts = {
        "__version__": "2.0",
        "version": SimpleNamespace(cuda=cuda),
        "cuda": SimpleNamespace(is_available=lambda: available),
    }
    for name, part in parts.items():
        setattr(torch, name, part)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(BackendUnavailableError, match=message):
        load_cuda()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendUnavailableError, match="buffers go through torch, which cannot be imported"):
        load_cuda()


def test_the_driver_tells_its_version() -> None:
    """Out of the kernel module's own line."""
    line = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (x)\nGCC version: 12.3.0"
    assert driver_version(line) == "580.65.06"
    assert driver_version("") == "unknown"
