"""The list of planted bugs: small wrong changes to the product, each with the tests that have to fail under it.

A bug is an entry of one of the TOML files beside this module, one file a room:

    [[mutant]]
    name = "gptq-later-columns"               unique
    file = "lowering/rounding/gptq.py"        from the repository's root
    text = '''work[..., stop:] -= errors'''   stands in the file exactly once
    becomes = '''work[..., stop:] += errors'''
    stands_for = "the error of a batch is added to later columns"
    tests = ["tests/lowering/rounding/test_gptq.py"]   what pytest is given

They are chosen by hand. A mutation tester such as mutmut or cosmic-ray makes them from the syntax: tens of thousands
for a tree of this size, most of them no mistake a person makes or no change of behaviour at all, and each costs the
start of a test run with torch and ONNX Runtime. Signs, axes, units, ends of intervals and forgotten parts of cache keys
are what goes wrong here, and to plant those one has to know what a line means.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
FIELDS = ("name", "file", "text", "becomes", "stands_for", "tests")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted bug.

    Attributes:
        name: Unique.
        file: Path of the changed file, from the repository's root.
        text: What stands there, exactly once.
        becomes: What stands there instead.
        stands_for: The mistake, in words.
        tests: Arguments of pytest: files or tests one of which has to fail.
    """

    name: str
    file: str
    text: str
    becomes: str
    stands_for: str
    tests: tuple[str, ...]

    def planted(self, source: str) -> str:
        """The file's text with the bug in it.

        Raises:
            ValueError: If ``text`` does not stand in ``source`` exactly once, or the change changes nothing.
        """
        found = source.count(self.text)
        if found != 1:
            raise ValueError(f"mutant '{self.name}': its text stands {found} times in {self.file}, expected once")
        if self.text == self.becomes:
            raise ValueError(f"mutant '{self.name}' changes nothing")
        return source.replace(self.text, self.becomes)


def load(folder: Path = FOLDER) -> tuple[Mutant, ...]:
    """All mutants of the TOML files in ``folder``, by file name, in the files' order.

    Raises:
        ValueError: If an entry lacks a field, has an unknown one, or a name is taken twice.
    """
    found: dict[str, Mutant] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", ()):
            mutant = _mutant(entry, path.name)
            if mutant.name in found:
                raise ValueError(f"{path.name}: mutant '{mutant.name}' is there twice")
            found[mutant.name] = mutant
    return tuple(found.values())


def selected(mutants: Sequence[Mutant], words: Sequence[str]) -> tuple[Mutant, ...]:
    """Those whose name or file contains one of ``words``; all without words."""
    return tuple(m for m in mutants if not words or any(word in m.name or word in m.file for word in words))


def _mutant(entry: dict[str, Any], source: str) -> Mutant:
    if set(entry) != set(FIELDS) or not entry["tests"]:
        raise ValueError(f"{source}: expected a mutant with {', '.join(FIELDS)}, got {entry}")
    return Mutant(**{**entry, "tests": tuple(entry["tests"])})
