"""A rounded weight: integer codes, scales, and the bias correction that goes with them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedWeight:
    """Symmetric integer weights: ŵ = codes · scales, zero point 0.

    Attributes:
        codes: int8, the weight's own shape; within [−127, 127] at 8 bits, [−7, 7] or [−8, 7] at 4 bits.
        scales: float32, positive and finite: (channels,) for one scale per output channel, or
            (channels, blocks) with ``blocks = ceil(in / block_size)`` along the reduction axis.
        bias_correction: float32 (channels,), to be added to the layer's bias, or None; the mean output
            shift E[(w − ŵ)·x] on the calibration inputs.
        bits: 8 or 4.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias_correction: NDArray[np.float32] | None
    bits: int
