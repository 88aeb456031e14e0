"""What is installed is exactly the rooms, and the lock file is one that any index can serve."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import bitfront

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("backends", "experiments", "lowering", "passes", "core", "report", "search", "sensitivity")
DATA = {
    "bitfront/py.typed",
    *(
        f"bitfront/report/{name}"
        for name in ("page.css", "page.js", "page.html.j2", "plot_page.html.j2", "comparison.html.j2")
    ),
}
SCRIPTS = ("scripts/search", "scripts/test", "scripts/mutants", "scripts/typecheck", "scripts/gpu-check", ".ci/run")
LOCKED_EXTRAS = ("cpu", "openvino", "demo", "dev")


def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return table


def locked() -> dict[str, Version]:
    """Canonical name → version of every line of the lock file, each checked to be an exact pin."""
    pins: dict[str, Version] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][A-Za-z0-9.]*)", line)
            assert match, f"'{line}' is no exact pin of a public version"
            pins[canonicalize_name(match[1])] = Version(match[2])
    return pins


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of the tree: a build leaves files in the folder it runs in."""
    source = tmp_path_factory.mktemp("source") / "tree"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs", "shared")
    shutil.copytree(ROOT, source, ignore=left_out)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_is_one_package(wheel: zipfile.ZipFile) -> None:
    """Nothing lands at the top of site-packages but ``bitfront`` and its metadata: no ``search``, no ``report``."""
    top = {name.partition("/")[0] for name in wheel.namelist()}
    assert top == {"bitfront", f"bitfront-{project()['version']}.dist-info"}


def test_the_wheel_holds_every_module_of_the_tree(wheel: zipfile.ZipFile) -> None:
    """Each Python file of each folder is in it, with the page's template and style, and no other file."""
    tree = {f"bitfront/{path.relative_to(ROOT)}" for room in ROOMS for path in (ROOT / room).rglob("*.py")}
    tree |= {str(path.relative_to(ROOT)) for path in (ROOT / "bitfront").rglob("*.py")}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == tree | DATA


def test_packages_are_listed_as_the_folders_stand() -> None:
    """``pyproject.toml`` lists every package, and where each folder's is found."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = [path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py")]
    dotted = {"bitfront." + ".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(table["packages"]) == {"bitfront"} | dotted
    assert table["package-dir"] == {f"bitfront.{room}": room for room in ROOMS}


def test_a_person_s_own_modules_shadow_nothing(tmp_path: Path) -> None:
    """``search.py`` and ``experiments/`` in the working folder are the person's; ours work beside them."""
    (tmp_path / "search.py").write_text("raise RuntimeError('shadowed')\n", encoding="utf-8")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("raise RuntimeError('shadowed')\n", encoding="utf-8")
    command = [sys.executable, "-m", "bitfront.search", "inspect", "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_public_names_are_there() -> None:
    """``import bitfront`` has a version and what ``__all__`` promises."""
    assert bitfront.__version__ == project()["version"]
    assert [name for name in bitfront.__all__ if not hasattr(bitfront, name)] == []


def test_the_wheel_has_the_command(wheel: zipfile.ZipFile) -> None:
    """``search`` is the one console command."""
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert wheel.read(name).decode().split() == ["[console_scripts]", "search", "=", "bitfront.search.cli:main"]


def test_onnxruntime_flavours_are_kept_apart() -> None:
    """The two wheels overwrite each other's files: neither is a core dependency, each has its own extra."""
    extras = {
        name: {canonicalize_name(Requirement(text).name) for text in texts}
        for name, texts in project()["optional-dependencies"].items()
    }
    core = {canonicalize_name(Requirement(text).name) for text in project()["dependencies"]}
    assert not {name for name in core if name.startswith("onnxruntime")}
    assert "torch" not in core
    holders = {
        flavour: [e for e, names in extras.items() if flavour in names] for flavour in extras["cpu"] | extras["gpu"]
    }
    assert holders == {"onnxruntime": ["cpu"], "onnxruntime-gpu": ["gpu"]}


def test_the_lock_is_exact_and_names_no_place() -> None:
    """Only ``name==version`` and comments: no address, no hash, no option, no local version."""
    pins = locked()
    assert len(pins) > 30
    assert str(pins["torch"]) == "2.13.0"
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|@|--hash|--index|--find", text)


def test_the_lock_satisfies_the_ranges() -> None:
    """Every dependency and every locked extra has a pin inside its range; the build backend too."""
    pins, table = locked(), project()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    wanted = [*table["dependencies"], *build]
    wanted += [text for extra in LOCKED_EXTRAS for text in table["optional-dependencies"][extra]]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not locked"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement} excludes {pins[name]}"
    assert "onnxruntime-gpu" not in pins


def test_the_lock_is_closed() -> None:
    """What the pinned packages need is pinned too, in a version they accept; nothing else is."""
    pins, table = locked(), project()
    roots = [*table["dependencies"], "setuptools"]
    roots += [text for extra in LOCKED_EXTRAS for text in table["optional-dependencies"][extra]]
    todo, seen = [Requirement(text) for text in roots], set[str]()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        assert name in pins, f"{name} is needed and not locked"
        assert requirement.specifier.contains(pins[name], prereleases=True), f"{requirement} excludes {pins[name]}"
        if name not in seen:
            seen.add(name)
            todo += [Requirement(text) for text in importlib.metadata.requires(name) or []]
    assert set(pins) == seen


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_bash(script: str) -> None:
    """Each can be typed as it stands and parses."""
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck")
def test_shellcheck_finds_nothing() -> None:
    """In any of the scripts."""
    command = ["shellcheck", *SCRIPTS, "scripts/environment.sh"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _checkout(folder: Path) -> Path:
    """A checkout with the scripts alone, and a Python that is too old on its search path."""
    (folder / "scripts").mkdir(parents=True)
    for name in ("environment.sh", "search"):
        shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
    for name in ("requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    old = folder / "old"
    old.mkdir()
    for name in ("python3.11", "python3", "python"):
        (old / name).write_text("#!/bin/sh\nexit 1\n")
        (old / name).chmod(0o755)
    return old


def test_a_missing_python_is_said_plainly(tmp_path: Path) -> None:
    """Set-up without Python 3.11 ends with a sentence, a hint and status 2, from any folder, and leaves nothing."""
    old = _checkout(tmp_path / "a checkout")
    environment = {**os.environ, "PATH": f"{old}:/usr/bin:/bin"}
    script = tmp_path / "a checkout" / "scripts" / "search"
    done = subprocess.run(
        [str(script), "--help"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert "error: no Python 3.11 or newer" in done.stderr
    assert "hint: install Python 3.11" in done.stderr
    assert not (tmp_path / "a checkout" / ".venv").exists()


def test_a_current_environment_is_used_as_it_is(tmp_path: Path) -> None:
    """With a matching stamp nothing is set up; arguments reach the command unchanged, in the caller's folder."""
    old = _checkout(tmp_path)
    command = tmp_path / ".venv" / "bin" / "search"
    command.parent.mkdir(parents=True)
    command.write_text('#!/bin/sh\npwd\nfor word in "$@"; do echo "<$word>"; done\n')
    command.chmod(0o755)
    stamp = subprocess.run(
        ["bash", "-c", f"source '{tmp_path}/scripts/environment.sh'; wanted_stamp"],
        capture_output=True,
        text=True,
        check=True,
    )
    (tmp_path / ".venv" / ".stamp").write_text(stamp.stdout)
    run = [str(tmp_path / "scripts" / "search"), "--budget-ms", "a b"]
    environment = {**os.environ, "PATH": f"{old}:/usr/bin:/bin"}
    done = subprocess.run(run, cwd="/", env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("/\n<--budget-ms>\n<a b>\n", "")
    with (tmp_path / "requirements.lock").open("a") as file:
        file.write("another==1.0\n")
    changed = subprocess.run(run, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert changed.returncode == 2  # it wants to set up again, and finds no Python
