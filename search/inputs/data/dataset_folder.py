"""A folder that ``datasets.Dataset.save_to_disk`` wrote: pyarrow reads its Arrow files, ``datasets`` is not needed.

A column of images is prepared like a folder of images, one of text like a text file, one of numbers is an array as it
is. Rows are in an order that is shuffled with a fixed seed, since such sets are often sorted by class.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bitfront.core import Array, DataError
from bitfront.search.inputs.arrays import LABELS
from bitfront.search.inputs.data import tokens
from bitfront.search.inputs.data.arrow_files import numbers, read_table
from bitfront.search.inputs.data.base import DataRequest, LoadedData, library, missing_labels, shuffled
from bitfront.search.inputs.images import pixels
from bitfront.search.inputs.images.images import prepared_images

STATE_FILE, INFO_FILE, SPLITS_FILE = "state.json", "dataset_info.json", "dataset_dict.json"
_OPTIONS = {
    **pixels.OPTIONS,
    **tokens.OPTIONS,
    "samples": "rows read at most",
    "columns": "NAME:COLUMN, …: column of each input and of labels (default: those named alike)",
}
_TEXT = ("string", "large_string")


@dataclass(frozen=True, slots=True)
class DatasetFolder:
    """Loader of data sets on disk."""

    form: str = "dataset"
    described: str = "a folder of datasets.Dataset.save_to_disk"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)
    sequences: bool = False

    def recognises(self, spec: str) -> bool:
        """Whether it is a folder with the files that describe a data set."""
        here = {name: os.path.isfile(os.path.join(spec, name)) for name in (SPLITS_FILE, STATE_FILE, INFO_FILE)}
        return here[SPLITS_FILE] or (here[STATE_FILE] and here[INFO_FILE])

    def check(self, spec: str, option: str) -> None:
        """Refuse a folder of several splits, and any where nothing reads it.

        Raises:
            DataError: If there are several splits.
            UsageError: If pyarrow is missing.
        """
        if (Path(spec) / SPLITS_FILE).is_file():
            splits = sorted(path.parent.name for path in Path(spec).glob(f"*/{STATE_FILE}"))
            raise DataError(
                f"{option}: '{spec}': holds the splits {', '.join(splits) or 'none'}, expected one",
                f"name one: {option} {Path(spec) / (splits or ['train'])[0]}",
            )
        library("pyarrow.ipc", "pyarrow", "datasets", f"{option}: '{spec}': reading a data set")

    def load(self, request: DataRequest) -> LoadedData:
        """Read the columns that are needed.

        Raises:
            DataError: If a file is damaged, a column is missing or does not fit.
        """
        folder = Path(request.spec)
        kinds = _features(folder / INFO_FILE)
        files = [folder / str(entry["filename"]) for entry in _read_json(folder / STATE_FILE)["_data_files"]]
        named = request.options.pairs("columns")
        columns, labels = _columns(request, kinds, named), _label_column(request, kinds, named)
        table = read_table(files, sorted({*columns.values()} | ({labels} if labels else set())))
        table = table.take(shuffled(len(table), request.most))
        arrays, detail = self._arrays(request, table, kinds, columns, named)
        found = None if labels is None else numbers(table, labels, request.where)
        return request.loaded(arrays, found, self.form, f"in shuffled order, {detail}")

    def _arrays(
        self,
        request: DataRequest,
        table: Any,
        kinds: Mapping[str, str],
        columns: Mapping[str, str],
        named: Mapping[str, str],
    ) -> tuple[dict[str, Array], str]:
        used = {kinds[column] for column in columns.values()}
        if "image" in used:
            name = request.only_input()
            prepared = pixels.preprocessing(request, name)
            images = _images(table.column(columns[name]).to_pylist(), columns[name], request)
            return {name: prepared_images(images, prepared, request)}, prepared.text
        if "text" in used:
            (column,) = set(columns.values())
            texts = table.column(column).to_pylist()
            missing = next((index for index, text in enumerate(texts) if text is None), None)
            if missing is not None:
                raise DataError(f"{request.where}: column '{column}' has a row without text", "fill it, or take it out")
            fields = {name: field for name, field in named.items() if field in tokens.FIELDS}
            return tokens.tokenised(texts, request, fields)
        arrays = {name: numbers(table, column, request.where) for name, column in columns.items()}
        listed = ", ".join(f"{name} from column {column}" for name, column in columns.items())
        return arrays, listed


def _columns(request: DataRequest, kinds: Mapping[str, str], named: Mapping[str, str]) -> dict[str, str]:
    """Input name → column."""
    inputs = list(request.reference.input_shapes)
    found = {name: column for name in inputs if (column := named.get(name, name)) in kinds}
    if len(found) == len(inputs):
        return found
    for name in inputs:
        if name in named and named[name] not in kinds and named[name] not in tokens.FIELDS:
            raise _missing(request, f"has no column '{named[name]}'", kinds)
    texts = [column for column, kind in kinds.items() if kind == "text"]
    pictures = [column for column, kind in kinds.items() if kind == "image"]
    fields = {named.get(name, name) for name in inputs}
    if fields <= set(tokens.FIELDS):
        chosen = [named["text"]] if "text" in named else texts
        if len(chosen) == 1 and kinds.get(chosen[0]) == "text":
            return dict.fromkeys(inputs, chosen[0])
        raise _missing(request, f"has {len(texts)} columns of text to tokenise, expected one", kinds, "text")
    if len(inputs) == 1 and len(pictures) == 1:
        return {inputs[0]: pictures[0]}
    lacking = next(name for name in inputs if name not in found)
    raise _missing(request, f"has no column for the network's input '{lacking}'", kinds, lacking)


def _label_column(request: DataRequest, kinds: Mapping[str, str], named: Mapping[str, str]) -> str | None:
    if not request.labelled:
        return None
    for name in (named[LABELS],) if LABELS in named else (LABELS, "label"):
        if name in kinds:
            return name
    raise missing_labels(request, f"name the column: --data-options columns={LABELS}:COLUMN, of {', '.join(kinds)}")


def _missing(request: DataRequest, what: str, kinds: Mapping[str, str], name: str = "NAME") -> DataError:
    listed = ", ".join(f"'{column}' ({kind})" for column, kind in kinds.items()) or "none"
    return DataError(
        f"{request.where}: {what}; columns: {listed}", f"name the column: --data-options columns={name}:COLUMN"
    )


def _features(path: Path) -> dict[str, str]:
    """Column → ``image``, ``text`` or ``numbers``."""
    found = _read_json(path).get("features")
    if not isinstance(found, Mapping):
        raise DataError(f"'{path}': has no features", "write the data set again with save_to_disk")

    def kind(feature: object) -> str:
        if isinstance(feature, Mapping) and feature.get("_type") == "Image":
            return "image"
        if isinstance(feature, Mapping) and feature.get("dtype") in _TEXT:
            return "text"
        return "numbers"

    return {str(name): kind(feature) for name, feature in found.items()}


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or (path.name == STATE_FILE and not found.get("_data_files")):
            raise ValueError("it does not describe a data set")
        if found.get("_indices_files"):
            raise ValueError("its rows were selected without being written: call flatten_indices() before saving")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"'{path}' cannot be read ({str(error)[:160]})", "write the data set again with save_to_disk"
        ) from error
    return found


def _images(rows: Sequence[Any], column: str, request: DataRequest) -> list[Path | bytes]:
    found: list[Path | bytes] = []
    for index, row in enumerate(rows):
        if isinstance(row, Mapping) and row.get("bytes"):
            found.append(row["bytes"])
        elif isinstance(row, Mapping) and row.get("path"):
            found.append(Path(request.spec) / row["path"])
        else:
            raise DataError(
                f"{request.where}: column '{column}': row {index} holds no image", "fill it, or take it out"
            )
    return found
