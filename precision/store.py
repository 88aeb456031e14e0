"""A content-addressed store: expensive results kept under a hash of everything they depend on.

A key is the SHA-256 of a canonical rendering of its parts, so a stale entry cannot be hit and nobody has to
remember to clean one. An entry is one file of named arrays (``.npz``) or of JSON, written in one step.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precision.files import write_bytes

_BLOCK_BYTES = 64 * 2**20


def digest(*parts: Any) -> str:
    """SHA-256 hex digest of bytes, text, numbers, None, arrays, mappings and sequences of them, types kept apart."""
    state = hashlib.sha256()
    _feed(state, parts)
    return state.hexdigest()


def _feed(state: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        state.update(f"a{part.dtype.newbyteorder('=').str}{part.shape or (1,)}".encode())
        for rows in _blocks(part):
            state.update(np.asarray(rows, dtype=rows.dtype.newbyteorder("="), order="C").tobytes())
    elif isinstance(part, bytes):
        state.update(f"b{len(part)}:".encode() + part)
    elif isinstance(part, str):
        encoded = part.encode()
        state.update(f"s{len(encoded)}:".encode() + encoded)
    elif part is None or isinstance(part, bool | int | float):
        state.update(f"n{part!r};".encode())
    elif isinstance(part, Mapping):
        state.update(f"m{len(part)}:".encode())
        for key in sorted(part):
            _feed(state, key)
            _feed(state, part[key])
    elif isinstance(part, tuple | list):
        state.update(f"l{len(part)}:".encode())
        for item in part:
            _feed(state, item)
    else:
        raise TypeError(f"cannot digest a {type(part).__name__}")


def _blocks(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array in parts along its first axis, so that none that is only a view of fewer values takes much memory."""
    if not array.ndim:
        yield array
        return
    rows = max(1, _BLOCK_BYTES // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


class ContentStore:
    """Entries under ``folder``; a store without a folder keeps them in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}

    @property
    def folder(self) -> Path | None:
        """Where entries lie; None keeps them in memory."""
        return self._folder

    def get_arrays(self, kind: str, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays stored under (kind, key), or None; a damaged entry counts as missing."""
        data = self._read(f"{kind}-{key}.npz")
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError):
            return None

    def put_arrays(self, kind: str, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store named arrays under (kind, key)."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **dict(arrays))
        self._write(f"{kind}-{key}.npz", buffer.getvalue())

    def get_json(self, kind: str, key: str) -> Any | None:
        """The JSON value stored under (kind, key), or None; a damaged entry counts as missing."""
        data = self._read(f"{kind}-{key}.json")
        if data is None:
            return None
        try:
            return json.loads(data)
        except ValueError:
            return None

    def put_json(self, kind: str, key: str, value: Any) -> None:
        """Store a JSON value under (kind, key)."""
        self._write(f"{kind}-{key}.json", json.dumps(value).encode())

    def _read(self, name: str) -> bytes | None:
        if self._folder is None:
            return self._memory.get(name)
        try:
            return (self._folder / name).read_bytes()
        except OSError:
            return None

    def _write(self, name: str, data: bytes) -> None:
        if self._folder is None:
            self._memory[name] = data
        else:
            write_bytes(self._folder / name, data)
