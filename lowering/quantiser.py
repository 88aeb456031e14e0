"""The U8 quantiser of a calibrated range: x ≈ (q − zero_point) · scale, with 0 held exactly.

A range that starts at 0 has zero point 0, so that the quantiser itself is the Relu in front of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiser:
    """Affine U8 quantiser of one tensor.

    Attributes:
        scale: Positive and exactly representable in float32.
        zero_point: The integer of 0.0, 0 to 255.
    """

    scale: float
    zero_point: int

    def quantise(self, value: float) -> int:
        """The integer nearest to ``value``, saturated to 0 … 255; infinities give the ends."""
        if np.isinf(value):
            return 0 if value < 0 else 255
        return int(np.clip(round(value / self.scale) + self.zero_point, 0, 255))


def quantiser_u8(low: float, high: float) -> Quantiser:
    """The quantiser of values in [low, high], extended to include 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / 255)) or 1.0
    return Quantiser(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)))
