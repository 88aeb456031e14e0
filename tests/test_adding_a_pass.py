"""``docs/adding-a-pass.md``: its example works as it stands there, in a search and from a config."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from bitfront.core import ConfigError, PrecisionConfig, RecipeStep, UsageError
from bitfront.report.results import RunResults
from bitfront.search.passes.options import PassOptions
from bitfront.search.passes.registry import PASSES, applicable, get_pass, pass_of
from tests.search.command_line import enter, outcome
from tests.search.variants.making import samples, workload

PAGE = Path(__file__).resolve().parent.parent / "docs" / "adding-a-pass.md"
NAME = "my_passes:LowRank"
WORKLOAD = """
from tests.search.variants.making import TorchWorkload


class Digits(TorchWorkload):
    students = ()


workload = Digits()
"""
QUICK = ("--precisions", "int8", "--trials", "12", "--train-budget", "0.02", "--sensitivity-samples", "4", "--quiet")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A person's working folder with the page's file and a workload in it."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    enter(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "my_passes.py").write_text(code, encoding="utf-8")
    (tmp_path / "my_digits.py").write_text(WORKLOAD, encoding="utf-8")
    importlib.invalidate_caches()
    yield tmp_path
    for name in ("my_passes", "my_digits"):
        sys.modules.pop(name, None)


def test_the_page_is_short() -> None:
    """A pass in under 100 lines, words included."""
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 100


def test_the_example_takes_part_in_a_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its variants are points that say what they are; a config of one applies by its graph, and by its recipe too.

    The recipe is followed only where the person names the pass.
    """
    command = re.search(r"^    search (--workload .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert command
    assert outcome([*shlex.split(command[1]), *QUICK, "--max-drop", "0.9", "--out", "run"]) in (0, 3)
    results = RunResults.load(folder / "run")
    made = [point for point in results.points.values() if point.network is not None]
    assert {point.network.kind for point in made if point.network} == {"low-rank"}
    point = next(point for point in made if point.network and point.network.label == "rank 50%")
    assert point.id.startswith("rank50-p")
    assert {"fc.0", "fc.1"} < set(point.layers)
    config = PrecisionConfig.load(folder / "run" / str(point.config))
    assert config.recipe is not None
    assert config.recipe.steps[0].name == NAME
    wanted = (folder / "run" / str(point.model)).read_bytes()
    apply = ["apply", f"run/{point.config}", "--workload", "my_digits:workload", "-o", "out.onnx"]
    assert outcome(apply) == 0
    assert Path("out.onnx").read_bytes() == wanted
    capsys.readouterr()
    assert outcome([*apply, "--repeat-training"]) == 2
    assert f"add --passes {NAME}" in capsys.readouterr().err
    assert outcome([*apply, "--repeat-training", "--passes", NAME]) == 0
    assert Path("out.onnx").read_bytes() == wanted
    onnx.checker.check_model(onnx.load("out.onnx"))


def test_the_example_approximates(folder: Path) -> None:
    """At full rank the network computes what it did."""
    assert folder.is_dir()
    found = get_pass(NAME)
    (name,) = PassOptions(passes=(found,)).names.split(",")
    assert name == NAME
    images = torch.from_numpy(np.array(samples(4, 1)["images"]))
    step = RecipeStep(name=NAME, options={"fraction": 1.0})
    module = workload.model
    same = found.apply(step, module, None)  # type: ignore[attr-defined]
    torch.testing.assert_close(same(images), module(images), rtol=1e-4, atol=1e-5)


WRONG = {
    "import": ("no_such:Pass", "there is no module 'no_such'"),
    "kind": ("my_passes:copy", "'my_passes:copy' is a module, expected a StructuralPass"),
    "fails": ("my_passes:factorised", "'my_passes:factorised' failed"),
    "name": ("my_passes:Other", "'my_passes:Other' calls itself 'my_passes:LowRank'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_pass_is_refused(case: str, folder: Path) -> None:
    """By what was named, before anything is loaded."""
    with (folder / "my_passes.py").open("a") as file:
        file.write("\nOther = LowRank\n")
    name, said = WRONG[case]
    with pytest.raises(UsageError, match=f"--passes: .*{said}"):
        get_pass(name)


def test_a_recipe_alone_names_no_code(folder: Path) -> None:
    """A step of another package's pass is applied only by one that a person named."""
    assert folder.is_dir()
    step = RecipeStep(name=NAME, options={"fraction": 0.5})
    with pytest.raises(ConfigError, match=rf"unknown pass '{NAME}'; known passes: prune, .*\n.*--passes {NAME}"):
        pass_of(step, applicable())
    assert "my_passes" not in sys.modules
    assert pass_of(step, applicable([get_pass(NAME)])).name == NAME


def test_every_pass_of_the_table_says_what_it_is() -> None:
    """Names differ, the page and the help list those that may be named."""
    assert len({kind.name for kind in PASSES}) == len(PASSES)
    page = PAGE.read_text(encoding="utf-8")
    for kind in PASSES:
        assert f"`{kind.name}`" in page
        assert kind.summary
