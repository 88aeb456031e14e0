"""ONNX Runtime on an NVIDIA GPU: ``CUDAExecutionProvider``, timed with inputs and outputs that stay on the device.

Options that differ from the provider's defaults, or are stated since results depend on them (ONNX Runtime, "CUDA
Execution Provider"):

- ``use_tf32`` off: its default rounds FP32 products to 10 bits, and the FP32 baseline would be none.
- ``cudnn_conv_algo_search`` EXHAUSTIVE, the default: every convolution tries all algorithms at its first run, which
  warming up takes care of.
- ``enable_cuda_graph`` off: it wants every node on the GPU, no control flow and fixed addresses; a session with default
  options, as people deploy it, does not have it.

What a provider leaves to the processor (shapes, conditions) is in ``profile``, operator by operator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from bitfront.backends.artifacts import single_onnx_file
from bitfront.backends.base import Capabilities, Clock, CompiledModel, DeviceFingerprint, Timer
from bitfront.backends.host import HostBackend, host_timer
from bitfront.backends.inputs import wrong_input
from bitfront.backends.ort.cuda_probe import integer_shortcoming
from bitfront.backends.ort.gpu import gpu_fingerprint
from bitfront.backends.ort.libraries import CUDA_PROVIDER, explain, load_provider
from bitfront.backends.ort.package import load_onnxruntime, ort_errors
from bitfront.backends.ort.session import SessionModel, SessionSetup, start_session
from bitfront.backends.probe_graphs import all_probes
from bitfront.backends.probes import run_probes
from bitfront.core import Artifact, BackendError, BackendUnavailableError, Inputs, Precision, UsageError

EXTRA = "gpu"
DEVICE = "cuda"
DEVICE_ID = 0
CUDA_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "device_id": str(DEVICE_ID),
        "arena_extend_strategy": "kNextPowerOfTwo",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "do_copy_in_default_stream": "1",
        "use_tf32": "0",
        "enable_cuda_graph": "0",
    }
)


class OrtGpuModel(SessionModel):
    """A session whose timed runs copy nothing between the processor and the GPU."""

    def timer(self, inputs: Inputs, clock: Clock) -> Timer:
        """Inputs are copied to the GPU once and outputs stay there; a run ends when the GPU is done.

        Args:
            inputs: What every run gets.
            clock: Read after every run.

        Raises:
            BackendError: If an input's name, type or shape is wrong, or the runtime fails.
        """
        if wrong := wrong_input(self._specs, inputs):
            raise BackendError(
                f"{self._name}: {wrong}", "give one array per input of the network, in its type and shape"
            )
        try:
            binding = self._bound(inputs)
        except self._errors as error:
            raise self._explained(error, inputs) from error

        def run() -> None:
            try:
                self._session.run_with_iobinding(binding)
                binding.synchronize_outputs()
            except self._errors as error:
                raise self._explained(error, inputs) from error

        return host_timer(run, clock)

    def _bound(self, inputs: Inputs) -> Any:
        """A binding of inputs on the GPU, and of outputs in buffers that the first run has made there."""
        values = load_onnxruntime(self._setup.extra).OrtValue
        binding = self._session.io_binding()
        for name, array in inputs.items():
            value = values.ortvalue_from_numpy(np.asarray(array, order="C"), DEVICE, DEVICE_ID)
            binding.bind_ortvalue_input(name, value)
        binding.synchronize_inputs()
        for name in self.output_names:
            binding.bind_output(name, DEVICE, DEVICE_ID)
        self._session.run_with_iobinding(binding)
        made = binding.get_outputs()
        binding.clear_binding_outputs()
        for name, value in zip(self.output_names, made, strict=True):
            binding.bind_ortvalue_output(name, value)
        return binding


class OrtCudaBackend(HostBackend):
    """ONNX Runtime's CUDA execution provider on device 0."""

    name = "ort-cuda"
    dialect = "ort-cuda"

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:  # noqa: ARG002
        """Make a session from the file; a dynamic batch stays so, since kernels are chosen for each shape they meet.

        Raises:
            BackendError: If the runtime refuses the model.
            BackendUnavailableError: If ONNX Runtime, its provider, a library or the GPU is missing.
            UsageError: If ``threads`` is not positive.
        """
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}", "as in --threads 1")
        model = single_onnx_file(artifact, self.name, settings=True)
        setup = replace(self._setup(threads), settings=artifact.settings)
        return OrtGpuModel(start_session(model, setup), model, self.name, setup)

    def fingerprint(self) -> DeviceFingerprint:
        """Return this GPU, ONNX Runtime's version and the libraries beside it.

        Raises:
            BackendUnavailableError: If anything needed is missing.
        """
        return self._fingerprint

    def capabilities(self) -> Capabilities:
        """Abilities that probes show of the runtime here; probed once."""
        return self._capabilities

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        """INT8 where a probe finds it no faster than floating arithmetic."""
        return self._unprofitable

    @cached_property
    def _fingerprint(self) -> DeviceFingerprint:
        return gpu_fingerprint(self._runtime)

    @cached_property
    def _capabilities(self) -> Capabilities:
        _ = self._runtime  # without which every probe would fail for the same reason
        return run_probes(self)

    @cached_property
    def _unprofitable(self) -> Mapping[Precision, str]:
        reason = integer_shortcoming(self)
        return {Precision.INT8: reason} if reason else {}

    @cached_property
    def _runtime(self) -> Any:
        """The runtime, after a small network has shown that the provider really starts."""
        onnxruntime = load_provider(CUDA_PROVIDER)
        check_start(onnxruntime, SessionSetup(extra=EXTRA, providers=((CUDA_PROVIDER, CUDA_OPTIONS),)))
        return onnxruntime

    def _setup(self, threads: int) -> SessionSetup:
        _ = self._runtime
        return SessionSetup(extra=EXTRA, providers=((CUDA_PROVIDER, CUDA_OPTIONS),), threads=threads)


def check_start(onnxruntime: Any, setup: SessionSetup) -> None:
    """Run a small network on the preferred provider.

    Raises:
        BackendUnavailableError: If it does not start, or the runtime puts another in its place.
    """
    probe = next(probe for probe in all_probes() if probe.name == "fp16-storage")
    errors: tuple[type[Exception], ...] = (BackendError, *ort_errors())
    try:
        start_session(probe.model, setup).run(None, {"x": probe.x})
    except errors as error:
        text = error.message if isinstance(error, BackendError) else str(error)
        reason, hint = explain(text, str(getattr(onnxruntime, "cuda_version", "") or "12"))
        raise BackendUnavailableError(f"{setup.preferred} cannot start: {reason}", hint) from error
