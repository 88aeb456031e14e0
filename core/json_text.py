"""JSON text from a file into plain values: what a decoder does not look at is checked here.

Refused: what is no regular file, what is too large to be one of ours, other encodings than UTF-8, keys that come twice
in one object (one of the two would silently win), and nesting that a program could run out of stack on.
"""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bitfront.core.errors import MalformedError

MAX_JSON_BYTES = 64 * 2**20  # a thousand layers and a hundred points take 6 MB
_SHOWN = 60  # characters of a value in a message


def read_text(path: Path, max_bytes: int) -> str:
    """The text of a regular file in UTF-8 of at most ``max_bytes``; a pipe or a device is never opened.

    Raises:
        MalformedError: If it is none, or cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise MalformedError(f"expected a regular file, got {_file_kind(status.st_mode)}")
        if status.st_size > max_bytes:
            raise MalformedError(f"expected at most {max_bytes:,} bytes, got {status.st_size:,}")
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        if isinstance(error, MalformedError):
            raise
        raise MalformedError(f"cannot be read ({getattr(error, 'strerror', None) or error})") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedError(
            f"expected text in UTF-8, got byte 0x{data[error.start]:02x} at offset {error.start}"
        ) from error
    if text.startswith("\ufeff"):
        raise MalformedError("expected text in UTF-8 without a byte order mark")
    return text


def parse_json(text: str) -> Any:
    """JSON text as plain values.

    Raises:
        MalformedError: If it is no JSON, has the same key twice in one object, or is nested too deeply.
    """
    repeated: dict[int, str] = {}

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            counts = Counter(key for key, _ in found)
            repeated[id(made)] = next(key for key in counts if counts[key] > 1)
            kept.append(made)  # so that no other object is given its id
        return made

    kept: list[Any] = []
    try:
        data = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        what = "a number of too many digits" if "int_max_str_digits" in str(error) else str(error)
        raise MalformedError(f"it cannot be read as JSON: {what}") from error
    except RecursionError as error:
        raise MalformedError("its lists and objects are nested too deeply") from error
    if repeated:
        where, key = next((path, repeated[id(item)]) for path, item in walk(data) if id(item) in repeated)
        raise MalformedError(f"{field_name((*where, key))}: the key comes twice")
    return data


def walk(data: Any) -> Iterator[tuple[tuple[int | str, ...], Any]]:
    """Iterate over (path, value) of a value and of all that it holds; not by recursion, since nesting may be deep."""
    waiting: list[tuple[tuple[int | str, ...], Any]] = [((), data)]
    while waiting:
        place, item = waiting.pop()
        yield place, item
        parts = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
        waiting.extend(((*place, key), part) for key, part in parts)


def field_name(path: tuple[int | str, ...]) -> str:
    """A field's place in a document: ``layers.fc1.precision``, ``front[2]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part if part.isprintable() else shown(part)}"
    return text.removeprefix(".")


def shown(value: Any) -> str:
    """A value as JSON, cut to what fits in a message."""
    if isinstance(value, Mapping):
        return f"an object with {len(value)} fields"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    try:
        text = json.dumps(value, ensure_ascii=True)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"


def _file_kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")
