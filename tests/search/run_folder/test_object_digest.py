"""Objects are told apart by what they compute: in one process, in another one, and wherever the difference lies."""

from __future__ import annotations

import importlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import bitfront.search.run_folder.object_digest
from bitfront.search.run_folder.object_digest import UndigestibleError, object_digest

CLASS = """\
class M:
    def __init__(self, k):
        self.k = k
    def __call__(self, o, y):
        return self.k
"""
SLOTS = """\
class M:
    __slots__ = ("_k", "__p")
    def __init__(self, k):
        self._k = 0
        self.__p = k
    def __call__(self, o, y):
        return self.__p
"""
CLOSURE = "import numpy as np\ndef make(w):\n    return lambda o, y: y * w\n"
PARTIAL = "from functools import partial\ndef f(o, y, k):\n    return k\n"
WRAPPED = """\
import functools
def loud(f):
    @functools.wraps(f)
    def w(*a):
        return f(*a)
    return w
@loud
def m(o, y):
    return 1
"""
M, OTHER = "M(1)", "M(5)"
RETURN = ("return 1", "return 5")

# Kind → a module, what of it is the metric, and a change that makes it compute something else.
CHANGES: dict[str, tuple[str, str, tuple[str, str]]] = {
    "constant": ("def m(o, y):\n    return (o[0] == y) * 1.0\n", "m", ("1.0", "0.5")),
    "nested code": ("def m(o, y):\n    def f(v):\n        return v + 1\n    return f(y)\n", "m", ("v + 1", "v + 2")),
    "operator": ("def m(o, y):\n    return o < y\n", "m", ("<", ">")),
    "default": ("def m(o, y, k=1):\n    return y * k\n", "m", ("k=1", "k=5")),
    "keyword default": ("def m(o, y, *, k=1):\n    return y * k\n", "m", ("k=1", "k=5")),
    "partial": (PARTIAL + "m = partial(f, k=1)\n", "m", ("k=1", "k=5")),
    "lambda": ("m = lambda o, y: y + 1\n", "m", ("+ 1", "+ 2")),
    "closure over a number": (CLOSURE + "m = make(1)\n", "m", ("make(1)", "make(5)")),
    "closure over an array": (CLOSURE + "m = make(np.array([1.0, 2.0]))\n", "m", ("2.0", "3.0")),
    "wrapped function": (WRAPPED, "m", RETURN),
    "cached function": ("import functools\n@functools.lru_cache\ndef m(o, y):\n    return 1\n", "m", RETURN),
    "instance field": (CLASS + "m = M(1)\n", "m", (M, OTHER)),
    "instance slot": (SLOTS + "m = M(1)\n", "m", (M, OTHER)),
    "state not pickled": (CLASS + "    def __getstate__(self):\n        return {}\nm = M(1)\n", "m", (M, OTHER)),
    "slot not pickled": (SLOTS + "    def __getstate__(self):\n        return {}\nm = M(1)\n", "m", (M, OTHER)),
    "method": ("class M:\n    def __call__(self, o, y):\n        return 1\nm = M()\n", "m", RETURN),
    "base class": ("class B:\n    k = 1\nclass C(B):\n    def __call__(self, o, y):\n        return self.k\nm = C()\n",
                   "m", ("k = 1", "k = 5")),
    "property": ("class M:\n    @property\n    def k(self):\n        return 1\n    def __call__(self, o, y):\n"
                 "        return self.k\nm = M()\n", "m", RETURN),
    "bound method's object": (CLASS + "m = M(1).__call__\n", "m", (M, OTHER)),
    "class method": ("class M:\n    k = 1\n    @classmethod\n    def f(cls, o, y):\n        return cls.k\n", "M.f",
                     ("k = 1", "k = 5")),
    "builtin method's object": ("m = {1: 2}.get\n", "m", ("2}", "3}")),
    "list subclass": ("class L(list):\n    def __call__(self, o, y):\n        return self[0]\nm = L([1])\n", "m",
                      ("[1]", "[5]")),
    "data class": ("from dataclasses import dataclass\n@dataclass(frozen=True)\nclass M:\n    k: int = 1\n"
                   "    def __call__(self, o, y):\n        return self.k\nm = M()\n", "m", ("= 1", "= 5")),
    "enumeration": ("from enum import Enum\nclass K(Enum):\n    A = 1\ndef m(o, y):\n    return K.A.value\n", "m",
                    ("A = 1", "A = 5")),
    "called function": ("def f():\n    return 1\ndef m(o, y):\n    return f()\n", "m", RETURN),
    "comment": ("def m(o, y):  # one\n    return 1\n", "m", ("# one", "# two")),
    "set of texts": ("K = {'a', 'b', 'c'}\ndef m(o, y):\n    return K\n", "m", ("'c'", "'d'")),
    "made at run time": ("from dataclasses import make_dataclass\nd = make_dataclass('D', ['a'])(1)\n"
                         "def m(o, y):\n    return d.a\n", "m", ("['a']", "['a', ('b', int, 1)]")),
}  # fmt: skip
PLACES = {"pack": "pack/__init__.py", "inner": "pack/inner.py"}


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ModuleType]]:
    """Writes modules (name → source) into a folder of their own and imports ``own`` anew."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def import_anew(**files: str) -> ModuleType:
        for name in ("own", "helper", "further", "pack", "pack.inner"):
            sys.modules.pop(name, None)
        folder = tmp_path / "modules"
        for name, text in files.items():
            path = folder / PLACES.get(name, f"{name}.py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return importlib.import_module("own")

    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield import_anew
    for name in ("own", "helper", "further", "pack", "pack.inner"):
        sys.modules.pop(name, None)


def found(module: ModuleType, expression: str = "m") -> str:
    """Digest of a module's metric."""
    return object_digest(eval(expression, vars(module)), "m")


@pytest.mark.parametrize("read", [True, False], ids=["with sources", "by the object alone"])
@pytest.mark.parametrize("kind", CHANGES)
def test_another_computation_is_another_digest(
    kind: str, read: bool, load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported anew, the same source gives the same digest, a changed one another; by itself, if it has no source."""
    if not read:
        monkeypatch.setattr(bitfront.search.run_folder.object_digest, "sources", lambda _: {})
    source, expression, (old, new) = CHANGES[kind]
    assert old in source
    before, again = found(load(own=source), expression), found(load(own=source), expression)
    after = found(load(own=source.replace(old, new)), expression)
    assert before == again
    assert (after != before) == (read or kind != "comment")


@pytest.mark.parametrize("kind", ["partial", "lambda", "instance field", "instance slot", "closure over an array"])
def test_objects_of_one_source_are_told_apart(kind: str, load: Callable[..., ModuleType]) -> None:
    """Two metrics that differ in state alone, in one file: what the file says cannot tell them apart."""
    both = {
        "partial": PARTIAL + "m, n = partial(f, k=1), partial(f, k=5)\n",
        "lambda": "m, n = (lambda o, y: y + 1), (lambda o, y: y + 2)\n",
        "instance field": CHANGES[kind][0] + "n = M(5)\n",
        "instance slot": CHANGES[kind][0] + "n = M(5)\n",
        "closure over an array": CHANGES[kind][0] + "n = make(np.array([1.0, 3.0]))\n",
    }
    module = load(own=both[kind])
    assert found(module, "m") != found(module, "n")


@pytest.mark.parametrize(
    "own",
    [
        "from helper import f\ndef m(o, y):\n    return f()\n",
        "import helper\ndef m(o, y):\n    return helper.f()\n",
        "def m(o, y):\n    import helper\n    return helper.f()\n",
        "def m(o, y):\n    from helper import f\n    return f()\n",
        "import further\ndef m(o, y):\n    return further.g()\n",
        "import importlib\ndef m(o, y):\n    return importlib.import_module('helper').f()\n",
        "import helper as h\nclass M:\n    def __call__(self, o, y):\n        return h.f()\nm = M()\n",
    ],
    ids=["from", "module", "in the function", "from in the function", "by another", "by name", "in a class"],
)
def test_a_helper_that_changes_is_seen(own: str, load: Callable[..., ModuleType]) -> None:
    """The metric's own file stays as it is."""
    helper = "def f():\n    return 1\n"
    further = "from helper import f\ndef g():\n    return f()\n"
    before = found(load(own=own, helper=helper, further=further))
    assert found(load(own=own, helper=helper, further=further)) == before
    assert found(load(own=own, helper=helper.replace("1", "5"), further=further)) != before


def test_a_relative_import_is_followed(load: Callable[..., ModuleType]) -> None:
    """In a package, whose module imports its neighbour inside a function."""
    own, pack = "import pack\nm = pack.m\n", "def m(o, y):\n    from . import inner\n    return inner.K\n"
    before = found(load(own=own, pack=pack, inner="K = 1\n"))
    assert found(load(own=own, pack=pack, inner="K = 1\n")) == before
    assert found(load(own=own, pack=pack, inner="K = 5\n")) != before


def test_values_that_a_module_read_are_seen(load: Callable[..., ModuleType], tmp_path: Path) -> None:
    """A table that a helper loads from a file when it is imported is state, though no source has changed."""
    table = tmp_path / "table.txt"
    helper = f"from pathlib import Path\nTABLE = Path({str(table)!r}).read_text()\n"
    own = "import helper\ndef m(o, y):\n    return helper.TABLE\n"
    table.write_text("1")
    before = found(load(own=own, helper=helper))
    table.write_text("5")
    assert found(load(own=own, helper=helper)) != before


UNTOLD: dict[str, tuple[Callable[[], Any], str]] = {
    "socket": (lambda: socket.socket(), r"^m\.held is a socket, whose state cannot be told"),
    "generator": (lambda: (i for i in range(3)), r"^m\.held is a generator"),
    "open file": (lambda: open(os.devnull, "rb"), r"^m\.held is a BufferedReader"),  # noqa: SIM115
    "function in a ufunc": (lambda: np.frompyfunc(lambda x: x + 1, 1, 1), r"^m\.held is a ufunc"),
    "endless nesting": (lambda: _nested(2000), r"nested too deeply"),
}


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


class Holder:
    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("kind", UNTOLD)
def test_what_keeps_its_state_to_itself_is_refused(kind: str) -> None:
    """Named by the way to it."""
    make, message = UNTOLD[kind]
    held = make()
    try:
        with pytest.raises(UndigestibleError, match=message):
            object_digest(Holder(held), "m")
    finally:
        if hasattr(held, "close"):
            held.close()


def test_state_that_decides_nothing_is_no_difference() -> None:
    """Locks, loggers and the order of sets and dictionaries; cycles end."""
    one, other = Holder({"a": 1, "b": {3, 1, 2}}), Holder({"b": {2, 3, 1}, "a": 1})
    assert object_digest(one, "m") == object_digest(other, "m")
    one.held["log"] = other.held["log"] = logging.getLogger("x")
    one.held["lock"], other.held["lock"] = threading.Lock(), threading.Lock()
    one.held["self"], other.held["self"] = one, other
    assert object_digest(one, "m") == object_digest(other, "m")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), (0.0, -0.0), ("1", 1), ((1,), [1]), (b"a", "a"), ([], {}), (None, "None"),
        (np.float32(1), np.float64(1)), (np.zeros(2), np.zeros((2, 1))), (np.zeros(2, "<f4"), np.zeros(2, ">f4")),
        (np.array(["a", 1], object), np.array(["a", 2], object)), ({"a": 1}, {"a": 2}), ({1}, frozenset({1})),
        ([1, [2]], [[1], 2]), (len, max), (np.add, np.multiply), (np.random.default_rng(1), np.random.default_rng(2)),
    ],
)  # fmt: skip
def test_values_of_other_kinds_are_told_apart(one: object, other: object) -> None:
    """Equal to Python or printed alike, but not the same."""
    assert object_digest(one, "m") != object_digest(other, "m")
    assert object_digest(one, "m") == object_digest(one, "m")


def test_modules_of_torch_are_told_apart() -> None:
    """By weights and by the class's code; a lambda among the members has no address in the digest."""
    torch = pytest.importorskip("torch")

    def made(seed: int, bias: bool = True) -> Any:
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=bias), torch.nn.ReLU())
        net.extra = lambda x: x + 1
        return net

    assert object_digest(made(0), "m") == object_digest(made(0), "m")
    assert len({object_digest(net, "m") for net in (made(0), made(1), made(0, bias=False), made(0).half())}) == 4


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes; also where the module comes from its compiled file the second time."""
    sources = {kind: source for kind, (source, expression, _) in CHANGES.items() if expression == "m"}
    for index, source in enumerate(sources.values()):
        (tmp_path / f"own{index}.py").write_text(source, encoding="utf-8")
    code = (
        "import sys, importlib\nsys.path.insert(0, sys.argv[1])\n"
        "from bitfront.search.run_folder.object_digest import object_digest\n"
        f"for i in range({len(sources)}):\n    print(object_digest(importlib.import_module(f'own{{i}}').m, 'm'))\n"
    )
    said = []
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split())
    assert dict(zip(sources, said[0], strict=True)) == dict(zip(sources, said[1], strict=True))
