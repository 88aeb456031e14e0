"""Weights as matrices: every layer's weight as rows of one output channel each, and back, exactly.

A layer computes, within each convolution group g, ``y = rows[g] @ columns[g]``, where ``rows`` is (g, o, k) and
``columns`` are its unfolded inputs (``im2col.py``). How k is laid out:

    Conv           (o·g, in/g, *kernel)   k = (in/g, *kernel)
    ConvTranspose  (in, o, *kernel)       k = (in/g, *kernel)
    Gemm           (o, in) with transB    k = in
    Gemm, MatMul   (in, o)                k = in
    Gather, Slice  ([1,] o, k)            an entry of a table is a channel
    LSTM, GRU, RNN (g, o, k)              a direction is a group, a row of a gate a channel

Scales are one per entry of the stored weight's channel axis, because that is what ``DequantizeLinear`` can say. For a
grouped ConvTranspose this axis has o entries for o·g output channels: the groups share scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitfront.core import LoweringError
from bitfront.lowering.layers import RECURRENT, TABLE_READERS, Layer
from bitfront.lowering.rounding.weight import RoundedWeight

S = TypeVar("S", bound=np.generic)
FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixView:
    """View of a layer's weight as rows.

    Attributes:
        op: The layer's operator.
        shape: The weight's stored shape.
        channel_axis: Axis of the output channels in ``shape``.
        groups: Convolution groups, or directions of a recurrent operator; else 1.
    """

    op: str
    shape: tuple[int, ...]
    channel_axis: int
    groups: int

    @classmethod
    def of(cls, layer: Layer) -> MatrixView:
        """The layer's view.

        Raises:
            LoweringError: If the weight is no matrix or convolution kernel of a layout listed above.
        """
        shape, axis = layer.weight_shape, layer.channel_axis
        fits = {
            "Conv": len(shape) >= 3 and axis == 0 and shape[0] % layer.conv_groups == 0,
            "ConvTranspose": len(shape) >= 3 and axis == 1 and shape[0] % layer.conv_groups == 0,
            "Gemm": len(shape) == 2 and axis in (0, 1) and layer.conv_groups == 1,
            "MatMul": len(shape) == 2 and axis == 1 and layer.conv_groups == 1,
            **dict.fromkeys(TABLE_READERS, axis == len(shape) - 2 and all(size == 1 for size in shape[:axis])),
            **dict.fromkeys(RECURRENT, len(shape) == 3 and axis == 1),
        }
        if not fits.get(layer.op, False):
            raise LoweringError(
                f"layer '{layer.name}': cannot round a {layer.op} weight of shape {shape} with output channels on "
                f"axis {axis} and {layer.conv_groups} groups",
                "leave the layer at fp32 or fp16",
            )
        groups = shape[0] if layer.op in RECURRENT else layer.conv_groups
        return cls(op=layer.op, shape=shape, channel_axis=axis, groups=groups)

    @property
    def channels(self) -> int:
        """Number of scales that a weight without groups has."""
        return self.shape[self.channel_axis] * (self.groups if self.op in RECURRENT else 1)

    @property
    def shares_scales(self) -> bool:
        """Whether the groups share their scales."""
        return self.op == "ConvTranspose" and self.groups > 1

    def rows(self, weight: NDArray[S]) -> NDArray[S]:
        """Stored weight → (groups, o, k)."""
        if self.op == "Conv":
            return weight.reshape(self.groups, self.shape[0] // self.groups, -1)
        if self.op == "ConvTranspose":
            parts = weight.reshape(self.groups, self.shape[0] // self.groups, self.shape[1], -1)
            return parts.swapaxes(1, 2).reshape(self.groups, self.shape[1], -1)
        if self.op in (*RECURRENT, *TABLE_READERS):
            return weight.reshape(self.groups, -1, self.shape[-1])
        return (weight if self.channel_axis == 0 else weight.T)[None]

    def weight(self, rows: NDArray[S]) -> NDArray[S]:
        """(groups, o, k) → stored weight; the inverse of ``rows``."""
        if self.op in ("Conv", *RECURRENT, *TABLE_READERS):
            stored = rows.reshape(self.shape)
        elif self.op == "ConvTranspose":
            parts = rows.reshape(self.groups, self.shape[1], self.shape[0] // self.groups, -1)
            stored = parts.swapaxes(1, 2).reshape(self.shape)
        else:
            stored = rows[0] if self.channel_axis == 0 else rows[0].T
        return np.ascontiguousarray(stored)

    def channel_rows(self, rows: NDArray[S]) -> NDArray[S]:
        """(groups, o, k) → (channels, n): everything that one scale (or one row of group scales) covers."""
        if self.shares_scales:
            return rows.swapaxes(0, 1).reshape(self.channels, -1)
        return rows.reshape(self.channels, -1)

    def element_scales(self, scales: NDArray[S], group_size: int | None) -> NDArray[S]:
        """Scales (channels,) or (channels, groups) → each weight's scale, broadcastable to (groups, o, k)."""
        if group_size is not None:
            return np.repeat(scales, group_size, axis=1)[None, :, : self.shape[1 - self.channel_axis]]
        return scales.reshape(1 if self.shares_scales else self.groups, -1, 1)

    def dequantise(self, rounded: RoundedWeight, group_size: int | None) -> NDArray[np.float32]:
        """ŵ = integers · scales in the stored shape, as the runtime computes it."""
        scales = self.element_scales(rounded.scales, group_size)
        return self.weight(self.rows(rounded.integers).astype(np.float32) * scales)
