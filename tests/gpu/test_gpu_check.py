"""The script that checks a machine with a GPU refuses one without, and touches nothing there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("answer", ["exit 9", "exit 0"], ids=["driver-fails", "none-listed"])
def test_without_a_gpu_nothing_is_set_up(tmp_path: Path, answer: str) -> None:
    """It says so with what to do, exits with 2, and makes neither environment nor summary."""
    home = tmp_path / "checkout"
    (home / "scripts").mkdir(parents=True)
    for name in ("gpu-check", "environment.sh"):
        copy = home / "scripts" / name
        copy.write_bytes((ROOT / "scripts" / name).read_bytes())
        copy.chmod(0o755)
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\n{answer}\n")
    tool.chmod(0o755)
    before = sorted(path.relative_to(home) for path in home.rglob("*"))
    done = subprocess.run(
        [str(home / "scripts" / "gpu-check")],
        env={**os.environ, "PATH": f"{tool.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: no NVIDIA GPU was found")
    assert "\nhint: run this on a machine with an NVIDIA GPU" in done.stderr
    assert sorted(path.relative_to(home) for path in home.rglob("*")) == before
