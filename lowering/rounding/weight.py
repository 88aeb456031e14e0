"""A rounded weight: integers, scales, and the bias correction that goes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundedWeight:
    """Symmetric integer weights: ŵ = integers · scales, zero point 0.

    Attributes:
        integers: int8, the weight's own shape; within [−127, 127] at 8 bits, [−7, 7] or [−8, 7] at 4 bits.
        scales: float32, positive and finite: (channels,) for one scale per output channel, or
            (channels, groups) with ``groups = ceil(in / group_size)`` along the reduction axis. ``channels`` is the
            weight's length along the layer's channel axis.
        bias_correction: float32 (output channels,), to be added to the layer's bias, or None; the mean output
            shift E[w·x − ŵ·x̂] on the calibration inputs, x̂ being what the rounded layers before it make of x.
        bits: 8 or 4.
    """

    integers: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias_correction: NDArray[np.float32] | None
    bits: int

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Named arrays for a ``ContentStore``; ``from_arrays`` reads them back."""
        arrays: dict[str, NDArray[Any]] = {
            "codes": self.integers,
            "scales": self.scales,
            "bits": np.array(self.bits, dtype=np.int64),
        }
        if self.bias_correction is not None:
            arrays["bias_correction"] = self.bias_correction
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> RoundedWeight:
        """Read ``to_arrays``'s form."""
        return cls(
            integers=arrays["codes"],
            scales=arrays["scales"],
            bias_correction=arrays.get("bias_correction"),
            bits=int(arrays["bits"]),
        )
