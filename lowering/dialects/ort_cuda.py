"""ONNX Runtime's CUDA provider: FP16 arithmetic by region, ``MatMulNBits`` for 4-bit groups, INT8 as the CPU writes it.

| scheme             | written as                                                    | computes in       |
| ------------------ | ------------------------------------------------------------- | ----------------- |
| fp32               | initialiser                                                   | FP32              |
| fp16               | FLOAT16 initialisers, Casts where the region begins and ends  | FP16              |
| int4 by groups     | ``MatMulNBits``, groups of 32, 64 or 128                      | FP16 activations  |
| int8               | Q/DQ on inputs, weights and outputs                           | float, between DQ and Q |
| … weight-only      | folded when loaded                                            | FP32              |

The provider fuses no Q/DQ: those run as operators of their own, so INT8 is there for the day it does, and the backend
withholds it where a probe finds it slower. 4-bit weights with 8-bit activations are refused outright.

The graph is written in two steps: the CPU dialect writes everything but the FP16 layers, which stay FP32 in it; then
regions of FP16 are laid over the result (``lowering.fp16``). A layer of 4-bit groups starts a region too:
the provider's kernels for many rows take FP16 activations, while with FP32 ones all but a few rows get unpacked weights
(onnxruntime pull requests 32721 and 32742). Its activations stay FP32 where they do not fit FP16.

Not handled: BF16, FP8, layouts (``prefer_nhwc`` is the session's business).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import onnx

from bitfront.core import FP32
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import LAYERS, TABLES, LayerSite, LoweringRequest, SchemeSupport
from bitfront.lowering.dialects.fp16_writer import write_fp16_casts
from bitfront.lowering.dialects.ort_cpu import OrtCpuDialect, OrtCpuEmitter
from bitfront.lowering.dialects.qdq import QdqEmitter
from bitfront.lowering.dialects.qdq_schemes import grouped
from bitfront.lowering.fp16 import FP16_MAX, fits_fp16, require_fp16
from bitfront.lowering.storage import stored_bytes

_CPU = {
    support.scheme.text: replace(support, operators=support.operators - TABLES) for support in OrtCpuDialect.schemes
}
# Scales of groups are FP16 as the activations beside them are.
_FP16_SCALE_BYTES = 2


def _why_no_fp16(site: LayerSite) -> str:
    node, view = site.node, site.view
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    for kind, name in zip(("weight", "bias"), node.input[1:], strict=False):
        value = view.array(name) if name else None
        largest = 0.0 if value is None else float(np.abs(value).max(initial=0.0))
        if not largest <= FP16_MAX:
            return f"its largest {kind}, {largest:g}, is beyond FP16's {FP16_MAX:g}"
    return ""


def _without_kernel(text: str) -> SchemeSupport[QdqEmitter]:
    """A scheme of 4-bit weights and 8-bit activations: refused, in the CPU provider's words where it refuses too."""
    cpu = _CPU[text]

    def why_not(site: LayerSite) -> str:
        return cpu.why_not(site) or "the CUDA provider has no kernel for 4-bit weights with 8-bit activations"

    return replace(cpu, why_not=why_not)


def _grouped(group_size: int) -> SchemeSupport[QdqEmitter]:
    def why_not(site: LayerSite) -> str:
        reduction = site.layer.weight_shape[1 - site.layer.channel_axis]
        short = f"its {reduction} inputs are fewer than the block size {group_size}" if reduction < group_size else ""
        return _CPU["int4:mse:block32"].why_not(site) or short

    return grouped(f"int4:mse:block{group_size}", why_not, partial(stored_bytes, scale_bytes=_FP16_SCALE_BYTES))


class OrtCudaDialect:
    """Writes networks for ONNX Runtime's CUDA provider."""

    name = "ort-cuda"
    schemes: Sequence[SchemeSupport[Any]] = (
        _CPU["fp32"],
        replace(_CPU["fp16"], compute_type=ComputeType.FP16, why_not=_why_no_fp16, operators=LAYERS),
        _CPU["int8:nearest"],
        _CPU["int8:mse"],
        _without_kernel("int4:mse"),
        _without_kernel("int4:gptq"),
        _CPU["int8:mse:weight-only"],
        _CPU["int4:gptq:weight-only"],
        _grouped(32),
        _grouped(64),
        _grouped(128),
        _CPU["int4:mse:weight-only"],
    )

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """Write the request for ONNX Runtime's CUDA provider.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or an FP16 layer's values do not fit FP16.
        """
        compute_types = {support.scheme: support.compute_type for support in self.schemes}
        kinds = {name: compute_types[scheme] for name, scheme in request.schemes.items()}
        nodes = {node.name: node for node in request.reference.graph.node}
        ranges = request.ranges
        fp16: set[str] = set()
        for layer in request.layers:
            node = nodes[layer.node]
            activations = (node.input[0], node.output[0])
            if kinds[layer.name] is ComputeType.FP16:
                require_fp16(layer.name, activations, ranges)
                fp16.add(layer.name)
            elif kinds[layer.name] is ComputeType.WEIGHT_ONLY and all(fits_fp16(name, ranges) for name in activations):
                fp16.add(layer.name)
        in_fp32 = {
            name: FP32 if kinds[name] is ComputeType.FP16 else scheme for name, scheme in request.schemes.items()
        }
        written = OrtCpuEmitter(replace(request, schemes=in_fp32), self.schemes).run()
        return write_fp16_casts(written, fp16, ranges, types=request.reference.graph.value_info) if fp16 else written
