"""The example of the page on adding a backend works as it stands there."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends import Backend, get_backend
from lowering.dialects.registry import get_dialect
from tests.backends.conformance import BackendConformance
from tests.search.command_line import outcome, write_files

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-backend.md"
NAME = "my_runtime:ReferenceBackend"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A person's folder with the page's file in it, where Python finds modules."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    place = tmp_path_factory.mktemp("person")
    (place / "my_runtime.py").write_text(code, encoding="utf-8")
    before = list(sys.path)
    sys.path.append(str(place))
    importlib.invalidate_caches()
    yield place
    sys.path[:] = before
    sys.modules.pop("my_runtime", None)


class TestTheExample(BackendConformance):
    @pytest.fixture
    def backend(self, folder: Path) -> Backend:
        assert (folder / "my_runtime.py").is_file()
        return get_backend(NAME)


def test_the_page_is_short() -> None:
    """A backend in under 100 lines, words included."""
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 100


def test_the_example_answers_to_its_name(folder: Path) -> None:
    """Backend and dialect are found by ``module:attribute`` and call themselves so."""
    assert (folder / "my_runtime.py").is_file()
    backend = get_backend(NAME)
    assert backend.name == NAME
    assert get_dialect(backend.dialect).name == backend.dialect


def test_the_example_runs_the_main_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's commands work in the folder the file is in, timing in a fresh process included."""
    monkeypatch.chdir(folder)
    files = write_files(folder)
    assert outcome(["backends", NAME]) == 0
    assert "onnx reference" in capsys.readouterr().out
    argv = files.argv("--backend", NAME, "--max-drop", "0.5", "--trials", "3", "--sensitivity-samples", "2", "--quiet")
    assert outcome([*argv, "--precisions", "int8", "--out", str(folder / "run")]) == 0
    assert (folder / "run" / "report.html").is_file()
