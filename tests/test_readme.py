"""Every command that the README shows is run as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfront.backends import get_backend
from bitfront.core import Artifact
from tests.search.command_line import write_npz
from tests.search.nets import tiny_workload

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# The demo's verdict depends on how fast the machine is; every other command succeeds anywhere.
DEMO = ["scripts/search", "--budget-ms", "5", "--min-acc", "0.75"]


def commands(language: str) -> list[list[str]]:
    """The command lines of the README's fenced blocks."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return [shlex.split(line[2:]) for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def execute(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    module = ["-m", "bitfront.search"] if command[0] in ("search", "scripts/search") else []
    argv = [sys.executable, *module, *command[1:]]
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    return subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=900)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the README's commands name."""
    workload = tiny_workload(tmp_path / "made", samples=300)
    onnx.save(onnx.load(str(workload.model)), str(tmp_path / "net.onnx"))
    inputs = {name: np.asarray(array) for name, array in workload.evaluation.inputs.items()}
    # Labelled by the network itself, so that FP32 is right everywhere.
    logits = (
        get_backend("ort-cpu").compile(Artifact.onnx((tmp_path / "net.onnx").read_bytes()), threads=1).run(inputs)[0]
    )
    write_npz(tmp_path / "calib.npz", workload.calibration)
    write_npz(tmp_path / "eval.npz", {**inputs, "labels": logits.argmax(axis=1)})
    return tmp_path


def test_commands_on_own_network(folder: Path) -> None:
    """The commands of "On your own network" work one after the other, as shown."""
    shown = [command for command in commands("console") if command != DEMO]
    assert {command[1] for command in shown} >= {"inspect", "--model", "measure", "apply", "sensitivity", "report"}
    for command in shown:
        done = execute(command, folder)
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    assert (folder / "deploy.onnx").read_bytes() == (folder / "runs/net-1/models/int8.onnx").read_bytes()
    assert (folder / "runs/net-1/report.html").stat().st_size > 100_000


@pytest.mark.slow
def test_the_first_command(tmp_path: Path) -> None:
    """The command on the first screen ends with a verdict and a whole run folder."""
    assert DEMO in commands("console")
    done = execute(DEMO, tmp_path)
    assert done.returncode in (0, 3), done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    names = {path.name for path in run.iterdir()}
    assert names >= {"report.html", "pareto.csv", "trials.csv", "sensitivity.csv", "measurement.json", "study.db"}
    assert {path.stem for path in (run / "configs").iterdir()} == {path.stem for path in (run / "models").iterdir()}
    summary = "meets every limit" if done.returncode == 0 else "No point meets every limit"
    assert summary in done.stdout


def test_folders_and_files_exist() -> None:
    """What the README links to and lists is there."""
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", README) if not target.startswith("http")]
    files = README.split("## The files")[1]
    listed = re.findall(r"`([a-z]+)/`", files)
    assert len(listed) >= 7
    for target in [*links, *listed]:
        assert (ROOT / target).exists(), target


def test_studies_named_exist() -> None:
    """Every ``python -m`` command that figures come from is a module here."""
    modules = {command[2] for command in commands("sh") if command[:2] == ["python", "-m"]}
    assert len(modules) >= 3
    for module in modules:
        assert (ROOT / (module.removeprefix("bitfront.").replace(".", "/") + ".py")).is_file(), module
