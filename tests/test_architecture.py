"""Rooms and modules keep their order (``tests.import_rules``) and stay short; planted breaks of the rules are found."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import pytest

from tests.import_rules import ALLOWED, ROOT, circles, hidden_imports, import_graph, imports, modules, violations

MAX_LINES = 400
MEDIAN_LINES = 150
ROOM_LINES = 2000  # of a folder of search/ without those below it


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
        ("lowering/a.py", "def f():\n    import onnxruntime\n", "lowering/a.py:2: lowering imports onnxruntime"),
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


def test_no_circles() -> None:
    """No module imports itself through others, wherever the imports stand."""
    assert circles(import_graph(ROOT)) == []


def test_no_hidden_imports() -> None:
    """Imports inside functions defer heavy libraries, and hide nothing else."""
    assert hidden_imports(ROOT) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (
            {"core/a.py": "from bitfront.core.b import x\n", "core/b.py": "import bitfront.core.a\n"},
            ["core.a", "core.b"],
        ),
        (
            {"core/a.py": "from bitfront.core import b\n", "core/b.py": "from bitfront.core import a\n"},
            ["core.a", "core.b"],
        ),
        (
            {"core/a.py": "from bitfront.core.b import x\n", "core/b.py": "def f():\n    import bitfront.core.a\n"},
            ["core.a", "core.b"],
        ),
        (
            {
                "search/a.py": "import bitfront.search.d.b\n",
                "search/d/b.py": "import bitfront.search.c\n",
                "search/c.py": "from importlib import import_module\nimport_module('bitfront.search.a')\n",
            },
            ["search.a", "search.c", "search.d.b"],
        ),
        (
            {"core/__init__.py": "from bitfront.core.a import x\n", "core/a.py": "from bitfront.core import x\n"},
            ["core", "core.a"],
        ),
    ],
    ids=["two", "by name", "inside a function", "three", "a package"],
)
def test_a_planted_circle_is_found(tmp_path: Path, files: dict[str, str], found: list[str]) -> None:
    """All its modules are named, and no other."""
    plant(tmp_path, {**files, "core/aside.py": "import bitfront.core.a\n"})
    assert circles(import_graph(tmp_path)) == [found]


@pytest.mark.parametrize(
    "files",
    [
        {
            "core/a.py": "import bitfront.core.b\nimport bitfront.core.c\n",
            "core/b.py": "import bitfront.core.c\n",
            "core/c.py": "",
        },
        {
            "core/a.py": "import bitfront.core.b\n",
            "core/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import bitfront.core.a\n",
        },
        {
            "core/__init__.py": "from bitfront.core.a import x\n",
            "core/a.py": "from bitfront.core.b import x\n",
            "core/b.py": "",
        },
    ],
    ids=["a diamond", "for type checkers", "a package that gathers names"],
)
def test_what_is_no_circle_is_not_found(tmp_path: Path, files: dict[str, str]) -> None:
    """Two ways to a module, names for type checkers, and modules of a package that do not import the package."""
    plant(tmp_path, files)
    assert circles(import_graph(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "text", "messages"),
    [
        (
            "search/a.py",
            "def f():\n    from bitfront.core.pareto import x\n",
            ["search/a.py:2: core.pareto is imported inside a function"],
        ),
        (
            "core/a.py",
            "class C:\n    def f(self):\n        if self:\n            import bitfront\n",
            ["core/a.py:4: bitfront is imported inside a function"],
        ),
        ("search/a.py", "def f():\n    from bitfront.passes.train import x\n", []),
        ("search/commands/a.py", "def f():\n    from bitfront.core.pareto import x\n", []),
        ("search/a.py", "def f():\n    import onnxruntime\n", []),
        ("search/a.py", "if True:\n    from bitfront.core.pareto import x\n", []),
    ],
    ids=["a room", "the package", "a heavy room", "the command line", "a library", "at the top"],
)
def test_planted_hidden_imports(tmp_path: Path, file: str, text: str, messages: list[str]) -> None:
    """Those without leave are found with their lines, the others are not."""
    plant(tmp_path, {file: text})
    assert hidden_imports(tmp_path) == messages


def plant(root: Path, files: Mapping[str, str]) -> None:
    """Write files of a synthetic tree."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def lengths(root: Path) -> dict[str, int]:
    """Module → lines."""
    return {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines()) for path in modules(root)
    }


def test_modules_stay_readable() -> None:
    """No module is longer than 400 lines, and half of them have 150 at most."""
    found = lengths(ROOT)
    assert {name: lines for name, lines in found.items() if lines > MAX_LINES} == {}
    assert median(found.values()) <= MEDIAN_LINES


def test_rooms_of_the_search_stay_surveyable() -> None:
    """No folder of ``search/`` holds more than 2,000 lines, those below it not counted."""
    rooms: Counter[str] = Counter()
    for name, lines in lengths(ROOT).items():
        if name.startswith("search/"):
            rooms[name.rpartition("/")[0]] += lines
    assert {room: lines for room, lines in rooms.items() if lines > ROOM_LINES} == {}


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
