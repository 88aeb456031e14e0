"""A docstring's first line says what a thing is or does: it starts with no pronoun and no fragment."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Words that refer to something outside the docstring, or begin a clause without its subject.
REFERRING = frozenset(
    (
        *("it", "its", "they", "their", "them", "he", "she", "this", "that", "these", "those", "there"),
        *("what", "which", "who", "whose", "how", "why", "where", "when", "while", "until"),
        *("of", "from", "with", "at", "in", "by", "for", "to", "on", "under", "beside", "before", "after", "as"),
        *("and", "but", "so", "then", "than", "or", "one", "two", "tells", "says"),
    )
)
# Words that begin a fragment: it names neither a thing nor an action.
FRAGMENTARY = frozenset(
    (
        *("see", "likewise", "also", "none", "nothing", "no", "unknown", "ready", "now", "alone", "without", "about"),
        *("between", "another", "some", "does"),
    )
)


def rooms() -> list[Path]:
    """Every module of the package."""
    folders = (
        *("core", "lowering", "backends", "passes", "sensitivity", "search", "report"),
        *("bitfront", "experiments"),
    )
    return [path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def referring(source: str) -> Iterator[tuple[int, str]]:
    """Line and first line of each docstring that starts with a word of ``REFERRING`` or ``FRAGMENTARY``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            first = re.match(r"[A-Za-z]+(?![\w-])", text)
            line = text.partition("\n")[0]
            if (first and first[0].lower() in REFERRING | FRAGMENTARY) or re.fullmatch(r"\w+ (?:it|them)\.", line):
                yield getattr(node, "lineno", 1), line


@pytest.mark.parametrize("path", rooms(), ids=str)
def test_first_lines_stand_alone(path: Path) -> None:
    """No docstring of a module starts with a referring word."""
    assert list(referring((ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text", ["What it is.", "It is.", "Of the data, unpacked.", "How often.", "See the base.", "Ignore it."]
)
def test_the_check_sees_them(text: str) -> None:
    """Planted: a referring first word or a fragment, in a function, a class and a module."""
    for source in (f'def f():\n    """{text}"""\n', f'class C:\n    """{text}"""\n', f'"""{text}"""\n'):
        assert [line for _, line in referring(source)] == [text]


@pytest.mark.parametrize("text", ["Whether it runs.", "All rows.", "One-hot labels.", "Ones and zeros.", "Size."])
def test_plain_first_lines_pass(text: str) -> None:
    """A noun phrase, a verb, a predicate."""
    assert list(referring(f'"""{text}"""\n')) == []
