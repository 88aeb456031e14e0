"""Probes of capabilities: each planted bug in a graph is seen, and so is a fusion that is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitfront.backends import FakeBackend, OrtCpuBackend
from bitfront.backends.probe_graphs import Probe, all_probes
from bitfront.backends.probes import shortcoming

_PROBES = {probe.name: probe for probe in all_probes()}


def _constant(
    name: str, change: Callable[[np.ndarray[tuple[int, ...], np.dtype[np.float32]]], object]
) -> Callable[[Probe], Probe]:
    def plant(probe: Probe) -> Probe:
        model = onnx.load_model_from_string(probe.model)
        for tensor in model.graph.initializer:
            if tensor.name == name:
                changed = np.asarray(change(numpy_helper.to_array(tensor)))
                tensor.CopyFrom(numpy_helper.from_array(changed, name))
        return replace(probe, model=model.SerializeToString())

    return plant


_BUGS = {
    "scale doubled": _constant("w_scale", lambda value: value * np.float32(2)),
    "scales reversed": _constant("w_scale", lambda value: np.ascontiguousarray(np.flip(value))),
    "one per cent": _constant("w_scale", lambda value: value * np.float32(1.01)),
    "zero point off by one": _constant("x_zero", lambda value: value + np.uint8(1)),
    "output scale doubled": _constant("y_scale", lambda value: value * np.float32(4)),
    "bias lost": _constant("bias", lambda value: value * np.float32(0)),
}


@pytest.mark.parametrize("bug", _BUGS)
def test_wrong_numbers_are_seen(bug: str) -> None:
    """Each planted bug in the integer convolution makes the probe fail as wrong; the sound one passes."""
    sound = _PROBES["int8-conv"]
    assert shortcoming(OrtCpuBackend(), sound) == ""
    assert shortcoming(OrtCpuBackend(), _BUGS[bug](sound)).startswith("wrong result: off by")


@pytest.mark.parametrize("name", ["fp16-storage", "int8-weight-only", "int4-weight-only", "int4-matmul-block"])
def test_wrong_weights_are_seen(name: str) -> None:
    """Scales or 16-bit weights that are doubled make every storage probe fail."""
    constant = "w_half" if name == "fp16-storage" else "w_scale"
    planted = _constant(constant, lambda value: value * value.dtype.type(2))(_PROBES[name])
    assert shortcoming(OrtCpuBackend(), planted).startswith("wrong result: off by")


def test_a_lost_fusion_is_seen() -> None:
    """Without Q/DQ on the output the convolution is right but stays float, and the probe says as what it runs."""
    probe = _PROBES["int8-conv"]
    model = onnx.load_model_from_string(probe.model)
    for node in list(model.graph.node):
        if node.output[0] in ("y_quantised", "y"):
            model.graph.node.remove(node)
        elif node.output[0] == "y_float":
            node.output[0] = "y"
    found = shortcoming(OrtCpuBackend(), replace(probe, model=model.SerializeToString()))
    assert found.startswith("correct but not fused: runs as ")
    assert "Conv" in found


def test_saturating_sums_would_be_seen() -> None:
    """The full-range probe's tolerance is far below the error that sums saturating at 16 bits make."""
    probe = _PROBES["int8-full-range"]
    assert np.iinfo(np.int16).max < 255 * 127 * 2
    saturated = float(np.abs(probe.expected).max()) * (1 - np.iinfo(np.int16).max / (255 * 127 * 2))
    assert probe.tolerance < saturated / 50


def test_a_refusal_becomes_a_note() -> None:
    """A runtime that refuses the graph is reported with its reason."""
    backend = FakeBackend(
        refuse=lambda model: "no casts here" if any(n.op_type == "Cast" for n in model.graph.node) else ""
    )
    found = backend.capabilities()
    assert {name for name, ok in found.supported.items() if not ok} >= {"int4-conv", "fp16-storage"}
    assert found.notes["int4-conv"].endswith("no casts here")
