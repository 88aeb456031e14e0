"""Rooms import leftwards only, from experiments down to core, under one name; ``ALLOWED`` is the order.

Modules import each other in no circle either. An import counts wherever it stands, also inside a function, where it
would only hide the circle; what type checkers alone read does not. So a first-party import stands at the top of its
file. Two things may be imported inside a function, and count as imports all the same: rooms that load a heavy optional
library (``DEFERRED_ROOMS``), and whatever the command line loads for one command alone (``DEFERRING``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

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
# Rooms that run nothing, and lowering, which is given an interpreter: what they may not import anywhere.
RUNTIMES = {room: frozenset({"torch", "onnxruntime"}) for room in ("core", "report")}
RUNTIMES["lowering"] = frozenset({"onnxruntime"})
DEFERRED_ROOMS = TORCH_ROOMS
# A command starts, lists the passes, and may be interrupted, before libraries are loaded.
DEFERRING = ("search/cli.py", "search/arguments/", "search/commands/", "search/passes/")


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


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module → first-party modules that it imports anywhere but for type checkers alone, as ``search.run``.

    ``from a import b`` is an import of ``a.b`` where that is a module, else of ``a``. Importing a module of a package
    does not count as importing the package, whose ``__init__`` would make circles of what are none.
    """
    named = {_dotted(path, root): path for path in modules(root)}
    return {name: _imported_modules(path, set(named)) - {name} for name, path in named.items()}


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_modules(path: Path, known: set[str]) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    ignored = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in ignored:
            continue
        if isinstance(node, ast.Import):
            found |= {_room_path(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = _room_path(node.module or "")
            prefix = "" if base == "bitfront" and node.module == "bitfront" else f"{base}."
            found |= {name if (name := f"{prefix}{alias.name}") in known else base for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add(_room_path(first.value))
    return found & known


def hidden_imports(root: Path) -> list[str]:
    """Each first-party import inside a function that has no leave to be there, in words."""
    found = []
    for path in modules(root):
        where = path.relative_to(root).as_posix()
        if where.startswith(DEFERRING):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        deferred = {item for function in _functions(tree) for item in _statements(function)}
        for line, name in sorted(deferred):
            top = name.partition(".")[0]
            if (top in ALLOWED or top == "bitfront") and top not in DEFERRED_ROOMS:
                found.append(f"{where}:{line}: {name} is imported inside a function")
    return found


def _functions(tree: ast.AST) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _statements(function: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, _room_path(alias.name)) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, _room_path(node.module or "")


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of modules each of which imports every other, if not itself then through others; sorted."""
    reached = {name: _reachable(name, graph) for name in graph}
    found = {tuple(sorted({name} | {other for other in reached[name] if name in reached[other]})) for name in graph}
    return sorted(list(circle) for circle in found if len(circle) > 1)


def _reachable(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


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
        if room in RUNTIMES:
            typed = set(imports(tree, at_load=False)) - set(_typing_only(tree))
            found += [
                f"{where}:{line}: {room} imports {name}"
                for line, name in typed
                if name.partition(".")[0] in RUNTIMES[room]
            ]
    return found


def _typing_only(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(node, at_load=False)
