"""``--passes``: options arrive, what cannot work is refused early, what a workload brings is checked."""

from __future__ import annotations

import importlib.util
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bitfront.core import Constraints, DataError, EngineError, Labelled, UsageError, WorkloadError
from bitfront.passes.prune_importance import Importance
from bitfront.search.arguments import arguments, pass_arguments
from bitfront.search.commands import main_job
from bitfront.search.inputs.loading import LoadedWorkload, load, open_source
from bitfront.search.inputs.passes import check_passes
from bitfront.search.inputs.source import Source
from bitfront.search.options import RunOptions
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import IMPORTANCES, PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.passes.sparse import SparsePass, SparsePattern
from bitfront.search.run_folder.identity import RUN_FILE, check_folder, identify, write_run
from tests.search.command_line import Files, enter, outcome, write_files

# A workload whose every part a test may replace: names on the left are assigned after ``class Mine``.
MINE = """
import numpy as np
import torch
from bitfront.core import Labelled, top1

def net(width=6, classes=4):
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(3, width, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    return torch.nn.Sequential(*layers, torch.nn.Linear(width, classes))

def images(count, seed):
    return np.random.default_rng(seed).standard_normal((count, 3, 8, 8)).astype(np.float32)

class Small(torch.nn.Sequential):
    def __init__(self, classes=4):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(192, classes))

class Mine:
    name = "mine"
    metric = staticmethod(top1)
    model = net()
    calibration = {"x": images(16, 1)}
    evaluation = Labelled(inputs={"x": images(40, 2)}, labels=np.arange(40) % 4)
    training = {"x": images(32, 3)}

class Failing:
    @property
    def training(self):
        raise RuntimeError("no disk")

def mine(**parts):
    return type("Mine", (Mine,), parts)()

"""
PRUNE = PassOptions(passes=(PrunePass(),))
DISTILL = PassOptions(passes=(PrunePass(), DistillPass()))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    enter(tmp_path, monkeypatch)
    return write_files(tmp_path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    return tmp_path


def loaded(workload: str, passes: PassOptions = PRUNE) -> LoadedWorkload:
    """What ``load`` makes of an expression for a workload."""
    Path("mine.py").write_text(f"{MINE}\nworkload = {workload}\n")
    return load(open_source(Source(workload="mine:workload")), None, passes)[0]


def passes(*words: str) -> PassOptions | None:
    return pass_arguments.passes_of(arguments.parse(main_job.build_parser(), words))


def test_without_the_option_there_are_no_passes() -> None:
    """A run does without passes unless asked."""
    assert passes() is None


@pytest.mark.parametrize("text", ["distill,qat", "distil, qat", "qat,distill,distil"])
def test_spellings(text: str) -> None:
    """Order, spaces, repetition and the second spelling do not matter."""
    found = passes("--passes", text)
    assert found == PassOptions(passes=(DistillPass(), QatPass()))
    assert found.names == "distill,qat"


def test_auto_is_the_default_of_round_to() -> None:
    """``auto`` may be said."""
    assert passes("--passes", "prune", "--round-to", "auto") == PRUNE


def test_importances_are_those_of_the_pass() -> None:
    """The command line offers what pruning has."""
    assert set(IMPORTANCES) == {importance.value for importance in Importance}


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "unknown": (("--passes", "prun"), "--passes: unknown pass 'prun'.*\nhint: did you mean 'prune'"),
    "nothing": (("--passes", ","), "--passes: expected some of prune,distill,qat,sparse, got nothing"),
    "budget alone": (("--train-budget", "3"), "--train-budget has no effect without --passes"),
    "levels alone": (("--passes", "qat", "--sparsities", "0.5"), "--sparsities has no effect without --passes prune"),
    "multiple alone": (("--round-to", "8"), "--round-to has no effect without --passes prune"),
    "importance alone": (("--passes", "distill", "--importance", "taylor"), "--importance has no effect"),
    "zeros alone": (("--passes", "prune", "--sparse-weights", "2:4"), "--sparse-weights has no effect .* sparse"),
    "no pattern": (("--passes", "sparse", "--sparse-weights", ","), "--sparse-weights: expected patterns, got nothing"),
    "half": (("--passes", "sparse", "--sparse-weights", "half"), "--sparse-weights: expected N:M .*got 'half'"),
    "all zero": (("--passes", "sparse", "--sparse-weights", "1"), "--sparse-weights: .*got '1'"),
    "none zero": (("--passes", "sparse", "--sparse-weights", "4:4"), "--sparse-weights: .*got '4:4'"),
    "no time": (("--passes", "prune", "--train-budget", "0"), "--train-budget: .*minutes, got 0"),
    "endless": (("--passes", "prune", "--train-budget", "inf"), "--train-budget: .*got inf"),
    "no text": (("--passes", "prune", "--train-budget", "soon"), "--train-budget: expected a number, got 'soon'"),
    "everything goes": (("--passes", "prune", "--sparsities", "0.5,1"), "--sparsities: .*between 0 and 1, got 0.5,1"),
    "nothing goes": (("--passes", "prune", "--sparsities", "0"), "--sparsities: .*got 0"),
    "no levels": (("--passes", "prune", "--sparsities", ","), "--sparsities: .*got nothing"),
    "words": (("--passes", "prune", "--sparsities", "half"), "--sparsities: expected a number, got 'half'"),
    "multiple of none": (("--passes", "prune", "--round-to", "0"), "--round-to: expected a positive whole number"),
    "importance": (("--passes", "prune", "--importance", "l1"), "--importance: invalid choice"),
    "onnx": (("--passes", "prune", "--model", "n.onnx"), "--passes needs the torch module"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_make_no_sense(case: str) -> None:
    """An option without meaning, or without effect, is refused by name."""
    words, said = REFUSED[case]
    with pytest.raises(UsageError, match=said):
        passes(*words)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--passes needs the torch module"),
        (("--backend", "ort-cpu,openvino"), "--passes"),
    ],
)
def test_the_command_line_refuses_before_it_loads(
    more: tuple[str, ...], said: str, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an ONNX file nothing is read and nothing is written."""
    files.net.unlink()
    before = sorted(files.folder.iterdir())
    assert outcome(files.argv("--passes", "prune", *more)) == 2
    assert said in capsys.readouterr().err
    assert sorted(files.folder.iterdir()) == before


def test_one_backend_at_a_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Passes with several backends are refused by name."""
    assert outcome(["--passes", "prune", "--backend", "ort-cpu,openvino"]) == 2
    assert "--passes: one backend at a time, got ort-cpu, openvino" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_training_inputs_are_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A workload without training inputs is refused before any of its properties is read."""
    code = """
    class Mine:
        name, metric, evaluation = "mine", print, None
        @property
        def model(self):
            raise RuntimeError("was read")
        calibration = model
    workload = Mine()
    """
    (folder / "mine.py").write_text(textwrap.dedent(code))
    assert outcome(["--workload", "mine:workload", "--passes", "qat"]) == 2
    said = capsys.readouterr().err
    assert "workload 'mine:workload': --passes needs training inputs" in said
    assert "was read" not in said


@pytest.mark.parametrize("given", ["mine()", "mine(students=[])"])
def test_distillation_needs_something_to_train(given: str, folder: Path) -> None:
    """Distillation alone needs students; with pruning it does not."""
    assert folder.is_dir()
    alone = PassOptions(passes=(DistillPass(), QatPass()))
    with pytest.raises(UsageError, match=r"distill has nothing to train.*'mine:workload' has no 'students'"):
        _checked_and_loaded(given, alone)
    assert _checked_and_loaded(given, DISTILL).students == {}
    assert list(_checked_and_loaded("mine(students=[Small()])", alone).students) == ["Small-1"]


def _checked_and_loaded(workload: str, options: PassOptions) -> LoadedWorkload:
    Path("mine.py").write_text(f"{MINE}\nworkload = {workload}\n")
    import sys

    sys.modules.pop("mine", None)
    opened = open_source(Source(workload="mine:workload"))
    assert opened.workload is not None
    check_passes(opened.workload, opened.label, options)
    return load(opened, None, options)[0]


def test_a_missing_library_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pruning says what it needs before anything is loaded; other passes do without it."""
    assert folder.is_dir()
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "bitfront.search.inputs.passes.find_spec", lambda name: None if name == "torch_pruning" else real(name)
    )
    with pytest.raises(
        WorkloadError, match=r"--passes prune needs torch-pruning, which is not installed\nhint: .*torch"
    ):
        _checked_and_loaded("mine()", PRUNE)
    _checked_and_loaded("mine()", PassOptions(passes=(QatPass(),)))


WRONG: dict[str, tuple[str, type[EngineError], str]] = {
    "none": ("mine(training=None)", WorkloadError, "training is a NoneType, expected a mapping of arrays or Labelled"),
    "array": ("mine(training=images(8, 1))", WorkloadError, "training is a ndarray"),
    "fails": ("mine(training=Failing.training)", WorkloadError, "training.*RuntimeError: no disk"),
    "name": ("mine(training={'y': images(8, 1)})", DataError, "training.*'x'.*got 'y'"),
    "shape": ("mine(training={'x': images(8, 1)[..., :5]})", DataError, r"\(n, 3, 8, 8\), got \(8, 3, 8, 5\)"),
    "dtype": ("mine(training={'x': images(8, 1).astype('uint8')})", DataError, "training.*float32, got uint8"),
    "one sample": ("mine(training={'x': images(1, 1)})", DataError, "training.*holds 1 sample, expected 2 or more"),
    "labels": (
        "mine(training=Labelled(inputs={'x': images(8, 1)}, labels=np.full(8, 4)))",
        DataError,
        "training.*labels out of range: expected 0 to 3, got 4 to 4\nhint: labels are optional",
    ),
    "one-hot": (
        "mine(training=Labelled(inputs={'x': images(8, 1)}, labels=np.eye(8)))",
        DataError,
        r"training.*expected shape \(8,\) for training",
    ),
    "onnx": ("mine(model='net.onnx')", WorkloadError, "needs the torch module: model is the ONNX file 'net.onnx'"),
    "no classifier": ("mine(model=torch.nn.Conv2d(3, 4, 3), metric=print)", DataError, "--passes: .*class scores"),
    "students": ("mine(students=Small())", WorkloadError, "students: expected a list of torch modules, got a Small"),
    "no module": ("mine(students=[Small])", WorkloadError, "expected a list of torch modules, got a list of type"),
    "fewer classes": (
        "mine(students=[Small(), Small(3)])",
        WorkloadError,
        r"'Small-2' answers \(2, 3\) to two samples, the network \(2, 4\)",
    ),
    "other inputs": ("mine(students=[torch.nn.Linear(5, 4)])", WorkloadError, "'Linear-1'.*RuntimeError"),
    "augment": ("mine(augment={'mirrors': 1})", WorkloadError, "augment: expected an object with mirror, shift"),
    "augment type": ("mine(augment={'shift': 0.5})", WorkloadError, "augment, shift: expected int, got 0.5"),
    "augment value": ("mine(augment={'mirror': 2})", WorkloadError, "expected mirror in 0…1"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_a_workload_brings_is_checked(case: str, folder: Path) -> None:
    """What does not fit is an error that names the workload, the part, what was expected and what came."""
    assert folder.is_dir()
    workload, kind, said = WRONG[case]
    with pytest.raises(kind, match=f"(?s){said}"):
        loaded(workload, DISTILL)


def test_what_fits_arrives(folder: Path) -> None:
    """Inputs arrive cast, labels as int64, students in order under their names and in their own mode, as they are."""
    assert folder.is_dir()
    found = loaded(
        "mine(training=Labelled(inputs={'x': images(8, 1).astype('float64')}, labels=np.full(8, 3, 'uint8')),"
        " students=[Small(), net()], augment={'mirror': 1, 'shift': 2})",
        DISTILL,
    )
    assert isinstance(found.training, Labelled)
    assert found.training.inputs["x"].dtype == np.float32
    assert found.training.labels.dtype == np.int64
    assert list(found.students) == ["Small-1", "Sequential-2"]
    assert all(student.training for student in found.students.values())
    assert found.augment == {"mirror": 1, "shift": 2}


def test_students_are_left_alone_without_distillation(folder: Path) -> None:
    """What no pass uses is not read."""
    assert folder.is_dir()
    assert loaded("mine(students=[None])", PRUNE).students == {}


def test_students_start_alike(folder: Path) -> None:
    """Networks that a property builds have the same weights each time, and torch's random state is as before."""
    assert folder.is_dir()
    state = torch.random.get_rng_state()
    first, second = (
        loaded("mine(students=property(lambda self: [Small()]))", DISTILL).students["Small-1"] for _ in range(2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_identity_is_as_runs_have_it_on_disk() -> None:
    """Text by text what earlier versions wrote, options of passes that take no part among it; results likewise."""
    options = PassOptions(passes=(SparsePass(sparse_weights=(SparsePattern("2:4"), SparsePattern("0.8"))), QatPass()))
    assert options.identity() == {
        "--passes": "qat,sparse",
        "--sparsities": "0.25,0.5,0.75",
        "--round-to": "auto",
        "--importance": "taylor",
        "--sparse-weights": "2:4,0.8",
    }
    assert options.to_json() == {"passes": "qat,sparse", "train_budget_s": "auto", "sparse_weights": ["2:4", "0.8"]}
    assert replace(DISTILL, train_budget_s=60.0).to_json() == {
        "passes": "prune,distill",
        "train_budget_s": 60.0,
        "sparsities": [0.25, 0.5, 0.75],
        "round_to": "auto",
        "importance": "taylor",
    }


@pytest.mark.parametrize(
    ("passes", "said"),
    [
        ((), "expected some of prune,distill,qat,sparse, got nothing"),
        ((PrunePass(), PrunePass(round_to=8)), "'prune' is given twice"),
    ],
)
def test_passes_that_do_not_go_together(passes: tuple[PrunePass, ...], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PassOptions(passes=passes)


def _identity(workload: LoadedWorkload, options: PassOptions | None) -> dict[str, str]:
    return identify(workload, "net", {}, RunOptions(budget=Constraints(), out=Path("run"), passes=options))


def test_identity(folder: Path) -> None:
    """Everything but the training's budget decides what a run is about; without passes nothing is added."""
    assert folder.is_dir()
    workload = loaded("mine(students=[Small()], augment={'shift': 1})", DISTILL)
    base = _identity(workload, DISTILL)
    assert base == _identity(workload, replace(DISTILL, train_budget_s=1.0))
    assert isinstance(workload.training, dict)
    changes: list[tuple[LoadedWorkload, PassOptions | None]] = [
        (workload, replace(DISTILL, passes=(*DISTILL.passes, QatPass()))),
        (workload, DISTILL.replacing(PrunePass(sparsities=(0.5,)))),
        (workload, DISTILL.replacing(PrunePass(round_to=8))),
        (workload, DISTILL.replacing(PrunePass(importance="fisher"))),
        (replace(workload, augment={}), DISTILL),
        (replace(workload, training={"x": workload.training["x"] + 1}), DISTILL),
        (replace(workload, students={"Small-1": torch.nn.Linear(2, 2)}), DISTILL),
    ]
    for changed, options in changes:
        assert sum(_identity(changed, options)[name] != base[name] for name in base) == 1
    assert set(_identity(workload, None)) < set(base)
    assert json.dumps(base)


@pytest.mark.parametrize(("before", "now"), [(None, DISTILL), (DISTILL, None)], ids=["added", "left out"])
def test_resuming_with_other_passes_is_refused(
    before: PassOptions | None, now: PassOptions | None, folder: Path
) -> None:
    """A run with passes is not continued without them, nor the other way round."""
    workload = loaded("mine()", DISTILL)
    (folder / "run").mkdir()
    write_run(folder / "run", _identity(workload, before), study="s", created="c")
    assert (folder / "run" / RUN_FILE).is_file()
    assert check_folder(folder / "run", _identity(workload, before), resume=True) is not None
    was, is_ = (options.names if options else "none" for options in (before, now))
    with pytest.raises(UsageError, match=rf"--passes \(was {was}, is {is_}\)"):
        check_folder(folder / "run", _identity(workload, now), resume=True)
