"""Folders of ``Dataset.save_to_disk``: Arrow files read as images, text or numbers, by their columns."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bitfront.core import DataError, UsageError
from bitfront.search.inputs.data.base import CALIB, EVAL
from bitfront.search.inputs.data.registry import check_data
from tests.search.inputs.data.reading import image_network, read, text_network
from tests.search.inputs.data.test_text import write_tokenizer

pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")

LABEL = {"names": ["a", "b"], "_type": "ClassLabel"}
ROWS = 20
PIXELS = np.random.default_rng(0).standard_normal((ROWS, 3, 8, 8)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(
    columns: Mapping[str, Any], features: Mapping[str, Any], place: str = "ds", *, files: int = 2, **state: Any
) -> None:
    """What ``save_to_disk`` writes: two descriptions, and the rows in Arrow stream files."""
    Path(place).mkdir(parents=True)
    table = pyarrow.table(dict(columns))
    names = [f"data-{index:05d}-of-{files:05d}.arrow" for index in range(files)]
    step = -(-len(table) // files)
    for index, name in enumerate(names):
        with pyarrow.ipc.new_stream(f"{place}/{name}", table.schema) as writer:
            writer.write_table(table.slice(index * step, step))
    told = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", **state}
    Path(place, "state.json").write_text(json.dumps(told))
    Path(place, "dataset_info.json").write_text(json.dumps({"features": dict(features)}))


def write_numbers(**more: Any) -> None:
    label = {"label": np.arange(ROWS) % 2}
    features = {"pixels": {"_type": "Array3D", "dtype": "float32", "shape": [3, 8, 8]}, "label": LABEL}
    write({"pixels": PIXELS.tolist(), **label}, features, **more)


def test_columns_of_numbers() -> None:
    """Nested lists are one array, rows and labels shuffled together; a column named like the input is taken."""
    write_numbers()
    found = read(image_network(), "ds", EVAL)
    order = np.random.default_rng(0).permutation(ROWS)
    np.testing.assert_array_equal(found.inputs["pixels"], PIXELS[order])
    np.testing.assert_array_equal(found.labelled.labels, order % 2)
    assert "pixels from column pixels" in found.text
    assert len(read(image_network(), "ds", samples="5").inputs["pixels"]) == 5


def test_named_columns() -> None:
    """``columns`` names what is called otherwise, labels too; what is missing is listed with what there is."""
    write({"x": PIXELS.tolist(), "kind": list(range(ROWS))}, {"x": {"_type": "Array3D"}, "kind": LABEL})
    with pytest.raises(DataError, match=r"has no column for the network's input 'pixels'; columns: 'x' \(numbers\)"):
        read(image_network(), "ds")
    with pytest.raises(DataError, match="has no column 'y'"):
        read(image_network(), "ds", columns="pixels:y")
    with pytest.raises(DataError, match="has no labels") as caught:
        read(image_network(), "ds", EVAL, columns="pixels:x")
    assert "columns=labels:COLUMN" in caught.value.hint
    found = read(image_network(), "ds", EVAL, columns="pixels:x,labels:kind")
    np.testing.assert_array_equal(found.inputs["pixels"], PIXELS[found.labelled.labels.astype(int)])


@pytest.mark.parametrize("place", ["bytes", "path"])
def test_columns_of_images(place: str) -> None:
    """A column of encoded images is prepared like a folder of them."""
    drawn = np.random.default_rng(1).integers(0, 256, (4, 8, 8, 3), np.uint8)
    rows: list[dict[str, Any]] = []
    for index, pixels in enumerate(drawn):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "png")
        rows.append({"bytes": buffer.getvalue() if place == "bytes" else None, "path": f"{index}.png"})
    write({"image": rows, "label": [0, 1, 0, 1]}, {"image": {"_type": "Image"}, "label": LABEL}, files=1)
    for index, pixels in enumerate(drawn) if place == "path" else ():
        Image.fromarray(pixels).save(f"ds/{index}.png")
    found = read(image_network(), "ds", EVAL, scale="1")
    order = np.random.default_rng(0).permutation(4)
    np.testing.assert_array_equal(found.inputs["pixels"], drawn[order].transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found.labelled.labels, order % 2)


def test_columns_of_text() -> None:
    """The one column of text is tokenised; of several, one has to be named."""
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    write_tokenizer()
    text = {"dtype": "string", "_type": "Value"}
    write({"sentence": ["the cat", "on the mat"]}, {"sentence": text})
    assert sorted(read(text_network(), "ds").inputs["input_ids"].tolist()) == [[2, 3, 0], [5, 2, 6]]
    write({"a": ["cat"], "b": ["dog"]}, {"a": text, "b": text}, "two", files=1)
    with pytest.raises(DataError, match="has 2 columns of text to tokenise, expected one") as caught:
        read(text_network(), "two")
    assert "columns=text:COLUMN" in caught.value.hint
    found = read(text_network(("ids", "attention_mask")), "two", columns="text:b,ids:input_ids")
    assert found.inputs["ids"].tolist() == [[7]]


def test_tokens_of_a_data_set() -> None:
    """A data set that is tokenised and padded already needs no tokenizer."""
    rows = [[2, 3, 0], [5, 2, 6]]
    numbers = {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "Sequence"}
    write(
        {"input_ids": rows, "attention_mask": [[1, 1, 0], [1, 1, 1]]},
        dict.fromkeys(("input_ids", "attention_mask"), numbers),
    )
    assert sorted(read(text_network(), "ds").inputs["input_ids"].tolist()) == rows


def test_tokens_of_different_lengths() -> None:
    """Rows that were not padded keep their lengths."""
    numbers = {"feature": {"dtype": "int64", "_type": "Value"}, "_type": "Sequence"}
    columns = {"input_ids": [[2, 3], [5, 2, 6]], "attention_mask": [[1, 1], [1, 1, 1]]}
    write(columns, dict.fromkeys(columns, numbers))
    found = read(text_network(), "ds").inputs
    assert sorted(sample.tolist() for sample in found["input_ids"]) == [[2, 3], [5, 2, 6]]
    assert sorted(sample.tolist() for sample in found["attention_mask"]) == [[1, 1], [1, 1, 1]]


COLUMNS: Mapping[str, tuple[Any, str]] = {
    "lists that differ": ([[[1.0]], [[1.0], [2.0]]], "column 'pixels': rows have 1 to 2 values"),
    "missing": ([[1.0], None], "column 'pixels': 1 values are missing"),
    "text": (["a", "b"], "column 'pixels' holds string, expected numbers"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_are_no_arrays(case: str) -> None:
    """What cannot become an array is named with its column."""
    values, said = COLUMNS[case]
    write({"pixels": values}, {"pixels": {"_type": "Sequence"}}, files=1)
    with pytest.raises(DataError, match=said):
        read(image_network(), "ds")


def test_several_splits() -> None:
    """A folder of splits is refused with their names, and one to give."""
    write_numbers(place="ds/train")
    Path("ds/dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    with pytest.raises(DataError, match="--calib: 'ds': holds the splits train, expected one") as caught:
        check_data({CALIB: "ds"}, ())
    assert "--calib ds/train" in caught.value.hint
    assert len(read(image_network(), "ds/train").inputs["pixels"]) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("state.json", "{", r"'ds/state\.json' cannot be read"),
        (
            "state.json",
            '{"_data_files": [{"filename": "a"}], "_indices_files": [{"filename": "i"}]}',
            "flatten_indices",
        ),
        ("dataset_info.json", "{}", r"'ds/dataset_info\.json': has no features"),
        ("data-00001-of-00002.arrow", "ARROW", r"data-00001-of-00002\.arrow' is no complete Arrow file"),
    ],
)
def test_damaged_data_sets(name: str, content: str, said: str) -> None:
    """Each file that is read is named where it is damaged."""
    write_numbers()
    Path("ds", name).write_text(content)
    with pytest.raises(DataError, match=said):
        read(image_network(), "ds")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is missing, the option and the package are named before a network is loaded."""
    write_numbers()
    modules: dict[str, Any] = sys.modules
    monkeypatch.setitem(modules, "pyarrow.ipc", None)
    with pytest.raises(UsageError, match="--calib: 'ds': reading a data set needs pyarrow"):
        check_data({CALIB: "ds"}, ())
