"""``--data-options KEY=VALUE …``: how the values of a loader's keys are read, with what was expected in every error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from bitfront.core import UsageError

OPTION = "--data-options"


@dataclass(frozen=True, slots=True)
class LoaderOptions:
    """Values for one loader.

    Attributes:
        values: Key → text as typed.
    """

    values: Mapping[str, str]

    def text(self, key: str) -> str | None:
        """The text as typed; None where the key was not given."""
        return self.values.get(key)

    def path(self, key: str) -> Path | None:
        """The path of a file; whether it is there shows when it is read."""
        return None if key not in self.values else Path(self.values[key])

    def whole(self, key: str) -> int | None:
        """A whole number from 0 on.

        Raises:
            UsageError: If it is none.
        """
        text = self.values.get(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise self._wrong(key, "a whole number")
        return int(text)

    def positive(self, key: str) -> int | None:
        """A whole number above zero.

        Raises:
            UsageError: If it is none.
        """
        value = self.whole(key)
        if value == 0:
            raise self._wrong(key, "a positive whole number")
        return value

    def size(self, key: str) -> tuple[int, int] | None:
        """Height and width from ``224`` or ``224x320``.

        Raises:
            UsageError: If they are none.
        """
        text = self.values.get(key)
        if text is None:
            return None
        parts = text.lower().split("x")
        if len(parts) > 2 or not all(p.isascii() and p.isdigit() and 0 < int(p) < 2**16 for p in parts):
            raise self._wrong(key, "a size in pixels, SIDE or HEIGHTxWIDTH")
        return int(parts[0]), int(parts[-1])

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """Numbers with commas between; ``1/255`` is one.

        Raises:
            UsageError: If one is no finite number.
        """
        text = self.values.get(key)
        if text is None:
            return None
        try:
            return tuple(float(Fraction(part.strip())) for part in text.split(","))
        except (ValueError, ZeroDivisionError, OverflowError):
            raise self._wrong(key, "numbers with commas between, as in 0.485,0.456,0.406 or 1/255") from None

    def one_of(self, key: str, words: Iterable[str]) -> str | None:
        """Value of an option that is one of some words.

        Raises:
            UsageError: If it is none of them.
        """
        text, allowed = self.values.get(key), tuple(words)
        if text is not None and text not in allowed:
            raise self._wrong(key, f"one of {', '.join(allowed)}")
        return text

    def pairs(self, key: str) -> dict[str, str]:
        """Name → word from ``a:x,b:y``; empty where the key was not given.

        Raises:
            UsageError: If a part is no pair, or a name comes twice.
        """
        found: dict[str, str] = {}
        for part in self.values[key].split(",") if key in self.values else ():
            # An ONNX name may hold colons, as TensorFlow's do.
            name, _, word = (piece.strip() for piece in part.rpartition(":"))
            if not name or not word or name in found:
                raise self._wrong(key, "NAME:VALUE pairs with commas between, each name once")
            found[name] = word
        return found

    def _wrong(self, key: str, expected: str) -> UsageError:
        return UsageError(f"{OPTION} {key}: expected {expected}, got '{self.values[key][:80]}'", "see docs/data.md")


def split_scopes(pairs: Iterable[tuple[str, str]], option: str) -> dict[str, str]:
    """The options that count for one of ``--calib`` and ``--eval``.

    Args:
        pairs: (key, value) as typed; a key ``eval:samples`` is for ``--eval`` alone, and goes before ``samples``.
        option: ``--calib`` or ``--eval``.

    Raises:
        UsageError: If a key comes twice.
    """
    general: dict[str, str] = {}
    own: dict[str, str] = {}
    for key, value in pairs:
        scope, _, name = key.rpartition(":")
        if scope and scope not in ("calib", "eval"):
            raise UsageError(f"{OPTION}: '{key}' begins with '{scope}:'", "write calib:KEY=VALUE or eval:KEY=VALUE")
        if scope and f"--{scope}" != option:
            continue
        target = own if scope else general
        if name in target:
            raise UsageError(f"{OPTION}: '{key}' is given twice", "give each key once")
        target[name] = value
    return general | own


def unknown_key(key: str, known: Iterable[str], forms: Iterable[str]) -> UsageError:
    """The error for a key that no loader in use has."""
    names = sorted(known)
    close = difflib.get_close_matches(key, names, n=1)
    taken = ", ".join(names) or "none"
    return UsageError(
        f"{OPTION}: '{key}' means nothing to {' and '.join(sorted(set(forms)))}; keys: {taken}",
        f"did you mean '{close[0]}'?" if close else "leave it out; docs/data.md lists the keys of each form",
    )
