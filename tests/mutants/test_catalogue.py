"""The list of planted bugs keeps up with the code, and the command that runs it tells survivors from the killed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.mutants.catalogue import Mutant, load, selected
from tests.mutants.command import ROOT, Copy, Fate, main

MUTANTS = load()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_can_be_planted(mutant: Mutant) -> None:
    """Its text is there exactly once, a module stays Python with it, and its tests exist."""
    planted = mutant.planted((ROOT / mutant.file).read_text(encoding="utf-8"))
    if mutant.file.endswith(".py"):
        ast.parse(planted)
    for test in mutant.tests:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^    def {name}\b|^def {name}\b", text, re.MULTILINE), test


def test_the_list_is_rich() -> None:
    """Every room is in it, and no mistake stands for itself alone."""
    rooms = {mutant.file.partition("/")[0] for mutant in MUTANTS}
    assert rooms >= {"core", "lowering", "report", "backends", "passes", "sensitivity", "search"}
    assert len(MUTANTS) >= 60


def test_words_select_by_name_and_file() -> None:
    """A word of the name or of the path is enough; no word is all."""
    assert selected(MUTANTS, ()) == MUTANTS
    chosen = selected(MUTANTS, ("gptq",))
    assert 0 < len(chosen) < len(MUTANTS)
    assert all("gptq" in mutant.name or "gptq" in mutant.file for mutant in chosen)


def write_mutants(folder: Path, *entries: str) -> Path:
    (folder / "some.toml").write_text("\n".join(f"[[mutant]]\n{entry}" for entry in entries), encoding="utf-8")
    return folder


def test_entries_that_say_too_little_are_refused(tmp_path: Path) -> None:
    """A missing field, a list without tests and a name taken twice are errors."""
    whole = 'name = "a"\nfile = "f"\ntext = "t"\nbecomes = "u"\nstands_for = "s"\ntests = ["x"]\n'
    (mutant,) = load(write_mutants(tmp_path, whole))
    assert mutant == Mutant(name="a", file="f", text="t", becomes="u", stands_for="s", tests=("x",))
    for entries, message in (
        ((whole, whole), "mutant 'a' is there twice"),
        ((whole.replace('file = "f"\n', ""),), "expected a mutant with name, file"),
        ((whole.replace('["x"]', "[]"),), "expected a mutant with name, file"),
    ):
        with pytest.raises(ValueError, match=message):
            load(write_mutants(tmp_path, *entries))


def test_text_that_is_not_there_once_is_refused() -> None:
    """Gone, there twice, or unchanged: such a mutant would prove nothing."""
    mutant = Mutant(name="a", file="f.py", text="x + 1", becomes="x - 1", stands_for="s", tests=("t",))
    assert mutant.planted("y = x + 1\n") == "y = x - 1\n"
    with pytest.raises(ValueError, match=r"mutant 'a': its text stands 0 times in f\.py"):
        mutant.planted("y = 1\n")
    with pytest.raises(ValueError, match=r"mutant 'a': its text stands 2 times in f\.py"):
        mutant.planted("y = x + 1\nz = x + 1\n")


@pytest.fixture
def tree(tmp_path: Path) -> Copy:
    """A copy of a tree of one function with one test."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "half.py").write_text("def half(x):\n    return x / 2  # of x\n")
    (root / "test_half.py").write_text("from half import half\n\n\ndef test_half():\n    assert half(4) == 2\n")
    return Copy(tmp_path / "copy", root)


@pytest.mark.parametrize(
    ("text", "becomes", "fate", "detail"),
    [
        pytest.param("x / 2", "x * 2", Fate.KILLED, "test_half.py::test_half", id="killed"),
        pytest.param("# of x", "# of it", Fate.SURVIVED, "halves", id="survives"),
        pytest.param("x / 3", "x / 4", Fate.STALE, "stands 0 times", id="stale"),
        pytest.param("x / 2", "x /", Fate.BROKEN, "status", id="broken"),
    ],
)
def test_fates_are_told_apart(tree: Copy, tmp_path: Path, text: str, becomes: str, fate: Fate, detail: str) -> None:
    """And the file is put back, so that the next mutant stands alone."""
    mutant = Mutant(name="m", file="half.py", text=text, becomes=becomes, stands_for="halves", tests=("test_half.py",))
    found = tree.try_out(mutant, 60)
    assert found.fate is fate
    assert detail in found.detail
    assert (tmp_path / "copy" / "half.py").read_text() == "def half(x):\n    return x / 2  # of x\n"
    assert tree.test(["test_half.py"], 60)[0] == 0


def test_unknown_words_select_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A typing error is no success."""
    assert main(["no-such-mutant"]) == 2
    assert "no mutant has such a name or file" in capsys.readouterr().out
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.count("\n") == len(MUTANTS)
