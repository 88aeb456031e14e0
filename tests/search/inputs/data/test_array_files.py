"""Arrays in ``.npy`` files and in folders of ``.npz`` files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bitfront.core import DataError, UsageError
from bitfront.search.inputs.data.base import CALIB, EVAL
from bitfront.search.inputs.data.registry import check_data
from tests.search.command_line import write_npz
from tests.search.inputs.data.reading import image_network, read, text_network

PIXELS = np.random.default_rng(0).standard_normal((6, 3, 8, 8)).astype(np.float32)
IDS = np.arange(12).reshape(4, 3) % 8
MASK = np.ones((4, 3), np.int64)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_array_for_one_input() -> None:
    """An ``.npy`` file alone is the network's only input."""
    np.save("x.npy", PIXELS)
    np.testing.assert_array_equal(read(image_network(), "x.npy").inputs["pixels"], PIXELS)
    with pytest.raises(DataError, match=r"'x\.npy': fills one input, and 'net\.onnx' has 2") as caught:
        read(text_network(), "x.npy")
    assert "NAME=FILE.npy" in caught.value.hint


def test_a_file_an_input() -> None:
    """``NAME=FILE.npy`` for each input, and for labels; the order does not matter."""
    np.save("ids.npy", IDS)
    np.save("mask.npy", MASK)
    np.save("y.npy", np.arange(4) % 2)
    found = read(text_network(), "labels=y.npy,attention_mask=mask.npy,input_ids=ids.npy", EVAL)
    assert list(found.inputs) == ["input_ids", "attention_mask"]
    np.testing.assert_array_equal(found.inputs["input_ids"], IDS)
    assert found.labelled.labels.tolist() == [0, 1, 0, 1]
    with pytest.raises(DataError, match="has no labels") as caught:
        read(text_network(), "attention_mask=mask.npy,input_ids=ids.npy", EVAL)
    assert "attention_mask=mask.npy,input_ids=ids.npy,labels=labels.npy" in caught.value.hint
    with pytest.raises(DataError, match="expected arrays named 'input_ids', 'attention_mask'"):
        read(text_network(), "input_ids=ids.npy")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("a=x.npy,b", r"--calib: expected NAME=FILE\.npy with commas between, got 'b'"),
        ("a=x.npy,a=x.npy", "--calib: 'a' is named twice"),
    ],
)
def test_lists_that_are_none(spec: str, said: str) -> None:
    """A part without a name, and a name that comes twice, are refused before anything is read."""
    np.save("x.npy", PIXELS)
    with pytest.raises(UsageError, match=said):
        check_data({CALIB: f"{spec},c=x.npy"}, ())


def test_missing_file() -> None:
    """A file that is not there is named with its option."""
    with pytest.raises(DataError, match=r"--calib: 'no\.npy': expected an \.npy file, but it does not exist"):
        check_data({CALIB: "a=no.npy"}, ())


def test_damaged_npy() -> None:
    """A file cut off anywhere, and objects that would have to be unpickled, are refused."""
    np.save("x.npy", PIXELS)
    whole = Path("x.npy").read_bytes()
    for stop in (4, 60, 200, len(whole) - 1):
        Path("x.npy").write_bytes(whole[:stop])
        with pytest.raises(DataError, match=r"'x\.npy' is no complete \.npy file"):
            read(image_network(), "x.npy")
    np.save("x.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"'x\.npy'"):
        read(image_network(), "x.npy")
    write_npz(Path("y.npz"), {"a": PIXELS})
    Path("y.npz").rename("x.npy")
    with pytest.raises(DataError, match=r"'x\.npy' is an archive of arrays"):
        read(image_network(), "x.npy")


def test_a_file_a_sample() -> None:
    """A folder of samples is read in the order of names, with its labels; parts of several samples as well."""
    Path("parts").mkdir()
    for index in range(4):
        write_npz(Path(f"parts/{index}.npz"), {"pixels": PIXELS[index], "labels": np.array(index % 2)})
    write_npz(Path("parts/9.npz"), {"pixels": PIXELS[4:], "labels": np.array([1, 0])})
    found = read(image_network(), "parts", EVAL)
    np.testing.assert_array_equal(found.inputs["pixels"], PIXELS)
    assert found.labelled.labels.tolist() == [0, 1, 0, 1, 1, 0]
    assert len(read(image_network(), "parts", samples="2").inputs["pixels"]) == 2


def test_files_of_different_lengths() -> None:
    """Samples that differ along a dynamic axis keep their shapes; those that do not fit the network are refused."""
    Path("parts").mkdir()
    for index, length in enumerate((3, 5)):
        ids = np.ones(length, np.int64)
        write_npz(Path(f"parts/{index}.npz"), {"input_ids": ids, "attention_mask": ids})
    write_npz(Path("parts/2.npz"), {"input_ids": IDS, "attention_mask": MASK})
    found = read(text_network(), "parts").inputs
    assert [sample.shape for sample in found["input_ids"]] == [(3,), (5,), *[(3,)] * 4]
    np.testing.assert_array_equal(found["input_ids"][5], IDS[3])
    with pytest.raises(DataError, match=r"'parts/1\.npz': array 'input_ids': expected shape \(n, 3\), got \(1, 5\)"):
        read(text_network(tokens=3), "parts")


def test_files_that_do_not_fit() -> None:
    """The file that does not fit is named, and what was expected of it."""
    Path("parts").mkdir()
    write_npz(Path("parts/1.npz"), {"input_ids": IDS})
    with pytest.raises(DataError, match=r"'parts/1\.npz': expected arrays named 'input_ids', 'attention_mask'"):
        read(text_network(), "parts")
    Path("parts/1.npz").unlink()
    write_npz(Path("parts/0.npz"), {"input_ids": np.ones((1, 1, 3), np.int64), "attention_mask": MASK})
    with pytest.raises(DataError, match=r"'parts/0\.npz': array 'input_ids': expected shape \(n, \?\), or that of one"):
        read(text_network(), "parts")


def test_a_file_without_labels() -> None:
    """The file that lacks labels is named."""
    Path("parts").mkdir()
    write_npz(Path("parts/0.npz"), {"pixels": PIXELS[0]})
    with pytest.raises(DataError, match="--eval: 'parts': has no labels") as caught:
        read(image_network(), "parts", EVAL)
    assert "'0.npz' has none" in caught.value.hint
