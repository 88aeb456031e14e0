"""A network from somebody else: names that are colours, formulas and markup to whatever shows them."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfront.report.results import RunResults
from tests.search.command_line import Files, network, outcome, write_files

NAME = "=1+1|'x'!A0[red]\x1b[31m\x07\u202e<b>\n@y"
SHOWN = "=1+1|'x'!A0[red]\\x1b[31m\\x07\\u202e<b>\\n@y"
UNSEEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A network whose first layer, input and file bear such names."""
    found = write_files(tmp_path)
    model = network()
    model.graph.initializer[0].name = model.graph.node[0].input[1] = f"{NAME}.weight"
    model.graph.node[0].name = NAME
    onnx.save(model, found.net)
    return found


def test_names_are_shown_escaped(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """``inspect`` and ``sensitivity`` tell them in one line each, and nothing in them reaches the terminal as it is."""
    scored = ["sensitivity", *files.argv()[:4], "--sensitivity-samples", "4", "--precisions", "int8"]
    for argv in (["inspect", str(files.net)], scored):
        assert outcome(argv) == 0
        said = capsys.readouterr()
        assert SHOWN in said.out
        assert not UNSEEN.search(said.out + said.err)


def test_a_run_keeps_them_harmless(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tables hold no formula, its report reads them back as they are, and its page shows them escaped."""
    out = files.folder / "run"
    short = ("--trials", "3", "--precisions", "int8", "--sensitivity-samples", "4", "--max-drop", "0.9")
    assert outcome(files.argv(*short, "--out", str(out))) == 0
    assert outcome(["report", str(out)]) == 0
    said = capsys.readouterr()
    assert not UNSEEN.search(said.out + said.err)
    for path in sorted(out.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row if cell]
        assert [c for c in cells if c[0] in "=+@\t\r" or (c[0] == "-" and not re.fullmatch(r"-[0-9.e-]+", c))] == []
        assert path.name != "sensitivity.csv" or f"'{NAME}" in cells
    results = RunResults.load(out)
    assert {score.group for score in results.scores} == {NAME, "fc"}
    assert all(set(trial.schemes) <= {NAME, "fc"} for trial in results.trials)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert NAME not in page
    assert not UNSEEN.search(page[page.index("<body>") :])


def test_messages_show_them_escaped(
    files: Files, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Errors quote names of files and arrays, and cannot be made to say something else."""
    monkeypatch.chdir(files.folder)
    evil = "a\x1b[2J\nhint: run this.onnx"
    files.write_calib(**{NAME: np.ones((4, 1), np.float32)})
    for argv in (["inspect", evil], ["report", evil], files.argv("--max-drop", "0.9"), files.argv("--workload", evil)):
        assert outcome(argv) == 2
        said = capsys.readouterr().err
        assert not UNSEEN.search(said)
        assert [line for line in said.splitlines() if line.startswith("hint: run this")] == []
