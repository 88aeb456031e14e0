"""The TensorRT backend type-checks against the bindings of both major versions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_STUBS = Path(os.environ.get("BITFRONT_TENSORRT_STUBS", _ROOT / ".." / "shared" / "tensorrt-stubs"))
_VERSIONS = ("10.16", "11.4")


def _checked(version: str, cache: Path, tree: Path, *what: str) -> subprocess.CompletedProcess[str]:
    """Mypy in a tree in which the folders lie inside the package, as they are imported."""
    stubs = _STUBS / version
    if not (stubs / "tensorrt" / "__init__.pyi").is_file():
        pytest.skip(f"no stubs of TensorRT {version} in '{_STUBS}'; BITFRONT_TENSORRT_STUBS names their folder")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(cache), *what]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join((str(stubs.resolve()), str(tree)))}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with its rooms inside."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(_ROOT / "bitfront", folder / "bitfront")
    for room in ("core", "lowering", "report", "backends"):
        shutil.copytree(_ROOT / room, folder / "bitfront" / room)
    shutil.copy(_ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", _VERSIONS)
def test_types_fit_the_bindings(
    version: str, tree: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No name, argument or unchecked None is wrong for either version; an error planted is found."""
    pytest.importorskip("mypy")
    cache = tmp_path_factory.getbasetemp() / "mypy"  # of both versions: all but the bindings is the same
    found = _checked(version, cache, tree, "-p", "bitfront.backends.tensorrt")
    assert found.returncode == 0, found.stdout
    planted = tmp_path / "planted.py"
    planted.write_text("import tensorrt as trt\n\n\ndef plan(b: trt.Builder) -> None:\n    b.build_cuda_engine()\n")
    found = _checked(version, cache, tree, str(planted))
    assert '"Builder" has no attribute "build_cuda_engine"' in found.stdout
