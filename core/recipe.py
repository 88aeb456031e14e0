"""Recipe by which a network was made from the one a person gave: the passes in their order, with their options.

A recipe holds decisions and fingerprints, no weights: the passes give the same network again from the same module and
training inputs, on a CPU to the last bit. The options are each pass's own JSON and are read by that pass alone, so a
recipe may name a pass that this program has not: that shows only where the recipe is followed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field

from bitfront.core.document import Count, Digest, JsonValue
from bitfront.core.errors import ConfigError
from bitfront.core.json_text import shown

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,99}(:[A-Za-z_][A-Za-z0-9_.]{0,99})?")
_RENAMED = {"distil": "distill"}  # as recipes were written before → as they are now
_KEYED = {new: old for old, new in _RENAMED.items()}  # keys stay those of the caches there are


def pass_name(text: str) -> str:
    """The pass's name today, of a name that a file or a person gives."""
    return _RENAMED.get(text, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeStep(JsonValue):
    """Pass of a recipe, with its options.

    Attributes:
        name: The pass's, or ``module:attribute`` of one from another package.
        options: What the pass's ``to_json`` gives, plain JSON.
        ended_at: Training steps done where a budget cut the training short; None where it ran to its end.
    """

    name: Annotated[str, Field(alias="pass")]
    options: Mapping[str, Any]
    ended_at: Count | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"recipe: expected a pass's name, got {shown(self.name)}",
                "the recipe was edited: give the run's own config",
            )
        object.__setattr__(self, "name", pass_name(self.name))
        if self.ended_at is not None and (type(self.ended_at) is not int or self.ended_at < 0):
            raise ConfigError(
                f"recipe, pass '{self.name}': expected a whole ended_at of 0 or more, got {self.ended_at!r}",
                "it is the training step at which the pass was ended; write such a number, or leave it out",
            )
        try:
            # A copy of its own, with tuples as the lists they are in a file: equal steps have equal keys.
            plain = json.loads(json.dumps(dict(self.options), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"recipe, pass '{self.name}': its options are no plain JSON ({error})",
                "write options as text, finite numbers, true, false, null, lists and objects of these",
            ) from error
        object.__setattr__(self, "options", MappingProxyType(plain))

    @property
    def key(self) -> str:
        """The step as text, the same for equal steps; what it makes is kept in caches under digests of it."""
        keyed = self.to_json() | {"pass": _KEYED.get(self.name, self.name)}
        return json.dumps(keyed, sort_keys=True, separators=(",", ":"))

    def ending_at(self, steps: int | None) -> RecipeStep:
        """The same step cut short after so many training steps; None lets it run to its end."""
        return replace(self, ended_at=steps)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; a training that ran to its end needs no mention."""
        data: dict[str, Any] = {"pass": self.name, "options": dict(self.options)}
        if self.ended_at is not None:
            data["ended_at"] = self.ended_at
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(JsonValue):
    """Passes by which a network was made from the given one, with fingerprints of data and result.

    Attributes:
        steps: The passes in their order, one at least.
        data: Digest of the training inputs, and labels if there are any.
        network: Fingerprint of the network that came out.
        architecture: Its fingerprint without its weights' values.
    """

    steps: tuple[RecipeStep, ...]
    data: Digest
    network: Digest
    architecture: Digest

    def __post_init__(self) -> None:
        if not self.steps:
            raise ConfigError("recipe: expected one step at least", "leave the recipe out for the network as given")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, one key a field."""
        return {
            "steps": [step.to_json() for step in self.steps],
            "data": self.data,
            "network": self.network,
            "architecture": self.architecture,
        }
