"""Conversion of values that a person brings to arrays of the engine; no other place does it.

An array of the engine is a plain ``numpy.ndarray`` of numbers in the machine's byte order, contiguous and aligned. What
holds the same numbers otherwise is converted: other byte orders and layouts, views, memory maps, matrices, nested lists
of numbers, PyTorch tensors. Refused by name: masked entries, Python objects, text, dates, records, complex numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from bitfront.core import Array, DataError

NUMBERS = "biuf"
LABEL_KINDS = "biufcSU"
_KINDS = {
    "O": "Python objects",
    "V": "records",
    "S": "byte strings",
    "U": "text",
    "M": "dates",
    "m": "time differences",
    "c": "complex numbers",
    "T": "text",
}


def as_array(value: object, where: str, kinds: str = NUMBERS) -> Array:
    """A value as an array of the engine.

    Args:
        value: An array, a PyTorch tensor, or nested lists of numbers.
        where: Names it in messages.
        kinds: ``numpy.dtype.kind`` of what is welcome.

    Raises:
        DataError: If it is nothing of these, or holds what is not welcome.
    """
    if _is_tensor(value):
        value = _of_tensor(value, where)
    if isinstance(value, np.ma.MaskedArray):
        hidden = int(np.ma.getmaskarray(value).sum())
        if hidden:
            raise DataError(f"{where}: {hidden} entries are masked", "fill them, as in x.filled(0), or leave them out")
        value = value.data
    if isinstance(value, np.ndarray):
        check_dtype(value.dtype, where, kinds)
    try:
        array = np.asarray(value)
        if array.dtype.kind not in kinds and not isinstance(value, np.ndarray):
            raise _not_an_array(value, array, where)
        check_dtype(array.dtype, where, kinds)
        array = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
        return array if array.flags.aligned else array.copy()
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{where} is a {type(value).__name__} that is no array of numbers ({error})",
            "give a numpy array in which all samples have one shape",
        ) from error
    except MemoryError as error:
        raise DataError(f"{where}: does not fit into memory", "give fewer samples") from error


def as_samples(value: object, where: str, rank: int) -> list[Array] | None:
    """Samples brought one by one: a list, tuple or array of objects that holds an array of ``rank`` axes for each.

    Args:
        value: Anything.
        where: Names it in messages.
        rank: Axes of one sample.

    Returns:
        The samples as arrays of the engine; None where the value is something else.

    Raises:
        DataError: If a sample is no array of numbers.
    """
    if not is_sample_list(value) or any(sample.ndim != rank for sample in value):
        return None
    return [as_array(sample, f"{where}: sample {index}") for index, sample in enumerate(value)]


def is_sample_list(value: object) -> TypeGuard[Sequence[Any]]:
    """Whether a value is a sequence of arrays or tensors."""
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or not value.dtype.hasobject:
            return False
    elif not isinstance(value, list | tuple):
        return False
    return len(value) > 0 and all(isinstance(sample, np.ndarray) or _is_tensor(sample) for sample in value)


def check_dtype(dtype: np.dtype[Any], where: str, kinds: str = NUMBERS) -> None:
    """Refuse a dtype by name, unless its kind is among ``kinds``.

    Raises:
        DataError: If it is not.
    """
    if dtype.kind not in kinds:
        hint = (
            "give all samples one shape and a numeric dtype before numpy.savez"
            if dtype.kind == "O"
            else "convert it to the type that 'search inspect' shows for the network's input"
        )
        raise DataError(
            f"{where} holds {_KINDS.get(dtype.kind, 'no numbers')} (dtype {dtype_name(dtype)}), expected numbers", hint
        )


def dtype_name(dtype: np.dtype[Any]) -> str:
    """A dtype's name, short even where it is a record of many fields."""
    text = dtype.name
    return text if len(text) <= 40 else f"{text[:40]}…"


def _not_an_array(value: object, array: Array, where: str) -> DataError:
    if isinstance(value, list | tuple) and array.dtype.kind in _KINDS and array.size:
        return DataError(
            f"{where} is a {type(value).__name__} of {_KINDS[array.dtype.kind]}, expected numbers",
            "give a numpy array in which all samples have one shape",
        )
    return DataError(
        f"{where} is a {type(value).__name__}, expected an array", "give a numpy array with the samples on an axis"
    )


def _is_tensor(value: object) -> bool:
    # A tensor can only come from a torch that is imported already; importing it here takes seconds.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _of_tensor(value: Any, where: str) -> Array:
    try:
        tensor = value.detach().to("cpu").resolve_conj().resolve_neg()
        if str(tensor.dtype) == "torch.bfloat16":
            tensor = tensor.float()  # exact
        array: Array = tensor.numpy()
    except (TypeError, RuntimeError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{where} is a tensor that cannot become an array: {value.dtype}, {value.layout} ({error})",
            "give it dense and unquantised, as in x.to_dense().float().numpy()",
        ) from error
    return array
