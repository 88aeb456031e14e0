"""What TensorRT is probed with: graphs that keep its rules, with numbers that are right on another runtime."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitfront.backends.base import ExecutedLayer
from bitfront.backends.ort.cpu import float_bias_proxy
from bitfront.backends.probe_graphs import Probe
from bitfront.backends.probes import run_probes, shortcoming
from bitfront.backends.tensorrt.probes import LAYER, tensorrt_probes, wrong_precision
from bitfront.lowering.dialects.tensorrt_check import check_tensorrt_graph

_PROBES = {probe.name: probe for probe in tensorrt_probes()}


@pytest.mark.parametrize("name", _PROBES)
def test_the_graphs_keep_the_published_rules(name: str) -> None:
    """What is probed is what the dialect would write, so a failure is the runtime's."""
    model = onnx.load_model_from_string(_PROBES[name].model)
    onnx.checker.check_model(model, full_check=True)
    assert check_tensorrt_graph(model) == ()
    assert [node.name for node in model.graph.node].count(LAYER) == 1


def test_the_numbers_are_right() -> None:
    """Another runtime that reads the same graphs gives the expected outputs."""
    found = run_probes(float_bias_proxy(), _PROBES.values())
    assert found.notes == {}
    assert set(found.supported) == set(_PROBES)


def test_they_are_the_same_each_time() -> None:
    """A cached answer stays the answer."""
    assert [probe.model for probe in tensorrt_probes()] == [probe.model for probe in _PROBES.values()]


def _with_scale_off(probe: Probe) -> Probe:
    """The probe's weights 2 % too large."""
    model = onnx.load_model_from_string(probe.model)
    for tensor in model.graph.initializer:
        if tensor.name == ("w_scale" if "int" in probe.name else "w"):
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((value * 1.02).astype(value.dtype), tensor.name))
    return replace(probe, model=bytes(model.SerializeToString()))


@pytest.mark.parametrize("name", _PROBES)
def test_a_wrong_scale_is_seen(name: str) -> None:
    """Weights that are 2 % off fail every probe."""
    assert "wrong result: off by" in shortcoming(float_bias_proxy(), _with_scale_off(_PROBES[name]))


@pytest.mark.parametrize("name", [name for name in _PROBES if name.startswith("int8")])
def test_a_quantiser_left_out_is_seen(name: str) -> None:
    """A runtime that computes on the input as it came, instead of on its integers, fails."""
    probe = _PROBES[name]
    model = onnx.load_model_from_string(probe.model)
    quantise = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    for node in model.graph.node:
        if node.name == LAYER:
            node.input[0] = quantise.input[0]
    left_out = replace(probe, model=bytes(model.SerializeToString()))
    assert "wrong result: off by" in shortcoming(float_bias_proxy(), left_out)


@pytest.mark.parametrize("name", _PROBES)
def test_sums_are_exact_in_half(name: str) -> None:
    """No result is beyond what FP16 holds, nor so small that its error is lost in the tolerance."""
    probe = _PROBES[name]
    assert 8 < np.abs(probe.expected).max() < 2048
    assert probe.tolerance < np.abs(probe.expected).std() / 10


def _layer(precision: str, *nodes: str) -> ExecutedLayer:
    return ExecutedLayer(name="l", kind="", precision=precision, nodes=nodes, detail="", latency_us=None)


@pytest.mark.parametrize(
    ("name", "layers", "told"),
    [
        ("int8-conv", (_layer("int8", LAYER),), ""),
        ("int8-conv", (_layer("fp32", LAYER),), "correct but not run in int8: runs in fp32"),
        ("fp16-conv", (_layer("fp32", LAYER),), "correct but not run in fp16: runs in fp32"),
        ("int8-conv", (_layer("fp32", "y"), _layer("int8", "x_codes", LAYER)), ""),
        ("int8-conv", (_layer("", LAYER),), ""),
        ("int8-conv", (), ""),
        ("int4-matmul-half", (_layer("fp16", LAYER),), ""),
    ],
)
def test_precision_is_looked_at_where_told(name: str, layers: tuple[ExecutedLayer, ...], told: str) -> None:
    """Only the probed node's own layer counts, and only where the runtime tells what it runs in."""
    assert wrong_precision(name, layers) == told
