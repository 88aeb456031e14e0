"""Channel alignment: both answers on a simulated machine, and a run on a real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from bitfront.backends import OrtCpuBackend
from bitfront.backends.base import Capabilities, Clock, DeviceFingerprint
from bitfront.backends.host import HostBackend
from bitfront.core import Artifact, BackendError, BackendUnavailableError, ContentStore, LoweringError, Precision
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.search.variants.channel_alignment import (
    ChannelAlignment,
    chain,
    dialect_writer,
    measure_channel_alignment,
    preferred_multiple,
)
from tests.backends.simulated import Machine, SimulatedModel
from tests.references import INTERPRETER

FP32, FP16, INT8 = Precision.FP32, Precision.FP16, Precision.INT8


def _padded(channels: int, multiple: int) -> float:
    """Milliseconds of a runtime whose kernels compute whole multiples of channels."""
    return 2.0 * (math.ceil(channels / multiple) * multiple / 48) ** 2


class PaddingBackend(HostBackend):
    """Each precision's kernels compute whole multiples of so many channels.

    Args:
        multiples: Of each precision.
        refusal: Raised by compiling anything but FP32.
        withheld: As ``Backend.withheld``.
        device: Its name.
        asked: Threads and batch size that models are to be compiled with.
    """

    name = "padding"
    dialect = "none"

    def __init__(
        self,
        multiples: Mapping[Precision, int],
        *,
        refusal: BackendError | None = None,
        withheld: Mapping[Precision, str] | None = None,
        device: str = "simulated",
        asked: tuple[int, int] = (1, 1),
    ) -> None:
        self._asked = asked
        self.machine = Machine()
        self.compiled: list[str] = []
        self._multiples, self._refusal, self._withheld, self._device = multiples, refusal, withheld or {}, device

    @property
    def clock(self) -> Clock:
        return self.machine.clock

    def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> SimulatedModel:
        assert (threads, batch_size) == self._asked
        text = artifact.data.decode()
        precision, channels = text.split()
        if self._refusal and precision != FP32:
            raise self._refusal
        self.compiled.append(text)
        return SimulatedModel(self.machine, text, _padded(int(channels), self._multiples[Precision(precision)]))

    def fingerprint(self) -> DeviceFingerprint:
        return DeviceFingerprint(device=self._device, cores=1, instructions=(), system="", runtime="", python="")

    def capabilities(self) -> Capabilities:
        return Capabilities(supported={}, notes={})

    def unprofitable_precisions(self) -> Mapping[Precision, str]:
        return self._withheld


def _write(proto: onnx.ModelProto, precision: Precision) -> Artifact:
    channels = proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return Artifact.onnx(f"{precision} {channels}".encode())


def _ask(
    backend: PaddingBackend,
    *,
    write: Callable[[onnx.ModelProto, Precision], Artifact] = _write,
    store: ContentStore | None = None,
    candidates: tuple[int, ...] = (8, 16),
    precisions: tuple[Precision, ...] = (INT8,),
) -> ChannelAlignment:
    return measure_channel_alignment(
        backend, write, threads=1, store=store or ContentStore(None), candidates=candidates, precisions=precisions
    )


@pytest.mark.parametrize(("of_int8", "wanted"), [(1, 8), (8, 8), (16, 16), (48, 16)])
def test_the_multiple_of_the_last_precision_is_found(of_int8: int, wanted: int) -> None:
    """Kernels that compute whole sixteens make 40 channels cost what 48 do; FP32, which most layers lack, is noted."""
    found = _ask(PaddingBackend({FP32: 8, INT8: of_int8}))
    assert found.multiple == wanted
    for precision, multiple in ((FP32, 8), (INT8, of_int8)):
        ratios = {channels: _padded(channels, multiple) / _padded(48, multiple) for channels in (32, 40, 48)}
        assert found.ratios[precision] == pytest.approx(ratios)


@pytest.mark.parametrize(("of_int8", "wanted"), [(4, 4), (8, 8), (16, 16)])
def test_candidates_are_compared_with_the_next_coarser(of_int8: int, wanted: int) -> None:
    """With three candidates each is found where kernels compute whole ones of it."""
    found = _ask(PaddingBackend({FP32: 1, INT8: of_int8}), candidates=(4, 8, 16))
    assert found.multiple == wanted
    assert list(found.ratios[INT8]) == [32, 36, 40, 48]


@pytest.mark.parametrize(
    "backend",
    [
        PaddingBackend({FP32: 16, INT8: 8}, refusal=BackendError("no integers")),
        PaddingBackend({FP32: 16, INT8: 8}, withheld={INT8: "gains nothing"}),
    ],
    ids=["refused", "withheld"],
)
def test_a_precision_that_the_runtime_lacks_does_not_decide(backend: PaddingBackend) -> None:
    """Without INT8 the precision before it decides."""
    found = _ask(backend)
    assert (found.multiple, list(found.ratios)) == (16, [FP32])


def test_a_precision_that_cannot_be_written_does_not_decide() -> None:
    """A dialect that has no such scheme counts like a runtime that refuses it."""

    def write(proto: onnx.ModelProto, precision: Precision) -> Artifact:
        if precision is FP16:
            raise LoweringError("no half here")
        return _write(proto, precision)

    found = _ask(PaddingBackend({FP32: 8, INT8: 16}), write=write, precisions=(INT8, FP16))
    assert (found.multiple, list(found.ratios)) == (16, [FP32, INT8])


def test_fp32_is_always_timed() -> None:
    """It comes first wherever it is named, and alone where nothing else is."""
    backend = PaddingBackend({FP32: 16, INT8: 8})
    assert list(_ask(backend, precisions=(INT8, FP32)).ratios) == [FP32, INT8]
    assert _ask(backend, precisions=()).multiple == _ask(backend, precisions=(FP32,)).multiple == 16


def test_what_is_no_property_of_the_precision_is_raised() -> None:
    """A runtime that is gone, or that refuses FP32, gives no answer."""
    gone = PaddingBackend({FP32: 8, INT8: 8}, refusal=BackendUnavailableError("gone"))
    with pytest.raises(BackendUnavailableError, match="gone"):
        _ask(gone)

    def write(*_: object) -> Artifact:
        raise LoweringError("nothing can be written")

    with pytest.raises(LoweringError, match="nothing can be written"):
        _ask(PaddingBackend({FP32: 8, INT8: 8}), write=write)


def test_the_answer_is_kept_for_the_device() -> None:
    """Asked again, nothing is compiled; on another device it is."""
    store = ContentStore(None)
    first = _ask(PaddingBackend({FP32: 8, INT8: 16}), store=store)
    again, other = PaddingBackend({FP32: 8, INT8: 8}), PaddingBackend({FP32: 8, INT8: 8}, device="other")
    assert _ask(again, store=store) == first
    assert again.compiled == []
    assert _ask(other, store=store).multiple == 8
    assert other.compiled == ["fp32 32", "fp32 40", "fp32 48", "int8 32", "int8 40", "int8 48"]


@pytest.mark.parametrize(
    "change",
    [{"threads": 2}, {"batch_size": 4}, {"precisions": ()}, {"candidates": (8, 24)}],
    ids=lambda c: next(iter(c)),
)
def test_the_answer_is_kept_for_what_was_asked(change: dict[str, Any]) -> None:
    """Other threads, batches, precisions or candidates are timed anew, the very same are not."""
    store = ContentStore(None)
    for asked, timed in (({}, True), (change, True), (change, False), ({}, False)):
        whole: dict[str, Any] = {"threads": 1, "batch_size": 1, "candidates": (8, 16), "precisions": (INT8,), **asked}
        backend = PaddingBackend({FP32: 8, INT8: 16}, asked=(whole["threads"], whole["batch_size"]))
        measure_channel_alignment(backend, _write, store=store, **whole)
        assert bool(backend.compiled) == timed, asked


def test_a_tenth_is_the_limit() -> None:
    """40 channels pay while they save a tenth of what 48 take."""
    assert preferred_multiple({32: 0.4, 40: 0.9, 48: 1.0}, (8, 16)) == 8
    assert preferred_multiple({32: 0.4, 40: 0.901, 48: 1.0}, (8, 16)) == 16


def test_the_chain_keeps_its_signal() -> None:
    """The network is valid and its last layer's outputs are neither all zero nor huge, so that INT8 has a range."""
    model = chain(40)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).normal(size=(2, 16, 16, 16)).astype(np.float32)
    compiled = OrtCpuBackend().compile(Artifact.onnx(model.SerializeToString()), threads=1)
    (y,) = compiled.run({"x": x})
    assert y.shape == (2, 40, 16, 16)
    assert 0.1 < y.std() < 10


def test_a_dialect_writes_both_precisions() -> None:
    """On ONNX Runtime's CPU provider the FP32 chain is floating, the INT8 one integer throughout."""
    backend = OrtCpuBackend()
    write = dialect_writer(get_dialect(backend.dialect), INTERPRETER)
    operators = {
        precision: backend.compile(write(chain(32), precision), threads=1).operators() for precision in (FP32, INT8)
    }
    assert "QLinearConv" not in operators[FP32]
    assert operators[INT8].count("QLinearConv") == 5


def test_a_dialect_without_the_precision_says_so() -> None:
    """TensorRT has no integer convolution of 4 bits; its weight-only form computes in floats and is no answer."""
    with pytest.raises(LoweringError, match="layer 'conv0' has no scheme of precision int4"):
        dialect_writer(get_dialect("tensorrt"), INTERPRETER)(chain(32), Precision.INT4)


def test_a_real_runtime_answers() -> None:
    """ONNX Runtime's CPU provider gives one of the candidates, with what it was read off."""
    backend = OrtCpuBackend()
    found = measure_channel_alignment(
        backend, dialect_writer(get_dialect(backend.dialect), INTERPRETER), threads=1, store=ContentStore(None)
    )
    assert found.multiple in (8, 16)
    assert {precision: list(row) for precision, row in found.ratios.items()} == {
        FP32: [32, 40, 48],
        INT8: [32, 40, 48],
    }
    assert all(row[48] == 1 for row in found.ratios.values())
