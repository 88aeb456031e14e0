"""Whatever happens to an entry's file, it is the entry or it is missing, and can be made again."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitfront.core import ContentStore, OutputError, digest

KEY = digest("key")
ARRAYS = {"a": np.arange(30, dtype=np.float32).reshape(5, 6), "ä": np.array(3)}
VALUE = {"a": [1, 2.5, None], "b": "text é"}

Damage = Callable[[Path], object]


def _remade(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "file").write_text("")


def _dead_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _older_archive(path: Path) -> None:
    path.unlink()
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **ARRAYS)


DAMAGES: dict[str, Damage] = {
    "cut in half": lambda path: _remade(path, path.read_bytes()[: path.stat().st_size // 2]),
    "last byte gone": lambda path: _remade(path, path.read_bytes()[:-1]),
    "byte more": lambda path: _remade(path, path.read_bytes() + b" "),
    "empty": lambda path: _remade(path, b""),
    "short": lambda path: _remade(path, b"{}"),
    "other JSON": lambda path: _remade(path, b'{"a": 1}'),
    "zeros": lambda path: _remade(path, bytes(path.stat().st_size)),
    "text": lambda path: _remade(path, b"what is this?\n" * 50),
    "JSON of the earlier form": lambda path: _remade(path, json.dumps(VALUE).encode()),
    "archive of the earlier form": _older_archive,
    "a folder": _folder,
    "a dead link": _dead_link,
    "gone": lambda path: path.unlink(),
}


def stored(folder: Path) -> dict[str, Path]:
    """A store of one entry of each form; their files."""
    store = ContentStore(folder)
    store.put_arrays("arrays", KEY, ARRAYS)
    store.put_json("json", KEY, VALUE)
    return {"arrays": folder / f"arrays-{KEY}.npz", "json": folder / f"json-{KEY}.json"}


def taken(folder: Path) -> dict[str, object]:
    """What a new store finds."""
    store = ContentStore(folder)
    arrays = store.get_arrays("arrays", KEY)
    return {
        "arrays": arrays and {name: array.tolist() for name, array in arrays.items()},
        "json": store.get_json("json", KEY),
    }


WHOLE = {"arrays": {name: array.tolist() for name, array in ARRAYS.items()}, "json": VALUE}


def test_entries_stay_files_of_their_kind(tmp_path: Path) -> None:
    """A person may look into them with what reads JSON and archives."""
    files = stored(tmp_path)
    assert taken(tmp_path) == WHOLE
    assert json.loads(files["json"].read_bytes())["value"] == VALUE
    with np.load(files["arrays"]) as archive, zipfile.ZipFile(files["arrays"]) as plain:
        assert plain.testzip() is None
        np.testing.assert_array_equal(archive["a"], ARRAYS["a"])


@pytest.mark.parametrize("form", ["arrays", "json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_missing_and_made_again(tmp_path: Path, form: str, damage: str) -> None:
    """Nothing is raised; what is stored anew is found."""
    DAMAGES[damage](stored(tmp_path)[form])
    assert taken(tmp_path) == {**WHOLE, form: None}
    stored(tmp_path)
    assert taken(tmp_path) == WHOLE


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("form", ["arrays", "json"])
def test_a_pipe_is_missing_and_made_again(tmp_path: Path, form: str) -> None:
    """Nobody waits for what it would give; what is stored anew takes its place."""
    path = stored(tmp_path)[form]
    path.unlink()
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # so that reading it waits for no writer, only for content
    try:
        os.write(descriptor, b"{}")
        assert taken(tmp_path) == {**WHOLE, form: None}
        assert os.read(descriptor, 2) == b"{}"
    finally:
        os.close(descriptor)
    stored(tmp_path)
    assert taken(tmp_path) == WHOLE


@pytest.mark.parametrize("form", ["arrays", "json"])
def test_no_byte_can_be_turned(tmp_path: Path, form: str) -> None:
    """Any byte of the file, by one bit or altogether: the entry is missing."""
    path = stored(tmp_path)[form]
    content = path.read_bytes()
    for at in range(len(content)):
        for mask in (0x01, 0x20, 0xFF):
            path.write_bytes(content[:at] + bytes([content[at] ^ mask]) + content[at + 1 :])
            assert taken(tmp_path)[form] is None, (at, mask)


@pytest.mark.parametrize("form", ["arrays", "json"])
def test_an_entry_under_another_name_is_missing(tmp_path: Path, form: str) -> None:
    """Copied over another key's, or another kind's: it holds for its own alone."""
    path = stored(tmp_path)[form]
    other = digest("other")
    path.rename(path.with_name(path.name.replace(KEY, other)))
    store = ContentStore(tmp_path)
    assert (store.get_arrays if form == "arrays" else store.get_json)(form, other) is None


def test_an_entry_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A file where the cache should be."""
    (tmp_path / "cache").write_text("")
    with pytest.raises(OutputError, match=r"cannot write '.*/cache/json-"):
        ContentStore(tmp_path / "cache").put_json("json", KEY, VALUE)


def test_addresses_are_no_content() -> None:
    """An array of objects has no digest: its bytes say where they are, not what."""
    with pytest.raises(TypeError, match="array of Python objects"):
        digest(np.array(["a", 1], dtype=object))
