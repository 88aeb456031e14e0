"""JSON documents with one thing wrong: every field in turn replaced by what has no business there."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SCRIPT = "<script>alert(1)</script>\"'"
LEFT_OUT, ADDED, TWICE = object(), object(), object()
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.0, 1.5, 2**62, 2**64, 10**400, 1e308, -1e308, 1e-310, math.nan, math.inf, -math.inf),
    *("", "x", "0" * 64, SCRIPT, "../../outside", "/etc/hostname", "C:\\outside", "javascript:alert(1)", "os:getcwd"),
    *("\ud800", "a\x00\x1b[31m", "y" * 100_000),
    *([], [[]], [0, 1], {}, {SCRIPT: 1}, {"a": {"a": {}}}),
    *(LEFT_OUT, ADDED, TWICE),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """A document with one change.

    Attributes:
        id: What was changed, for messages.
        text: The document.
        value: What was put there.
    """

    id: str
    text: str
    value: Any


def mutants(text: str, count: int, seed: int) -> Iterator[Mutant]:
    """``count`` different changes of a JSON document, drawn from all pairs of a field and something odd."""
    good = json.loads(text)
    places = [place for place in _places(good, ()) if place]
    pairs = [(place, number) for place in places for number in range(len(ODD))]
    for place, number in random.Random(seed).sample(pairs, min(count, len(pairs))):
        yield Mutant(id=f"{place} ← {ODD[number]!r:.40}", text=_changed(good, place, ODD[number]), value=ODD[number])


def _places(data: Any, place: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    yield place
    for key, part in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from _places(part, (*place, key))


def _changed(good: Any, place: tuple[Any, ...], value: Any) -> str:
    data = copy.deepcopy(good)
    holder, key = data, place[-1]
    for part in place[:-1]:
        holder = holder[part]
    if value is LEFT_OUT:
        del holder[key]
    elif value is ADDED and isinstance(holder, dict):
        holder["surprise"] = 1
    elif value is ADDED:
        holder.append(holder[0])
    elif value is TWICE and isinstance(holder, dict):
        old = holder.pop(key)
        holder["@"] = old
        first = f"{json.dumps(key)}: {json.dumps(old)}"
        return json.dumps(data).replace('"@": ', f"{first}, {json.dumps(key)}: ", 1)
    else:
        holder[key] = None if value is TWICE else value
    return json.dumps(data)
