"""Random calibration data: drawn only where it is asked for, and said wherever a result is shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from bitfront.core import DataError, UsageError
from bitfront.report.results import RunResults
from bitfront.report.summary import RANDOM_RANGES, summarise_run
from bitfront.search.inputs.data.base import EVAL
from bitfront.search.inputs.data.random_data import RANDOM_WARNING
from bitfront.search.inputs.data.registry import check_data
from tests.search.command_line import enter, outcome, write_files
from tests.search.inputs.data.reading import VOCABULARY, image_network, read, text_network


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    enter(tmp_path, monkeypatch)
    return tmp_path


def test_drawn_from_shape_and_type() -> None:
    """Normal numbers of the input's shape, the same for a seed and others for another."""
    first = read(image_network(), "random")
    pixels = first.inputs["pixels"]
    assert pixels.shape == (128, 3, 8, 8)
    assert pixels.dtype == np.float32
    assert abs(float(pixels.mean())) < 0.02
    assert abs(float(pixels.std()) - 1) < 0.02
    assert first.text == "128 samples of random, drawn with seed 0: no real data"
    np.testing.assert_array_equal(read(image_network(), "random").inputs["pixels"], pixels)
    other = read(image_network(), "random", seed="1", samples="5").inputs["pixels"]
    assert other.shape == (5, 3, 8, 8)
    assert not np.array_equal(other, pixels[:5])


def test_a_fixed_batch_is_filled() -> None:
    """Samples are a whole number of the network's batches."""
    assert len(read(image_network((3, 3, 8, 8)), "random", samples="4").inputs["pixels"]) == 6


def test_tokens_come_from_the_table() -> None:
    """Whole numbers that index a table are drawn from its rows; a mask hides nothing; ``length`` sizes other axes."""
    with pytest.raises(DataError, match="input 'input_ids' has dynamic axes besides the batch") as caught:
        read(text_network(), "random")
    assert "length=N" in caught.value.hint
    inputs = read(text_network(), "random", length="7").inputs
    assert inputs["input_ids"].shape == (128, 7)
    assert set(np.unique(inputs["input_ids"])) == set(range(len(VOCABULARY)))
    assert inputs["attention_mask"].all()
    assert read(text_network(), "random", length="7", high="input_ids:3").inputs["input_ids"].max() == 2
    with pytest.raises(UsageError, match="--data-options high: 'x' is no input of whole numbers"):
        read(text_network(), "random", length="7", high="x:3")


def test_whole_numbers_without_a_table() -> None:
    """Other whole numbers are 1 unless a bound is given."""
    net = image_network(kind=TensorProto.UINT8)
    assert set(np.unique(read(net, "random").inputs["pixels"])) == {1}
    assert read(net, "random", high="pixels:256").inputs["pixels"].max() == 255


def test_evaluation_is_never_random() -> None:
    """Nothing can be scored on random numbers."""
    with pytest.raises(UsageError, match="--eval: 'random': random inputs have no labels"):
        check_data({EVAL: "random"}, ())


def test_random_ranges_are_said_everywhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Results, page, summary and progress say that ranges are random; a run on data says nothing of the kind."""
    files = write_files(folder)
    argv = ["--model", str(files.net), "--eval", str(files.eval), "--trials", "2", "--time-limit", "1s"]
    assert outcome([*argv, "--calib", "random", "--out", "guess"]) in (0, 3)
    shown = capsys.readouterr()
    assert "Activation ranges come from random numbers" in " ".join(shown.out.split())
    assert "ranges from RANDOM data" in " ".join(shown.out.split())
    assert "activation ranges come from random numbers" in " ".join(shown.err.split())
    settings = json.loads((folder / "guess" / "measurement.json").read_text())["settings"]
    assert settings["data"]["calibration"]["form"] == "random"
    page = (folder / "guess" / "report.html").read_text()
    assert 'class="banner"' in page
    assert "drawn with seed 0: no real data" in page
    assert summarise_run(RunResults.load(folder / "guess")).details[0] == RANDOM_RANGES

    assert outcome([*argv, "--calib", str(files.calib), "--out", "real", "--quiet"]) in (0, 3)
    shown = capsys.readouterr()
    assert "random" not in shown.out + shown.err
    assert 'class="banner"' not in (folder / "real" / "report.html").read_text()


def test_random_sensitivities_are_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scores on random inputs are printed and drawn with the warning."""
    files = write_files(folder)
    assert outcome(["sensitivity", "--model", str(files.net), "--calib", "random", "--out", "scores", "--quiet"]) == 0
    assert RANDOM_WARNING in " ".join(capsys.readouterr().out.split())
    assert RANDOM_WARNING in (folder / "scores" / "sensitivity.html").read_text()
