"""Bytes of which most lie in files: joined from parts, and read a block at a time.

A model's file is such a blob where its weights are many: between parts of a few bytes stand ranges of other files,
which are read when the blob is written, digested or loaded, and are never all in memory.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

BLOCK_BYTES = 4 * 2**20


class Part(Protocol):
    """Bytes that are made or read when they are asked for."""

    def __len__(self) -> int:
        """The number of bytes."""
        ...

    def blocks(self) -> Iterator[bytes]:
        """The bytes in order, a block at a time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRange:
    """Bytes of a file, which must stay as it is.

    Attributes:
        path: The file.
        offset: The first byte.
        length: Their number.
    """

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        """The number of bytes."""
        return self.length

    def blocks(self) -> Iterator[bytes]:
        """The bytes in order, a block at a time.

        Raises:
            OSError: If the file cannot be read, or is shorter than it was.
        """
        left = self.length
        with self.path.open("rb") as file:
            file.seek(self.offset)
            while left:
                block = file.read(min(left, BLOCK_BYTES))
                if not block:
                    raise OSError(f"'{self.path}' has become shorter while it was in use")
                left -= len(block)
                yield block

    def view(self) -> memoryview:
        """The bytes mapped into memory, read-only: pages are read when they are looked at.

        Raises:
            OSError: If the file cannot be mapped.
        """
        if not self.length:
            return memoryview(b"")
        before = self.offset % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), before + self.length, offset=self.offset - before, access=mmap.ACCESS_READ)
        return memoryview(whole)[before:]


class Blob:
    """Parts joined.

    Args:
        parts: In order.
    """

    def __init__(self, parts: Iterable[bytes | Part]) -> None:
        self.parts = tuple(parts)
        self._length = sum(map(len, self.parts))

    def __len__(self) -> int:
        """The number of bytes."""
        return self._length

    def __bytes__(self) -> bytes:
        """All bytes, in memory."""
        return b"".join(self.blocks())

    def __eq__(self, other: object) -> bool:
        """Whether another blob, or bytes, are the same bytes."""
        if not isinstance(other, bytes | Blob):
            return NotImplemented
        return len(self) == len(other) and bytes(self) == bytes(other)

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def parts_digest(self) -> str:
        """SHA-256 of the parts' digests; a range of a file is read for it once, however many blobs it is in.

        Raises:
            OSError: If a file cannot be read.
        """
        state = hashlib.sha256()
        for part in self.parts:
            state.update(_digest_of_range(part) if isinstance(part, FileRange) else _digest_of_part(part))
        return state.hexdigest()

    def blocks(self) -> Iterator[bytes]:
        """The bytes in order, a block at a time.

        Raises:
            OSError: If a file cannot be read.
        """
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from part.blocks()


@lru_cache(maxsize=4096)
def _digest_of_range(part: FileRange) -> bytes:
    return _digest_of_part(part)


def _digest_of_part(part: bytes | Part) -> bytes:
    state = hashlib.sha256()
    for block in (part,) if isinstance(part, bytes) else part.blocks():
        state.update(block)
    return state.digest()
