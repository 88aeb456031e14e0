"""The pages under ``docs/``: examples work as they stand there, and what is named exists."""

from __future__ import annotations

import importlib
import math
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from bitfront.backends import Backend, get_backend
from bitfront.core import METRICS, Direction, top1
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.passes.prune_groups import Status, find_prune_groups
from bitfront.report.results import RunResults
from bitfront.search.arguments import arguments, pass_arguments
from bitfront.search.commands import main_job
from bitfront.search.inputs.data.registry import LOADERS
from bitfront.search.inputs.loading import load, open_source
from bitfront.search.inputs.passes import check_passes
from bitfront.search.inputs.workloads import load_metric
from bitfront.search.passes.distill import DistillPass
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.prune import PrunePass
from bitfront.search.passes.qat import QatPass
from bitfront.search.passes.registry import selectable
from tests.backends.conformance import BackendConformance
from tests.import_rules import ALLOWED
from tests.search.command_line import enter, outcome, write_files

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "adding-a-backend.md"
PASSES_PAGE = PAGE.with_name("passes.md")
METRIC_PAGE = PAGE.with_name("adding-a-metric.md")
DATA_PAGE = PAGE.with_name("data.md")
ROBUSTNESS_PAGE = PAGE.with_name("robustness.md")
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
NAME = "my_runtime:ReferenceBackend"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A person's folder with the page's file in it, where Python finds modules."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    place = tmp_path_factory.mktemp("person")
    (place / "my_runtime.py").write_text(code, encoding="utf-8")
    before = list(sys.path)
    sys.path.append(str(place))
    importlib.invalidate_caches()
    yield place
    sys.path[:] = before
    sys.modules.pop("my_runtime", None)


class TestTheExample(BackendConformance):
    @pytest.fixture
    def backend(self, folder: Path) -> Backend:
        assert (folder / "my_runtime.py").is_file()
        return get_backend(NAME)


def test_the_page_is_short() -> None:
    """A backend in under 100 lines, words included."""
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 100


def test_the_example_answers_to_its_name(folder: Path) -> None:
    """Backend and dialect are found by ``module:attribute`` and call themselves so."""
    assert (folder / "my_runtime.py").is_file()
    backend = get_backend(NAME)
    assert backend.name == NAME
    assert get_dialect(backend.dialect).name == backend.dialect


def test_the_example_runs_the_main_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's commands work in the folder the file is in, timing in a fresh process included."""
    monkeypatch.chdir(folder)
    files = write_files(folder)
    assert outcome(["backends", NAME]) == 0
    assert "onnx reference" in capsys.readouterr().out
    argv = files.argv("--backend", NAME, "--max-drop", "0.5", "--trials", "3", "--sensitivity-samples", "2", "--quiet")
    assert outcome([*argv, "--precisions", "int8", "--out", str(folder / "run")]) == 0
    assert (folder / "run" / "report.html").is_file()
    apply = ["apply", "run/configs/int8.json", "--model", str(files.net), "-o", "out.onnx"]
    assert outcome(apply) == 2
    assert "add --dialect my_runtime:IntegerDialect" in capsys.readouterr().err
    assert outcome([*apply, "--dialect", "my_runtime:IntegerDialect"]) == 0
    assert Path("out.onnx").read_bytes() == (folder / "run" / "models" / "int8.onnx").read_bytes()


@pytest.fixture
def metric_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder with the metric page's file in it, and the network and data that its command names."""
    (code,) = re.findall(r"```python\n(.*?)```", METRIC_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    enter(tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "my_metrics", raising=False)
    (tmp_path / "my_metrics.py").write_text(code, encoding="utf-8")
    write_files(tmp_path)
    return tmp_path


def test_the_metric_page_is_short_and_names_every_built_in_one() -> None:
    """A metric in under 100 lines, words included."""
    page = METRIC_PAGE.read_text(encoding="utf-8")
    assert len(page.splitlines()) < 100
    built_in = METRIC_PAGE.with_name("metrics.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in built_in for name in METRICS)


def test_the_metric_of_the_page_by_hand(metric_folder: Path) -> None:
    """Of two classes with probabilities ¼ and ¾ the second costs ln 4/3."""
    assert (metric_folder / "my_metrics.py").is_file()
    metric = load_metric("my_metrics:nll")
    found = np.asarray(metric((np.log([[0.25, 0.75], [0.5, 0.5]]),), np.array([1, 0])), dtype=np.float64)
    assert found.tolist() == pytest.approx([math.log(4 / 3), math.log(2)])


def test_the_metric_of_the_page_is_searched_on(metric_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's command works; lower is better in its result, and a limit of the other direction is refused."""
    page = METRIC_PAGE.read_text(encoding="utf-8")
    command = re.search(r"^    search (.*)$", page, re.MULTILINE)
    assert command
    argv = [*shlex.split(command[1]), "--trials", "4", "--sensitivity-samples", "2"]
    assert outcome([*argv, "--out", str(metric_folder / "run")]) in (0, 3)
    printed = capsys.readouterr().out
    assert "Δ error" in printed
    assert "nll on 20 held-out samples, lower is better" in printed
    results = RunResults.load(metric_folder / "run")
    assert (results.metric.name, results.metric.direction, results.metric.unit) == ("nll", Direction.LOWER, "nats")
    assert results.budget.max_rise == 0.05
    assert outcome([*argv, "--min-acc", "0.5", "--out", str(metric_folder / "other")]) == 2
    assert "--min-acc: metric 'nll' is better when lower" in capsys.readouterr().err


@pytest.fixture
def passes_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page on passes with its file in the working folder; its command."""
    text = PASSES_PAGE.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    enter(tmp_path, monkeypatch)
    monkeypatch.delitem(sys.modules, "my_digits", raising=False)
    (tmp_path / "my_digits.py").write_text(code, encoding="utf-8")
    command = re.search(r"^\$ search (.*)$", text, re.MULTILINE)
    assert command
    return command[1]


def test_the_example_of_the_passes_page_brings_what_they_need(passes_example: str) -> None:
    """Options and workload of the page pass every check, and the network has something to prune."""
    args = arguments.parse(main_job.build_parser(), shlex.split(passes_example))
    passes = pass_arguments.passes_of(args)
    assert passes == PassOptions(passes=(PrunePass(), DistillPass(), QatPass()), train_budget_s=300.0)
    opened = open_source(arguments.source_of(args))
    assert opened.workload is not None
    check_passes(opened.workload, opened.label, passes)
    workload, _ = load(opened, None, passes)
    assert isinstance(workload.model, torch.nn.Module)
    assert isinstance(workload.training, Mapping)
    assert list(workload.students) == ["Sequential-1"]
    part = workload.evaluation
    with torch.inference_mode():
        outputs = workload.model.eval()(torch.from_numpy(part.inputs["images"]))
    assert np.mean(np.asarray(top1((outputs.numpy(),), part.labels)) == 1.0) > 0.8
    groups = find_prune_groups(workload.model, workload.training)
    assert any(group.status is Status.PRUNABLE for group in groups)


def test_every_kind_of_input_names_its_tests() -> None:
    """Each row of the page on robustness has tests in its last column, and each of them is there."""
    rows = [line for line in ROBUSTNESS_PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    kinds = [row for row in rows if not row.startswith(("| kind |", "| ---"))]
    assert len(kinds) > 30
    for row in kinds:
        named = re.findall(r"`(tests/[^`]+)`", row.split(" | ")[-1])
        assert named, row
        for test in named:
            assert (ROOT / test).is_file(), test


def test_the_data_page_names_every_key() -> None:
    """Each key of ``--data-options`` and each kind of image is explained."""
    page = DATA_PAGE.read_text(encoding="utf-8")
    keys = {key for loader in LOADERS for key in loader.options}
    assert [key for key in sorted(keys) if f"`{key}`" not in page and f"`{key}=" not in page] == []


def test_the_passes_page_names_every_option() -> None:
    """Each option of the group stands in the page's table with its default."""
    page = PASSES_PAGE.read_text(encoding="utf-8")
    defaults = PrunePass()
    for option, default in (
        ("--passes", "none"),
        ("--train-budget", "auto"),
        ("--sparsities", ",".join(f"{level:g}" for level in defaults.sparsities)),
        ("--round-to", "auto"),
        ("--importance", defaults.importance),
    ):
        assert f"| `{option}` | {default} |" in page
    for name in selectable():
        assert f"| `{name}` |" in page


def test_files_that_the_architecture_names_exist() -> None:
    """A path with folders is one from the root or from a room of it; a bare name is some file's."""
    files = [path.relative_to(ROOT).as_posix() for room in ALLOWED for path in (ROOT / room).rglob("*.py")]
    named = set(re.findall(r"`([\w/]+\.py)`", ARCHITECTURE.read_text(encoding="utf-8"))) - {
        "tests/test_architecture.py"
    }
    assert len(named) > 50
    assert {name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)} == set()


def test_ways_through_the_files_do_not_return() -> None:
    """No way through the files of the architecture passes one twice."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    ways = text.partition("### Four ways through the files")[2].partition("\nWhat a key")[0].split("\n- **")[1:]
    assert len(ways) == 4
    for way in ways:
        passed = re.findall(r"`([\w/]+\.py)`", way)
        assert [path for path in passed if not (ROOT / path).is_file()] == []
        assert len(passed) == len(set(passed)) > 5
