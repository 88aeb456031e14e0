"""Reading ``.npz`` archives that may come from anywhere: every header is read and checked before any array is unpacked.

An entry takes memory only if somebody asked for it by name, if the archive can hold what its header promises, and if
the machine has room for that. Everything that numpy writes is read; encrypted entries, compressions other than numpy's,
names that stand twice and headers that do not match their data are refused.

The format is that of ``numpy.lib.format``: ``NUMPY`` behind the byte 0x93, a version, the header's length and the text
of a dictionary with ``descr``, ``fortran_order`` and ``shape``.
"""

from __future__ import annotations

import ast
import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import psutil

from bitfront.core import Array, DataError
from bitfront.core.files import check_readable
from bitfront.search.inputs.values import LABEL_KINDS, NUMBERS, as_array, check_dtype

_MAGIC = b"\x93NUMPY"
_LENGTHS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
_MOST_HEADER_BYTES = 4096  # numpy's own are of 128 bytes
_MOST_AXES = 32
# Deflate cannot shrink anything by more than this (zlib's documentation, "Maximum Compression Factor").
_MOST_DEFLATED = 1032
_BLOCK_BYTES = 2**24
_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An array of an archive, as its header describes it.

    Attributes:
        info: The entry in the archive.
        dtype: Type of the elements.
        shape: Sizes of the axes.
        fortran: Whether the first axis is the fastest.
        start: Bytes before the data.
    """

    info: zipfile.ZipInfo
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    start: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the array's data, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path, wanted: Collection[str], *, labels: str | None = None) -> dict[str, Array]:
    """The arrays of an ``.npz`` file that are wanted.

    Args:
        path: The file.
        wanted: Names of arrays of numbers; one that the file does not have is left out.
        labels: Name of an array that may be of text, too.

    Raises:
        DataError: If the file is missing, damaged or no ``.npz``, if a wanted array holds no numbers, or they do not
            fit into memory.
    """
    with _opened(path) as archive:
        entries_by_name = _zip_entries(archive, path)
        entries = {}
        for name, info in entries_by_name.items():
            if name in wanted or name == labels:
                entries[name] = _entry(archive, info, f"'{path}': array '{name}'")
                kinds = NUMBERS if name in wanted else LABEL_KINDS
                check_dtype(entries[name].dtype, f"'{path}': array '{name}'", kinds)
        needed, free = sum(entry.size_bytes for entry in entries.values()), psutil.virtual_memory().available
        if needed > free:
            raise DataError(
                f"'{path}': its arrays take {needed:,} bytes, and {free:,} bytes of memory are free",
                "give fewer samples",
            )
        return {name: _data(archive, entry, f"'{path}': array '{name}'") for name, entry in entries.items()}


def array_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in an ``.npz`` file; none is unpacked.

    Raises:
        DataError: If the file is missing, damaged or no ``.npz``.
    """
    with _opened(path) as archive:
        return tuple(_zip_entries(archive, path))


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    check_readable(path, DataError, "an .npz file", "write one with numpy.savez")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except MemoryError as error:
        raise DataError(f"'{path}' does not fit into memory", "give fewer samples") from error
    except _DAMAGE as error:
        raise DataError(f"'{path}' is no complete .npz archive ({error})", "write it again with numpy.savez") from error


def _zip_entries(archive: zipfile.ZipFile, path: Path) -> Mapping[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        if not info.filename.endswith(".npy"):
            continue
        name = info.filename.removesuffix(".npy")
        if name in found:
            raise DataError(f"'{path}': array '{name}' stands in it twice", "write it again with numpy.savez")
        found[name] = info
    return found


def _entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> Entry:
    """Read and check one header.

    Raises:
        DataError: If it makes no sense, or does not match what the archive holds.
    """
    again = "write it again with numpy.savez"
    if info.flag_bits & 1:
        raise DataError(f"{where} is encrypted", again)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{where} is compressed by another method than numpy's", again)
    if info.file_size > (info.compress_size + 64) * _MOST_DEFLATED:
        raise DataError(f"{where}: {info.compress_size:,} bytes cannot hold {info.file_size:,}", again)
    with archive.open(info) as file:
        text, start = _header_text(file, where)
    header = _parsed(text, where)
    try:
        dtype = np.lib.format.descr_to_dtype(header["descr"])
    except (TypeError, ValueError, LookupError, SyntaxError, OverflowError) as error:
        raise DataError(f"{where}: its header names no dtype: {str(header['descr'])[:60]!r}", again) from error
    entry = Entry(info=info, dtype=dtype, shape=header["shape"], fortran=header["fortran_order"], start=start)
    if not dtype.hasobject and info.file_size != start + entry.size_bytes:
        raise DataError(
            f"{where}: its header promises {entry.size_bytes:,} bytes of data (shape {entry.shape}, dtype {dtype}), "
            f"the archive holds {info.file_size - start:,}",
            again,
        )
    return entry


def _header_text(file: IO[bytes], where: str) -> tuple[str, int]:
    """The header's text, and the bytes up to its end."""
    begin = file.read(8)
    form = _LENGTHS.get((begin[6], begin[7])) if len(begin) == 8 and begin.startswith(_MAGIC) else None
    if form is None:
        raise DataError(f"{where} is no .npy entry of version 1 to 3", "write it again with numpy.savez")
    prefix = file.read(struct.calcsize(form))
    (length,) = struct.unpack(form, prefix)
    if length > _MOST_HEADER_BYTES:
        raise DataError(
            f"{where}: its header has {length:,} bytes, expected {_MOST_HEADER_BYTES:,} at most",
            "write it again with numpy.savez",
        )
    text = file.read(length)
    if len(text) < length:
        raise DataError(f"{where}: its header is cut off", "write it again with numpy.savez")
    return text.decode("utf-8" if begin[6] == 3 else "latin-1"), 8 + len(prefix) + length


def _parsed(text: str, where: str) -> Mapping[str, Any]:
    # Python's parser gives up on what is nested deeply, in any of these ways.
    try:
        header = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        header = None
    if not (
        isinstance(header, dict)
        and set(header) == {"descr", "fortran_order", "shape"}
        and isinstance(header["fortran_order"], bool)
        and isinstance(header["shape"], tuple)
        and len(header["shape"]) <= _MOST_AXES
        and all(type(size) is int and 0 <= size < 2**63 for size in header["shape"])
    ):
        raise DataError(
            f"{where}: its header is no description of an array: {text.strip()[:60]!r}", "write it with numpy.savez"
        )
    return header


def _data(archive: zipfile.ZipFile, entry: Entry, where: str) -> Array:
    array: Array = np.empty(entry.shape[::-1] if entry.fortran else entry.shape, entry.dtype)
    with archive.open(entry.info) as file:
        file.read(entry.start)
        if entry.size_bytes:
            flat = array.reshape(-1).view(np.uint8)
            done = 0
            while done < entry.size_bytes:
                got = file.read(min(_BLOCK_BYTES, entry.size_bytes - done))
                if not got:
                    raise DataError(f"{where}: its data is cut off", "write it again with numpy.savez")
                flat[done : done + len(got)] = np.frombuffer(got, np.uint8)
                done += len(got)
    return as_array(array.T if entry.fortran else array, where, LABEL_KINDS)
