"""An ``.npz`` file: one array per network input, all samples in it, and ``labels`` for evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bitfront.core import DataError
from bitfront.core.files import check_readable
from bitfront.search.inputs.arrays import read_inputs, read_labelled
from bitfront.search.inputs.data.base import DataRequest, LoadedData


@dataclass(frozen=True, slots=True)
class NpzFile:
    """The loader; all samples are read, in the file's order."""

    form: str = "npz"
    described: str = "an .npz file"
    options: Mapping[str, str] = field(default_factory=dict)

    def recognises(self, spec: str) -> bool:
        """Whether it is no folder."""
        return not os.path.isdir(spec)

    def check(self, spec: str, option: str) -> None:
        """Refuse a file that cannot be read.

        Raises:
            DataError: If it cannot.
        """
        check_readable(Path(spec), DataError, "an .npz file", "write one with numpy.savez", option=option)

    def load(self, request: DataRequest) -> LoadedData:
        """Read the arrays.

        Raises:
            DataError: If the file is damaged, an array does not fit, or labels are missing.
        """
        path, text = Path(request.spec), f"{request.spec}"
        if not request.labelled:
            return LoadedData(inputs=read_inputs(path, request.reference), labels=None, form=self.form, text=text)
        found = read_labelled(path, request.reference)
        return LoadedData(inputs=found.inputs, labels=found.labels, form=self.form, text=text)
