"""TensorRT under ONNX Runtime on a real GPU: what every backend does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from bitfront.backends import Backend, get_backend
from bitfront.core import Artifact, BackendUnavailableError
from tests.backends import models
from tests.backends.conformance import BackendConformance

pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The backend with a cache of its own; skips with its own reason where it cannot start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BITFRONT_CACHE", str(tmp_path_factory.mktemp("cache")))
        backend = get_backend("ort-tensorrt")
        try:
            backend.capabilities()
        except BackendUnavailableError as error:
            pytest.skip(str(error))
        yield backend


class TestOrtTensorrt(BackendConformance):
    pass


def test_candidates_do_not_get_each_others_engines(backend: Backend) -> None:
    """Two networks that differ in weights alone give different results, engines being cached."""
    x = np.array([[1, 0, 0]], np.float32)
    results = [
        backend.compile(Artifact.onnx(models.linear(factor=factor)), threads=1, batch_size=1).run({"x": x})[0]
        for factor in (1.0, 2.0)
    ]
    models.assert_close(results[0], np.array([[11, 22]]), atol=1e-2)
    models.assert_close(results[1], np.array([[12, 24]]), atol=1e-2)
