"""What a layer may become: precision, weight rounding, and how its activations are treated.

A scheme has a short text form, used in tables, on the command line and as an Optuna category:

    fp32 · fp16 · int8:mse · int4:gptq · int4:gptq:weight-only · int4:mse:block32

``precision`` is the *storage* type of the weights. Unless ``weight_only`` is set, ``int8`` and ``int4`` also mean
8-bit activations and integer arithmetic (W8A8, W4A8).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, PlainValidator

from bitfront.core.document import JsonValue
from bitfront.core.errors import ConfigError
from bitfront.core.json_text import shown

GROUP_SIZES = (16, 32, 64, 128, 256)


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


class Rounding(StrEnum):
    """How float weights become integers; costs neither latency nor size."""

    NEAREST = "nearest"
    MSE = "mse"
    GPTQ = "gptq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme(JsonValue):
    """One layer's treatment.

    Attributes:
        precision: Storage type of the weights.
        rounding: How integer weights are found; must be ``nearest`` for floating precisions.
        weight_only: Integer weights with floating activations and arithmetic.
        group_size: Weights per scale along the reduction axis; None is one scale per output channel.
    """

    precision: Precision
    rounding: Rounding = Rounding.NEAREST
    weight_only: bool = False
    group_size: Annotated[int | None, Field(alias="block_size")] = None

    def __post_init__(self) -> None:
        if not self.precision.is_integer and (
            self.rounding is not Rounding.NEAREST or self.weight_only or self.group_size is not None
        ):
            raise ConfigError(
                f"scheme '{self.precision}': rounding, weight_only and group_size apply to integer precisions only",
                "leave them out for fp32 and fp16",
            )
        if self.group_size is not None and (self.group_size not in GROUP_SIZES or not self.weight_only):
            raise ConfigError(
                f"scheme '{self.precision}': group_size {self.group_size} needs weight_only and one of {GROUP_SIZES}",
                "use one of those sizes with weight_only, or leave group_size out",
            )

    def __lt__(self, other: Scheme) -> bool:
        """By precision, rounding, storage alone, block size; without blocks first."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[str, str, bool, int]:
        return self.precision, self.rounding, self.weight_only, self.group_size or 0

    @property
    def quantises_activations(self) -> bool:
        """Whether the layer computes on 8-bit activations."""
        return self.precision.is_integer and not self.weight_only

    @property
    def text(self) -> str:
        """The short form; ``Scheme.parse`` reads it back."""
        if not self.precision.is_integer:
            return self.precision.value
        parts = [self.precision.value, self.rounding.value]
        if self.group_size is not None:
            parts.append(f"block{self.group_size}")
        elif self.weight_only:
            parts.append("weight-only")
        return ":".join(parts)

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read the short form.

        Raises:
            ConfigError: If ``text`` is no scheme.
        """
        head, *rest = text.split(":")
        try:
            precision = Precision(head)
            rounding, weight_only, group_size = Rounding.NEAREST, False, None
            for part in rest:
                if part == "weight-only":
                    weight_only = True
                elif part.startswith("block"):
                    weight_only, group_size = True, int(part.removeprefix("block"))
                else:
                    rounding = Rounding(part)
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is no layer scheme", "write for example fp32, fp16, int8:mse or int4:gptq:weight-only"
            ) from error
        return cls(precision=precision, rounding=rounding, weight_only=weight_only, group_size=group_size)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with the defaults left out."""
        data: dict[str, Any] = {"precision": self.precision.value}
        if self.precision.is_integer:
            data["rounding"] = self.rounding.value
        if self.weight_only:
            data["weight_only"] = True
        if self.group_size is not None:
            data["block_size"] = self.group_size
        return data


def _parsed(text: Any) -> Scheme:
    if not isinstance(text, str):
        raise ValueError(f"expected a layer scheme as text, got {shown(text)}")
    try:
        return Scheme.parse(text)
    except ConfigError as error:
        raise ValueError(error.message) from error


SchemeText = Annotated[Scheme, PlainValidator(_parsed, json_schema_input_type=str)]
"""A scheme in a file that has its short form."""

FP32 = Scheme(precision=Precision.FP32)
FP16 = Scheme(precision=Precision.FP16)
