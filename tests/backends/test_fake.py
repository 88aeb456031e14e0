"""The fake backend: latencies by its table, after a simplified fusion."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from bitfront.backends import DEFAULT_COSTS_MS, QUICK, Backend, FakeBackend, time_paired
from bitfront.backends.fake_fusion import fused_operators
from bitfront.backends.probe_graphs import all_probes
from bitfront.core import Artifact, BackendError
from tests.backends import models
from tests.backends.conformance import BackendConformance

_PROBES = {probe.name: onnx.load_model_from_string(probe.model).graph for probe in all_probes()}


@pytest.fixture(scope="module")
def backend() -> Backend:
    return FakeBackend()


class TestFake(BackendConformance):
    pass


@pytest.mark.parametrize(
    ("probe", "operators"),
    [
        ("int8-conv", ("QuantizeLinear", "QLinearConv", "DequantizeLinear")),
        ("int4-conv", ("QuantizeLinear", "QLinearConv", "DequantizeLinear")),
        ("int8-gemm", ("QuantizeLinear", "QGemm", "DequantizeLinear")),
        ("fp16-storage", ("Conv",)),
        ("int4-weight-only", ("Conv",)),
        ("int4-matmul-block", ("MatMulNBits",)),
    ],
)
def test_fusion_is_as_on_the_real_runtime(probe: str, operators: tuple[str, ...]) -> None:
    """Each way of writing a layer becomes what it should; what is left at the boundaries stays."""
    assert fused_operators(_PROBES[probe]) == operators


def test_a_lone_integer_layer_is_slower_than_none(backend: Backend) -> None:
    """Boundaries cost more than one layer gains: one integer convolution loses to a float one, two in a row win."""
    assert isinstance(backend, FakeBackend)
    costs = DEFAULT_COSTS_MS
    boundary = costs["QuantizeLinear"] + costs["DequantizeLinear"]
    lone = backend.latency_ms(next(probe.model for probe in all_probes() if probe.name == "int8-conv"))
    assert lone == pytest.approx(costs["QLinearConv"] + boundary)
    assert lone > costs["Conv"]
    assert 2 * costs["QLinearConv"] + boundary < 2 * costs["Conv"]


def test_timing_finds_the_tables_latency() -> None:
    """The timing protocol on the fake's clock gives exactly the latency by the table, for any batch."""
    backend = FakeBackend({"Conv": 2.0, "Relu": 0.5})
    compiled = {str(n): backend.compile(Artifact.onnx(models.convolution(n)), threads=1) for n in (1, 3)}
    assert backend.latency_ms(models.convolution(3)) == 7.5
    x = np.ones((4, 2, 4, 4), np.float32)
    stats = time_paired(compiled, "1", {"x": x}, QUICK, threads=1, batch_size=4, clock=backend.clock)
    assert (stats["1"].median_ms, stats["3"].median_ms, stats["3"].ratio) == (10.0, 30.0, 3.0)


def test_refusals_are_typed() -> None:
    """A model that the predicate refuses does not compile, with its reason; others do."""
    backend = FakeBackend(refuse=lambda model: "too deep" if len(model.graph.node) > 2 else "")
    backend.compile(Artifact.onnx(models.convolution(1)), threads=1)
    with pytest.raises(BackendError, match=r"fake refused a model of .* bytes: too deep"):
        backend.compile(Artifact.onnx(models.convolution(2)), threads=1)


def test_other_costs_are_another_device() -> None:
    """Fingerprints tell cost tables apart, so that caches do too."""
    assert FakeBackend().fingerprint() == FakeBackend().fingerprint()
    assert FakeBackend().fingerprint() != FakeBackend({"Conv": 9.0}).fingerprint()
