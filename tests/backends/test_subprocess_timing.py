"""Timing in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from bitfront.backends import FakeBackend, TimingSettings, time_in_subprocess
from bitfront.core import Artifact, BackendError
from bitfront.core.artifact import save_artifact
from tests.backends import models

_FEW = TimingSettings(slot_ms=0.01, max_runs=2, warmup_runs=1, min_rounds=3, max_rounds=3)
_X = np.ones((2, 2, 4, 4), np.float32)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name, layers in (("fp32", 1), ("deep", 3)):
        found[name] = tmp_path / f"{name}.onnx"
        found[name].write_bytes(models.convolution(layers))
    return found


def test_the_child_times_what_the_parent_would(tmp_path: Path) -> None:
    """On simulated time the other process finds exactly the known latencies; inputs may be called anything."""
    files = {}
    for name, layers in (("fp32", 1), ("deep", 3)):
        names = ["file", *(f"t{index}" for index in range(1, layers)), "y"]
        nodes = [helper.make_node("Relu", [names[i]], [names[i + 1]], name=names[i + 1]) for i in range(layers)]
        files[name] = tmp_path / f"{name}.onnx"
        files[name].write_bytes(models.build(nodes, {"file": ("n", 4)}, {"y": ("n", 4)}, {}))
    x = np.ones((2, 4), np.float32)
    stats = time_in_subprocess("fake", files, "fp32", {"file": x}, _FEW, threads=1, batch_size=2)
    assert list(stats) == ["fp32", "deep"]
    for name, path in files.items():
        assert stats[name].median_ms == pytest.approx(2 * FakeBackend().latency_ms(path.read_bytes()))
    assert stats["deep"].ratio == pytest.approx(3)
    assert stats["deep"].batch_size == 2


def test_it_starts_from_any_folder(files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths are the caller's, modules in the caller's folder shadow none of ours, the real runtime runs."""
    (tmp_path / "backends.py").write_text("raise RuntimeError('shadowed')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    relative = {name: Path(os.path.relpath(path)) for name, path in files.items()}
    stats = time_in_subprocess("ort-cpu", relative, "fp32", {"x": _X}, _FEW, threads=1, batch_size=2)
    assert stats["fp32"].ratio == 1
    assert stats["deep"].median_ms > 0


def test_inputs_keep_their_names(tmp_path: Path) -> None:
    """Each array reaches the input it was given for, whatever their order: shapes that were exchanged would not run."""
    nodes = [helper.make_node("MatMul", ["left", "right"], ["y"], name="y")]
    path = tmp_path / "two.onnx"
    path.write_bytes(models.build(nodes, {"left": ("n", 3), "right": (3, 5)}, {"y": ("n", 5)}, {}))
    arrays = {"right": np.ones((3, 5), np.float32), "left": np.ones((2, 3), np.float32)}
    stats = time_in_subprocess("ort-cpu", {"fp32": path}, "fp32", arrays, _FEW, threads=1, batch_size=2)
    assert stats["fp32"].median_ms > 0


def test_a_broken_file_is_named(files: dict[str, Path]) -> None:
    """What the child said comes through, with the file's name and no traceback."""
    files["deep"].write_bytes(b"no model")
    with pytest.raises(BackendError, match=r"status 2: model 'deep' \('.*deep\.onnx'\): .*refused a model") as caught:
        time_in_subprocess("fake", files, "fp32", {"x": _X}, _FEW, threads=1, batch_size=2)
    assert "Traceback" not in caught.value.message


def test_a_missing_file_is_named(files: dict[str, Path]) -> None:
    """A file that is gone is said to be."""
    files["deep"].unlink()
    with pytest.raises(BackendError, match=r"model 'deep': cannot read '.*deep\.onnx': No such file"):
        time_in_subprocess("fake", files, "fp32", {"x": _X}, _FEW, threads=1, batch_size=2)


def test_session_settings_go_along(files: dict[str, Path]) -> None:
    """The settings that lie beside a model are the child's too, where this backend refuses them."""
    save_artifact(Artifact.onnx(files["deep"].read_bytes(), {"some.setting": "1"}), files["deep"])
    with pytest.raises(BackendError, match=r"model 'deep' .*must be run with some\.setting"):
        time_in_subprocess("fake", files, "fp32", {"x": _X}, _FEW, threads=1, batch_size=2)


# A backend whose models say that they are there, with the process and its descriptors, and then do not end.
STUCK = """\
import os, time
from pathlib import Path
class Stuck:
    name, dialect, clock = "stuck", "ort-cpu", time.perf_counter_ns
    fingerprint = unprofitable_precisions = proxy_backend = None
    def compile(self, model, *, threads, batch_size=None):
        links = [path.resolve() for path in Path("/proc/self/fd").iterdir()]
        text = chr(10).join([str(os.getpid()), *map(str, links)])
        (Path(__file__).parent / "part").write_text(text)
        (Path(__file__).parent / "part").rename(Path(__file__).parent / "started")
        time.sleep(600)
"""
PARENT = """\
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs deaf to it
from pathlib import Path
import numpy as np
from bitfront.backends import TimingSettings, time_in_subprocess
held = open(sys.argv[1] + "/held", "w")
models = {"fp32": Path(sys.argv[1]) / "fp32.onnx"}
time_in_subprocess("stuck:Stuck", models, "fp32", {"x": np.ones(1)}, TimingSettings(), threads=1, batch_size=1)
"""


def _gone(pid: int) -> bool:
    """Whether a process ends within ten seconds; one that nobody has waited for counts."""
    ended = time.monotonic() + 10
    while time.monotonic() < ended:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_child_ends_with_its_parent(tmp_path: Path, files: dict[str, Path], number: int) -> None:
    """However the parent ends; and it was given none of the parent's files."""
    assert files["fp32"].parent == tmp_path
    (tmp_path / "stuck.py").write_text(STUCK, encoding="utf-8")
    (tmp_path / "tmp").mkdir()
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "TMPDIR": str(tmp_path / "tmp")}
    parent = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(parent, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        started = tmp_path / "started"
        while not started.exists() and process.poll() is None:
            time.sleep(0.05)
        pid, *links = started.read_text().splitlines()
        process.send_signal(number)
        process.wait(20)
    assert _gone(int(pid))
    assert not [link for link in links if link.startswith(str(tmp_path / "held"))]
    left = list((tmp_path / "tmp").iterdir())
    assert bool(left) == (number == signal.SIGKILL)
