"""The network as it was given, compiled on the run's backend: what everything that is searched is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bitfront.backends.base import CompiledModel
from bitfront.core import AccuracyStats, Artifact, BackendError, Inputs, LatencyStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The file that was given, or what stands for it.

    Attributes:
        model: The file; what FP32 is written as where the network was exported for this search, or where the backend
            does not run the file.
        is_fp32: Whether ``model`` is what FP32 is written as.
        compiled: ``model`` as it is timed.
        refused: Why the backend does not run the file; empty where it does.
    """

    model: Artifact
    is_fp32: bool
    compiled: CompiledModel
    refused: str = ""

    @property
    def artifact(self) -> str:
        """Digest of ``model``."""
        return self.model.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenMeasurement:
    """Measurement of the given network: size in bytes, latency and accuracy."""

    size_bytes: int
    latency: LatencyStats
    accuracy: AccuracyStats


def open_given(
    file: Artifact | None, fp32: Artifact, compile_: Callable[[Artifact], CompiledModel], inputs: Inputs
) -> Given:
    """Compile the file and run it once; where the backend refuses either, take what FP32 is written as.

    Args:
        file: The given network's file; None where the network was exported for this search.
        fp32: What FP32 is written as.
        compile_: Compiles a model as it is timed.
        inputs: What every timed run gets.

    Raises:
        BackendError: If what FP32 is written as does not compile either.
    """
    refused = ""
    if file is not None and file.digest != fp32.digest:
        try:
            compiled = compile_(file)
            compiled.run(inputs)
        except BackendError as error:
            refused = error.message
        else:
            return Given(model=file, is_fp32=False, compiled=compiled)
    return Given(model=fp32, is_fp32=True, compiled=compile_(fp32), refused=refused)
