"""An ``.npz`` file: one array per network input, all samples in it, and ``labels`` for evaluation."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitfront.core import DataError
from bitfront.core.files import check_readable
from bitfront.search.inputs.arrays import LABELS, MissingLabelsError, listed
from bitfront.search.inputs.data.archive import array_names, read_npz
from bitfront.search.inputs.data.base import DataRequest, LoadedData


@dataclass(frozen=True, slots=True)
class NpzFile:
    """The loader; all samples are read, in the file's order."""

    form: str = "npz"
    described: str = "an .npz file"
    options: Mapping[str, str] = field(default_factory=dict)
    sequences: bool = True

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
        path = Path(request.spec)
        names = array_names(path)
        if request.labelled and LABELS not in names:
            raise _without_labels(names, request)
        request.check_names(names, request.spec)
        wanted = tuple(request.reference.input_shapes)
        arrays = read_npz(path, wanted, labels=LABELS if request.labelled else None)
        return request.loaded(arrays, arrays.get(LABELS), self.form)


def _without_labels(names: Sequence[str], request: DataRequest) -> DataError:
    inputs = request.reference.input_shapes
    others = [name for name in names if name not in inputs]
    expected = f"{request.where}: expected an array named '{LABELS}' beside the inputs, got {listed(names)}"
    if others and set(inputs) - set(request.state.values()) <= set(names):
        return DataError(expected, f"name '{others[0]}' so if it holds them")
    request.check_names(names, request.spec)
    return MissingLabelsError(
        expected, f"add it, for example numpy.savez('{Path(request.spec).name}', ..., {LABELS}=y)"
    )
