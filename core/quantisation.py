"""Quantisation of a layer's weights and of its activations: the two halves of a scheme, as frozen values.

Both say more than any runtime here can write today (scales for a whole tensor, zero points, dynamic activations), so
that a new scheme needs no new field. Whether one can be written is a dialect's to say (``lowering.dialect``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from bitfront.core.document import JsonValue
from bitfront.core.errors import ConfigError

GROUP_SIZES = (16, 32, 64, 128, 256)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Precision(StrEnum):
    """Storage type of a layer's weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"

    @property
    def bits(self) -> int:
        """Bits one weight takes in the file."""
        return {"fp32": 32, "fp16": 16, "int8": 8, "int4": 4}[self.value]

    @property
    def is_integer(self) -> bool:
        """Whether weights are stored as integers with a scale."""
        return self in (Precision.INT8, Precision.INT4)


class Granularity(StrEnum):
    """Extent of one scale."""

    TENSOR = "tensor"
    CHANNEL = "channel"
    GROUP = "group"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightScheme:
    """Storage of a layer's weights, and the methods that find their scales and integers.

    Attributes:
        dtype: Storage type. For floating types the other fields keep their defaults and mean nothing.
        granularity: Whether a scale is for the tensor, an output channel or a group along the reduction axis.
        group_size: Weights a group; None for other granularities.
        symmetric: Whether zero points are 0.
        scale_method: How scales are found, a name in ``lowering.rounding.methods.SCALE_METHODS``.
        rounding_method: How weights become integers under these scales, a name in ``ROUNDING_METHODS`` there. It costs
            neither latency nor size.
    """

    dtype: Precision
    granularity: Granularity = Granularity.CHANNEL
    group_size: int | None = None
    symmetric: bool = True
    scale_method: str = "absmax"
    rounding_method: str = "nearest"

    def __post_init__(self) -> None:
        grouped = self.granularity is Granularity.GROUP
        fields = (self.granularity, self.group_size, self.symmetric, self.scale_method, self.rounding_method)
        if not self.dtype.is_integer and fields != _FLOATING:
            raise ConfigError(
                f"scheme '{self.dtype}': scales, rounding, weight_only and group_size apply to integer precisions only",
                "leave them out for fp32 and fp16",
            )
        if grouped != (self.group_size is not None) or (grouped and self.group_size not in GROUP_SIZES):
            raise ConfigError(
                f"scheme '{self.dtype}': group_size {self.group_size} is none of {GROUP_SIZES}",
                "use one of those sizes with a scale a group, or leave group_size out",
            )
        for name in (self.scale_method, self.rounding_method):
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"scheme '{self.dtype}': '{name}' is no name of a method", "write small letters, digits and _"
                )


_FLOATING = (Granularity.CHANNEL, None, True, "absmax", "nearest")


class ActivationMode(StrEnum):
    """Whether a layer's input is quantised, and when its scale is found."""

    NONE = "none"
    STATIC = "static"
    DYNAMIC = "dynamic"


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivationScheme(JsonValue):
    """Quantisation of a layer's input.

    Attributes:
        mode: ``none`` is floating; ``static`` scales come from calibration, ``dynamic`` ones from each input.
        dtype: Integer type that the layer computes on; None where activations are floating. Signed with a zero point of
            0 or unsigned with another one is the dialect's choice.
    """

    mode: ActivationMode = ActivationMode.NONE
    dtype: Precision | None = None

    def __post_init__(self) -> None:
        if (self.mode is ActivationMode.NONE) != (self.dtype is None) or (self.dtype and not self.dtype.is_integer):
            raise ConfigError(
                f"activations '{self.mode}' of type '{self.dtype or 'none'}': quantised ones have an integer type, "
                "floating ones none",
                "write for example static int8",
            )

    @property
    def is_dynamic(self) -> bool:
        """Whether scales are found anew for each input."""
        return self.mode is ActivationMode.DYNAMIC

    @property
    def is_static(self) -> bool:
        """Whether the layer computes on integers whose scales come from calibration."""
        return self.mode is ActivationMode.STATIC


FLOATING_ACTIVATIONS = ActivationScheme()
STATIC_INT8 = ActivationScheme(mode=ActivationMode.STATIC, dtype=Precision.INT8)
DYNAMIC_INT8 = ActivationScheme(mode=ActivationMode.DYNAMIC, dtype=Precision.INT8)
