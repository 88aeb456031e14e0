"""What a layer may become: precision, weight rounding, and how its activations are treated.

A choice has a short text form, used in tables, on the command line and as an Optuna category:

    fp32 · fp16 · int8:mse · int4:gptq · int4:gptq:weight-only · int4:mse:block32

``precision`` is the *storage* type of the weights. Unless ``weight_only`` is set, ``int8`` and ``int4`` also mean
8-bit activations and integer arithmetic (W8A8, W4A8).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import PlainValidator

from bitfront.precision.document import JsonValue
from bitfront.precision.errors import ConfigError
from bitfront.precision.json_text import shown

BLOCK_SIZES = (16, 32, 64, 128, 256)


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
class LayerChoice(JsonValue):
    """One layer's treatment.

    Attributes:
        precision: Storage type of the weights.
        rounding: How integer weights are found; must be ``nearest`` for floating precisions.
        weight_only: Integer weights with floating activations and arithmetic.
        block_size: Weights per scale along the reduction axis; None is one scale per output channel.
    """

    precision: Precision
    rounding: Rounding = Rounding.NEAREST
    weight_only: bool = False
    block_size: int | None = None

    def __post_init__(self) -> None:
        if not self.precision.is_integer and (
            self.rounding is not Rounding.NEAREST or self.weight_only or self.block_size is not None
        ):
            raise ConfigError(
                f"choice '{self.precision}': rounding, weight_only and block_size apply to integer precisions only",
                "leave them out for fp32 and fp16",
            )
        if self.block_size is not None and (self.block_size not in BLOCK_SIZES or not self.weight_only):
            raise ConfigError(
                f"choice '{self.precision}': block_size {self.block_size} needs weight_only and one of {BLOCK_SIZES}",
                "use one of those sizes with weight_only, or leave block_size out",
            )

    def __lt__(self, other: LayerChoice) -> bool:
        """By precision, rounding, storage alone, block size; without blocks first."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[str, str, bool, int]:
        return self.precision, self.rounding, self.weight_only, self.block_size or 0

    @property
    def quantises_activations(self) -> bool:
        """Whether the layer computes on 8-bit activations."""
        return self.precision.is_integer and not self.weight_only

    @property
    def text(self) -> str:
        """The short form; ``LayerChoice.parse`` reads it back."""
        if not self.precision.is_integer:
            return self.precision.value
        parts = [self.precision.value, self.rounding.value]
        if self.block_size is not None:
            parts.append(f"block{self.block_size}")
        elif self.weight_only:
            parts.append("weight-only")
        return ":".join(parts)

    @classmethod
    def parse(cls, text: str) -> LayerChoice:
        """Read the short form.

        Raises:
            ConfigError: If ``text`` is no choice.
        """
        head, *rest = text.split(":")
        try:
            precision = Precision(head)
            rounding, weight_only, block_size = Rounding.NEAREST, False, None
            for part in rest:
                if part == "weight-only":
                    weight_only = True
                elif part.startswith("block"):
                    weight_only, block_size = True, int(part.removeprefix("block"))
                else:
                    rounding = Rounding(part)
        except ValueError as error:
            raise ConfigError(
                f"{text!r} is no layer choice", "write for example fp32, fp16, int8:mse or int4:gptq:weight-only"
            ) from error
        return cls(precision=precision, rounding=rounding, weight_only=weight_only, block_size=block_size)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON with the defaults left out."""
        data: dict[str, Any] = {"precision": self.precision.value}
        if self.precision.is_integer:
            data["rounding"] = self.rounding.value
        if self.weight_only:
            data["weight_only"] = True
        if self.block_size is not None:
            data["block_size"] = self.block_size
        return data


def _parsed(text: Any) -> LayerChoice:
    if not isinstance(text, str):
        raise ValueError(f"expected a layer choice as text, got {shown(text)}")
    try:
        return LayerChoice.parse(text)
    except ConfigError as error:
        raise ValueError(error.message) from error


ChoiceText = Annotated[LayerChoice, PlainValidator(_parsed, json_schema_input_type=str)]
"""A choice in a file that has its short form."""

FP32 = LayerChoice(precision=Precision.FP32)
FP16 = LayerChoice(precision=Precision.FP16)
