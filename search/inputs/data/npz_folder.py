"""A folder of ``.npz`` files, one a sample or one a part of the samples, in the order of their names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import Array, DataError
from bitfront.core.ragged import joined
from bitfront.search.inputs.arrays import LABELS, fits, shown_shape
from bitfront.search.inputs.data.archive import array_names, read_npz
from bitfront.search.inputs.data.base import DataRequest, LoadedData, check_room, missing_labels

if TYPE_CHECKING:
    from bitfront.lowering.reference import ReferenceModel

_OPTIONS = {"samples": "files read at most"}


@dataclass(frozen=True, slots=True)
class NpzFolder:
    """Loader of folders of ``.npz`` files, a sample each.

    An array without the batch axis is one sample; with it, as many as the axis is long. Where no input has a batch
    axis, a file is one sample and ``labels`` its label, of any shape; where some have none, those hold one value, which
    may differ by file only if each file is one sample. ``labels`` is one label, or one a sample of the file.
    """

    form: str = "npz folder"
    described: str = "a folder of .npz files, one a sample"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)
    sequences: bool = True

    def recognises(self, spec: str) -> bool:
        """Whether it is a folder with an ``.npz`` file in it."""
        return bool(npz_files(spec))

    def check(self, spec: str, option: str) -> None:
        """Refuse nothing: damaged files show when they are read."""

    def load(self, request: DataRequest) -> LoadedData:
        """Read every file.

        Raises:
            DataError: If one is damaged or does not fit, or shapes differ.
        """
        paths = npz_files(request.spec)[: request.most]
        check_room(sum(path.stat().st_size for path in paths), request.where)
        files = [_arrays(path, request) for path in paths]
        labels = _labels(paths, files, request) if request.labelled else []
        detail = f"{len(paths)} files in the order of their names"
        if request.state:
            sequences = _sequences(files, request)
            return request.loaded(sequences, joined(labels) if labels else None, self.form, detail)
        parts = {
            name: [
                (path, _with_batch_axis(arrays[name], name, request, path))
                for path, arrays in zip(paths, files, strict=True)
            ]
            for name in request.reference.input_shapes
        }
        counts = [_samples_in(index, parts, request.reference) for index in range(len(paths))]
        one_each = _has_no_batch(request.reference)
        inputs = {name: _joined(name, found, counts, request) for name, found in parts.items()}
        return request.loaded(inputs, _joined_labels(labels, one_each=one_each) if labels else None, self.form, detail)


def _arrays(path: Path, request: DataRequest) -> dict[str, Array]:
    request.check_names(array_names(path), str(path))
    return read_npz(path, tuple(request.reference.input_shapes), labels=LABELS if request.labelled else None)


def _labels(paths: Sequence[Path], files: Sequence[Mapping[str, Array]], request: DataRequest) -> list[Array]:
    without = next((path for path, arrays in zip(paths, files, strict=True) if LABELS not in arrays), None)
    if without is None:
        return [arrays[LABELS] for arrays in files]
    hint = f"'{without.name}' has none: add the array '{LABELS}' to every file"
    if any(LABELS in arrays for arrays in files):
        raise DataError(f"{request.where}: labels are missing", hint)
    raise missing_labels(request, hint)


def _sequences(files: Sequence[Mapping[str, Array]], request: DataRequest) -> dict[str, object]:
    """A sequence a file, as ``check_sequences`` reads them."""
    found: dict[str, object] = {}
    for name in request.reference.input_shapes:
        values = [arrays[name] for arrays in files if name in arrays]
        if values and len(values) < len(files):
            raise DataError(
                f"{request.where}: {len(values)} of {len(files)} files have an array '{name}'",
                "give a state's first value in every file or in none",
            )
        if values:
            found[name] = values
    return found


def _with_batch_axis(array: Array, name: str, request: DataRequest, path: Path) -> Array:
    shape, axis = request.reference.input_shapes[name], request.reference.batching.input_axis(name)
    if axis is None or array.ndim == len(shape):
        return array
    if array.ndim == len(shape) - 1:
        return np.expand_dims(array, axis)
    raise DataError(
        f"'{path}': array '{name}': expected shape {shown_shape(shape, axis)}, or that of one sample without n, "
        f"got {array.shape}",
        f"write each sample as the network reads it; if n is another axis, say so with --batch-axis {name}=AXIS",
    )


def npz_files(spec: str) -> list[Path]:
    """The ``.npz`` files of a folder in the order of their names; none where it is no folder."""
    folder = Path(spec)
    return sorted(path for path in folder.glob("*.npz") if path.is_file()) if os.path.isdir(folder) else []


def _has_no_batch(reference: ReferenceModel) -> bool:
    return all(reference.batching.input_axis(name) is None for name in reference.input_shapes)


def _samples_in(index: int, parts: Mapping[str, list[tuple[Path, Array]]], reference: ReferenceModel) -> int:
    """Samples in a file: those along the batch axis of the first input that has one."""
    axes = {name: reference.batching.input_axis(name) for name in parts}
    return next((parts[name][index][1].shape[axis] for name, axis in axes.items() if axis is not None), 1)


def _joined_labels(labels: list[Array], *, one_each: bool) -> Array:
    return joined(labels) if one_each else np.concatenate([np.atleast_1d(label) for label in labels])


def _joined(name: str, parts: list[tuple[Path, Array]], counts: list[int], request: DataRequest) -> Array | list[Array]:
    """All samples of an input; as a list where their shapes differ along the network's dynamic axes."""
    shape, axis = request.reference.input_shapes[name], request.reference.batching.input_axis(name)
    for path, array in parts:
        if not fits(array.shape, shape, axis):
            raise DataError(
                f"'{path}': array '{name}': expected shape {shown_shape(shape, axis)}, got {array.shape}",
                "write each sample as the network reads it, with or without n; if n is another axis, say so with "
                f"--batch-axis {name}=AXIS, or {name}=none if no axis counts samples",
            )
    _, first = parts[0]
    if axis is None:
        if not _has_no_batch(request.reference) and all(np.array_equal(first, array) for _, array in parts[1:]):
            return first
        return [array for (_, array), count in zip(parts, counts, strict=True) for _ in range(count)]
    arrays = [np.moveaxis(array, axis, 0) for _, array in parts]
    if len({array.shape[1:] for array in arrays}) > 1:
        return [np.ascontiguousarray(sample) for array in arrays for sample in array]
    return np.concatenate([array for _, array in parts], axis=axis)
