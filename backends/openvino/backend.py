"""OpenVINO on the processor, reading ONNX as it is written.

Latency hint, one stream, the precision hint always given: by default the plugin computes floating layers in 16 bits
where the processor can, so an FP32 baseline has to ask for ``f32``. Sixteen bits are allowed where the artifact says so
in its metadata (``lowering.dialects.openvino``), and used where ``OPTIMIZATION_CAPABILITIES`` names them.

Threads: a synchronous run on one stream is executed by the calling thread; with more threads, workers of oneTBB help.
Since the calling thread is kept on its cores by ``backends.affinity``, the plugin's own pinning is off for one thread
(it would move the caller), and on for several, which keeps the workers on one core each. The plugin looks at the
processor once, when it is loaded: that is done before any thread is pinned, or it would never see but those cores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from bitfront.backends.affinity import pinned
from bitfront.backends.artifacts import single_onnx_file
from bitfront.backends.base import Capabilities, Clock, CompiledModel, DeviceFingerprint
from bitfront.backends.batches import FIRST_AXIS
from bitfront.backends.device import cpu_clock, cpu_fingerprint
from bitfront.backends.host import HostBackend
from bitfront.backends.openvino.model import OpenVinoModel
from bitfront.backends.openvino.package import OPENVINO_ERRORS, load_openvino, reason
from bitfront.backends.openvino.probes import openvino_probes
from bitfront.backends.probes import run_probes
from bitfront.core import Artifact, BackendError, Batching, UsageError
from bitfront.lowering.batching import infer_batching
from bitfront.lowering.dialects.openvino import FP16_HINT, PRECISION_KEY

_DEVICE = "CPU"
# Capability → the hint that asks for it, the better first.
_HALF_HINTS = {"BF16": "bf16", "FP16": "f16"}


class OpenVinoBackend(HostBackend):
    """OpenVINO's CPU plugin; INT4 makes files smaller, and so does FP16, which is faster where it is computed."""

    name = "openvino"
    dialect = "openvino"

    @property
    def processor_clock(self) -> Clock | None:
        """Clock of the processor time of this process, which does all of the work."""
        return cpu_clock()

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Compile the file; a dynamic batch is fixed to ``batch_size``, since static shapes are faster.

        Raises:
            BackendError: If the runtime refuses the model.
            BackendUnavailableError: If OpenVINO is missing.
            UsageError: If ``threads`` is not positive.
        """
        if threads < 1:
            raise UsageError(f"threads: expected a positive whole number, got {threads}", "as in --threads 1")
        model = single_onnx_file(artifact, self.name)
        core = self._core  # loads the plugin, before any thread is pinned
        try:
            proto = onnx.load_model_from_string(model)
            network = core.read_model(model)
        except (*OPENVINO_ERRORS, DecodeError) as error:
            raise _refused(model, error) from error
        said = {entry.key: entry.value for entry in proto.metadata_props}
        options = self._options(threads, self._half_hint if said.get(PRECISION_KEY) == FP16_HINT else "")
        try:
            compiled = self._compile(network, options, batch_size, infer_batching(proto.graph))
        except OPENVINO_ERRORS as error:
            raise _refused(model, error) from error
        outputs = tuple(value.name for value in proto.graph.output)
        nodes = frozenset(name for node in proto.graph.node for name in (node.name, *node.output) if name)
        return OpenVinoModel(compiled, self._profiled(network, options), outputs, nodes, self.name)

    def compile_network(self, network: Any, *, threads: int, batch_size: int | None = None) -> CompiledModel:
        """Compile a network that OpenVINO holds already (another tool's, to compare with), in FP32 where it floats.

        Args:
            network: An ``openvino.Model``; its batch is fixed in place.
            threads: As for ``compile``.
            batch_size: As for ``compile``.
        """
        options = self._options(threads, "")
        compiled = self._compile(network, options, batch_size)
        outputs = tuple(port.get_any_name() for port in network.outputs)
        nodes = frozenset(operator.get_friendly_name() for operator in network.get_ops())
        return OpenVinoModel(compiled, self._profiled(network, options), outputs, nodes, self.name)

    def fingerprint(self) -> DeviceFingerprint:
        """Return this processor and OpenVINO's version.

        Raises:
            BackendUnavailableError: If OpenVINO is missing.
        """
        return cpu_fingerprint(f"openvino {load_openvino().__version__}")

    def capabilities(self) -> Capabilities:
        """Abilities that probes show of the runtime here; probed once."""
        return self._capabilities

    @cached_property
    def _capabilities(self) -> Capabilities:
        found = run_probes(self, openvino_probes())
        if self._half_hint:
            return found
        note = "this processor has no 16-bit arithmetic that OpenVINO uses: fp16 makes files smaller, not faster"
        return Capabilities(
            supported={**found.supported, "half-arithmetic": False}, notes={**found.notes, "half-arithmetic": note}
        )

    @cached_property
    def _core(self) -> Any:
        core = load_openvino().Core()
        core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return core

    @cached_property
    def _half_hint(self) -> str:
        """The hint for 16-bit arithmetic; empty where the processor has none."""
        found = self._core.get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")
        return next((hint for capability, hint in _HALF_HINTS.items() if capability in found), "")

    def _options(self, threads: int, half: str) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": threads > 1,
            "INFERENCE_PRECISION_HINT": half or "f32",
        }

    def _compile(
        self, network: Any, options: dict[str, Any], batch_size: int | None, batching: Batching = FIRST_AXIS
    ) -> Any:
        shapes = {}
        for port in network.inputs if batch_size is not None else ():
            shape = port.get_partial_shape()
            axis = batching.input_axis(port.get_any_name())
            if axis is not None and axis < len(shape) and shape[axis].is_dynamic:
                shape[axis] = batch_size
                shapes[port] = shape
        if shapes:
            network.reshape(shapes)
        with pinned(options["INFERENCE_NUM_THREADS"]):
            return self._core.compile_model(network, _DEVICE, options)

    def _profiled(self, network: Any, options: dict[str, Any]) -> Callable[[], Any]:
        return lambda: self._core.compile_model(network, _DEVICE, {**options, "PERF_COUNT": True})


def _refused(model: bytes, error: Exception) -> BackendError:
    return BackendError(
        f"OpenVINO refused a model of {len(model)} bytes: {reason(error)}",
        "check the model with onnx.checker; operators this runtime lacks cannot be run here",
    )
