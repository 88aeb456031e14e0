"""Every error that a person may read says what to do: none is raised without a hint."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from bitfront.core import errors
from tests.import_rules import ROOT, modules

# A MalformedError becomes part of another's message where the file is known, and that one says what to do.
KINDS = frozenset(name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception))
KINDS -= {"MalformedError"}


def without_hint(tree: ast.AST) -> Iterator[int]:
    """Lines at which an error of the tree is made with a message alone, or with an empty hint."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name not in KINDS or any(isinstance(argument, ast.Starred) for argument in node.args):
            continue
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if len(given) < 2 or (isinstance(given[1], ast.Constant) and not given[1].value):
            yield node.lineno


def test_every_error_has_a_hint() -> None:
    """In every room."""
    found = []
    for path in modules(ROOT):
        where = path.relative_to(ROOT).as_posix()
        found += [f"{where}:{line}" for line in without_hint(ast.parse(path.read_text(encoding="utf-8")))]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("raise UsageError('no')", [1]),
        ("\nraise errors.DataError('no', '')", [2]),
        ("raise ModelError(f'{x}', hint='')", [1]),
        ("raise ModelError('no', 'do this')", []),
        ("raise ValueError('no')", []),
        ("raise type(error)(*error.args)", []),
    ],
)
def test_the_check_sees_them(text: str, lines: list[int]) -> None:
    """With a message alone, an empty hint, in any spelling."""
    assert list(without_hint(ast.parse(text))) == lines
