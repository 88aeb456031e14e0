"""Arrays a person brings in ``.npz`` files, checked against a network's inputs before anything expensive starts.

Exact casts are made silently (float64 → float32, float16 → float32, integers whose values fit); everything else
that does not fit is an error that names the file, the array, what was expected and what came.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from precision import Array, DataError, Inputs

if TYPE_CHECKING:
    from lowering.reference import Reference

LABELS = "labels"
# Floating types that may become another: the second holds every value of the first, or all but its last bits.
FLOAT_CASTS = frozenset(
    {("float64", "float32"), ("float16", "float32"), ("float16", "float64"), ("float32", "float64")}
)


def read_npz(path: Path) -> dict[str, Array]:
    """All arrays of an ``.npz`` file.

    Raises:
        DataError: If the file is missing, truncated or no ``.npz``, or holds an object array.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"'{path}': expected an .npz file, but it {found}", "write one with numpy.savez")
    arrays: dict[str, Array] = {}
    name = ""
    try:
        with zipfile.ZipFile(path):
            pass  # a truncated archive has lost the directory at its end
        with np.load(path, allow_pickle=False) as archive:
            for name in archive.files:
                arrays[name] = archive[name]
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"'{path}': array '{name}' holds Python objects, expected numbers",
                "give all samples one shape and a numeric dtype before numpy.savez",
            ) from error
        raise DataError(f"'{path}' is no complete .npz archive ({error})", "write it again with numpy.savez") from error
    return arrays


def check_inputs(arrays: Inputs, reference: Reference, source: str) -> dict[str, Array]:
    """Arrays named, shaped and typed as the network's inputs are, in its order.

    Args:
        arrays: Input name → array of shape (n, …); an array named ``labels`` is not looked at.
        reference: The network.
        source: Where the arrays come from, for messages.

    Raises:
        DataError: If a name, shape or dtype does not fit, a value is NaN or +∞ (−∞ is how masks hide positions), or
            there are no samples.
    """
    expected = list(reference.input_shapes)
    got = [name for name in arrays if name != LABELS or name in expected]
    if set(got) != set(expected):
        raise DataError(
            f"'{source}': expected arrays named {_listed(expected)} like the network's inputs, got {_listed(got)}",
            f"rename them, for example numpy.savez('{Path(source).name}', {expected[0]}=...)" if expected else "",
        )
    checked: dict[str, Array] = {}
    for name in expected:
        array = np.asarray(arrays[name])
        where = f"'{source}': array '{name}'"
        _check_shape(array, reference.input_shapes[name], where)
        checked[name] = _finite(cast(array, reference.input_types[name], where), where)
    counts = {name: len(array) for name, array in checked.items()}
    if len(set(counts.values())) > 1:
        raise DataError(
            f"'{source}': arrays hold different numbers of samples: "
            + ", ".join(f"'{name}' {count}" for name, count in counts.items()),
            "the first axis is the sample axis and must be equally long in all",
        )
    return checked


def cast(array: Array, expected: str, where: str) -> Array:
    """``array`` as dtype ``expected``, where that loses nothing but a float's last bits.

    Raises:
        DataError: If it would lose more.
    """
    got = array.dtype.name
    if got == expected:
        return array
    refusal = DataError(
        f"{where}: expected dtype {expected}, got {got}",
        "scale and convert it as the network was trained, then save it again"
        if array.dtype.kind in "iu" and expected.startswith("float")
        else f"convert it with .astype('{expected}') if that is what the network expects",
    )
    if (got, expected) in FLOAT_CASTS:
        with np.errstate(over="ignore"):
            converted = array.astype(expected)
        if np.isfinite(array).all() and not np.isfinite(converted).all():
            raise DataError(f"{where}: has values beyond the range of {expected}", "scale it, then save it again")
        return converted
    if array.dtype.kind in "iu" and expected.startswith(("int", "uint")):
        limits = np.iinfo(expected)
        if not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
            return array.astype(expected)
    raise refusal


def check_labels(arrays: Mapping[str, Array], samples: int, source: str) -> Array:
    """The labels of an evaluation file, as many as there are inputs.

    Raises:
        DataError: If there is no array ``labels``, or their number differs.
    """
    if LABELS not in arrays:
        raise DataError(
            f"'{source}': expected an array named '{LABELS}' beside the inputs, got {_listed(list(arrays))}",
            f"add it, for example numpy.savez('{Path(source).name}', ..., {LABELS}=y)",
        )
    labels = np.asarray(arrays[LABELS])
    count = len(labels) if labels.ndim else 0
    if count != samples:
        word = "fewer" if count < samples else "more"
        raise DataError(
            f"'{source}': {word} labels than inputs: expected {samples}, got {count}", "give one label a sample"
        )
    return labels


def check_classes(labels: Array, classes: int | None, source: str) -> None:
    """Check labels for ``top1``: whole numbers from 0, below ``classes`` where that is known.

    Raises:
        DataError: If they are not.
    """
    where = f"'{source}': array '{LABELS}'"
    if labels.ndim != 1:
        hint = "one-hot labels become class numbers with .argmax(axis=1)" if labels.ndim == 2 else ""
        raise DataError(f"{where}: expected shape ({len(labels)},) for top1, got {labels.shape}", hint)
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: expected integer class numbers for top1, got dtype {labels.dtype.name}",
            "convert it with .astype('int64'), or name another metric with --metric module:function",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        bound = f"0 to {classes - 1}" if classes is not None else "0 or more"
        raise DataError(
            f"{where}: labels out of range: expected {bound}, got {low} to {high}",
            "class numbers start at 0" if low == 1 or high == classes else "check that they belong to this network",
        )


def _check_shape(array: Array, expected: tuple[int | None, ...], where: str) -> None:
    shown = f"({', '.join('n' if axis == 0 else str(size or '?') for axis, size in enumerate(expected))})"
    fits = array.ndim == len(expected) >= 1 and all(
        size is None or size == got for size, got in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not fits:
        hint = "the first axis is the sample axis; a single sample needs one too, as in x[None]"
        raise DataError(f"{where}: expected shape {shown}, got {array.shape}", hint)
    if not len(array):
        raise DataError(f"{where}: holds zero samples", "give at least a few dozen")


def _finite(array: Array, where: str) -> Array:
    if array.dtype.kind == "f":
        bad = np.isnan(array) | (array == np.inf)
        if bad.any():
            first = tuple(int(index) for index in np.argwhere(bad)[0])
            raise DataError(
                f"{where}: {int(bad.sum())} values are NaN or infinite, the first at {first}",
                "clean the data: expected finite values",
            )
    return array


def _listed(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"
