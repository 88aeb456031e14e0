"""A folder of ``.npz`` files, one a sample or one a part of the samples, in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bitfront.core import Array, DataError
from bitfront.search.inputs.archive import array_names, read_npz
from bitfront.search.inputs.arrays import LABELS, check_names, fits, shown_shape
from bitfront.search.inputs.data.base import DataRequest, LoadedData, check_room, missing_labels

_OPTIONS = {"samples": "files read at most"}


@dataclass(frozen=True, slots=True)
class NpzFolder:
    """The loader.

    An array without the batch axis is one sample; with it, as many as the axis is long. Inputs without a batch axis
    hold one value, the same in every file. ``labels`` is one label, or one a sample of the file.
    """

    form: str = "npz folder"
    described: str = "a folder of .npz files, one a sample"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)

    def recognises(self, spec: str) -> bool:
        """Whether it is a folder with an ``.npz`` file in it."""
        return bool(_files(spec))

    def check(self, spec: str, option: str) -> None:
        """Nothing to refuse: files show when they are read."""

    def load(self, request: DataRequest) -> LoadedData:
        """Read every file.

        Raises:
            DataError: If one is damaged or does not fit, or shapes differ.
        """
        paths = _files(request.spec)[: request.most]
        check_room(sum(path.stat().st_size for path in paths), request.where)
        wanted = tuple(request.reference.input_shapes)
        parts: dict[str, list[tuple[Path, Array]]] = {name: [] for name in wanted}
        labels: list[Array] = []
        for path in paths:
            check_names(array_names(path), request.reference, str(path))
            arrays = read_npz(path, wanted, labels=LABELS if request.labelled else None)
            for name in wanted:
                parts[name].append((path, self._with_batch_axis(arrays[name], name, request, path)))
            if request.labelled:
                if LABELS not in arrays:
                    hint = f"'{path.name}' has none: add the array '{LABELS}' to every file"
                    raise (
                        DataError(f"{request.where}: labels are missing", hint)
                        if labels
                        else missing_labels(request, hint)
                    )
                labels.append(np.atleast_1d(arrays[LABELS]))
        joined = {name: _joined(name, found, request) for name, found in parts.items()}
        detail = f"{len(paths)} files in the order of their names"
        return request.loaded(joined, np.concatenate(labels) if labels else None, self.form, detail)

    def _with_batch_axis(self, array: Array, name: str, request: DataRequest, path: Path) -> Array:
        shape, axis = request.reference.input_shapes[name], request.reference.batching.input_axis(name)
        if axis is None or array.ndim == len(shape):
            return array
        if array.ndim == len(shape) - 1:
            return np.expand_dims(array, axis)
        raise DataError(
            f"'{path}': array '{name}': expected shape {shown_shape(shape, axis)}, or that of one sample without n, "
            f"got {array.shape}",
            "write each sample as the network reads it",
        )


def _files(spec: str) -> list[Path]:
    folder = Path(spec)
    return sorted(path for path in folder.glob("*.npz") if path.is_file()) if os.path.isdir(folder) else []


def _joined(name: str, parts: list[tuple[Path, Array]], request: DataRequest) -> Array | list[Array]:
    """All samples of an input; as a list where their shapes differ along the network's dynamic axes."""
    axis = request.reference.batching.input_axis(name)
    path, first = parts[0]
    for other, array in parts[1:]:
        if axis is None and not np.array_equal(first, array):
            raise DataError(
                f"'{other}': array '{name}' differs from that of '{path.name}', and the network declares no batch axis "
                "for it",
                "give one value, which all samples share",
            )
    if axis is None:
        return first
    for path, array in parts:
        if not fits(array.shape, request.reference.input_shapes[name], axis):
            raise DataError(
                f"'{path}': array '{name}': expected shape "
                f"{shown_shape(request.reference.input_shapes[name], axis)}, got {array.shape}",
                "write each sample as the network reads it, with or without n",
            )
    arrays = [np.moveaxis(array, axis, 0) for _, array in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        return [np.ascontiguousarray(sample) for array in arrays for sample in array]
    return np.concatenate([array for _, array in parts], axis=axis)
