"""TensorRT itself (10 and 11), on one NVIDIA GPU: strongly typed engines built from the artifact, timed on the device.

``tensorrt`` leaves TF32 off, so that FP32 is FP32; ``tensorrt-tf32`` is the same with TF32 on, as TensorRT has it by
default: its FP32 baseline is what people run who change nothing. Both read the same dialect. Engines take seconds to
minutes to build, so the last few are kept, and sensitivities are scored on ONNX Runtime, which reads the same graphs.
"""

from __future__ import annotations

import platform
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bitfront.backends.affinity import available_cores
from bitfront.backends.artifacts import single_onnx_file
from bitfront.backends.base import Backend, Capabilities, CompiledModel, DeviceFingerprint, ExecutedLayer
from bitfront.backends.host import HostBackend
from bitfront.backends.ort.cpu import float_bias_proxy
from bitfront.backends.probes import shortcoming
from bitfront.backends.tensorrt.build import FloatMath, build_plan
from bitfront.backends.tensorrt.cache import TimingCache, timing_cache_file
from bitfront.backends.tensorrt.cuda import Cuda, load_cuda
from bitfront.backends.tensorrt.model import Engine, TensorRtModel, load_engine
from bitfront.backends.tensorrt.package import open_builder, tensorrt_version
from bitfront.backends.tensorrt.probes import tensorrt_probes, wrong_precision
from bitfront.core import Artifact, Precision, UsageError, digest

if TYPE_CHECKING:
    import tensorrt as trt

_KEPT_ENGINES = 4
# Compute capability from which a precision has kernels that gain (TensorRT documentation, "Support Matrix").
_GAINS_FROM: Mapping[Precision, tuple[tuple[int, int], str]] = {
    Precision.FP16: ((7, 0), "FP16 tensor cores"),
    Precision.INT8: ((7, 2), "INT8 tensor cores"),
    Precision.INT4: ((8, 0), "kernels for matrix products with INT4 weights"),
}


class TensorRtBackend(HostBackend):
    """TensorRT on the current GPU, TF32 off.

    Args:
        cuda: What opens the device.
    """

    name = "tensorrt"
    dialect = "tensorrt"
    math = FloatMath.FP32

    def __init__(self, cuda: Callable[[], Cuda] = load_cuda) -> None:
        self._open_cuda = cuda
        self._engines: OrderedDict[tuple[str, int | None], Engine] = OrderedDict()

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Build an engine, or take the one that was built last from the same file.

        A dynamic batch is fixed to ``batch_size``. None takes the last engine whatever its batch; where there is none,
        an engine for batches of 1 to 64 is built.

        Raises:
            BackendError: If TensorRT refuses the model.
            BackendUnavailableError: If TensorRT, torch or CUDA is missing or cannot start here.
            UsageError: If ``threads`` is not positive.
        """
        return self._compile(artifact, threads=threads, batch_size=batch_size)

    def fingerprint(self) -> DeviceFingerprint:
        """GPU and its architecture, TensorRT's exact version, CUDA and driver: a plan is tied to the first three.

        Raises:
            BackendUnavailableError: If TensorRT, torch or CUDA is missing or cannot start here.
        """
        version, gpu = tensorrt_version(), self._cuda.gpu()
        tf32 = ", TF32" if self.math is FloatMath.TF32 else ""
        return DeviceFingerprint(
            device=gpu.name,
            cores=available_cores(),
            instructions=(gpu.architecture,),
            system=f"{platform.system()} {platform.machine()}",
            runtime=f"tensorrt {version} (CUDA {gpu.cuda}, driver {gpu.driver}{tf32})",
            python=platform.python_version(),
        )

    def capabilities(self) -> Capabilities:
        """Abilities that probes show of the runtime here; probed once."""
        return self._capabilities

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        """Precisions that this GPU's generation has no fast kernels for."""
        gpu = self._cuda.gpu()
        return {
            precision: f"{gpu.name} ({gpu.architecture}) has no {what}, which came with sm_{since[0]}{since[1]}"
            for precision, (since, what) in _GAINS_FROM.items()
            if gpu.capability < since
        }

    def proxy_backend(self) -> Backend:
        """ONNX Runtime on the processor, which compiles the same graphs at once; itself where that is not installed."""
        return float_bias_proxy() if find_spec("onnxruntime") else self

    @cached_property
    def _capabilities(self) -> Capabilities:
        _ = self._builder  # without which every probe would fail for the same reason
        notes: dict[str, str] = {}
        probes = tensorrt_probes()
        for probe in probes:
            # The engine is still kept when it is looked into, so that each is built once.
            told = shortcoming(self, probe) or wrong_precision(probe.name, self._layers(probe.artifact))
            if told:
                notes[probe.name] = told
        return Capabilities(supported={probe.name: probe.name not in notes for probe in probes}, notes=notes)

    def _layers(self, artifact: Artifact) -> tuple[ExecutedLayer, ...]:
        return self._compile(artifact, threads=1, batch_size=None).layers

    @cached_property
    def _cuda(self) -> Cuda:
        return self._open_cuda()

    @cached_property
    def _builder(self) -> trt.Builder:
        tensorrt_version()
        # torch starts CUDA first, and says more about it than TensorRT where it cannot.
        self._cuda.gpu()
        return open_builder()

    @cached_property
    def _timings(self) -> TimingCache:
        gpu = self._cuda.gpu()
        return TimingCache(timing_cache_file(f"{gpu.name} {gpu.architecture}", tensorrt_version()))

    def _compile(self, artifact: Artifact, *, threads: int, batch_size: int | None) -> TensorRtModel:
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}", "as in --threads 1")
        return TensorRtModel(self._engine(single_onnx_file(artifact, self.name), batch_size), self._cuda, self.name)

    def _engine(self, model: bytes, batch_size: int | None) -> Engine:
        content = digest(model)
        for key in reversed(self._engines):
            kept = self._engines[key]
            if key[0] == content and (batch_size in (None, kept.batch) or not kept.plan.dynamic):
                self._engines.move_to_end(key)
                return kept
        # Room is made first: the device need not hold one engine more than is kept.
        while len(self._engines) >= _KEPT_ENGINES:
            self._engines.popitem(last=False)
        builder = self._builder
        plan = build_plan(builder, model, batch_size=batch_size, math=self.math, timings=self._timings)
        engine = load_engine(plan, batch_size)
        self._engines[content, batch_size] = engine
        return engine


class TensorRtTf32Backend(TensorRtBackend):
    """TensorRT on the current GPU with TF32 on: FP32 layers multiply in 19 bits, as TensorRT does by default."""

    name = "tensorrt-tf32"
    math = FloatMath.TF32
