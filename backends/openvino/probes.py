"""The small graphs of ``probe_graphs``, with what OpenVINO should make of each: the precision its operators run in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from bitfront.backends.probe_graphs import Probe, all_probes

_FOLDED_CONV = "Convolution(f32)"
# Probe → what has to be among the operators.
_WANTED: Mapping[str, str] = MappingProxyType(
    {
        "int8-conv": "Convolution(u8)",
        "int4-conv": "Convolution(u8)",
        "int8-full-range": "Convolution(u8)",
        "int8-conv-transpose": "Deconvolution(u8)",
        "int8-gemm": "FullyConnected(u8)",
        "fp16-storage": _FOLDED_CONV,
        "int8-weight-only": _FOLDED_CONV,
        "int4-weight-only": _FOLDED_CONV,
        "int4-matmul-block": "FullyConnected(i4)",
    }
)


def openvino_probes() -> tuple[Probe, ...]:
    """All probes, with the operators that this runtime should make of them."""
    return tuple(
        replace(probe, wanted=frozenset({_WANTED[probe.name]}), unwanted=frozenset()) for probe in all_probes()
    )
