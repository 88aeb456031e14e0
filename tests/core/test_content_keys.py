"""Content keys: whatever differs has another key, and what a store keeps is found under its own kind and key only."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfront.core import ContentStore, OutputError, digest
from bitfront.core.files import write_bytes

# Parts that are easily taken for one another.
DIFFERENT: tuple[tuple[Any, ...], ...] = (
    (),
    (None,),
    ("",),
    ("None",),
    (b"",),
    (0,),
    (False,),
    (0.0,),
    ("0",),
    (b"0",),
    ([],),
    ({},),
    ("ab", "c"),
    ("a", "bc"),
    ("abc",),
    (["a", "b"],),
    (["a"], "b"),
    ("a", "b"),
    ({"a": "b"},),
    ({"a": None, "b": None},),
    ([["a"], []],),
    ([[], ["a"]],),
    (np.zeros(4, np.float32),),
    (np.zeros((2, 2), np.float32),),
    (np.zeros(4, np.int32),),
    (np.zeros(2, np.float64),),
    (np.zeros(0, np.float32),),
    (np.array([0, 0, 0, 1], np.float32),),
    (np.zeros(16, np.uint8),),
)


def test_different_parts_have_different_keys() -> None:
    """Types, shapes, borders between parts and nesting are all part of a key."""
    keys = [digest(*parts) for parts in DIFFERENT]
    for (one, first), (other, second) in itertools.combinations(zip(DIFFERENT, keys, strict=True), 2):
        assert first != second, (one, other)


def test_equal_parts_have_equal_keys() -> None:
    """The order of a mapping, the memory layout of an array, tuple or list: none of it is content."""
    assert digest({"a": 1, "b": [2]}) == digest({"b": (2,), "a": 1})
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert digest(array) == digest(np.asfortranarray(array)) == digest(array[::-1][::-1])


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_texts_do_not_run_together(left: list[str], right: list[str]) -> None:
    """Whatever is in them."""
    assert (digest(*left) == digest(*right)) == (left == right)


def test_what_cannot_be_keyed_is_refused() -> None:
    """Better no key than one that does not change."""
    with pytest.raises(TypeError, match="cannot digest a object"):
        digest(object())


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "cache" if request.param == "folder" else None)


def test_entries_are_found_by_kind_and_key(store: ContentStore) -> None:
    """JSON and arrays alike; another kind or key finds nothing."""
    store.put_json("timed", "k", {"a": [1, None]})
    store.put_arrays("scored", "k", {"x": np.arange(3), "y": np.ones((2, 2), np.float32)})
    assert store.get_json("timed", "k") == {"a": [1, None]}
    found = store.get_arrays("scored", "k")
    assert found is not None
    assert {name: (array.dtype.str, array.tolist()) for name, array in found.items()} == {
        "x": ("<i8", [0, 1, 2]),
        "y": ("<f4", [[1, 1], [1, 1]]),
    }
    assert store.get_json("timed", "other") is None
    assert store.get_json("scored", "k") is None
    assert store.get_arrays("timed", "k") is None


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a file under the final name nor a temporary one beside it."""
    path = tmp_path / "result.json"
    write_bytes(path, b"before")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"cannot write '.*result\.json': No space left"):
        write_bytes(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
