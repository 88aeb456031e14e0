"""Quantisation scheme of a layer, one part for its weights, one for its activations; and the registry of those in use.

A scheme has a short text form (``core.scheme_text``), used in tables, on the command line and as an Optuna category:

    fp32 · fp16 · int8:mse · int4:gptq · int4:gptq:weight-only · int4:mse:block32

To add one is to add an entry to ``SCHEMES``. Which runtimes offer it, and for which layers, is said by their dialects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from bitfront.core.document import JsonValue
from bitfront.core.errors import ConfigError, UsageError
from bitfront.core.json_text import shown
from bitfront.core.quantisation import (
    FLOATING_ACTIVATIONS,
    STATIC_INT8,
    ActivationMode,
    ActivationScheme,
    Granularity,
    Precision,
    WeightScheme,
)
from bitfront.core.scheme_text import METHOD_PATTERN, method_word, methods_of, read_text, write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """Quantisation scheme of a layer.

    Attributes:
        weights: How its weights are stored and rounded.
        activations: How its input is quantised. With integer weights and floating activations a layer is weight-only.
    """

    weights: WeightScheme
    activations: ActivationScheme = FLOATING_ACTIVATIONS

    def __post_init__(self) -> None:
        if self.activations.mode is not ActivationMode.NONE and not self.precision.is_integer:
            raise ConfigError(
                f"scheme '{self.precision}': quantised activations need integer weights",
                "leave the activations floating, or store the weights as int8 or int4",
            )

    def __lt__(self, other: Scheme) -> bool:
        """Whether it comes first: by storage type, method, weight-only, group size, then by what no text form says."""
        return self._order < other._order

    @property
    def _order(self) -> tuple[str, str, bool, int, str, bool, str, str]:
        weights, activations = self.weights, self.activations
        return (
            weights.dtype,
            method_word(weights),
            self.is_weight_only,
            weights.group_size or 0,
            weights.granularity,
            weights.symmetric,
            activations.mode,
            activations.dtype or "",
        )

    @property
    def precision(self) -> Precision:
        """Storage type of the weights."""
        return self.weights.dtype

    @property
    def is_weight_only(self) -> bool:
        """Whether weights are integers and activations floating."""
        return self.precision.is_integer and self.activations.mode is ActivationMode.NONE

    @property
    def text(self) -> str:
        """The short form; ``Scheme.parse`` reads it back."""
        return write_text(self.weights, self.activations)

    @classmethod
    def parse(cls, text: str) -> Scheme:
        """Read the short form, or one of the field's usual spellings (``core.scheme_text``).

        A text that names no method means the first scheme of ``SCHEMES`` that fits the rest, rounded to nearest where
        none does: ``int8:weight-only`` is ``int8:mse:weight-only``.

        Raises:
            ConfigError: If ``text`` is no scheme.
        """
        try:
            weights, activations, names_method = read_text(text)
        except ValueError as error:
            close = get_close_matches(text.strip().lower(), SCHEMES, n=1)
            example = "write for example fp32, fp16, int8:mse or int4:gptq:weight-only"
            hint = f"did you mean {close[0]}?" if close else example
            raise ConfigError(f"{text!r} is no layer scheme", f"{error}; {hint}") from error
        found = cls(weights=weights, activations=activations)
        if names_method:
            return found
        return next((known for known in SCHEMES.values() if known._but_method == found._but_method), found)

    @property
    def _but_method(self) -> tuple[Any, ...]:
        weights = self.weights
        return weights.dtype, weights.granularity, weights.group_size, weights.symmetric, self.activations

    def to_json(self) -> dict[str, Any]:
        """Return the layer's entry in a config file, defaults left out."""
        weights, activations = self.weights, self.activations
        data: dict[str, Any] = {"precision": weights.dtype.value}
        if weights.dtype.is_integer:
            data["rounding"] = method_word(weights)
        if self.is_weight_only:
            data["weight_only"] = True
        if weights.group_size is not None:
            data["block_size"] = weights.group_size
        if weights.granularity is Granularity.TENSOR:
            data["granularity"] = weights.granularity.value
        if not weights.symmetric:
            data["symmetric"] = False
        grouped = weights.granularity is Granularity.GROUP
        if activations.mode is not ActivationMode.NONE and (grouped or activations != STATIC_INT8):
            data["activations"] = activations.to_json()
        return data

    @classmethod
    def from_json(cls, data: Any) -> Scheme:
        """Read ``to_json``'s form.

        Raises:
            MalformedError: If a field is unknown, missing, or not what it must be; names it.
        """
        return SchemeFile.from_json(data).scheme


def _method(word: str) -> str:
    methods_of(word)
    return word


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeFile(JsonValue):
    """Written form of a layer's scheme in a config file.

    Attributes:
        precision: Storage type of the weights.
        rounding: How scales and integers are found: nearest, mse, gptq, or scale method + rounding method.
        weight_only: Whether activations stay floating beside integer weights.
        block_size: Weights per scale along the reduction axis; left out where a scale is for a channel or the tensor.
        granularity: ``tensor`` where one scale is for the whole weight.
        symmetric: Whether zero points are 0.
        activations: How the input is quantised; left out where it is static 8 bits, or floating.
    """

    precision: Precision
    rounding: Annotated[str, AfterValidator(_method), Field(json_schema_extra={"pattern": METHOD_PATTERN})] = "nearest"
    weight_only: bool = False
    group_size: Annotated[int | None, Field(alias="block_size")] = None
    granularity: Literal["tensor"] | None = None
    symmetric: bool = True
    activations: ActivationScheme | None = None

    def __post_init__(self) -> None:
        if self.weight_only and self.activations is not None:
            raise ConfigError("weight_only contradicts activations", "leave one of them out")
        if self.granularity is not None and self.group_size is not None:
            raise ConfigError("granularity contradicts block_size", "leave one of them out")
        if self.group_size is not None and not self.weight_only and self.activations is None:
            raise ConfigError(
                f"scheme '{self.precision}': block_size {self.group_size} needs weight_only or activations",
                "say what the layer computes on",
            )
        if self.weight_only and not self.precision.is_integer:
            raise ConfigError(
                f"scheme '{self.precision}': weight_only applies to integer precisions only",
                "leave it out for fp32 and fp16",
            )
        _ = self.scheme

    @property
    def scheme(self) -> Scheme:
        """Scheme of the layer."""
        scale_method, rounding_method = methods_of(self.rounding)
        weights = WeightScheme(
            dtype=self.precision,
            granularity=Granularity.GROUP
            if self.group_size is not None
            else Granularity(self.granularity or "channel"),
            group_size=self.group_size,
            symmetric=self.symmetric,
            scale_method=scale_method,
            rounding_method=rounding_method,
        )
        static = self.precision.is_integer and not self.weight_only
        activations = self.activations or (STATIC_INT8 if static else FLOATING_ACTIVATIONS)
        return Scheme(weights=weights, activations=activations)


class SchemeRegistry(Mapping[str, Scheme]):
    """Schemes by their texts, in the order in which they are listed, with a line on each.

    Args:
        entries: Text → one line on it.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._schemes: dict[str, Scheme] = {}
        self._descriptions: dict[str, str] = {}
        for text, description in entries.items():
            self.register(text, description)

    def register(self, text: str, description: str) -> Scheme:
        """Add a scheme.

        Args:
            text: Its short form, method included.
            description: One line on it.

        Returns:
            The scheme.

        Raises:
            ConfigError: If the text is no scheme.
            UsageError: If it is not the short form, or another description is registered for it.
        """
        try:
            weights, activations, _ = read_text(text)
        except ValueError as error:
            raise ConfigError(f"{text!r} is no layer scheme", f"{error}; see core/scheme_text.py") from error
        scheme = Scheme(weights=weights, activations=activations)
        if scheme.text != text:
            raise UsageError(f"scheme '{text}' has the short form '{scheme.text}'", "register it by that")
        if self._descriptions.setdefault(text, description) != description:
            raise UsageError(f"scheme '{text}' is registered already", "use it as it is")
        self._schemes[text] = scheme
        return scheme

    def description(self, text: str) -> str:
        """The line on a scheme."""
        return self._descriptions[text]

    def __getitem__(self, text: str) -> Scheme:
        """The scheme of a text."""
        return self._schemes[text]

    def __iter__(self) -> Iterator[str]:
        """Texts, in order."""
        return iter(self._schemes)

    def __len__(self) -> int:
        """Number of schemes."""
        return len(self._schemes)


SCHEMES = SchemeRegistry(
    {
        "fp32": "FP32 weights and activations",
        "fp16": "FP16 weights; FP16 arithmetic where the runtime has it",
        "int8:nearest": "W8A8, a scale per channel from the largest weight",
        "int8:mse": "W8A8, a scale per channel of least squared error",
        "int8:mse:dynamic": "W8A8, likewise, activations quantised at run time",
        "int4:mse": "W4A8, a scale per channel of least squared error",
        "int4:gptq": "W4A8, a scale per channel, rounded by GPTQ",
        "int8:mse:weight-only": "W8A16, a scale per channel of least squared error",
        "int4:gptq:weight-only": "W4A16, a scale per channel, rounded by GPTQ",
        "int4:mse:weight-only": "W4A16, a scale per channel of least squared error",
        "int4:mse:block32": "W4A16, a scale per group of 32 of least squared error",
        "int4:mse:block64": "W4A16, a scale per group of 64 of least squared error",
        "int4:gptq:block64": "W4A16, a scale per group of 64, rounded by GPTQ",
        "int4:mse:block128": "W4A16, a scale per group of 128 of least squared error",
        "int4:gptq:block128": "W4A16, a scale per group of 128, rounded by GPTQ",
    }
)
"""Schemes that some dialect offers."""


def _parsed(text: Any) -> Scheme:
    if not isinstance(text, str):
        raise ValueError(f"expected a layer scheme as text, got {shown(text)}")
    try:
        return Scheme.parse(text)
    except ConfigError as error:
        raise ValueError(error.message) from error


SchemeText = Annotated[Scheme, PlainValidator(_parsed, json_schema_input_type=str)]
"""A scheme in a file that has its short form."""

FP32 = SCHEMES["fp32"]
FP16 = SCHEMES["fp16"]
