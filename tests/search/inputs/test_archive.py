"""Archives from anywhere: headers are believed only as far as the archive bears them out, and damage is named."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitfront.core import Array, DataError
from bitfront.search.inputs.data.archive import array_names, read_npz


def values(count: int = 6) -> Array:
    return np.arange(count * 4, dtype=np.float32).reshape(count, 4)


def npy(array: Array, version: tuple[int, int] = (1, 0)) -> bytes:
    """An array as numpy writes it."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version, allow_pickle=True)
    return buffer.getvalue()


def entry(header: str, data: bytes = b"", *, version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """An entry whose header is any text, and claims any length."""
    text = header.encode()
    form = "<H" if version == (1, 0) else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(form, len(text) if length is None else length) + text + data


def head(shape: str = "(6, 4)", descr: str = "'<f4'", fortran: str = "False", more: str = "") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}{more}}}\n"


def write(path: Path, content: bytes, name: str = "x.npy", compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(name, content)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize(
    "array",
    [
        pytest.param(values(), id="plain"),
        pytest.param(np.asfortranarray(values()), id="Fortran order"),
        pytest.param(values().astype(">f4"), id="big-endian"),
        pytest.param(values()[::-1], id="reversed"),
        pytest.param(np.array(3.5), id="no axes"),
        pytest.param(np.zeros((0, 4), np.int16), id="no samples"),
        pytest.param(np.array([True, False]), id="booleans"),
        pytest.param(values().astype(">i8"), id="big-endian whole numbers"),
    ],
)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_what_numpy_writes_is_read(version: tuple[int, int], array: Array, compression: int, tmp_path: Path) -> None:
    """Every version, layout and byte order gives numpy's own numbers, in the machine's byte order."""
    path = tmp_path / "x.npz"
    write(path, npy(array, version), compression=compression)
    found = read_npz(path, ("x",))["x"]
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.dtype.isnative
    assert found.flags.c_contiguous


def test_names_are_read_without_the_arrays(tmp_path: Path) -> None:
    """What is not wanted is not unpacked, however large it says it is."""
    path = tmp_path / "x.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(values()))
        archive.writestr("more.npy", entry(head("(64000000,)", "'|u1'"), bytes(64_000_000)))
        archive.writestr("notes.txt", "no array")
    tracemalloc.start()
    try:
        assert array_names(path) == ("x", "more")
        assert set(read_npz(path, ("x", "absent"))) == {"x"}
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_labels_may_be_text(tmp_path: Path) -> None:
    """Labels are whatever a metric reads; inputs are numbers."""
    path = tmp_path / "x.npz"
    np.savez(path, labels=np.array(["cat", "dog"]))
    assert list(read_npz(path, (), labels="labels")["labels"]) == ["cat", "dog"]
    with pytest.raises(DataError, match=r"x\.npz': array 'labels' holds text"):
        read_npz(path, ("labels",))


HEADERS: dict[str, tuple[bytes, str]] = {
    "promises 256 TiB": (entry(head("(4398046511104, 16)")), "promises 281,474,976,710,656 bytes .* holds 0"),
    "beyond 64 bits": (entry(head(f"({2**70},)")), "no description of an array"),
    "product beyond 64 bits": (entry(head(f"({2**40}, {2**40})")), "header promises"),
    "negative": (entry(head("(-6, 4)"), bytes(96)), "no description of an array"),
    "boolean size": (entry(head("(True, 4)"), bytes(16)), "no description of an array"),
    "fractional size": (entry(head("(6.0, 4)"), bytes(96)), "no description of an array"),
    "size is no tuple": (entry(head("24"), bytes(96)), "no description of an array"),
    "too many axes": (entry(head("(" + "1," * 40 + ")"), bytes(4)), "no description of an array"),
    "open brackets": (entry("(" * 5000), "header has 5,000 bytes"),
    "open brackets, fewer": (entry("(" * 4000), "no description of an array"),
    "nested lists": (entry("[" * 2000 + "]" * 2000), "no description of an array"),
    "nested signs": (entry("-" * 4000 + "1"), "no description of an array"),
    "header beyond the entry": (entry(head(), length=4000), "header is cut off"),
    "header of 4 GB": (entry(head(), version=(2, 0), length=2**32 - 1), "header has 4,294,967,295 bytes"),
    "a field too many": (entry(head(more=", 'x': 1"), bytes(96)), "no description of an array"),
    "an expression": (entry("__import__('os').getcwd()\n"), "no description of an array"),
    "unknown dtype": (entry(head(descr="'<q9'"), bytes(96)), "names no dtype"),
    "dtype is a number": (entry(head(descr="7"), bytes(96)), "names no dtype"),
    "objects": (entry(head(descr="'|O'"), bytes(48)), "holds Python objects"),
    "records": (entry(head("(6,)", "[('a', '<f4'), ('b', '<f4')]"), bytes(48)), "holds records"),
    "complex": (entry(head("(6, 2)", "'<c8'"), bytes(96)), r"holds complex numbers \(dtype complex64\)"),
    "dates": (entry(head("(6, 2)", "'<M8[s]'"), bytes(96)), "holds dates"),
    "text": (entry(head("(6, 4)", "'<U1'"), bytes(96)), "holds text"),
    "data cut off": (entry(head(), bytes(95)), "promises 96 bytes .* holds 95"),
    "data left over": (entry(head(), bytes(97)), "promises 96 bytes .* holds 97"),
    "other version": (entry(head(), bytes(96), version=(4, 0)), "no .npy entry of version 1 to 3"),
    "no magic": (b"hello, this is no array", "no .npy entry"),
    "empty": (b"", "no .npy entry"),
    "cut after the magic": (b"\x93NUMPY\x01\x00\x10", "no complete .npz"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_makes_no_sense(case: str, tmp_path: Path) -> None:
    """A header is refused with its file and array before anything is allocated."""
    content, message = HEADERS[case]
    write(tmp_path / "x.npz", content, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(DataError, match=rf"x\.npz'.*{message}"):
        read_npz(tmp_path / "x.npz", ("x",))


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy(values()))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", npy(values(2)))


def flagged(path: Path) -> None:
    """The entry says that it is encrypted, in its own header and in the directory."""
    write(path, npy(values()))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def promising(path: Path) -> None:
    """The directory promises a gigabyte that a few bytes cannot hold."""
    write(path, npy(values()), compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 10**9)
    path.write_bytes(data)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a name twice": (twice, "array 'x' stands in it twice"),
    "encrypted": (flagged, "array 'x' is encrypted"),
    "lzma": (lambda p: write(p, npy(values()), compression=zipfile.ZIP_LZMA), "by another method than numpy's"),
    "bzip2": (lambda p: write(p, npy(values()), compression=zipfile.ZIP_BZIP2), "by another method than numpy's"),
    "more than deflate can": (promising, "bytes cannot hold 1,000,000,000"),
    "missing": (lambda _: None, "does not exist"),
    "folder": (lambda p: p.mkdir(), "is a folder"),
    "pipe": (lambda p: os.mkfifo(p), "is a pipe"),
    "device": (lambda p: p.symlink_to("/dev/zero"), "is a device"),
    "empty": (lambda p: p.touch(), "is empty"),
    "empty to the eye": (lambda p: p.symlink_to("/proc/self/status"), "is empty"),
    "link to itself": (lambda p: p.symlink_to(p), "cannot be opened"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_is_no_archive(case: str, tmp_path: Path) -> None:
    """What cannot be read is refused at once and by name; nothing waits for a pipe."""
    make, message = FILES[case]
    path = tmp_path / "x.npz"
    make(path)
    with pytest.raises(DataError, match=rf"x\.npz'.*{message}"):
        read_npz(path, ("x",))


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    """A name too long for the system, or with a zero byte, is refused like any other that cannot be opened."""
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(DataError, match="cannot be opened"):
            read_npz(tmp_path / name, ("x",))


def test_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays that do not fit into free memory are refused with both sizes before one is unpacked."""
    path = tmp_path / "x.npz"
    write(path, npy(values()))

    class Little:
        available = 95

    monkeypatch.setattr("bitfront.search.inputs.data.archive.psutil.virtual_memory", Little)
    with pytest.raises(DataError, match="take 96 bytes, and 95 bytes of memory are free"):
        read_npz(path, ("x",))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_flipped_and_cut(compression: int, tmp_path: Path) -> None:
    """Whatever happens to an archive's bytes, it is refused by name or gives the arrays that were written."""
    path, rng = tmp_path / "x.npz", np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x.npy", npy(values()))
        archive.writestr("labels.npy", npy(np.arange(6)))
    whole = path.read_bytes()
    refused = 0
    for step in range(400):
        data = bytearray(whole)
        for at in rng.integers(len(data), size=int(rng.integers(1, 4))):
            data[at] = rng.integers(256)
        cut = data[: rng.integers(len(data))] if step % 4 == 0 else data
        path.write_bytes(cut)
        try:
            found = read_npz(path, ("x",), labels="labels")
        except DataError as error:
            refused += "x.npz" in error.message
        else:
            for name, wanted in (("x", values()), ("labels", np.arange(6))):
                if name in found:  # the flip may have renamed the entry
                    np.testing.assert_array_equal(found[name], wanted)
    assert 200 < refused < 400
