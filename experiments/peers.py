"""Other tools' quantisation of the same network, to measure beside ours: each runtime's own, with its own defaults."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from bitfront.backends import Backend, CompiledModel
from bitfront.backends.openvino.backend import OpenVinoBackend
from bitfront.backends.openvino.package import load_openvino
from bitfront.core import Artifact, BackendUnavailableError, Inputs, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A network as another tool quantised it.

    Attributes:
        name: Of the tool.
        compiled: Ready to run, with the backend's own options.
        size_bytes: Of the files it is deployed as.
    """

    name: str
    compiled: CompiledModel
    size_bytes: int


def quantised_by_peer(backend: Backend, model: bytes, inputs: Inputs, *, threads: int, batch_size: int) -> Peer:
    """The FP32 network as the backend's own tool quantises it.

    Args:
        backend: ``ort-cpu`` (ONNX Runtime's ``quantize_static``) or ``openvino`` (NNCF's ``quantize``).
        model: The FP32 network's bytes.
        inputs: Calibration inputs, (n, …) each; all are used, one sample at a time.
        threads: As for ``Backend.compile``.
        batch_size: As for ``Backend.compile``.

    Raises:
        UsageError: If the backend has no such tool.
        BackendUnavailableError: If the tool is missing.
    """
    if isinstance(backend, OpenVinoBackend):
        network = quantise_with_nncf(model, inputs)
        size_bytes = _saved_bytes(network)
        compiled = backend.compile_network(network, threads=threads, batch_size=batch_size)
        return Peer(name="nncf", compiled=compiled, size_bytes=size_bytes)
    if backend.name != "ort-cpu":
        raise UsageError(f"there is no tool to compare '{backend.name}' with", "use ort-cpu or openvino")
    quantised = quantize_static(model, _samples(inputs))
    compiled = backend.compile(Artifact.onnx(quantised), threads=threads, batch_size=batch_size)
    return Peer(name="quantize_static", compiled=compiled, size_bytes=len(quantised))


def quantize_static(model: bytes, samples: Sequence[Mapping[str, np.ndarray]]) -> bytes:
    """Quantise with ONNX Runtime, calibrated: U8 activations, S8 weights per channel, Q/DQ, min-max.

    Args:
        model: The network's bytes.
        samples: What the network is fed, one after the other.
    """
    from onnxruntime import quantization

    class Reader(_Feed, quantization.CalibrationDataReader):  # type: ignore[misc] # ships no types
        pass

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "quantised.onnx"
        quantization.quantize_static(
            onnx.load_from_string(model),
            str(result),
            Reader(samples),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return result.read_bytes()


def quantize_dynamic(model: bytes) -> bytes:
    """Quantise with ONNX Runtime, without calibration: S8 weights, activations quantised while it runs."""
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "quantised.onnx"
        quantization.quantize_dynamic(onnx.load_from_string(model), str(result))
        return result.read_bytes()


def quantise_with_nncf(model: bytes, inputs: Inputs) -> Any:
    """Quantise with NNCF, an ``openvino.Model``: default preset, fast bias correction.

    Raises:
        BackendUnavailableError: If NNCF or OpenVINO is missing.
    """
    # NNCF reports its use, unless it takes this for an automated run of its developers'.
    os.environ.setdefault("NNCF_CI", "1")
    openvino = load_openvino()
    try:
        import nncf
    except ImportError as error:
        raise BackendUnavailableError(
            f"NNCF cannot be imported: {error}", "install it with: pip install 'bitfront[peers]'"
        ) from error
    samples = _samples(inputs)
    network = openvino.Core().read_model(model)
    return nncf.quantize(network, nncf.Dataset(samples), fast_bias_correction=True, subset_size=len(samples))


class _Feed:
    """Calibration inputs as ``quantize_static`` reads them, one sample at a time."""

    def __init__(self, samples: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._left = iter(samples)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next sample; None at the end."""
        return next(self._left, None)


def _samples(inputs: Inputs) -> list[dict[str, np.ndarray]]:
    count = len(next(iter(inputs.values())))
    return [{name: array[index : index + 1] for name, array in inputs.items()} for index in range(count)]


def _saved_bytes(network: Any) -> int:
    """Bytes of a network in OpenVINO's own files."""
    with tempfile.TemporaryDirectory() as folder:
        load_openvino().save_model(network, Path(folder) / "network.xml")
        return sum(path.stat().st_size for path in Path(folder).iterdir())
