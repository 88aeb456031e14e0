"""Forms of data: each is recognised by its name, each key of ``--data-options`` by its form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitfront.core import DataError, UsageError
from bitfront.search.inputs.data.base import CALIB, EVAL
from bitfront.search.inputs.data.options import split_scopes
from bitfront.search.inputs.data.registry import LOADERS, check_data, find_loader
from tests.search.command_line import Files, enter, outcome, write_files


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    enter(tmp_path, monkeypatch)
    return write_files(tmp_path)


def test_forms_are_told_apart(files: Files) -> None:
    """Names alone decide, and every form has a name and words of its own."""
    for name in ("images", "parts", "ds"):
        (files.folder / name).mkdir()
    (files.folder / "images" / "a.JPG").touch()
    (files.folder / "parts" / "a.npz").touch()
    for name in ("state.json", "dataset_info.json"):
        (files.folder / "ds" / name).touch()
    specs = {
        "random": "random",
        "./random": "npz",
        "x.npy": "npy",
        "a=x.npy,b=y.npy": "npy",
        "x.txt": "text",
        "x.npz": "npz",
        "x": "npz",
        "images": "images",
        "parts": "npz folder",
        "ds": "dataset",
    }
    assert {spec: find_loader(spec, CALIB).form for spec in specs} == specs
    assert len({loader.form for loader in LOADERS}) == len({loader.described for loader in LOADERS}) == len(LOADERS)


def test_a_folder_of_nothing(files: Files) -> None:
    """A folder without data is refused with every form there is."""
    (files.folder / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"--eval: 'empty' is a folder with no data in it: expected .*a folder of images"
    ):
        find_loader("empty", EVAL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([("sise", "8")], "--data-options: 'sise' means nothing to a folder of images and an .npz file"),
        ([("eval:size", "8")], "--data-options: 'size' means nothing to"),
        ([("train:size", "8")], "--data-options: 'train:size' begins with 'train:'"),
        ([("size", "8"), ("size", "9")], "--data-options: 'size' is given twice"),
    ],
    ids=["misspelt", "other's", "scope", "twice"],
)
def test_keys_that_mean_nothing(files: Files, options: list[tuple[str, str]], said: str) -> None:
    """A key that neither form reads is refused before anything is loaded."""
    (files.folder / "images").mkdir()
    (files.folder / "images" / "a.png").touch()
    with pytest.raises(UsageError, match=said) as caught:
        check_data({CALIB: "images", EVAL: str(files.eval)}, options)
    assert caught.value.hint


def test_a_key_for_what_is_not_given(files: Files) -> None:
    """A key of ``--eval`` without ``--eval`` would be ignored."""
    (files.folder / "images").mkdir()
    (files.folder / "images" / "a.png").touch()
    with pytest.raises(UsageError, match="--data-options: 'eval:size' is for --eval, which is not given"):
        check_data({CALIB: "images", EVAL: None}, [("eval:size", "8")])
    check_data({CALIB: "images", EVAL: None}, [("calib:size", "8")])


@pytest.mark.parametrize("spec", ["random", "images", "x.txt"])
def test_forms_that_hold_no_sequences(files: Files, spec: str) -> None:
    """They are refused before the network is loaded."""
    (files.folder / "images").mkdir()
    (files.folder / "images" / "a.png").touch()
    (files.folder / "x.txt").write_text("one", encoding="utf-8")
    with pytest.raises(DataError, match="holds samples of a single step") as caught:
        check_data({CALIB: spec, EVAL: None}, [], sequences=True)
    assert "an .npz file" in caught.value.hint
    check_data({CALIB: str(files.eval), EVAL: None}, [], sequences=True)


def test_scopes() -> None:
    """A key of one option goes before that of both."""
    pairs = [("eval:samples", "9"), ("samples", "4"), ("calib:seed", "1")]
    assert split_scopes(pairs, EVAL) == {"samples": "9"}
    assert split_scopes(pairs, CALIB) == {"samples": "4", "seed": "1"}


def test_options_need_data(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Words that are no pairs, and options of a workload's data, are refused."""
    assert outcome(files.argv("--data-options", "size")) == 2
    assert "--data-options: expected KEY=VALUE, got 'size'" in capsys.readouterr().err
    assert outcome(["--workload", "a:b", "--data-options", "size=8"]) == 2
    assert "--data-options needs --model" in capsys.readouterr().err


def test_a_run_is_known_by_its_arrays(files: Files) -> None:
    """The same samples in another form are the same run: it resumes, and only other samples are refused."""
    with np.load(files.eval) as arrays:
        np.save("x.npy", arrays["input"])
        np.save("y.npy", arrays["labels"])
    common = ["--trials", "2", "--time-limit", "1s", "--quiet", "--out", "run"]
    assert outcome(files.argv(*common)) in (0, 3)
    identity = json.loads((files.folder / "run" / "run.json").read_text())["identity"]
    again = ["--model", str(files.net), "--calib", str(files.calib), "--eval", "input=x.npy,labels=y.npy"]
    assert outcome([*again, *common, "--resume"]) in (0, 3)
    assert json.loads((files.folder / "run" / "run.json").read_text())["identity"] == identity
