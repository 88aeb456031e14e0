"""A content-addressed store: expensive results kept under a hash of everything they depend on.

A key is the SHA-256 of a canonical rendering of its parts, so a stale entry cannot be hit and nobody has to
remember to clean one. An entry is one file, written in one step: named arrays (``.npz``) or JSON, sealed with a SHA-256
over form, kind, key and content, in the archive's comment or beside the value. Whatever is not as it was sealed (cut,
altered, another entry's, of an earlier form, no file at all) counts as missing and is made again.

Two sorts of entries have keys of two sorts. A *measurement* holds for one machine and one version of a runtime, which
are part of its key ("device"). What was *made* (weights, networks, trainings) is given by its inputs and by a schema
number that is raised when our code makes it otherwise; it stays valid when a library is updated, for configs refer to
it.

    kind               key made of
    ranges             schema, ONNX Runtime's version, network, calibration inputs used, calibration settings, tensors
    rounded            schema, network, (methods that calibrate: calibration inputs, the layers before), bits, method,
                       group size, layer, lower limits of its scales
    sensitivity        schema, FP32 artifact, inputs, backend, device; then the artifact's bytes
    sparsity           schema, network, divergence metric, options, inputs, training inputs and labels read; then group,
                       sparsity
    granularity        schema, backend, device, threads, batch, multiples, precisions
    lowered            our code that writes networks, versions of onnx and NumPy, network, calibration inputs and
                       settings, device, backend, threads; then the network made by passes, schemes
    timed, footprint,  our code that compiles and times, network, device, backend, threads, batch, calibration inputs,
    here, elsewhere,   timing settings; then the artifact, or all that were timed together
    here-third,
    elsewhere-third
    scored             our code that compiles and runs, device, backend, threads, evaluation data, metric's code and
                       state, seed, share held out; then the artifact and the part of the data
    given-outputs      the same as scored, the given network; then its artifact, the part of the data, batch, places of
                       the samples
    importances        network, training data, importance, samples, seed
    pace               network, training data, step options
    network            the steps it is made by, which are its content
    training, trained, network, training data, students' code and weights, all steps before with their options, the
    trained-until      step; for quantisation-aware training also dialect, calibration settings and inputs
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitfront.core.blob import Blob
from bitfront.core.files import unwritable, write_bytes

# Raise it when the form of entries changes.
_FORM = 1
_SEAL_LENGTH = 64
_NO_COMMENT = b"\0\0"  # the length of an archive's comment, its last field where there is none

_BLOCK_BYTES = 64 * 2**20


def digest(*parts: Any) -> str:
    """SHA-256 hex digest of bytes, text, numbers, None, arrays, mappings and sequences of them, types kept apart.

    Raises:
        TypeError: For anything else, arrays of Python objects among it.
    """
    state = hashlib.sha256()
    _feed(state, parts)
    return state.hexdigest()


def _feed(state: Any, part: Any) -> None:
    if isinstance(part, np.ndarray):
        if part.dtype.hasobject:
            if part.ndim != 1 or not all(isinstance(sample, np.ndarray) for sample in part):
                raise TypeError("cannot digest an array of Python objects")  # its bytes are addresses
            state.update(f"r{len(part)}:".encode())  # samples of different shapes (core.ragged)
            for sample in part:
                _feed(state, sample)
            return
        state.update(f"a{part.dtype.newbyteorder('=').str}{part.shape or (1,)}".encode())
        for rows in _blocks(part):
            state.update(np.asarray(rows, dtype=rows.dtype.newbyteorder("="), order="C").tobytes())
    elif isinstance(part, bytes):
        state.update(f"b{len(part)}:".encode() + part)
    elif isinstance(part, Blob):
        state.update(f"b{len(part)}:".encode())
        for block in part.blocks():
            state.update(block)
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
    """A store of entries by kind and key, in files under ``folder``; without a folder, in memory."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}

    @property
    def folder(self) -> Path | None:
        """The folder of the entries; None for a store in memory."""
        return self._folder

    def get_arrays(self, kind: str, key: str) -> dict[str, NDArray[Any]] | None:
        """The arrays stored under (kind, key), or None; a damaged entry counts as missing."""
        data = self._read(f"{kind}-{key}.npz")
        if data is None:
            return None
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def put_arrays(self, kind: str, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Store named arrays under (kind, key).

        Raises:
            OutputError: If the entry cannot be written.
        """
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
        """Store a JSON value under (kind, key).

        Raises:
            OutputError: If the entry cannot be written.
        """
        self._write(f"{kind}-{key}.json", json.dumps(value).encode())

    def _read(self, name: str) -> bytes | None:
        if self._folder is None:
            return self._memory.get(name)
        path = self._folder / name
        try:
            # Reading a pipe would wait for somebody to write.
            return _opened(name, path.read_bytes()) if path.is_file() else None
        except OSError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        if self._folder is None:
            self._memory[name] = content
            return
        path = self._folder / name
        if path.exists() and not path.is_file():
            # Nothing of ours is a folder, a pipe or a device there, and what is written must not go into one.
            try:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            except OSError as error:
                raise unwritable(path, error) from error
        write_bytes(path, _sealed(name, content))


def _sealed(name: str, content: bytes) -> bytes:
    """An entry's file: its content, still JSON or an archive, with its checksum."""
    seal = digest(_FORM, name, content).encode()
    if name.endswith(".json"):
        return b'{"sha256": "%s", "value": %s}' % (seal, content)
    assert content.endswith(_NO_COMMENT), "numpy writes archives without a comment"
    return content[: -len(_NO_COMMENT)] + len(seal).to_bytes(2, "little") + seal


def _opened(name: str, data: bytes) -> bytes | None:
    """The content of an entry's file; None where that is not as it was sealed."""
    if name.endswith(".json"):
        start = len(b'{"sha256": "", "value": ') + _SEAL_LENGTH
        content = data[start:-1]
    else:
        content = data[: -_SEAL_LENGTH - len(_NO_COMMENT)] + _NO_COMMENT
    return content if _sealed(name, content) == data else None
