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
# Where first lines are still to be rewritten.
NOT_YET_COVERED = (
    *("backends", "bitfront", "lowering", "passes", "report"),
    *("core/backends_file.py", "core/config.py", "core/constraints.py", "core/formatting.py", "core/given_network.py"),
    *("core/measurement.py", "core/measurement_file.py", "core/metric.py", "core/pareto.py", "core/point.py"),
    *("core/recipe.py", "core/scheme.py", "core/training_info.py", "core/variant_info.py", "core/workload.py"),
    *("experiments/zoo", "search/execution", "search/passes", "search/policy", "search/proposals"),
    *("search/results", "search/variants"),
    *("search/measuring/accuracy.py", "search/measuring/evaluate.py", "search/measuring/given.py"),
    *("search/space/pruning.py", "search/space/space.py"),
    *("search/options.py", "search/prepare.py", "search/session.py", "search/trial.py"),
    *("search/commands/pass_arguments.py", "search/inputs/metrics.py", "search/inputs/passes.py"),
)


def rooms() -> list[Path]:
    """Every module of the package that is covered."""
    folders = (
        *("core", "lowering", "backends", "passes", "sensitivity", "search", "report"),
        *("bitfront", "experiments"),
    )
    found = (path.relative_to(ROOT) for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [path for path in found if not any(path.is_relative_to(left) for left in NOT_YET_COVERED)]


def referring(source: str) -> Iterator[tuple[int, str]]:
    """Line and first line of each docstring that starts with a word of ``REFERRING``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            first = re.match(r"[A-Za-z]+(?![\w-])", text)
            if first and first[0].lower() in REFERRING:
                yield getattr(node, "lineno", 1), text.partition("\n")[0]


@pytest.mark.parametrize("path", rooms(), ids=str)
def test_first_lines_stand_alone(path: Path) -> None:
    """No docstring of a covered module starts with a referring word."""
    assert list(referring((ROOT / path).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", NOT_YET_COVERED)
def test_exceptions_exist(path: str) -> None:
    """A module that is not covered yet is there."""
    assert (ROOT / path).exists()


@pytest.mark.parametrize("text", ["What it is.", "It is.", "Of the data, unpacked.", "How often a step is told."])
def test_the_check_sees_them(text: str) -> None:
    """Planted: a referring first word, in a function, a class and a module."""
    for source in (f'def f():\n    """{text}"""\n', f'class C:\n    """{text}"""\n', f'"""{text}"""\n'):
        assert [line for _, line in referring(source)] == [text]


@pytest.mark.parametrize("text", ["Whether it runs.", "All rows.", "One-hot labels.", "Ones and zeros.", "Size."])
def test_plain_first_lines_pass(text: str) -> None:
    """A noun phrase, a verb, a predicate."""
    assert list(referring(f'"""{text}"""\n')) == []
