"""A network whose branch the data decides, from the command line: searched, said, and applied again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.lowering.test_branches import by_rate
from tests.search.command_line import Files, outcome


@pytest.mark.parametrize("other", [16000, 8000])
def test_search_and_apply(other: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The rate of all inputs decides; other evaluation inputs leave branches, whose weights are stored."""
    files = Files(folder=tmp_path)
    onnx.save(by_rate(), files.net)
    x = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    files.write_calib(x=x, rate=np.array(16000))
    files.write_eval(x=x, rate=np.array(other), labels=np.arange(40) % 16)
    run = tmp_path / "run"
    small = ("--trials", "4", "--sensitivity-samples", "8", "--max-drop", "0.9", "--backend", "fake")
    assert outcome(files.argv(*small, "--out", str(run))) == 0
    said = capsys.readouterr()
    points = set(json.loads((run / "measurement.json").read_text(encoding="utf-8"))["points"])
    if other != 16000:
        assert "decides a branch" not in said.err
        layers = json.loads((run / "configs" / "int8.json").read_text(encoding="utf-8"))["layers"]
        assert layers
        assert all(scheme["precision"] == "int8" and scheme["weight_only"] for scheme in layers.values()), layers
        return
    assert "input 'rate' is 16000 in all inputs given" in said.err
    assert "int8" in points
    out = tmp_path / "again.onnx"
    assert outcome(["apply", str(run / "configs" / "int8.json"), "--model", str(files.net), "-o", str(out)]) == 0
    assert out.read_bytes() == (run / "models" / "int8.onnx").read_bytes()
