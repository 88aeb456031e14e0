"""The page on PyTorch modules: its example is searched as it says, and its table has every task."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from bitfront.search.inputs.networks.tasks import TASKS
from tests.import_rules import ROOT
from tests.search.command_line import outcome

PAGE = ROOT / "docs" / "torch.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's file in it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_tagger", raising=False)
    (tmp_path / "my_tagger.py").write_text(code, encoding="utf-8")
    return tmp_path


def test_the_example_is_listed_by_modules(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Inputs in the order of forward, both axes open, layers by module path."""
    assert (example / "my_tagger.py").is_file()
    assert outcome(["inspect", "--workload", "my_tagger:workload"]) == 0
    told = capsys.readouterr().out
    assert "inputs ids (n, ?), mask (n, ?)" in told
    assert all(re.search(rf"^{name} ", told, re.MULTILINE) for name in ("block.0", "block.2", "head"))


def test_the_example_is_searched(example: Path) -> None:
    """On samples of their own lengths, to a model that a config gives again."""
    network = ["--workload", "my_tagger:workload"]
    limits = ["--max-drop", "0.9", "--trials", "2", "--precisions", "int8", "--quiet"]
    assert outcome([*network, *limits, "--out", "run"]) == 0
    assert outcome(["apply", "run/configs/int8.json", *network, "-o", "out.onnx"]) == 0
    assert (example / "out.onnx").read_bytes() == (example / "run/models/int8.onnx").read_bytes()


def test_every_task_is_in_the_table() -> None:
    """And no other."""
    rows = re.findall(r"^\| (`[^|]*) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)} - {"--task"}
    assert named == set(TASKS)
