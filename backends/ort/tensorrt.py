"""TensorRT under ONNX Runtime: ``TensorrtExecutionProvider``, the CUDA provider for what TensorRT leaves.

``trt_fp16_enable`` and ``trt_int8_enable`` stay off: the network is then strongly typed, and precision is what the
graph says (onnxruntime pull request 18707). Engines are cached on disk, **a folder for each model**: the provider's own
key knows neither weights nor shapes, so candidates of one network would get each other's engines (onnxruntime issues
6455 and 32254). The timing cache is shared by all.

TF32 has no option here: TensorRT uses it for FP32 unless ``NVIDIA_TF32_OVERRIDE=0`` is set; the fingerprint tells.

Which nodes TensorRT left to others is in ``profile`` and, for the probes, among the notes of ``capabilities``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from bitfront.backends.artifacts import single_onnx_file
from bitfront.backends.base import Backend, Capabilities, CompiledModel, DeviceFingerprint
from bitfront.backends.host import HostBackend
from bitfront.backends.ort.cpu import FLOAT_BIAS, float_bias_proxy
from bitfront.backends.ort.cuda import CUDA_OPTIONS, EXTRA, OrtGpuModel, check_start
from bitfront.backends.ort.gpu import gpu_fingerprint, installed
from bitfront.backends.ort.libraries import CUDA_PROVIDER, TENSORRT_PROVIDER, load_provider
from bitfront.backends.ort.profile import nodes_by_provider
from bitfront.backends.ort.session import SessionSetup, start_session
from bitfront.backends.probes import run_probes
from bitfront.backends.tensorrt.cache import cache_folder
from bitfront.backends.tensorrt.probes import tensorrt_probes
from bitfront.core import Artifact, BackendError, OutputError, UsageError, digest

KEPT_ENGINES = 64
_TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"


class OrtTensorrtModel(OrtGpuModel):
    """A session of compiled subgraphs; what they are made of is TensorRT's secret.

    Args:
        session: The session.
        model: The bytes it was made from.
        name: The backend's name, for messages.
        setup: What the session runs on.
        batch_size: Samples that a run of ``operators`` gets where the batch is dynamic.
    """

    def __init__(self, session: Any, model: bytes, name: str, setup: SessionSetup, batch_size: int) -> None:
        super().__init__(session, model, name, setup)
        self._batch_size = batch_size

    @cached_property
    def _operators(self) -> tuple[str, ...]:
        """Operator types by the profiler, since a graph with compiled nodes cannot be written."""
        inputs = {
            value.name: np.zeros(
                [size if isinstance(size, int) else self._batch_size for size in value.shape],
                onnx.helper.tensor_dtype_to_np_dtype(_element_type(value.type)),
            )
            for value in self._session.get_inputs()
        }
        return tuple(layer.kind for layer in self.profile(inputs))


class OrtTensorrtBackend(HostBackend):
    """ONNX Runtime's TensorRT execution provider on device 0."""

    name = "ort-tensorrt"
    dialect = "tensorrt"

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Build engines for the file; with ``batch_size`` a dynamic batch gets engines for that size alone.

        Raises:
            BackendError: If the runtime refuses the model.
            BackendUnavailableError: If ONNX Runtime, its provider, a library or the GPU is missing.
            OutputError: If the folder for engines cannot be made.
            UsageError: If ``threads`` is not positive.
        """
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}", "as in --threads 1")
        model = single_onnx_file(artifact, self.name, settings=True)
        fingerprint = self.fingerprint()
        root = cache_folder() / self.name / digest(fingerprint.to_json())[:16]
        engines = engine_folder(root, digest(artifact.content, str(batch_size)))
        providers = tensorrt_options(root, engines, profile_shapes(model, batch_size))
        setup = SessionSetup(
            extra=EXTRA,
            providers=((TENSORRT_PROVIDER, providers), (CUDA_PROVIDER, CUDA_OPTIONS)),
            threads=threads,
            left_out=FLOAT_BIAS,  # TensorRT takes floating biases alone
            settings=artifact.settings,
        )
        return OrtTensorrtModel(start_session(model, setup), model, self.name, setup, batch_size or 1)

    def fingerprint(self) -> DeviceFingerprint:
        """Return this GPU, ONNX Runtime's version, TensorRT's, and whether FP32 is computed as such.

        Raises:
            BackendUnavailableError: If anything needed is missing.
        """
        return self._fingerprint

    def capabilities(self) -> Capabilities:
        """Abilities that probes show of the runtime here; a note tells what TensorRT left to other providers."""
        return self._capabilities

    def proxy_backend(self) -> Backend:
        """The processor's provider, which reads the same graphs without building engines."""
        return float_bias_proxy()

    @cached_property
    def _fingerprint(self) -> DeviceFingerprint:
        tensorrt = f"TensorRT {installed('tensorrt-cu13', 'tensorrt-cu12', 'tensorrt')}"
        tf32 = "TF32 off" if os.environ.get(_TF32_VARIABLE) == "0" else "TF32 on"
        return gpu_fingerprint(self._runtime, tensorrt, tf32)

    @cached_property
    def _capabilities(self) -> Capabilities:
        _ = self._runtime  # without which every probe would fail for the same reason
        probes = tensorrt_probes()
        found = run_probes(self, probes)
        left: list[str] = []
        for probe in probes:
            if found.supported[probe.name]:
                counts = self._providers_of(probe.artifact, {"x": probe.x})
                left += [f"{probe.name}: {n} on {name}" for name, n in counts.items() if name != TENSORRT_PROVIDER]
        notes = dict(found.notes)
        if left:
            notes["not on TensorRT"] = "; ".join(left)
        if os.environ.get(_TF32_VARIABLE) != "0":
            notes["tf32"] = f"FP32 layers may compute in TF32; set {_TF32_VARIABLE}=0 for a true FP32 baseline"
        return Capabilities(supported=found.supported, notes=notes)

    def _providers_of(self, artifact: Artifact, inputs: Mapping[str, Any]) -> Mapping[str, int]:
        try:
            return nodes_by_provider(self.compile(artifact, threads=1).profile(inputs))
        except BackendError:
            return {}  # a note less

    @cached_property
    def _runtime(self) -> Any:
        onnxruntime = load_provider(TENSORRT_PROVIDER)
        providers = (
            (TENSORRT_PROVIDER, {"device_id": CUDA_OPTIONS["device_id"]}),
            (CUDA_PROVIDER, CUDA_OPTIONS),
        )
        check_start(onnxruntime, SessionSetup(extra=EXTRA, providers=providers))
        return onnxruntime


def tensorrt_options(timings: Path, engines: Path, shapes: str) -> dict[str, str]:
    """The provider's options (ONNX Runtime, "TensorRT Execution Provider").

    Args:
        timings: Folder of the timing cache, shared by all models.
        engines: Folder of this model's engines.
        shapes: What ``profile_shapes`` gives; empty leaves shapes to the first run.
    """
    options = {
        "device_id": CUDA_OPTIONS["device_id"],
        "trt_fp16_enable": "0",
        "trt_int8_enable": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(timings),
        "trt_engine_hw_compatible": "0",
    }
    if shapes:
        options |= {f"trt_profile_{kind}_shapes": shapes for kind in ("min", "opt", "max")}
    return options


def profile_shapes(model: bytes, batch_size: int | None) -> str:
    """Shapes of the inputs at one batch size, ``x:1x3x32x32,y:1x8``; empty where there is nothing to fix.

    Empty too where an axis other than the first is dynamic, an input has no shape, or its name cannot be written so.

    Args:
        model: The artifact; bytes that are none give an empty text, since the runtime says more about them.
        batch_size: Samples a run; None leaves the batch dynamic.
    """
    if batch_size is None:
        return ""
    try:
        graph = onnx.load_model_from_string(model).graph
    except DecodeError:
        return ""
    stored = {tensor.name for tensor in graph.initializer}
    parts, dynamic = [], False
    for value in graph.input:
        if value.name in stored:
            continue
        axes = list(value.type.tensor_type.shape.dim)
        rest = [axis.dim_value for axis in axes[1:]]
        if not axes or 0 in rest or set(value.name) & set(":,"):
            return ""
        dynamic |= not axes[0].dim_value
        parts.append(f"{value.name}:" + "x".join(str(size) for size in (axes[0].dim_value or batch_size, *rest)))
    return ",".join(parts) if dynamic else ""


def engine_folder(root: Path, key: str, keep: int = KEPT_ENGINES) -> Path:
    """The folder of one model's engines, made if need be; the longest unused beyond ``keep`` are deleted.

    Args:
        root: Folder of this device and these versions.
        key: Digest of the model and its batch size.
        keep: Folders to leave, this one included.

    Raises:
        OutputError: If it cannot be made.
    """
    folder = root / "engines" / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        old = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[keep:]
    except OSError as error:
        raise OutputError(
            f"folder '{folder}' for engines cannot be made: {error.strerror}", "set BITFRONT_CACHE to another folder"
        ) from error
    for path in old:
        # Another process may be deleting the same one.
        shutil.rmtree(path, ignore_errors=True)
    return folder


def _element_type(kind: str) -> int:
    """ONNX's number for a type as ONNX Runtime writes it, ``tensor(float)``."""
    name = kind.removeprefix("tensor(").removesuffix(")").upper()
    return int(onnx.TensorProto.DataType.Value(name))
