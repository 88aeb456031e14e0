"""Sources of a user's own modules, and versions of installed ones.

A user's module is one whose file lies neither in the standard library, nor where packages are installed, nor among this
engine's own. Its *sources* are its file and those of every user's module that it imports, at its top or inside a
function, and so on. Of what is installed, the file and the package's version are taken.

Not seen: modules imported by computed names, and code that is read and executed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_OWN = frozenset({"bitfront", "core", "lowering", "report", "backends", "passes", "sensitivity", "search"})
_INSTALLED = frozenset({"site-packages", "dist-packages"})


@cache
def engine_code(*rooms: str) -> str:
    """SHA-256 over the files of some of this engine's own packages, as they were when first asked for."""
    state = hashlib.sha256()
    for room in rooms:
        for file in sorted((_ROOT / room).rglob("*.py")):
            state.update(f"{file.relative_to(_ROOT).as_posix()} {_content(file)}\n".encode())
    return state.hexdigest()


def is_user_module(name: str | None) -> bool:
    """Whether a module is the user's own code; one without a file is, unless it is built in."""
    if name is None or name in sys.builtin_module_names:
        return name is None
    file = _file_of(name)
    if file is None:
        top = name.partition(".")[0]
        return top not in sys.stdlib_module_names
    return _is_user_file(file)


def installed_version(name: str) -> str:
    """Text that identifies an installed module's version: the package's version and the digest of the module's file."""
    package = sys.modules.get(name.partition(".")[0])
    version = getattr(package, "__version__", "")
    file = _file_of(name)
    return f"{name} {version if isinstance(version, str) else ''} {_content(file) if file else sys.version}"


def sources(name: str) -> dict[str, str]:
    """Module name → SHA-256 of its file: the user's module ``name`` and all of the user's that it imports."""
    found: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        file = _file_of(module)
        if module in found or file is None or not _is_user_file(file):
            continue
        found[module] = _content(file)
        if file.suffix == ".py":
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            waiting += _imported(file, package)
    return found


def _file_of(name: str) -> Path | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None and module is None:
        parent = name.rpartition(".")[0]
        if parent and parent not in sys.modules:
            return _beside(name)  # to look it up would import its package
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            return None
        file = spec.origin if spec is not None and spec.has_location else None
    return Path(file).resolve() if isinstance(file, str) and Path(file).is_file() else None


def _beside(name: str) -> Path | None:
    """The file of a module whose package is not loaded yet, by the package's own place."""
    package, _, last = name.rpartition(".")
    home = _file_of(package)
    if home is None or home.name != "__init__.py":
        return None
    files = (home.parent / f"{last}.py", home.parent / last / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _is_user_file(file: Path) -> bool:
    if _INSTALLED.intersection(file.parts):
        return False
    libraries = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    if any(file.is_relative_to(Path(library).resolve()) for library in libraries if library):
        return False
    return not (file.is_relative_to(_ROOT) and file.relative_to(_ROOT).parts[0] in _OWN)


def _content(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return "unreadable"


def _imported(file: Path, package: str) -> Iterator[str]:
    """Names of all modules that a file's imports may mean."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_packages(alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                try:
                    base = importlib.util.resolve_name("." * node.level + base, package)
                except ImportError:
                    continue
            yield from _with_packages(base)
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            given = node.args[0] if node.args else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str) and given.value[:1] != ".":
                yield from _with_packages(given.value)


def _with_packages(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
