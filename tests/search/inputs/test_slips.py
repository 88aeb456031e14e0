"""Slips in a workload of one's own: each is met before anything expensive, in words that name the slip."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.search.command_line import enter, outcome, write_files

GOOD = """
import numpy as np, sys
from pathlib import Path
from bitfront.core import Labelled, top1
from tests.search.command_line import labels, samples

class Mine:
    name = "mine"
    model = Path("net.onnx")
    calibration = {"input": samples(16)}
    evaluation = Labelled(inputs={"input": samples()}, labels=labels())
    metric = staticmethod(top1)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a network, and without the modules of earlier tests."""
    enter(tmp_path, monkeypatch)
    write_files(tmp_path)
    return tmp_path


def said_of(body: str, capsys: pytest.CaptureFixture[str], attribute: str = "workload") -> str:
    """What the main job says of a workload with some parts written otherwise."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    Path("mine.py").write_text(f"{GOOD}\nclass Slip(Mine):\n{lines}\nworkload = Slip()\n")
    sys.modules.pop("mine", None)
    code = outcome(["--workload", f"mine:{attribute}", "--max-drop", "0.5", "--quiet", "--out", "run"])
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Traceback" not in said
    return said


SLIPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "metric became a method": (
        "def score(outputs, labels): return 1.0\nmetric = score",
        ("metric: 'score'", "metric = staticmethod(score)"),
    ),
    "metric is a class": ("metric = type('Score', (), {})", ("metric is the class Score", "expected a function")),
    "metric takes one argument": ("metric = staticmethod(lambda outputs: 1.0)", ("cannot be called with",)),
    "metric is async": ("async def metric(self, outputs, labels): return 1.0", ("metric is an async function",)),
    "metric is a generator": ("def metric(self, outputs, labels): yield 1.0", ("metric is a generator",)),
    "metric is unknown": ("metric = 'top9'", ("unknown metric 'top9'", "built in: top1, top5, f1")),
    "metric is no function": ("metric = 0.9", ("metric is a float",)),
    "metric raises": (
        "def metric(self, outputs, labels): raise ValueError('mine')",
        ("mine.py:", "ValueError: mine", "the first samples of mine"),
    ),
    "metric leaves Python": ("def metric(self, outputs, labels): sys.exit(0)", ("mine.py:", "SystemExit: 0")),
    "name is no text": ("name = 7", ("name is an int, expected text",)),
    "name is empty": ("name = ' '", ("name is a str, expected text",)),
    "name raises": ("@property\ndef name(self): raise OSError('gone')", ("name failed at", "mine.py:", "gone")),
    "model is missing": ("model = 'gone.onnx'", ("'gone.onnx': expected an ONNX file, but it does not exist",)),
    "model is a folder": ("model = Path('.')", ("but it is a folder",)),
    "model is a number": ("model = 3", ("model is an int, expected a torch.nn.Module",)),
    "model is a class": (
        "import torch\nmodel = torch.nn.Linear",
        ("expected a torch.nn.Module", "make an instance of it"),
    ),
    "model leaves Python": (
        "@property\ndef model(self): sys.exit('gone')",
        ("SystemExit: gone", "mine.py"),
    ),
    "calibration is an array": ("calibration = samples(16)", ("calibration is an ndarray", "write {'input': x}")),
    "calibration is a list": ("calibration = [samples(16)]", ("calibration is a list",)),
    "calibration is a loader": (
        "import torch\ncalibration = torch.utils.data.DataLoader([1])",
        ("calibration is a DataLoader", "all samples in it"),
    ),
    "calibration has numbers for names": ("calibration = {0: samples(16)}", ("has the key 0",)),
    "calibration of arrays of arrays": (
        "calibration = {'input': np.array([samples(1), None], dtype=object)}",
        ("calibration': array 'input' holds Python objects",),
    ),
    "calibration named nearly right": (
        "calibration = {'inputs': samples(16)}",
        ("'inputs' may be meant for 'input'",),
    ),
    "evaluation is a pair": (
        "evaluation = (samples(), labels())",
        ("evaluation is a tuple, expected bitfront.core.Labelled",),
    ),
    "evaluation's inputs are an array": (
        "evaluation = Labelled(inputs=samples(), labels=labels())",
        ("evaluation.inputs is an ndarray, expected a mapping",),
    ),
    "labels are missing": (
        "evaluation = Labelled(inputs={'input': samples()}, labels=None)",
        ("array 'labels' is a NoneType",),
    ),
    "labels are fewer": (
        "evaluation = Labelled(inputs={'input': samples()}, labels=labels(7))",
        ("fewer labels than inputs: expected 40, got 7",),
    ),
    "labels are one column": (
        "evaluation = Labelled(inputs={'input': samples()}, labels=labels()[:, None])",
        ("(40, 1)", "labels.ravel()"),
    ),
    "batch_size is true": ("batch_size = True", ("expected a positive whole batch_size, got True",)),
    "batch_size is text": ("batch_size = '8'", ("expected a positive whole batch_size, got '8'",)),
    "a part is missing": (
        "from types import SimpleNamespace\npart = SimpleNamespace(name=1, model=1, calibration=1, evaluation=1)",
        ("without metric",),
    ),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_is_named(slip: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, the attribute by name, and what to write instead."""
    body, words = SLIPS[slip]
    said = said_of(body, capsys, "workload.part" if "part =" in body else "workload")
    for word in words:
        assert word in said
    assert not Path("run").exists() or not list(Path("run").glob("cache/ranges*")), "nothing was calibrated"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("import sys\nsys.exit(4)", ("mine.py:2", "SystemExit: 4"), id="exits when imported"),
        pytest.param("async def make(data): return 1", ("gave a coroutine",), id="async function"),
        pytest.param("def make(data): yield 1", ("gave a generator",), id="generator"),
        pytest.param("def make(data): return make(data)", ("RecursionError", "mine.py:1"), id="endless"),
        pytest.param("def make(data): raise BaseException('odd')", ("BaseException: odd", "mine.py:1"), id="odd"),
        pytest.param("def __getattr__(name): raise OSError(name)", ("mine.py:1", "OSError"), id="attribute raises"),
    ],
)
def test_a_function_that_makes_no_workload(
    code: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever making the workload raises is one sentence with the person's own line."""
    Path("mine.py").write_text(code)
    assert outcome(["--workload", "mine:make"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("code", "words"),
    [
        pytest.param("def make(): raise OSError('no licence')", ("mine.py:1", "no licence"), id="raises"),
        pytest.param("def make(): return 3", ("type int without name",), id="number"),
        pytest.param("make = 3", ("is of type int, expected a class or function",), id="no function"),
    ],
)
def test_a_backend_of_ones_own(code: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """A backend that cannot be made is named like a workload that cannot."""
    Path("mine.py").write_text(code)
    net = ["--model", "net.onnx", "--calib", "calib.npz", "--eval", "eval.npz"]
    assert outcome([*net, "--backend", "mine:make"]) == 2
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_a_storage_that_cannot_be_written_shows_before_calibration(capsys: pytest.CaptureFixture[str]) -> None:
    """A database URL that leads nowhere ends the run before ranges are found."""
    net = ["--model", "net.onnx", "--calib", "calib.npz", "--eval", "eval.npz", "--quiet", "--out", "run"]
    assert outcome([*net, "--storage", "sqlite:////nowhere/at/all.db"]) == 2
    assert "--storage" in capsys.readouterr().err
    assert not list(Path("run").glob("cache/*"))


def test_per_cent_beside_a_fraction_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """A metric in per cent makes every point meet a limit that is a fraction."""
    Path("mine.py").write_text("def percent(outputs, labels): return 100.0 * (outputs[0].argmax(1) >= 0)\n")
    net = ["--model", "net.onnx", "--calib", "calib.npz", "--eval", "eval.npz", "--trials", "1", "--out", "run"]
    outcome([*net, "--metric", "mine:percent", "--min-acc", "0.9", "--sensitivity-samples", "2"])
    assert "--min-acc 90" in capsys.readouterr().err
