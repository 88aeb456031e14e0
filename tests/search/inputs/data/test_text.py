"""Text files: tokenised as the network's inputs ask, padded only where that is masked."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitfront.core import DataError, UsageError
from bitfront.search.inputs.data.base import CALIB, EVAL
from bitfront.search.inputs.data.registry import check_data
from tests.search.inputs.data.reading import VOCABULARY, read, text_network

pytest.importorskip("tokenizers", reason="tokenizers is not installed")

LINES = "the cat sat\nthe dog sat on the mat\ncat\n"
IDS = [[2, 3, 4, 0, 0, 0], [2, 7, 4, 5, 2, 6], [3, 0, 0, 0, 0, 0]]

OWN = [[2, 3, 4], [2, 7, 4, 5, 2, 6], [3]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer of eight words and three lines of text."""
    monkeypatch.chdir(tmp_path)
    write_tokenizer()
    Path("texts.txt").write_text(LINES)
    return tmp_path


def write_tokenizer(*, length: int | None = None, pad: bool = True) -> None:
    """``tokenizer.json`` of the words in ``VOCABULARY``, made by the library itself."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if pad:
        tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    if length is not None:
        tokenizer.enable_truncation(length)
    tokenizer.save("tokenizer.json")


def test_ids_and_mask() -> None:
    """A line is a sample; samples are padded to the longest, and the mask says where."""
    loaded = read(text_network(), "texts.txt")
    assert loaded.inputs["input_ids"].tolist() == IDS
    assert loaded.inputs["attention_mask"].tolist() == [[int(bool(number)) for number in row] for row in IDS]
    assert loaded.text == ("3 samples of texts.txt, tokenised by tokenizer.json into 1 to 6 tokens, padded to 6")


def test_types_where_they_are_asked_for() -> None:
    """Token types come as an input of that name; one sentence is of type 0."""
    net = text_network(("input_ids", "attention_mask", "token_type_ids")[:2])
    assert set(read(net, "texts.txt").inputs) == {"input_ids", "attention_mask"}
    types = read(text_network(("input_ids", "token_type_ids")), "texts.txt", pad="0").inputs["token_type_ids"]
    assert types.tolist() == [[0] * 6] * 3


def test_inputs_of_other_names() -> None:
    """``columns`` says which input takes what."""
    net = text_network(("words", "kept"))
    with pytest.raises(DataError, match="the network has an input 'words'") as caught:
        read(net, "texts.txt")
    assert "columns=words:input_ids" in caught.value.hint
    found = read(net, "texts.txt", columns="words:input_ids,kept:attention_mask").inputs
    assert found["words"].tolist() == IDS


def test_a_fixed_length() -> None:
    """A network of four tokens gets four: longer samples are cut, shorter ones padded; another length is refused."""
    loaded = read(text_network(tokens=4), "texts.txt")
    assert loaded.inputs["input_ids"].tolist() == [[2, 3, 4, 0], [2, 7, 4, 5], [3, 0, 0, 0]]
    with pytest.raises(UsageError, match="--data-options length: got 5, and the network's inputs take 4 tokens"):
        read(text_network(tokens=4), "texts.txt", length="5")
    assert read(text_network(), "texts.txt", length="9").inputs["input_ids"].shape == (3, 9)


@pytest.mark.parametrize("source", ["tokenizer", "config"])
def test_the_tokenizer_s_own_limit(source: str) -> None:
    """Text is cut where the tokenizer or its config says the network ends."""
    if source == "tokenizer":
        write_tokenizer(length=5)
    else:
        Path("tokenizer_config.json").write_text(json.dumps({"model_max_length": 5}))
    loaded = read(text_network(), "texts.txt")
    assert loaded.inputs["input_ids"].tolist() == [row[:5] for row in IDS]
    assert "cut at 5" in loaded.text


def test_padding_that_would_be_read() -> None:
    """Without a mask samples keep their own lengths, unless padding is named; a fixed length needs it named."""
    net = text_network(("input_ids",))
    loaded = read(net, "texts.txt")
    assert [sample.tolist() for sample in loaded.inputs["input_ids"]] == OWN
    assert "into 1 to 6 tokens, not padded" in loaded.text
    assert read(net, "texts.txt", pad="0").inputs["input_ids"].tolist() == IDS
    with pytest.raises(DataError, match="samples have 1 to 4 tokens, and the network takes 4 and has no attention"):
        read(text_network(("input_ids",), tokens=4), "texts.txt")
    Path("even.txt").write_text("the cat\non mat\n")
    assert read(net, "even.txt").inputs["input_ids"].tolist() == [[2, 3], [5, 6]]


def test_samples_at_their_own_lengths() -> None:
    """``padding=none`` pads nothing: every input of a sample has its length."""
    inputs = read(text_network(), "texts.txt", padding="none").inputs
    assert [sample.tolist() for sample in inputs["input_ids"]] == OWN
    assert [sample.tolist() for sample in inputs["attention_mask"]] == [[1] * len(row) for row in OWN]
    assert inputs["input_ids"][0].dtype == np.int64


def test_a_padding_token_of_the_config() -> None:
    """The token that pads is the tokenizer's, the config's, or an error."""
    write_tokenizer(pad=False)
    with pytest.raises(DataError, match="the tokenizer names no padding") as caught:
        read(text_network(), "texts.txt")
    assert "pad=NUMBER" in caught.value.hint
    Path("tokenizer_config.json").write_text(json.dumps({"pad_token": {"content": "on"}}))
    assert read(text_network(), "texts.txt").inputs["input_ids"][2].tolist() == [3, 5, 5, 5, 5, 5]


def test_labels_of_a_file() -> None:
    """A label a line, as many as lines."""
    with pytest.raises(DataError, match=r"--eval: 'texts\.txt': has no labels") as caught:
        read(text_network(), "texts.txt", EVAL)
    assert "labels=labels.txt" in caught.value.hint
    Path("labels.txt").write_text("1\n0\n1\n")
    assert read(text_network(), "texts.txt", EVAL, labels="labels.txt").labelled.labels.tolist() == [1, 0, 1]
    cut = read(text_network(), "texts.txt", EVAL, labels="labels.txt", samples="2")
    assert cut.labelled.labels.tolist() == [1, 0]


LABELS: Mapping[str, tuple[str, str, str]] = {
    "too few": (LINES, "1\n0\n", r"'labels\.txt': expected 3 labels, one a line of 'texts\.txt', got 2"),
    "no number": (LINES, "1\nyes\n0\n", r"'labels\.txt': label 2: expected a whole number, got 'yes'"),
    "empty line": ("the cat\n\nmat\n", "1\n0\n1\n", r"'texts\.txt': line 2 is empty"),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_that_do_not_fit(case: str) -> None:
    """Labels that cannot be those of the lines are refused with both files."""
    lines, labels, said = LABELS[case]
    Path("texts.txt").write_text(lines)
    Path("labels.txt").write_text(labels)
    with pytest.raises(DataError, match=said):
        read(text_network(), "texts.txt", EVAL, labels="labels.txt")


def test_empty_lines_are_no_calibration_samples() -> None:
    """Paragraphs are told apart by empty lines, which are left out."""
    Path("texts.txt").write_text("the cat\r\n\r\non mat\r\n\r\n")
    assert read(text_network(), "texts.txt").inputs["input_ids"].tolist() == [[2, 3], [5, 6]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("tokenizer.json", b"{}", r"tokenizer\.json' is no readable tokenizer\.json"),
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json' is no readable JSON"),
        ("texts.txt", b"\xff\xfe\xff", r"'texts\.txt': expected a text file in UTF-8"),
        ("texts.txt", b"\n \n", r"'texts\.txt': expected a text file, but it holds empty lines alone"),
    ],
)
def test_damaged_files(name: str, content: bytes, said: str) -> None:
    """Each file that is read is named where it is damaged."""
    Path(name).write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(text_network(), "texts.txt")


def test_without_a_tokenizer() -> None:
    """The file that is missing is named, and where it belongs."""
    Path("tokenizer.json").rename("elsewhere.json")
    with pytest.raises(DataError, match=r"there is no tokenizer\.json beside 'net\.onnx'") as caught:
        read(text_network(), "texts.txt")
    assert "tokenizer=FILE" in caught.value.hint
    assert read(text_network(), "texts.txt", tokenizer="elsewhere.json").inputs["input_ids"].tolist() == IDS


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is missing, the option and the package are named before a network is loaded."""
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"--calib: 'texts\.txt': tokenising text needs tokenizers") as caught:
        check_data({CALIB: "texts.txt"}, ())
    assert "pip install tokenizers" in caught.value.hint
