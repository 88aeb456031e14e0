from __future__ import annotations

import io
from pathlib import Path

from bitfront.search.results.summary import print_summary
from tests.report import synthetic, synthetic_passes


def _summary(folder: Path) -> str:
    stream = io.StringIO()
    print_summary(folder, stream, quiet=False)
    return stream.getvalue()


def test_summary_tells_networks_and_training(tmp_path: Path) -> None:
    """A short column, a line of training, and where the recommended point's network lies."""
    text = _summary(synthetic_passes.passes_run(tmp_path))
    head, *lines = text.strip("\n").splitlines()
    assert head.split()[-4:] == ["size", "network", "limits", "layers"]
    assert "student small  met" in next(line for line in lines if "p66" in line)
    assert "7 min 1 s of 10 min 0 s of training; 9 model variants made, 5 trained, 3 promotions\n" in text
    assert f"network {tmp_path}/networks/" in text


def test_summary_without_passes_says_nothing_of_them(tmp_path: Path) -> None:
    """Neither column nor lines."""
    text = _summary(synthetic.feasible_run(tmp_path))
    assert "  network  " not in text
    assert not any(line.startswith("network") for line in text.splitlines())
    assert "training" not in text
