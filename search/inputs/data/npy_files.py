"""``.npy`` files: one for a network of one input, or ``NAME=FILE.npy,…``, one per input, ``labels`` among them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bitfront.core import Array, DataError, UsageError
from bitfront.core.files import check_readable
from bitfront.search.inputs.arrays import LABELS
from bitfront.search.inputs.data.base import DataRequest, LoadedData, check_room, missing_labels
from bitfront.search.inputs.values import LABEL_KINDS, NUMBERS, check_dtype

_SUFFIX = ".npy"


@dataclass(frozen=True, slots=True)
class NpyFiles:
    """The loader; all samples are read, in the files' order."""

    form: str = "npy"
    described: str = "an .npy file, or NAME=FILE.npy for each input"
    options: Mapping[str, str] = field(default_factory=dict)
    sequences: bool = True

    def recognises(self, spec: str) -> bool:
        """Whether the name ends so, and is no folder's."""
        return spec.lower().endswith(_SUFFIX) and not os.path.isdir(spec)

    def check(self, spec: str, option: str) -> None:
        """Refuse files that cannot be read.

        Raises:
            DataError: If one cannot.
            UsageError: If a part of the option is no ``NAME=FILE.npy``.
        """
        for path in _paths(spec, option).values():
            check_readable(path, DataError, "an .npy file", "write one with numpy.save", option=option)

    def load(self, request: DataRequest) -> LoadedData:
        """Read the arrays.

        Raises:
            DataError: If a file is damaged, an array does not fit, or labels are missing.
        """
        paths = _paths(request.spec, request.option)
        if "" in paths:
            paths = {request.only_input(): paths[""]}
        request.check_names(paths, request.spec)
        if request.labelled and LABELS not in paths:
            listed = ",".join(f"{name}={path}" for name, path in paths.items())
            raise missing_labels(request, f"name a file of them too: --eval {listed},{LABELS}=labels.npy")
        check_room(sum(path.stat().st_size for path in paths.values()), request.where)
        arrays = {
            name: read_npy(path, LABEL_KINDS if name == LABELS else NUMBERS)
            for name, path in paths.items()
            if name != LABELS or request.labelled
        }
        return request.loaded(arrays, arrays.get(LABELS), self.form)


def read_npy(path: Path, kinds: str) -> Array:
    """The array of an ``.npy`` file; nothing that numpy would have to unpickle.

    Args:
        path: The file.
        kinds: ``numpy.dtype.kind`` of what is welcome.

    Raises:
        DataError: If the file is damaged, or holds what is not welcome.
    """
    check_readable(path, DataError, "an .npy file", "write one with numpy.save")
    try:
        # Mapped first: a header that promises more than the file holds is refused before memory is taken.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError, OverflowError) as error:
        raise DataError(
            f"'{path}' is no complete .npy file of numbers ({str(error)[:120]})", "write it again with numpy.save"
        ) from error
    if not isinstance(mapped, np.ndarray):
        raise DataError(f"'{path}' is an archive of arrays, expected an .npy file", "name it .npz")
    check_dtype(mapped.dtype, f"'{path}'", kinds)
    return np.array(mapped)


def _paths(spec: str, option: str) -> dict[str, Path]:
    """Array name → file; one file alone under an empty name."""
    if os.path.exists(spec) or "=" not in spec:
        return {"": Path(spec)}
    found: dict[str, Path] = {}
    for part in spec.split(","):
        name, _, path = part.strip().partition("=")
        if not name or not path:
            raise UsageError(
                f"{option}: expected NAME=FILE.npy with commas between, got '{part[:80]}'",
                f"as in {option} input_ids=ids.npy,attention_mask=mask.npy",
            )
        if name in found:
            raise UsageError(f"{option}: '{name}' is named twice in '{spec[:80]}'", "name each input once")
        found[name] = Path(path)
    return found
