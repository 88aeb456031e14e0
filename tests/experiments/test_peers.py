"""Other tools' quantisation, as the studies call it."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from bitfront.backends import FakeBackend, get_backend
from bitfront.core import Array, Artifact, UsageError
from bitfront.experiments.peers import quantised_by_peer
from tests.search.command_line import network, samples


def _logits(name: str) -> tuple[Array, Array, str]:
    """FP32's outputs on four samples, the peer's, and the peer's name."""
    backend, model = get_backend(name), network().SerializeToString()
    peer = quantised_by_peer(backend, model, {"input": samples(16)}, threads=1, batch_size=4)
    x = {"input": samples(4, seed=2)}
    assert peer.size_bytes > 0
    return backend.compile(Artifact.onnx(model), threads=1).run(x)[0], peer.compiled.run(x)[0], peer.name


def _check(expected: Array, found: Array) -> None:
    """Changed by quantisation, and by no more than 8 bits do."""
    assert not np.array_equal(expected, found)
    error = np.abs(expected.astype(np.float64) - found.astype(np.float64)).max()
    assert error < 0.1 * np.abs(expected.astype(np.float64)).max()


# quantize_static reads a module of numpy's that it no longer should.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_onnxruntime_quantises_for_its_own() -> None:
    """On ort-cpu the peer is ``quantize_static``."""
    expected, found, name = _logits("ort-cpu")
    assert name == "quantize_static"
    _check(expected, found)


@pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="NNCF is not installed: pip install '.[peers]'")
@pytest.mark.filterwarnings("ignore")  # NNCF's own imports warn
def test_nncf_quantises_for_openvino() -> None:
    """On openvino the peer is NNCF."""
    expected, found, name = _logits("openvino")
    assert name == "nncf"
    _check(expected, found)


def test_a_backend_without_a_tool_is_refused() -> None:
    """Only what has a tool of its own is compared."""
    with pytest.raises(UsageError, match="no tool to compare 'fake' with"):
        quantised_by_peer(FakeBackend(), b"", {}, threads=1, batch_size=1)
