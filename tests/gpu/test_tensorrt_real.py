"""TensorRT on a real GPU: what every backend does, the dialect's graphs, and what engines tell of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bitfront.backends import Backend, get_backend
from bitfront.core import Artifact, BackendUnavailableError, CalibrationSettings, ContentStore
from bitfront.lowering.dialects.tensorrt import TensorRtDialect
from bitfront.lowering.lowerer import Lowerer
from tests.backends import models
from tests.backends.conformance import BackendConformance
from tests.lowering.candidates import expected_outputs, sqnr_db, uniform
from tests.lowering.topologies import TOPOLOGIES, inputs_of, reference_of

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]
_FLOOR_DB = {"fp32": 90.0, "fp16": 48.0, "int8:mse": 28.0, "int4:gptq:block64": 12.0}


def _opened(name: str) -> Backend:
    """The backend; skips with its own reason where it cannot start."""
    backend = get_backend(name)
    try:
        backend.capabilities()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    return backend


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITFRONT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield _opened("tensorrt")


class TestTensorRt(BackendConformance):
    pass


@pytest.mark.parametrize("text", _FLOOR_DB)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_dialect_on_the_device(backend: Backend, name: str, text: str) -> None:
    """Every topology in every uniform scheme gives what FP32 gives on the processor, within its rounding error."""
    reference = reference_of(name)
    lowerer = Lowerer(reference, TensorRtDialect(), inputs_of(reference), CalibrationSettings(), ContentStore(None))
    model = backend.compile(lowerer.lower(uniform(lowerer, text)), threads=1)
    found = model.run(inputs_of(reference, seed=5))
    for wanted, actual in zip(expected_outputs(name), found, strict=True):
        assert sqnr_db(wanted, actual) >= _FLOOR_DB[text]


def test_layers_run_as_they_are_written(backend: Backend) -> None:
    """The profile finds the convolutions by their nodes, each in the precision written, with a time."""
    reference = reference_of("residual")
    lowerer = Lowerer(reference, TensorRtDialect(), inputs_of(reference), CalibrationSettings(), ContentStore(None))
    names = {layer.name for layer in lowerer.quantisable.layers if layer.op == "Conv"}
    for text in ("fp32", "fp16", "int8:mse"):
        compiled = backend.compile(lowerer.lower(uniform(lowerer, text)), threads=1, batch_size=1)
        layers = [layer for layer in compiled.profile(inputs_of(reference, samples=1)) if names & set(layer.nodes)]
        assert {node for layer in layers for node in layer.nodes} >= names
        assert {text.split(":")[0]} <= {layer.precision for layer in layers}
        assert any((layer.latency_us or 0) > 0 for layer in layers)


def test_every_probe_passes(backend: Backend) -> None:
    """What the dialect writes is what TensorRT supports."""
    assert backend.capabilities().notes == {}


def test_tf32_is_a_baseline_of_its_own(backend: Backend) -> None:
    """TF32 rounds what it multiplies; with its flag cleared FP32 does not."""
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    (exact,) = backend.compile(Artifact.onnx(models.convolution(3)), threads=1).run({"x": x})
    models.assert_close(exact, 8 * np.maximum(x, 0))
    rounding = _opened("tensorrt-tf32")
    (near,) = rounding.compile(Artifact.onnx(models.convolution(3)), threads=1).run({"x": x})
    models.assert_close(near, 8 * np.maximum(x, 0), atol=0.05)
    assert rounding.fingerprint() != backend.fingerprint()
