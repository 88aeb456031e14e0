"""The four fronts' table and plot, from finished run folders."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bitfront.experiments.joint_study import SEARCHES, main
from bitfront.report.results import RunResults
from tests.report import synthetic, synthetic_passes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three searches that came to the same, and one with passes."""
    for name in SEARCHES:
        make = synthetic_passes.passes_run if name == "everything" else synthetic.feasible_run
        make(tmp_path / name.replace(" ", "-"))
    return tmp_path


def test_fronts_of_finished_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row a search with its hypervolume against everything's, the bars with what was reached, and a page."""
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a finished search was started again"))
    assert main(["--out", str(folder), "--max-drop", "0.05"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {name: next(line for line in lines if line.startswith(name)).split() for name in SEARCHES}
    volumes = {name: float(row[len(name.split()) + 1]) for name, row in rows.items()}
    assert volumes["precisions alone"] == volumes["pruning alone"] == volumes["distillation alone"] > 0
    ratio = float(rows["precisions alone"][4])
    assert ratio == pytest.approx(volumes["everything"] / volumes["precisions alone"], abs=0.01)
    assert float(rows["everything"][3]) == 1
    assert sum(line.startswith(("latency ≤ 0.35", "size ≤ 0.12")) for line in lines) == 2
    page = (folder / "fronts.html").read_text()
    held = [p for p in RunResults.load(folder / "everything").points.values() if p.latency_reproduced and p.accuracy]
    assert held
    assert all(name in page for name in SEARCHES)


def test_a_search_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named, with its command and its exit status."""
    assert main(["--workload", "nowhere:nothing", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert "nowhere:nothing" in said.out
    assert "'precisions alone' ended with status 2" in said.err
