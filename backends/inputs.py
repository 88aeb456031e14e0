"""Checking the inputs of a run, with messages that every runtime shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bitfront.core import Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The shape and type that a model takes for one input.

    Attributes:
        shape: None for a dynamic axis.
        dtype: Name of the numpy type.
    """

    shape: tuple[int | None, ...]
    dtype: str


def wrong_input(expected: Mapping[str, InputSpec], inputs: Inputs) -> str:
    """A message about the first wrong input, with what was expected and what came; empty where all fit."""
    if set(inputs) != set(expected):
        return f"inputs: expected {', '.join(expected)}; got {', '.join(inputs) or 'none'}"
    for name, spec in expected.items():
        array = np.asarray(inputs[name])
        if array.dtype.name != spec.dtype:
            return f"input '{name}': expected type {spec.dtype}, got {array.dtype}"
        fits = len(spec.shape) == array.ndim and all(
            size in (None, got) for size, got in zip(spec.shape, array.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in spec.shape)
            return f"input '{name}': expected shape ({wanted}), got {array.shape}"
    return ""
