"""Probes of a runtime: compile a small graph for each way of writing a layer, run it, look at what it became.

A probe passes when its output is within the error that its own quantisation allows (half an output step, not a
tolerance relative to the values, which a wrong scale would pass) and when the operators left are those wanted.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bitfront.backends.base import Backend, Capabilities
from bitfront.backends.probe_graphs import Probe, all_probes
from bitfront.core import BackendError


def run_probes(backend: Backend, probes: Iterable[Probe] | None = None) -> Capabilities:
    """Run every probe on one thread.

    Args:
        backend: What is probed.
        probes: With the operators its runtime should make of them; those of ONNX Runtime's CPU provider if None.
    """
    notes = {probe.name: shortcoming(backend, probe) for probe in probes or all_probes()}
    return Capabilities(
        supported={name: not note for name, note in notes.items()},
        notes={name: note for name, note in notes.items() if note},
    )


def shortcoming(backend: Backend, probe: Probe) -> str:
    """Reason why the probe fails on the backend; empty where it passes."""
    try:
        compiled = backend.compile(probe.artifact, threads=1)
        (y,) = compiled.run({"x": probe.x})
        operators = compiled.operators()
    except BackendError as error:
        return error.message
    if y.shape != probe.expected.shape:
        return f"wrong result: shape {y.shape}, expected {probe.expected.shape}"
    worst = float(np.abs(y.astype(np.float64) - probe.expected).max())
    if not worst <= probe.tolerance:  # NaN fails too
        return f"wrong result: off by {worst:.3g}, expected at most {probe.tolerance:.3g}"
    if probe.wanted - set(operators) or probe.unwanted & set(operators):
        return f"correct but not fused: runs as {', '.join(operators)}"
    return ""
