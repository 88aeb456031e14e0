"""A text file, one sample a line, tokenised as the network was trained with; its labels in a file of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bitfront.core import DataError
from bitfront.core.files import check_readable
from bitfront.search.inputs.data.base import DataRequest, LoadedData, missing_labels
from bitfront.search.inputs.data.lines import read_lines, whole_labels
from bitfront.search.inputs.data.tokens import OPTIONS, check_library, tokenised

_OPTIONS = {
    **OPTIONS,
    "samples": "lines read at most, from the first on",
    "labels": "file with a label a line",
    "columns": "NAME:FIELD, …: input that input_ids, attention_mask or token_type_ids go to",
}


@dataclass(frozen=True, slots=True)
class TextFile:
    """The loader; samples are in the file's order. Empty lines are left out for calibration, refused with labels."""

    form: str = "text"
    described: str = "a text file, .txt"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)
    sequences: bool = False

    def recognises(self, spec: str) -> bool:
        """Whether the name ends so, and is no folder's."""
        return spec.lower().endswith(".txt") and not os.path.isdir(spec)

    def check(self, spec: str, option: str) -> None:
        """Refuse a file that cannot be read, or text where nothing tokenises it.

        Raises:
            DataError: If the file cannot be read.
            UsageError: If the library is missing.
        """
        check_readable(Path(spec), DataError, "a text file", option=option)
        check_library(spec, option)

    def load(self, request: DataRequest) -> LoadedData:
        """Read and tokenise the lines.

        Raises:
            DataError: If the file is no text, there is no tokenizer, or labels are missing.
        """
        lines = read_lines(Path(request.spec), "a text file")
        labels = None
        if request.labelled:
            labels = self._labels(request, lines)
        else:
            lines = [line for line in lines if line.strip()]
        lines = lines[: request.most]
        arrays, detail = tokenised(lines, request, request.options.pairs("columns"))
        found = None if labels is None else np.array(labels[: len(lines)], np.int64)
        return request.loaded(arrays, found, self.form, detail)

    def _labels(self, request: DataRequest, lines: list[str]) -> list[int]:
        path = request.options.path("labels")
        if path is None:
            raise missing_labels(request, "write a label a line in a file: --data-options labels=labels.txt")
        empty = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
        if empty is not None:
            raise DataError(f"'{request.spec}': line {empty} is empty", "write a sample a line, as labels are")
        labels = whole_labels(read_lines(path, "a file of labels"), str(path))
        if len(labels) != len(lines):
            raise DataError(
                f"'{path}': expected {len(lines)} labels, one a line of '{request.spec}', got {len(labels)}",
                "write a label for each sample",
            )
        return labels
