"""Reading a large ONNX file without having it in memory: large weights stay where they are in the file.

The file is mapped and its graph looked through field by field (protobuf's encoding: a varint of field number and wire
type, then a varint, four or eight bytes, or a length and so many). Initialisers with large ``raw_data`` are parsed
without it; everything else is parsed by protobuf. What is not encoded as expected is left to protobuf to refuse.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from bitfront.core.blob import FileRange
from bitfront.lowering import weight_files
from bitfront.lowering.serialise import field_tag

_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message: its number and start, and the start and end of its content."""

    number: int
    start: int
    content: int
    end: int


def read_large(path: Path) -> tuple[onnx.ModelProto, dict[int, FileRange]]:
    """A model whose large initialisers have no bytes, and index of such an initialiser → where its bytes are.

    Raises:
        DecodeError: If the file is not encoded as a model.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = bytearray()
        graph, found, count = bytearray(), {}, 0
        for field in _fields(data, 0, len(data)):
            if field.number != _GRAPH:
                model += data[field.start : field.end]
                continue
            for inner in _fields(data, field.content, field.end):
                if inner.number != _INITIALIZER:
                    graph += data[inner.start : inner.end]
                    continue
                tensor, raw = _without_raw(data, inner)
                graph += field_tag(_INITIALIZER, len(tensor)) + tensor
                if raw is not None:
                    found[count] = FileRange(path=path, offset=raw.content, length=raw.end - raw.content)
                count += 1
        made = onnx.ModelProto()
        made.ParseFromString(bytes(model))
        made.graph.MergeFromString(bytes(graph))
        return made, found


def _without_raw(data: mmap.mmap, tensor: _Field) -> tuple[bytes, _Field | None]:
    if tensor.end - tensor.content < weight_files.DETACHED_TENSOR:
        return data[tensor.content : tensor.end], None
    parts, raw = bytearray(), None
    for field in _fields(data, tensor.content, tensor.end):
        if field.number == _RAW_DATA and field.end - field.content >= weight_files.DETACHED_TENSOR and raw is None:
            raw = field
        else:
            parts += data[field.start : field.end]
    return bytes(parts), raw


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    while start < end:
        tag, content = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, after = _varint(data, content, end)
        elif kind == _BYTES:
            length, content = _varint(data, content, end)
            after = content + length
        elif kind in (_EIGHT, _FOUR):
            after = content + (8 if kind == _EIGHT else 4)
        else:
            raise DecodeError("a field of unknown wire type")
        if after > end:
            raise DecodeError("a field is longer than what holds it")
        yield _Field(number, start, content, after)
        start = after


def _varint(data: mmap.mmap, start: int, end: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if start + place >= end:
            break
        byte = data[start + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, start + place + 1
    raise DecodeError("a number is cut off")
