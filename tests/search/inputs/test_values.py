"""Whatever form numbers come in, the engine's array holds the same numbers; what are no numbers is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bitfront.core import Array, DataError, digest
from bitfront.search.inputs.values import LABEL_KINDS, as_array


def numbers() -> Any:
    return np.arange(12, dtype=np.float32).reshape(3, 4) / 4


def unaligned() -> Array:
    """The same numbers, one byte off every boundary."""
    raw = b"\0" + numbers().tobytes()
    return np.frombuffer(raw, np.float32, offset=1).reshape(3, 4)


class Sub(np.ndarray[Any, Any]):
    """Some library's own kind of array."""


FORMS: dict[str, object] = {
    "as they are": numbers(),
    "big-endian": numbers().astype(">f4"),
    "Fortran order": np.asfortranarray(numbers()),
    "negative strides": numbers()[::-1, ::-1].copy()[::-1, ::-1],
    "every second of more": np.repeat(numbers(), 2, axis=1)[:, ::2],
    "unaligned": unaligned(),
    "subclass": numbers().view(Sub),
    "masked, nothing hidden": np.ma.masked_array(numbers(), mask=False),
    "read-only": np.broadcast_to(numbers(), (3, 4)),
    "tensor": torch.from_numpy(numbers()),
    "tensor with gradient": torch.from_numpy(numbers()).requires_grad_(),
    "tensor, transposed": torch.from_numpy(numbers().T.copy()).T,
    "bfloat16 tensor": torch.from_numpy(numbers()).to(torch.bfloat16),
    "negated view of a tensor": torch.complex(torch.zeros(3, 4), torch.from_numpy(-numbers())).conj().imag,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_numbers_whatever_the_form(form: str) -> None:
    """Every form gives one plain array, whose digest is that of the numbers."""
    found = as_array(FORMS[form], "x")
    np.testing.assert_array_equal(found, numbers())
    assert type(found) is np.ndarray
    assert found.dtype == np.dtype("float32")
    assert found.dtype.isnative
    assert found.flags.c_contiguous
    assert found.flags.aligned
    assert digest(found) == digest(numbers())


def test_memory_maps(tmp_path: Path) -> None:
    """An array on disk is read like any other."""
    np.save(tmp_path / "x.npy", numbers().astype(">f4"))
    found = as_array(np.load(tmp_path / "x.npy", mmap_mode="r"), "x")
    np.testing.assert_array_equal(found, numbers())
    assert type(found) is np.ndarray


@pytest.mark.parametrize("value", [[[1, 2], [3, 4]], ((1, 2), (3, 4)), np.array([[1, 2], [3, 4]])], ids=type)
def test_lists_of_numbers(value: object) -> None:
    """Nested lists and tuples of numbers are arrays."""
    np.testing.assert_array_equal(as_array(value, "x"), [[1, 2], [3, 4]])


def test_no_axes() -> None:
    """A single number stays a number."""
    assert as_array(np.array(2.5, ">f8"), "x").shape == ()
    assert as_array(3, "x").shape == ()


class Loader:
    """Something that gives batches, but is no array."""

    def __iter__(self) -> Any:
        return iter([numbers()])


REFUSED: dict[str, tuple[object, str]] = {
    "masked": (np.ma.masked_array(numbers(), mask=numbers() > 1), "7 entries are masked"),
    "objects": (np.array([numbers(), None], dtype=object), "holds Python objects"),
    "ragged list": ([[1, 2], [3]], "is a list that is no array of numbers"),
    "list of text": (["a", "b"], "is a list of text"),
    "text": ("abc", "is a str, expected an array"),
    "nothing": (None, "is a NoneType, expected an array"),
    "loader": (Loader(), "is a Loader, expected an array"),
    "mapping": ({"x": 1}, "is a dict, expected an array"),
    "complex": (numbers().astype(np.complex64), r"holds complex numbers \(dtype complex64\)"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), "holds dates"),
    "time differences": (np.array([1], "m8[s]"), "holds time differences"),
    "records": (np.zeros(3, [("a", "f4"), ("b", "f4")]), "holds records"),
    "byte strings": (np.array([b"a"]), "holds byte strings"),
    "sparse tensor": (torch.eye(3).to_sparse(), "is a tensor that cannot become an array: torch.float32, torch.sparse"),
    "meta tensor": (torch.empty(3, device="meta"), "is a tensor that cannot become an array"),
    "number beyond 64 bits in a list": ([2**70], "list of Python objects"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_are_no_numbers(case: str) -> None:
    """What holds no numbers, or hides some, is refused by name."""
    value, message = REFUSED[case]
    with pytest.raises(DataError, match=f"^input 'x'.*{message}"):
        as_array(value, "input 'x'")


def test_labels_may_be_text() -> None:
    """Where a metric reads them, text and complex numbers are welcome; Python objects are not."""
    assert list(as_array(["a", "b"], "labels", LABEL_KINDS)) == ["a", "b"]
    with pytest.raises(DataError, match="labels holds Python objects"):
        as_array(np.array([{}, []], dtype=object), "labels", LABEL_KINDS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param(numbers(), numbers().astype(">f4"), id="byte order"),
        pytest.param(numbers(), np.asfortranarray(numbers()), id="layout"),
        pytest.param(np.broadcast_to(np.float32(2), (1000,)), np.full(1000, 2, np.float32), id="one value repeated"),
    ],
)
def test_equal_arrays_have_one_digest(one: Array, other: Array) -> None:
    """A digest is about numbers, type and shape, not about how they lie in memory."""
    assert digest({"x": one}) == digest({"x": other})
    assert digest(one) != digest(one.reshape(-1, 2))
    assert digest(one) != digest(one.astype(np.float64))
