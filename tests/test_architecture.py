"""Rooms import leftwards only, from experiments down to core, under one name; ``ALLOWED`` is the order."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Room → the rooms it may import from, itself aside. Rooms that are not listed here may not exist.
ALLOWED: dict[str, frozenset[str]] = {"core": frozenset()}
ALLOWED["lowering"] = ALLOWED["report"] = frozenset({"core"})
ALLOWED["backends"] = frozenset({"core", "lowering"})
ALLOWED["passes"] = ALLOWED["backends"] | {"backends"}
ALLOWED["sensitivity"] = ALLOWED["passes"] | {"passes"}
ALLOWED["search"] = ALLOWED["sensitivity"] | {"sensitivity", "report"}
ALLOWED["bitfront"] = ALLOWED["search"] | {"search"}  # the folder of that name: the public names
ALLOWED["experiments"] = ALLOWED["bitfront"] | {"bitfront"}
TORCH_ROOMS = frozenset({"passes", "experiments"})  # these may import torch when they are loaded
RUNTIMES = frozenset({"torch", "onnxruntime"})
MAX_LINES = 400


def modules(root: Path) -> list[Path]:
    """Every Python file of every room."""
    return sorted(path for room in ALLOWED for path in (root / room).rglob("*.py"))


def imports(tree: ast.AST, *, at_load: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name without ``bitfront.``) of everything imported, ``import_module("…")`` included.

    A room imported without its package is given as ``search without bitfront``: a person's module may have that name.

    Args:
        tree: A module.
        at_load: Leave out what only runs inside functions, and what only type checkers read.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, _room_path(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            module = node.module or ""
            names = [f"bitfront.{alias.name}" for alias in node.names] if module == "bitfront" else [module]
            yield from ((node.lineno, _room_path(name)) for name in names)
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield node.lineno, _room_path(first.value)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not (at_load and (lazy or typing_only)):
            yield from imports(node, at_load=at_load)


def _room_path(name: str) -> str:
    top = name.partition(".")[0]
    if top != "bitfront":
        return f"{top} without bitfront" if top in ALLOWED else name
    inner = name.removeprefix("bitfront.")
    return inner if inner.partition(".")[0] in ALLOWED else "bitfront"


def violations(root: Path) -> list[str]:
    """Each break of the order, in words."""
    found = []
    for path in modules(root):
        room = path.relative_to(root).parts[0]
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        where = path.relative_to(root)
        for line, name in imports(tree, at_load=False):
            top = name.partition(".")[0]
            foreign = top in ALLOWED and top not in ALLOWED[room] | {room}
            if foreign or top == "tests" or top.endswith(" without bitfront"):
                found.append(f"{where}:{line}: {room} imports {name}")
        for line, name in imports(tree, at_load=True):
            top = name.partition(".")[0]
            if top == "torch" and room not in TORCH_ROOMS:
                found.append(f"{where}:{line}: {room} imports torch when it is loaded")
            if top == "passes" and room not in TORCH_ROOMS:
                found.append(f"{where}:{line}: {room} imports passes, and so torch, when it is loaded")
        if room in ("core", "report"):
            typed = set(imports(tree, at_load=False)) - set(_typing_only(tree))
            found += [
                f"{where}:{line}: {room} imports {name}" for line, name in typed if name.partition(".")[0] in RUNTIMES
            ]
    return found


def _typing_only(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node, at_load=False)


def test_imports_go_leftwards_only() -> None:
    """No room imports from a room to its right, at the top of a module or inside a function."""
    assert violations(ROOT) == []


def test_every_room_is_ordered() -> None:
    """A folder with Python packages at the top is a room of the order, or the tests."""
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert rooms - {"tests"} == set(ALLOWED)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("core/a.py", "import bitfront.lowering\n", "core/a.py:1: core imports lowering"),
        ("core/a.py", "def f():\n    import torch\n", "core/a.py:2: core imports torch"),
        ("core/a.py", "import onnxruntime\n", "core/a.py:1: core imports onnxruntime"),
        (
            "lowering/a.py",
            "def f():\n    from bitfront.report.tables import x\n",
            "lowering/a.py:2: lowering imports report.tables",
        ),
        ("report/b/a.py", "from bitfront.search import x\n", "report/b/a.py:1: report imports search"),
        ("lowering/a.py", "if True:\n    import torch\n", "lowering/a.py:2: lowering imports torch when it is loaded"),
        (
            "search/cli.py",
            "import importlib\nimportlib.import_module('bitfront.experiments.digits')\n",
            "search/cli.py:2: search imports experiments.digits",
        ),
        (
            "search/a.py",
            "from bitfront.passes.train import x\n",
            "search/a.py:1: search imports passes, and so torch, when it is loaded",
        ),
        ("search/a.py", "from tests.report import x\n", "search/a.py:1: search imports tests.report"),
        ("search/a.py", "from bitfront import report, experiments\n", "search/a.py:1: search imports experiments"),
        ("search/a.py", "from bitfront import Budget\n", "search/a.py:1: search imports bitfront"),
        ("search/a.py", "from core import Constraints\n", "search/a.py:1: search imports core without bitfront"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, message: str) -> None:
    """Each kind of break shows with its file and line."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert violations(tmp_path) == [message]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("core/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n"),
        ("lowering/a.py", "import bitfront.core\ndef f():\n    import torch\n"),
        ("experiments/a.py", "import torch\nfrom bitfront.search.options import RunOptions\n"),
        ("passes/a.py", "import torch\n"),
        ("search/a.py", "def f():\n    import bitfront.passes\n"),
        ("backends/a.py", "import bitfront.lowering.dialect\nimport onnxruntime\n"),
    ],
)
def test_what_is_allowed_is_not_found(tmp_path: Path, file: str, text: str) -> None:
    """Leftward imports, lazy torch, and names for type checkers are fine."""
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert violations(tmp_path) == []


def test_modules_stay_readable() -> None:
    """No module is longer than 400 lines."""
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(ROOT)
    }
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_the_search_takes_rendering_alone_from_the_report() -> None:
    """Files, figures and texts for people: what is searched, measured and compared by is in ``core``."""
    found = {
        name.removeprefix("report.")
        for path in modules(ROOT)
        if path.relative_to(ROOT).parts[0] == "search"
        for _, name in imports(ast.parse(path.read_text(encoding="utf-8")), at_load=False)
        if name.partition(".")[0] == "report"
    }
    rendering = {"comparison", "comparison_tables", "render", "results", "rows", "summary", "tables", "variant_details"}
    assert found <= rendering


def test_every_module_says_what_it_decides() -> None:
    """Each file starts with a docstring, and none imports everything from another."""
    for path in modules(ROOT):
        text = path.read_text(encoding="utf-8")
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
        assert not re.search(r"^\s*from \S+ import \*", text, re.MULTILINE), path
