"""The short text form of a scheme: ``dtype[:method][:granularity][:asymmetric][:activations]``.

| part        | written as                                | left out                                         |
| ----------- | ----------------------------------------- | ------------------------------------------------ |
| dtype       | fp32, fp16, int8, int4                    |                                                  |
| method      | nearest, mse, gptq or ``scale+rounding``  |                                                  |
| granularity | tensor, block32 (groups of 32)            | a scale per channel                              |
| zero points | asymmetric                                | symmetric                                        |
| activations | static, dynamic, dynamic-int4 …, weight-only | static int8; floating where scales are by group |

``METHODS`` has the pairs of a scale method and a rounding method that have one word. Texts are kept in databases and
tables, so what is written is fixed. Read are the field's usual spellings as well, in capitals or not:

    w8a8   w4a16   w4a16-g32   W4A16-g64:gptq   w8a8:dynamic   int8:weight-only   int4:mse:group32   int8:rtn
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from bitfront.core.quantisation import (
    FLOATING_ACTIVATIONS,
    STATIC_INT8,
    ActivationMode,
    ActivationScheme,
    Granularity,
    Precision,
    WeightScheme,
)

# Word → (scale method, rounding method).
METHODS: Mapping[str, tuple[str, str]] = {
    "nearest": ("absmax", "nearest"),
    "mse": ("mse", "nearest"),
    "gptq": ("mse", "gptq"),
}
_ALIASES = {
    "rtn": "nearest",
    "absmax": "nearest",
    "per-tensor": "tensor",
    "per-channel": "channel",
    "weight_only": "weight-only",
}
_BITS_FORM = re.compile(r"w(?P<weights>\d+)a(?P<activations>\d+)(?:-g(?P<group>\d+))?")
_GROUP = re.compile(r"(?:block|group|g)(\d+)")
_ACTIVATIONS = re.compile(r"(static|dynamic)(?:-(int8|int4))?")
_PAIR = re.compile(r"([a-z][a-z0-9_]*)\+([a-z][a-z0-9_]*)")
METHOD_PATTERN = rf"^({'|'.join(METHODS)}|{_PAIR.pattern})$"
"""What ``method_word`` writes, as a regular expression."""


@cache
def method_word(weights: WeightScheme) -> str:
    """The text of a scale method and a rounding method: one word where they have one, else ``scale+rounding``."""
    pair = (weights.scale_method, weights.rounding_method)
    return next((word for word, known in METHODS.items() if known == pair), "+".join(pair))


def methods_of(word: str) -> tuple[str, str]:
    """Scale method and rounding method of a text that ``method_word`` wrote.

    Raises:
        ValueError: If it is none.
    """
    if word in METHODS:
        return METHODS[word]
    pair = _PAIR.fullmatch(word)
    if pair is None:
        raise ValueError(f"expected {', '.join(METHODS)} or scale+rounding, got '{word}'")
    return pair[1], pair[2]


def default_activations(weights: WeightScheme) -> ActivationScheme:
    """The activations of a text that does not name any."""
    floating = not weights.dtype.is_integer or weights.granularity is Granularity.GROUP
    return FLOATING_ACTIVATIONS if floating else STATIC_INT8


@cache
def write_text(weights: WeightScheme, activations: ActivationScheme) -> str:
    """The short form; two schemes that differ have two texts."""
    if not weights.dtype.is_integer:
        return weights.dtype.value
    parts = [weights.dtype.value, method_word(weights)]
    if weights.granularity is Granularity.GROUP:
        parts.append(f"block{weights.group_size}")
    elif weights.granularity is Granularity.TENSOR:
        parts.append("tensor")
    if not weights.symmetric:
        parts.append("asymmetric")
    if activations != default_activations(weights):
        parts.append(_activations_word(activations))
    return ":".join(parts)


def _activations_word(activations: ActivationScheme) -> str:
    if activations.mode is ActivationMode.NONE:
        return "weight-only"
    narrow = activations.dtype is not Precision.INT8
    return f"{activations.mode}-{activations.dtype}" if narrow else activations.mode.value


def read_text(text: str) -> tuple[WeightScheme, ActivationScheme, bool]:
    """Weights and activations that a text says, and whether it names a method.

    Raises:
        ValueError: If it is no scheme; names the part that is not understood.
        ConfigError: If its parts do not go together.
    """
    head, *words = text.strip().lower().split(":")
    form = _BITS_FORM.fullmatch(head)
    dtype = _dtype(head) if form is None else _dtype_of_bits(int(form["weights"]))
    said: dict[str, Any] = {}
    if form is not None and form["group"]:
        said["granularity"] = (Granularity.GROUP, int(form["group"]))
    for word in words:
        name, value = _part(_ALIASES.get(word, word))
        if said.setdefault(name, value) != value:
            raise ValueError(f"'{word}' contradicts what stands before it")
    if said and not dtype.is_integer:
        raise ValueError(f"'{words[0] if words else head}' applies to integer weights only")
    granularity, group_size = said.get("granularity", (Granularity.CHANNEL, None))
    scale, rounding = methods_of(said.get("method", "nearest"))
    weights = WeightScheme(
        dtype=dtype,
        granularity=granularity,
        group_size=group_size,
        symmetric=said.get("symmetric", True),
        scale_method=scale,
        rounding_method=rounding,
    )
    activations = said.get("activations", default_activations(weights))
    if form is not None:
        activations = _with_bits(int(form["activations"]), said.get("activations"), dtype)
    return weights, activations, "method" in said


def _dtype(word: str) -> Precision:
    try:
        return Precision(word)
    except ValueError as error:
        raise ValueError(f"'{word}' is no type of weights") from error


def _dtype_of_bits(bits: int) -> Precision:
    for known in Precision:
        if known.bits == bits:
            return known
    raise ValueError(f"no weights have {bits} bits")


def _with_bits(bits: int, named: ActivationScheme | None, dtype: Precision) -> ActivationScheme:
    """Activations of so many bits, static where no word names another mode; from 16 bits on they are floating."""
    if not dtype.is_integer and bits != dtype.bits:
        raise ValueError(f"{dtype} weights go with activations of {dtype.bits} bits, not {bits}")
    if bits in (16, 32):
        found = FLOATING_ACTIVATIONS
    else:
        mode = ActivationMode.STATIC if named is None or named.dtype is None else named.mode
        found = ActivationScheme(mode=mode, dtype=_dtype_of_bits(bits))
    if named is not None and named != found:
        raise ValueError(f"activations of {bits} bits are not what its other words say")
    return found


def _part(word: str) -> tuple[str, Any]:
    """Meaning of one word after the type, and the part it is about."""
    if word in METHODS or _PAIR.fullmatch(word):
        return "method", word
    if word in (Granularity.TENSOR, Granularity.CHANNEL):
        return "granularity", (Granularity(word), None)
    if word in ("symmetric", "asymmetric"):
        return "symmetric", word == "symmetric"
    if word == "weight-only":
        return "activations", FLOATING_ACTIVATIONS
    if group := _GROUP.fullmatch(word):
        return "granularity", (Granularity.GROUP, int(group[1]))
    if found := _ACTIVATIONS.fullmatch(word):
        return "activations", ActivationScheme(mode=ActivationMode(found[1]), dtype=Precision(found[2] or "int8"))
    raise ValueError(f"'{word}' is none of its parts")
