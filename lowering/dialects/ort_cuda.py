"""ONNX Runtime's CUDA provider: FP16 arithmetic by region, ``MatMulNBits`` for 4-bit blocks, INT8 as the CPU writes it.

| scheme             | written as                                                    | computes in       |
| ------------------ | ------------------------------------------------------------- | ----------------- |
| fp32               | initialiser                                                   | FP32              |
| fp16               | FLOAT16 initialisers, Casts where the region begins and ends  | FP16              |
| int4 blocks        | ``MatMulNBits``, block 32, 64 or 128                          | FP16 activations  |
| int8               | Q/DQ on inputs, weights and outputs                           | float, between DQ and Q |
| … weight-only      | folded when loaded                                            | FP32              |

The provider fuses no Q/DQ: those run as operators of their own, so INT8 is there for the day it does, and the backend
withholds it where a probe finds it slower. 4-bit weights with 8-bit activations are refused outright.

The graph is written in two steps: the CPU dialect writes everything but the half layers, which stay FP32 in it; then
regions of half precision are laid over the result (``lowering.fp16``). A layer of 4-bit blocks starts a region too:
the provider's kernels for many rows take FP16 activations, while with FP32 ones all but a few rows get unpacked weights
(onnxruntime pull requests 32721 and 32742). Its activations stay FP32 where they do not fit FP16.

Not handled: BF16, FP8, layouts (``prefer_nhwc`` is the session's business).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from bitfront.core import FP16, FP32, Precision, Rounding, Scheme
from bitfront.lowering.dialect import ComputeType, LoweringRequest
from bitfront.lowering.dialects.fp16_writer import write_fp16_casts
from bitfront.lowering.dialects.ort_cpu import OrtCpuDialect
from bitfront.lowering.fp16 import HALF_MAX, fits_fp16, require_fp16
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.storage import stored_bytes

GROUP_SIZES = (32, 64, 128)
_HALF_SCALE_BYTES = 2


class OrtCudaDialect:
    """Writes candidates for ONNX Runtime's CUDA provider."""

    name = "ort-cuda"

    def __init__(self) -> None:
        self._cpu = OrtCpuDialect()

    def offers(self, layer: Layer, node: onnx.NodeProto, view: GraphView) -> tuple[tuple[Scheme, ...], dict[str, str]]:
        """See ``Dialect.offers``."""
        offered, cpu_refused = self._cpu.offers(layer, node, view)
        schemes: list[Scheme] = []
        refused: dict[str, str] = {}
        for scheme in offered:
            if scheme == FP16 and (reason := _why_not_half(node, view)):
                refused[scheme.text] = reason
            elif scheme.precision is Precision.INT4 and scheme.quantises_activations:
                refused[scheme.text] = "the CUDA provider has no kernel for 4-bit weights with 8-bit activations"
            elif scheme.group_size is None:
                schemes.append(scheme)
        blocks = [scheme for scheme in offered if scheme.group_size is not None]
        refused |= {text: why for text, why in cpu_refused.items() if Scheme.parse(text).group_size is None}
        reduction = layer.weight_shape[1 - layer.channel_axis]
        for size in GROUP_SIZES:
            scheme = Scheme(precision=Precision.INT4, rounding=Rounding.MSE, weight_only=True, group_size=size)
            if blocks and reduction >= size:
                schemes.append(scheme)
            elif blocks:
                refused[scheme.text] = f"its {reduction} inputs are fewer than the block size {size}"
            else:
                refused[scheme.text] = next(
                    why for text, why in cpu_refused.items() if Scheme.parse(text).group_size is not None
                )
        return tuple(schemes), refused

    def arithmetic(self, scheme: Scheme) -> ComputeType:
        """See ``Dialect.arithmetic``."""
        return ComputeType.HALF if scheme == FP16 else self._cpu.arithmetic(scheme)

    def weight_bytes(self, layer: Layer, scheme: Scheme) -> int:
        """See ``Dialect.weight_bytes``; scales of blocks are FP16 as the activations beside them are."""
        if scheme.group_size is not None:
            return stored_bytes(layer, scheme, scale_bytes=_HALF_SCALE_BYTES)
        return self._cpu.weight_bytes(layer, scheme)

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """See ``Dialect.write``.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or a half layer's values do not fit FP16.
        """
        nodes = {node.name: node for node in request.reference.graph.node}
        ranges = request.ranges
        half: set[str] = set()
        for layer in request.layers:
            node, scheme = nodes[layer.node], request.schemes[layer.name]
            activations = (node.input[0], node.output[0])
            if scheme == FP16:
                require_fp16(layer.name, activations, ranges)
                half.add(layer.name)
            elif scheme.group_size is not None and all(fits_fp16(name, ranges) for name in activations):
                half.add(layer.name)
        full = {name: FP32 if scheme == FP16 else scheme for name, scheme in request.schemes.items()}
        written = self._cpu.write(replace(request, schemes=full))
        return write_fp16_casts(written, half, ranges, types=request.reference.graph.value_info) if half else written


def _why_not_half(node: onnx.NodeProto, view: GraphView) -> str:
    if not view.is_float(node.input[0]):
        return "its input is not known to be float32"
    for kind, name in zip(("weight", "bias"), node.input[1:], strict=False):
        value = view.array(name) if name else None
        largest = 0.0 if value is None else float(np.abs(value).max(initial=0.0))
        if not largest <= HALF_MAX:
            return f"its largest {kind}, {largest:g}, is beyond FP16's {HALF_MAX:g}"
    return ""
