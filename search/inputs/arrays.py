"""Arrays that a person brings, checked against a network's inputs before anything expensive starts.

Exact casts are made silently (float64 → float32, float16 → float32, integers whose values fit); everything else
that does not fit is an error that names the file, the array, what was expected and what came.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bitfront.core import Array, DataError, ModelError
from bitfront.core.ragged import joined
from bitfront.search.inputs.values import LABEL_KINDS, as_array, as_samples, is_sample_list

if TYPE_CHECKING:
    from bitfront.lowering.reference import ReferenceModel

LABELS = "labels"
# Floating types that may become another: the second holds every value of the first, or all but its last bits.
FLOAT_CASTS = frozenset(
    {("float64", "float32"), ("float16", "float32"), ("float16", "float64"), ("float32", "float64")}
)


class MissingLabelsError(DataError):
    """Evaluation data is sound but for its labels: there are none at all."""


def check_names(names: Collection[str], reference: ReferenceModel, source: str, optional: Collection[str] = ()) -> None:
    """Check that arrays are named as the network's inputs are; one named ``labels`` is not looked at.

    Args:
        names: Those of the arrays.
        reference: The network.
        source: Where the arrays come from, for messages.
        optional: Inputs that may be missing.

    Raises:
        ModelError: If the network reads text.
        DataError: If they are not.
    """
    expected = [name for name in reference.input_shapes if name not in optional or name in names]
    text = [name for name, kind in reference.input_types.items() if kind == "object"]
    if text:
        raise ModelError(
            f"'{reference.source}': input '{text[0]}' takes text, and only numbers are handled",
            "export the network without its tokeniser, and give token numbers",
        )
    got = [name for name in names if name != LABELS or name in expected]
    if set(got) == set(expected):
        return
    missing, extra = (sorted(set(one) - set(other)) for one, other in ((expected, got), (got, expected)))
    close = {name: found[0] for name in missing if (found := difflib.get_close_matches(name, extra, n=1))}
    if close:
        hint = "; ".join(f"'{was}' may be meant for '{name}'" for name, was in close.items())
    elif missing and Path(source).suffix == ".npz":
        hint = f"rename them, for example numpy.savez('{Path(source).name}', {missing[0]}=...)"
    else:
        hint = f"leave out {listed(extra)}" if extra else f"add {listed(missing)}"
    raise DataError(
        f"'{source}': expected arrays named {listed(expected)} like the network's inputs, got {listed(got)}", hint
    )


def check_inputs(arrays: Mapping[str, object], reference: ReferenceModel, source: str) -> dict[str, Array]:
    """Arrays named, shaped and typed as the network's inputs are, in its order, the samples on the first axis.

    Args:
        arrays: Input name → array as the network reads it, for all samples at once; an array named ``labels`` is not
            looked at. An input that has no batch axis is given as it is, or with one more axis in front where each
            sample has a value of its own. Samples of different shapes are a list of arrays without the batch axis.
        reference: The network.
        source: Where the arrays come from, for messages.

    Returns:
        Input name → array (n, …) of the engine.

    Raises:
        DataError: If a name, shape or dtype does not fit, a value is NaN or +∞ (−∞ is how masks hide positions), or
            there are no samples.
    """
    check_names(arrays, reference, source)
    batching, given, counts = reference.batching, dict[str, Array](), dict[str, int]()
    shared = dict[str, Array]()
    for name, shape in reference.input_shapes.items():
        where = f"'{source}': array '{name}'"
        axis, value, dtype = batching.input_axis(name), arrays[name], reference.input_types[name]
        samples = as_samples(value, where, len(shape) - (axis is not None))
        if samples is not None:
            given[name] = _one_by_one(samples, shape, axis, dtype, where)
            counts[name] = len(samples)
            continue
        array = as_array(value, where)
        if axis is None and array.ndim == len(shape) + 1 and fits(array.shape[1:], shape, None):
            given[name] = check_finite(cast(array, dtype, where), where)
            counts[name] = len(array)
            continue
        _check_shape(array, shape, axis, where, name)
        array = check_finite(cast(array, dtype, where), where)
        if axis is None:
            shared[name] = array
        else:
            given[name], counts[name] = np.moveaxis(array, axis, 0), array.shape[axis]
    if len(set(counts.values())) > 1:
        raise DataError(
            f"'{source}': arrays hold different numbers of samples: "
            + ", ".join(f"'{name}' {count}" for name, count in counts.items()),
            "the sample axis, n in the shapes of 'search inspect', must be equally long in all; if it is another, say: "
            + _batch_axis_option(next(iter(counts))),
        )
    if not counts:
        raise DataError(
            f"'{source}': no input of '{reference.source}' has a batch axis, so this is one sample, in "
            f"{', '.join(f'{name} {array.shape}' for name, array in shared.items())}",
            "give a folder of .npz files, one a sample, or arrays with one more axis in front that counts samples; if "
            f"an axis counts them, say so: {_batch_axis_option(next(iter(shared)), axis=0)}",
        )
    count = next(iter(counts.values()))
    given |= {name: batching.samples(name, array, count) for name, array in shared.items()}
    return {name: given[name] for name in reference.input_shapes}


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


def check_labels(value: object, samples: int, source: str) -> Array:
    """Labels as an array, as many as there are samples; one (n,) of arrays where they have different shapes.

    Args:
        value: As a person brings them.
        samples: How many are expected.
        source: Where they are from, for messages.

    Raises:
        DataError: If they are no labels, or their number differs.
    """
    where = f"'{source}': array '{LABELS}'"
    if is_sample_list(value):
        labels = joined([as_array(sample, f"{where}: {index}", LABEL_KINDS) for index, sample in enumerate(value)])
    else:
        labels = as_array(value, where, LABEL_KINDS)
    count = len(labels) if labels.ndim else 0
    if count != samples:
        word = "fewer" if count < samples else "more"
        raise DataError(
            f"'{source}': {word} labels than inputs: expected {samples}, got {count}", "give one label a sample"
        )
    return labels


def check_classes(labels: Array, classes: int | None, source: str, use: str) -> None:
    """Check labels of a classifier: whole numbers from 0, below ``classes`` where that is known.

    Args:
        labels: The labels.
        classes: How many classes there are; None where that is not known.
        source: Where the labels are from, for messages.
        use: What reads them, a metric's name for example, for messages.

    Raises:
        DataError: If they are not.
    """
    where = f"'{source}': array '{LABELS}'"
    if labels.ndim != 1:
        hint = "one-hot labels become class numbers with .argmax(axis=1)" if labels.ndim == 2 else ""
        if labels.size == len(labels):
            hint = "give it one axis, as in labels.ravel()"
        raise DataError(f"{where}: expected shape ({len(labels)},) for {use}, got {labels.shape}", hint)
    if labels.dtype.kind not in "iu":
        raise DataError(
            f"{where}: expected integer class numbers for {use}, got dtype {labels.dtype.name}",
            "convert it with .astype('int64'), or name another metric with --metric module:function",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        bound = f"0 to {classes - 1}" if classes is not None else "0 or more"
        raise DataError(
            f"{where}: labels out of range: expected {bound}, got {low} to {high}",
            "class numbers start at 0" if low == 1 or high == classes else "check that they belong to this network",
        )


def shown_shape(shape: Sequence[int | None], axis: int | None = 0) -> str:
    """A shape in words: ``n`` for the samples, ``?`` for an axis of any size."""
    sizes = ["n" if place == axis else str(size or "?") for place, size in enumerate(shape)]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"


def fits(shape: Sequence[int], expected: Sequence[int | None], axis: int | None) -> bool:
    """Whether a shape is as expected, along the batch axis of any size."""
    return len(shape) == len(expected) and all(
        place == axis or size in (None, got) for place, (size, got) in enumerate(zip(expected, shape, strict=True))
    )


def _check_shape(array: Array, expected: tuple[int | None, ...], axis: int | None, where: str, name: str) -> None:
    if not fits(array.shape, expected, axis):
        if axis is None:
            hint = (
                "it has no batch axis: give one value, which all samples share, or one more axis in front for one each"
            )
        elif axis == 0:
            hint = "the first axis is the sample axis; a single sample needs one too, as in x[None]"
        else:
            hint = f"axis {axis} is the sample axis, counted from 0"
        hint += f"; if that is wrong, say which is: {_batch_axis_option(name)}"
        raise DataError(f"{where}: expected shape {shown_shape(expected, axis)}, got {array.shape}", hint)
    if axis is not None and not array.shape[axis]:
        raise DataError(f"{where}: holds zero samples", "give at least a few dozen")


def _batch_axis_option(name: str, axis: int | None = None) -> str:
    if axis is not None:
        return f"--batch-axis {name}={axis}"
    return f"--batch-axis {name}=AXIS, or {name}=none if no axis of it does"


def _one_by_one(samples: list[Array], shape: tuple[int | None, ...], axis: int | None, dtype: str, where: str) -> Array:
    """Samples without the batch axis, each checked: (n, …), or (n,) of them where their shapes differ."""
    found = []
    for index, sample in enumerate(samples):
        place = f"{where}: sample {index}"
        laid_out = sample if axis is None else np.expand_dims(sample, axis)
        if not fits(laid_out.shape, shape, axis):
            expected = shown_shape(shape, axis)
            raise DataError(
                f"{place}: expected the shape of one sample of {expected}, got {sample.shape}",
                "each sample is an array without the batch axis; say which that is with --batch-axis INPUT=AXIS",
            )
        found.append(check_finite(cast(sample, dtype, place), place))
    return joined(found)


def check_finite(array: Array, where: str) -> Array:
    """An array of finite values, −∞ among them.

    Raises:
        DataError: If one is NaN or +∞.
    """
    if array.dtype.kind == "f":
        bad = np.isnan(array) | (array == np.inf)
        if bad.any():
            first = tuple(int(index) for index in np.argwhere(bad)[0])
            raise DataError(
                f"{where}: {int(bad.sum())} values are NaN or infinite, the first at {first}",
                "clean the data: expected finite values",
            )
    return array


def listed(names: Iterable[str]) -> str:
    """Names in quotes with commas between."""
    return ", ".join(f"'{name}'" for name in names) or "none"
