"""Large weights stay in files: an initialiser then says where its bytes lie, and whoever reads it maps them.

In a network from ``DETACHED_NETWORK`` bytes on every initialiser of the main graph from ``DETACHED_TENSOR`` bytes on is
*detached*. It is one with external data whose location is a path from the root of the file system, so copies of a
model share the bytes, and neither protobuf's limit nor a copy is ever met by them. What came inside a model file, and
what is computed, is moved to a temporary file of the network's own, at offsets that runtimes can map.

``tensor_array`` reads either kind, ``stored_bytes`` tells what a tensor takes inside a file.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import unwritable
from bitfront.core.blob import FileRange, Part
from bitfront.core.temporary import temporary_folder

ROOT = Path(Path.cwd().anchor)
"""What locations of detached tensors are relative to."""

DETACHED_NETWORK = 64 * 2**20
DETACHED_TENSOR = 2**16
LIMIT = 2**31 - 1  # bytes of one protobuf message
_ALIGNMENT = 4096
_PACKED = frozenset((TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1))  # two elements a byte


class WeightFile:
    """A temporary file that weights are appended to; it is removed with this object.

    Raises:
        OutputError: If there is no room for it.
    """

    def __init__(self) -> None:
        self._folder = contextlib.ExitStack()
        self.path = self._folder.enter_context(temporary_folder()) / "weights"
        self.path.touch()
        self._size = 0
        weakref.finalize(self, self._folder.close)

    def close(self) -> None:
        """Remove the file now."""
        self._folder.close()

    def append(self, data: Part) -> FileRange:
        """Write bytes behind those that are there.

        Raises:
            OutputError: If the disk is full.
        """
        start = -(-self._size // _ALIGNMENT) * _ALIGNMENT
        try:
            with self.path.open("r+b") as file:
                file.seek(start)
                for block in data.blocks():
                    file.write(block)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self._size = start + len(data)
        return FileRange(path=self.path, offset=start, length=len(data))


class RawData:
    """The bytes of a tensor that holds its own, fetched when they are asked for.

    Args:
        tensor: With ``raw_data``.
    """

    def __init__(self, tensor: TensorProto) -> None:
        self._tensor = tensor
        self._length = len(tensor.raw_data)

    def __len__(self) -> int:
        """The number of bytes."""
        return self._length

    def blocks(self) -> Iterator[bytes]:
        """All of them as one block."""
        yield self._tensor.raw_data


def is_detached(tensor: TensorProto) -> bool:
    """Whether a tensor's bytes lie in a file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def refer(tensor: TensorProto, data: FileRange) -> None:
    """Let a tensor's bytes be those of a file, in place."""
    tensor.ClearField("raw_data")
    del tensor.external_data[:]
    location = data.path.resolve().relative_to(ROOT).as_posix()
    for key, value in (("location", location), ("offset", str(data.offset)), ("length", str(data.length))):
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = TensorProto.EXTERNAL


def file_range(tensor: TensorProto) -> FileRange:
    """The range of a file that holds the bytes of a detached tensor."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    return FileRange(
        path=ROOT / entries["location"], offset=int(entries.get("offset", "0")), length=int(entries["length"])
    )


def tensor_array(tensor: TensorProto) -> NDArray[Any]:
    """The value of a tensor, read-only; that of a detached one is mapped, not read.

    Raises:
        OSError: If its file is gone.
    """
    if not is_detached(tensor):
        return numpy_helper.to_array(tensor)
    data = file_range(tensor)
    if tensor.data_type in _PACKED:
        whole = TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=bytes(data.view()))
        return numpy_helper.to_array(whole)
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.frombuffer(data.view(), dtype=kind).reshape(tuple(tensor.dims))


def stored_bytes(tensor: TensorProto) -> int:
    """Bytes that a tensor takes as a message of its own, whether it is detached or not."""
    if not is_detached(tensor):
        return int(tensor.ByteSize())
    length = file_range(tensor).length
    return int(_without_data(tensor).ByteSize()) + 1 + varint_bytes(length) + length


def varint_bytes(number: int) -> int:
    """Bytes that protobuf writes a length in."""
    return max(1, (number.bit_length() + 6) // 7)


def inline_bytes(tensors: Iterable[TensorProto]) -> int:
    """Bytes of elements in all, from shapes and types."""
    return sum(
        (prod(tensor.dims) + 1) // 2
        if tensor.data_type in _PACKED
        else prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in tensors
        if tensor.data_type in helper.get_all_tensor_dtypes() and tensor.data_type != TensorProto.STRING
    )


def detach(model: onnx.ModelProto, file: WeightFile) -> None:
    """Move the large initialisers of a model's main graph to a file, in place.

    Raises:
        OutputError: If the disk is full.
    """
    for tensor in model.graph.initializer:
        detach_one(tensor, file)


def detach_one(tensor: TensorProto, file: WeightFile) -> None:
    """Move an initialiser to a file if it is large, in place.

    Raises:
        OutputError: If the disk is full.
    """
    if not is_detached(tensor) and tensor.HasField("raw_data") and inline_bytes([tensor]) >= DETACHED_TENSOR:
        refer(tensor, file.append(RawData(tensor)))


def has_detached(model: onnx.ModelProto) -> bool:
    """Whether some initialiser of a model's main graph is detached."""
    return any(is_detached(tensor) for tensor in model.graph.initializer)


def detached_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model's detached initialisers."""
    return sum(file_range(tensor).length for tensor in model.graph.initializer if is_detached(tensor))


def _without_data(tensor: TensorProto) -> TensorProto:
    bare = TensorProto()
    bare.CopyFrom(tensor)
    for field in ("external_data", "data_location"):
        bare.ClearField(field)
    return bare
