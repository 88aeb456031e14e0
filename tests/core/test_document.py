"""JSON files as files: what is no regular file of ours in UTF-8 is refused before it is read or decoded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bitfront.core import MalformedError
from bitfront.core.document import JsonValue, PathBelow, decode_json
from bitfront.core.json_text import parse_json, read_text, shown


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xef\xbb\xbf{}", "without a byte order mark"),
        ("{}".encode("utf-16"), "in UTF-8, got byte 0xff at offset 0"),
        (b'{"a": "\xe9"}', "in UTF-8, got byte 0xe9 at offset 7"),
        (b"x" * 101, "at most 100 bytes, got 101"),
    ],
    ids=["mark", "utf-16", "latin-1", "large"],
)
def test_other_encodings_and_sizes(tmp_path: Path, content: bytes, words: str) -> None:
    """What was expected and what came."""
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(MalformedError, match=words):
        read_text(tmp_path / "a.json", 100)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Pipes, folders and devices are refused by their kind; none is opened."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name, kind in (("pipe", "a pipe"), (".", "a folder"), ("zero", "a device")):
        with pytest.raises(MalformedError, match=f"expected a regular file, got {kind}"):
            read_text(tmp_path / name, 100)
    for name in ("none", "n" * 300, "a\x00b"):
        with pytest.raises(MalformedError, match="cannot be read"):
            read_text(tmp_path / name, 100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("9" * 5000, "a number of too many digits"),
        ("", "cannot be read as JSON"),
        ("{} {}", "cannot be read as JSON: Extra data"),
        ('{"a": 1, "a": 2}', "a: the key comes twice"),
        ('[{"a": {"b": 1, "c": 2, "b": 3}}]', r"\[0\]\.a\.b: the key comes twice"),
        ('{"a": {"x": 1, "x": 2}, "a": 1}', "a: the key comes twice"),
    ],
)
def test_no_json(text: str, words: str) -> None:
    """Each kind of damage has its words; a place has its path."""
    with pytest.raises(MalformedError, match=words):
        parse_json(text)


def test_many_keys_are_quick() -> None:
    """The search for a key that comes twice takes time in proportion."""
    text = "{" + ", ".join(f'"k{number}": 0' for number in range(200_000)) + ', "k0": 1}'
    with pytest.raises(MalformedError, match="k0: the key comes twice"):
        parse_json(text)


def test_lone_surrogates_are_no_text() -> None:
    """They could be neither printed nor written."""
    with pytest.raises(MalformedError, match="cannot be read as JSON"):
        decode_json(dict[str, str], r'{"a": "\ud800"}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked(JsonValue):
    path: PathBelow


@pytest.mark.parametrize("path", ["models/p07.onnx", "models/größer 1.onnx", "a..b/c"])
def test_paths_below(path: str) -> None:
    """Ordinary relative paths are taken as they are."""
    assert Linked.from_json({"path": path}).path == path


@pytest.mark.parametrize(
    "path",
    ["", ".", "/etc/hostname", "../x", "models/../../x", "C:\\x", "\\\\host\\x", "javascript:x", "a\x00b", 3, None],
)
def test_paths_elsewhere(path: Any) -> None:
    """Whatever may lead out of the folder, and web addresses."""
    with pytest.raises(MalformedError, match="path: expected"):
        Linked.from_json({"path": path})


def test_long_values_are_cut() -> None:
    """A message stays readable."""
    assert shown("y" * 1000) == '"' + "y" * 59 + "… (1002 characters)"
    assert shown({"a": 1}) == "an object with 1 fields"
