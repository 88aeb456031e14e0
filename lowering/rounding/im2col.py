"""A layer's inputs as columns, so that its output is ``rows @ columns`` (im2col, for rows as in ``matrix.py``).

Convolutions are unfolded with their strides, pads, dilations and groups; a ConvTranspose is first written as the
convolution of its zero-stuffed input with the mirrored kernel. Where a layer has more output positions than are
needed, an evenly spaced part of them stands for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from bitfront.lowering.graph import attribute
from bitfront.lowering.rounding.matrix import MatrixView

# Columns are built for so many bytes' worth of samples at a time.
_SLICE_BYTES = 64_000_000

Columns = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Im2col:
    """Geometry by which a layer reads its input: strides, pads, dilations.

    Attributes:
        view: The layer's weight as rows.
        strides, dilations: One entry a spatial axis.
        pads: Begins, then ends; as many as ``auto_pad`` does not override.
        auto_pad: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
        output_padding, output_shape: Of a ConvTranspose; ``output_shape`` is empty where it is not given.
        transposed_input: Gemm's transA.
    """

    view: MatrixView
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str
    output_padding: tuple[int, ...]
    output_shape: tuple[int, ...]
    transposed_input: bool

    @classmethod
    def of(cls, view: MatrixView, node: onnx.NodeProto) -> Im2col:
        """Read the node's attributes."""
        rank = len(view.shape) - 2

        def numbers(name: str, default: list[int]) -> tuple[int, ...]:
            return tuple(int(value) for value in attribute(node, name, default))

        auto_pad = attribute(node, "auto_pad", b"NOTSET")
        return cls(
            view=view,
            strides=numbers("strides", [1] * rank),
            dilations=numbers("dilations", [1] * rank),
            pads=numbers("pads", [0] * (2 * rank)),
            auto_pad=auto_pad.decode() if isinstance(auto_pad, bytes) else auto_pad,
            output_padding=numbers("output_padding", [0] * rank),
            output_shape=numbers("output_shape", []),
            transposed_input=bool(attribute(node, "transA", 0)),
        )

    def columns(self, inputs: NDArray[Any], positions: int) -> Iterator[Columns]:
        """Unfold a chunk of the layer's input, some samples at a time.

        Args:
            inputs: The layer's first operand: (n, channels, *spatial), (…, k), or (k, n) with transA.
            positions: Keep about so many positions of each sample at most (of the chunk, for Gemm and MatMul).

        Yields:
            (groups, k, columns).
        """
        inputs = inputs.astype(np.float32, copy=False)
        if self.view.op in ("Gemm", "MatMul"):
            flat = (inputs.T if self.transposed_input else inputs).reshape(
                -1, inputs.shape[0 if self.transposed_input else -1]
            )
            yield np.ascontiguousarray(flat[_spread(len(flat), 1, positions * max(1, len(inputs)))].T)[None]
            return
        windows = self._windows(inputs)
        rank = len(self.strides)
        spatial = windows.shape[2 : 2 + rank]
        chosen = np.unravel_index(_spread(math.prod(spatial), spatial[-1], positions), spatial)
        taps = windows.shape[2 + rank :]
        sample_bytes = 4 * windows.shape[1] * math.prod(taps) * len(chosen[0])
        step = max(1, _SLICE_BYTES // max(1, sample_bytes))
        groups = self.view.groups
        for start in range(0, len(inputs), step):
            part = windows[start : start + step]
            if len(chosen[0]) < math.prod(spatial):
                picked: tuple[Any, ...] = (slice(None), slice(None), *chosen)
                part = part[picked]
                inner = (1, *range(3, 3 + rank), 0, 2)
            else:
                inner = (1, *range(2 + rank, 2 + 2 * rank), 0, *range(2, 2 + rank))
            yield part.transpose(inner).reshape(groups, part.shape[1] // groups * math.prod(taps), -1)

    def _windows(self, inputs: Columns) -> Columns:
        """A view (n, channels, *positions, *kernel) of the padded input, kernel axes in the weight's order."""
        kernel = self.view.shape[2:]
        spans = tuple((size - 1) * dilation + 1 for size, dilation in zip(kernel, self.dilations, strict=True))
        if self.view.op == "ConvTranspose":
            padded = _padded(_stuffed(inputs, self.strides), self._transpose_pads(inputs.shape[2:], spans))
            steps: tuple[int, ...] = (1,) * len(kernel)
        else:
            padded = _padded(inputs, self._conv_pads(inputs.shape[2:], spans))
            steps = self.strides
        windows = sliding_window_view(padded, spans, axis=tuple(range(2, padded.ndim)))
        mirror = -1 if self.view.op == "ConvTranspose" else 1
        keep = [slice(None), slice(None), *(slice(None, None, step) for step in steps)]
        taps = [slice(None, None, dilation) for dilation in self.dilations]
        mirrored: tuple[Any, ...] = (..., *([slice(None, None, mirror)] * len(kernel)))
        view: Columns = windows[(*keep, *taps)][mirrored]
        return view

    def _conv_pads(self, spatial: tuple[int, ...], spans: tuple[int, ...]) -> list[tuple[int, int]]:
        pads: list[tuple[int, int]] = []
        for axis, (size, span, stride) in enumerate(zip(spatial, spans, self.strides, strict=True)):
            if self.auto_pad == "NOTSET":
                pads.append((self.pads[axis], self.pads[axis + len(spatial)]))
            elif self.auto_pad == "VALID":
                pads.append((0, 0))
            else:
                total = max(0, (-(-size // stride) - 1) * stride + span - size)
                pads.append(_split_pad(total, self.auto_pad == "SAME_UPPER"))
        return pads

    def _transpose_pads(self, spatial: tuple[int, ...], spans: tuple[int, ...]) -> list[tuple[int, int]]:
        """Pads of the stuffed input: what the kernel reaches beyond it, less what the output is cropped by."""
        pads: list[tuple[int, int]] = []
        for axis, (size, span, stride) in enumerate(zip(spatial, spans, self.strides, strict=True)):
            extra = self.output_padding[axis]
            if self.output_shape or self.auto_pad.startswith("SAME"):
                length = self.output_shape[axis - len(spatial)] if self.output_shape else size * stride
                begin, end = _split_pad(stride * (size - 1) + extra + span - length, self.auto_pad == "SAME_UPPER")
            elif self.auto_pad == "VALID":
                begin, end = 0, 0
            else:
                begin, end = self.pads[axis], self.pads[axis + len(spatial)]
            pads.append((span - 1 - begin, span - 1 - end + extra))
        return pads


def _split_pad(total: int, larger_end: bool) -> tuple[int, int]:
    smaller = total // 2
    return (smaller, total - smaller) if larger_end else (total - smaller, smaller)


def _stuffed(inputs: Columns, strides: tuple[int, ...]) -> Columns:
    """The input with stride − 1 zeros between neighbours."""
    spatial = tuple((size - 1) * stride + 1 for size, stride in zip(inputs.shape[2:], strides, strict=True))
    stuffed = np.zeros((*inputs.shape[:2], *spatial), dtype=np.float32)
    stuffed[(slice(None), slice(None), *(slice(None, None, stride) for stride in strides))] = inputs
    return stuffed


def _padded(inputs: Columns, pads: list[tuple[int, int]]) -> Columns:
    """Pad an input with zeros; a negative pad crops."""
    crop = tuple(
        slice(max(0, -begin), size - max(0, -end)) for (begin, end), size in zip(pads, inputs.shape[2:], strict=True)
    )
    cropped = inputs[(slice(None), slice(None), *crop)]
    return np.pad(cropped, [(0, 0), (0, 0), *((max(0, begin), max(0, end)) for begin, end in pads)])


def _spread(total: int, row: int, wanted: int) -> NDArray[np.int64]:
    """Indices, about ``wanted`` of ``total``, at equal distances, coprime to ``row`` so that no column is favoured."""
    step = max(1, total // max(1, wanted))
    while step > 1 and math.gcd(step, row) > 1:
        step -= 1
    return np.arange(0, total, step)
