"""ONNX Runtime on the processor."""

from __future__ import annotations

import builtins
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bitfront.backends import Backend, OrtCpuBackend
from bitfront.backends.ort.package import check_flavours
from bitfront.core import Artifact, BackendUnavailableError
from tests.backends import models
from tests.backends.conformance import BackendConformance


@pytest.fixture(scope="module")
def backend() -> Backend:
    return OrtCpuBackend()


class TestOrtCpu(BackendConformance):
    pass


def test_operators_are_those_after_fusion(backend: Backend) -> None:
    """Relu is gone into its convolution: what is listed is what runs."""
    assert "Relu" not in backend.compile(Artifact.onnx(models.convolution(2)), threads=1).operators()


def test_operators_of_subgraphs_are_listed(backend: Backend) -> None:
    """Both branches show, after their owner."""
    operators = backend.compile(Artifact.onnx(models.branching()), threads=1).operators()
    assert operators[operators.index("If") :] in (("If", "Cos", "Sin"), ("If", "Sin", "Cos"))


def test_storage_and_integer_forms_are_supported(backend: Backend) -> None:
    """What the search offers on this runtime works here; a quantised ConvTranspose is known not to fuse."""
    found = backend.capabilities()
    for name in ("int8-conv", "int4-conv", "int8-gemm", "fp16-storage", "int4-weight-only", "int4-matmul-block"):
        assert found.supported[name], found.notes.get(name)
    assert not found.supported["int8-conv-transpose"]
    assert "ConvTranspose" in found.notes["int8-conv-transpose"]


def test_several_threads_leave_the_cores_as_they_were(backend: Backend) -> None:
    """Compiling for two threads gives the same numbers and takes no cores away from this process."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    x = np.random.default_rng(0).normal(size=(4, 2, 4, 4)).astype(np.float32)
    one, two = (
        backend.compile(Artifact.onnx(models.convolution(3)), threads=threads).run({"x": x})[0] for threads in (1, 2)
    )
    models.assert_close(one, two, atol=1e-6)
    assert before == (os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set())


def test_a_processor_without_dot_products_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without VNNI or the like the capabilities say what to expect; with it there is no such note."""
    fresh = OrtCpuBackend()
    bare = replace(fresh.fingerprint(), instructions=("avx2",))
    monkeypatch.setattr(OrtCpuBackend, "fingerprint", lambda _: bare)
    assert "VNNI" in fresh.capabilities().notes["dot-product"]
    monkeypatch.setattr(OrtCpuBackend, "fingerprint", lambda _: replace(bare, instructions=("avx2", "avx_vnni")))
    assert "dot-product" not in OrtCpuBackend().capabilities().notes


def test_telemetry_is_off(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Using the backend turns telemetry off, unless the user has set the switch."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    backend.fingerprint()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_two_flavours_are_explained() -> None:
    """Both wheels at once: said so, with the commands that mend it."""
    both = {"onnxruntime", "onnxruntime-gpu"}
    with pytest.raises(BackendUnavailableError, match=r"several flavours.*: onnxruntime, onnxruntime-gpu") as caught:
        check_flavours(both.__contains__, "cpu")
    assert caught.value.hint == "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'bitfront[cpu]'"


@pytest.mark.parametrize("flavour", ["onnxruntime", "onnxruntime-gpu"])
def test_one_flavour_is_fine(flavour: str) -> None:
    """Either wheel alone is accepted."""
    check_flavours({flavour}.__contains__, "cpu")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ONNX Runtime the first use names the extra to install."""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailableError, match="cannot be imported: No module named 'onnxruntime'") as caught:
        OrtCpuBackend().fingerprint()
    assert caught.value.hint == "install it with: pip install 'bitfront[cpu]'"
