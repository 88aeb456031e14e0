"""``hf:FOLDER`` on the command line, where transformers need not be installed."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from bitfront.core import UsageError
from bitfront.search.cli import main
from bitfront.search.inputs.networks.tasks import check_folder, hf_folder


def test_folders() -> None:
    """They are what stands behind the prefix."""
    assert hf_folder("hf:models/bert") == Path("models/bert")
    assert hf_folder("hf_models:workload") is None
    assert hf_folder(None) is None


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""

    def missing(name: str) -> object:
        raise ImportError(f"No module named '{name}'")

    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UsageError, match="needs torch, which cannot be imported") as caught:
        check_folder(tmp_path, "text-classification")
    assert "extra 'transformers'" in caught.value.hint


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "a.onnx", "--task", "fill-mask"], "--task needs --workload hf:FOLDER"),
        (["--workload", "mine:net", "--task", "fill-mask"], "--task needs --workload hf:FOLDER"),
        (["--workload", "hf:nowhere", "--data", ".", "--task", "fill-mask"], "--data has no effect with"),
        (["--workload", "hf:nowhere", "--task", "fill-mask", "--passes", "prune"], "--passes needs training inputs"),
        (["--workload", "hf:nowhere", "--task", "fill-mask"], "--calib is missing"),
        (["--workload", "mine:net", "--calib", "a.npz"], "--calib needs --model or --workload hf:FOLDER"),
    ],
)
def test_options_that_do_not_go_together(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """They are refused by name."""
    assert main(argv) == 2
    assert message in capsys.readouterr().err
