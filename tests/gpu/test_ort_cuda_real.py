"""ONNX Runtime on a real GPU: what every backend does, the dialect's graphs, and what each precision gains."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.backends import Backend, get_backend
from bitfront.core import Artifact, BackendUnavailableError, CalibrationSettings, ContentStore, Precision
from bitfront.lowering.dialects.ort_cuda import OrtCudaDialect
from bitfront.lowering.lowerer import Lowerer
from tests.backends import models
from tests.backends.conformance import BackendConformance
from tests.lowering.candidates import expected_outputs, sqnr_db, uniform
from tests.lowering.topologies import TOPOLOGIES, inputs_of, reference_of

pytestmark = pytest.mark.gpu
_FLOOR_DB = {"fp32": 90.0, "fp16": 48.0, "int8:mse": 28.0, "int4:mse:block32": 14.0, "int4:gptq:weight-only": 12.0}


@pytest.fixture(scope="module")
def backend() -> Backend:
    """The backend; skips with its own reason where it cannot start."""
    backend = get_backend("ort-cuda")
    try:
        backend.capabilities()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    return backend


class TestOrtCuda(BackendConformance):
    pass


@pytest.mark.parametrize("text", _FLOOR_DB)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_dialect_on_the_device(backend: Backend, name: str, text: str) -> None:
    """Every topology in every uniform scheme gives what FP32 gives on the processor, within its rounding error."""
    reference = reference_of(name)
    lowerer = Lowerer(reference, OrtCudaDialect(), inputs_of(reference), CalibrationSettings(), ContentStore(None))
    model = backend.compile(lowerer.lower(uniform(lowerer, text)), threads=1)
    found = model.run(inputs_of(reference, seed=5))
    for wanted, actual in zip(expected_outputs(name), found, strict=True):
        assert sqnr_db(wanted, actual) >= _FLOOR_DB[text]


def test_layers_run_on_the_device(backend: Backend) -> None:
    """The profile finds convolutions on the CUDA provider, in the precision written."""
    reference = reference_of("residual")
    lowerer = Lowerer(reference, OrtCudaDialect(), inputs_of(reference), CalibrationSettings(), ContentStore(None))
    inputs = inputs_of(reference, samples=1)
    for text in ("fp32", "fp16"):
        layers = backend.compile(lowerer.lower(uniform(lowerer, text)), threads=1).profile(inputs)
        convolutions = [layer for layer in layers if "Conv" in layer.kind]
        assert len(convolutions) == 4
        assert {layer.detail for layer in convolutions} == {"CUDAExecutionProvider"}
        assert {layer.precision for layer in convolutions} == {text}


def test_timed_runs_give_the_same_results(backend: Backend) -> None:
    """Bound runs take time and change nothing about later results."""
    compiled = backend.compile(Artifact.onnx(models.linear()), threads=1)
    x = np.array([[1, 0, 0]], np.float32)
    assert (compiled.timer({"x": x}, backend.clock)(5) > 0).all()
    models.assert_close(compiled.run({"x": x})[0], np.array([[11, 22]]))


def test_withheld_is_decided(backend: Backend) -> None:
    """The probe answers: INT8 alone may be withheld, and if so with ratios."""
    withheld = backend.unprofitable_precisions()
    assert set(withheld) <= {Precision.INT8}
    assert all("×" in reason for reason in withheld.values())
