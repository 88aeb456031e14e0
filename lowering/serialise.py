"""The file that a model is written as, without the model in memory: what protobuf would write, in parts.

A message is its fields in the order of their numbers, so a model is what stands before its graph, the graph's length,
what stands before the first initialiser, each of them, and what follows. The bytes of detached tensors
(``lowering.weight_files``) stay ranges of files. A model without detached tensors is written by protobuf itself.

Beyond ``weight_files.LIMIT`` no protobuf can be read, so such a model is a file of its graph and one with its large
weights beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto

from bitfront.core import Artifact, LoweringError
from bitfront.core.blob import Blob, Part
from bitfront.lowering import weight_files
from bitfront.lowering.weight_files import (
    RawData,
    file_range,
    has_detached,
    inline_bytes,
    is_detached,
    varint_bytes,
)

MAIN = "model.onnx"
_ALIGNMENT = 4096
_BYTES = 2  # protobuf's wire type of what has a length
_GRAPH = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
_RAW_DATA = TensorProto.DESCRIPTOR.fields_by_name["raw_data"].number
_REFERENCE = frozenset(("external_data", "data_location"))


def file_of(model: onnx.ModelProto) -> bytes | Blob:
    """The model as one file, of whatever size: what ``SerializeToString(deterministic=True)`` gives of it whole."""
    if not has_detached(model):
        return bytes(model.SerializeToString(deterministic=True))
    return Blob(_model_parts(model))


def message_of(part: onnx.NodeProto | TensorProto) -> bytes | Blob:
    """A node or a tensor as a message of its own: what ``SerializeToString(deterministic=True)`` gives of it whole."""
    if isinstance(part, TensorProto) and is_detached(part):
        return Blob(_tensor_parts(part))
    return bytes(part.SerializeToString(deterministic=True))


def artifact_of(model: onnx.ModelProto, settings: Mapping[str, str] | None = None) -> Artifact:
    """The model as it is deployed: one file, or two beyond ``weight_files.LIMIT``, the second with the large weights.

    Raises:
        LoweringError: If what is left in the first one is too large as well.
    """
    if not has_detached(model) and inline_bytes(model.graph.initializer) < weight_files.DETACHED_NETWORK:
        return Artifact.onnx(bytes(model.SerializeToString(deterministic=True)), settings)
    whole = Blob(_model_parts(model))
    if len(whole) <= weight_files.LIMIT:
        return Artifact.onnx(whole, settings)
    data = {tensor.name: part for tensor in model.graph.initializer if (part := _large_data(tensor)) is not None}
    weights = Blob(_aligned(data.values()))
    name = f"weights-{weights.parts_digest[:24]}.bin"
    main = _referring(model, name, {name: len(part) for name, part in data.items()})
    if main.ByteSize() > weight_files.LIMIT:
        raise LoweringError(
            f"the graph alone takes {main.ByteSize() / 1e9:.2f} GB, more than one ONNX file can hold",
            "search a part of the network",
        )
    files: dict[str, bytes | Blob] = {MAIN: bytes(main.SerializeToString(deterministic=True)), name: weights}
    return Artifact(files=files, main=MAIN, settings=dict(settings or {}))


def _large_data(tensor: TensorProto) -> Part | None:
    """The bytes of a tensor that is detached or might be; None of others."""
    if is_detached(tensor):
        return file_range(tensor)
    if not tensor.HasField("raw_data") or inline_bytes([tensor]) < weight_files.DETACHED_TENSOR // 2:
        return None
    data = RawData(tensor)
    return data if len(data) >= weight_files.DETACHED_TENSOR else None


def _aligned(data: Any) -> Iterator[bytes | Part]:
    """The parts, each at a multiple of ``_ALIGNMENT``, from which runtimes can map it."""
    place = 0
    for part in data:
        if gap := -place % _ALIGNMENT:
            yield bytes(gap)
        yield part
        place += gap + len(part)


def _referring(model: onnx.ModelProto, file: str, lengths: Mapping[str, int]) -> onnx.ModelProto:
    """The model with the named initialisers in ``file``, in their order."""
    main: onnx.ModelProto = copy_fields(model, lambda field: field.number != _GRAPH)
    main.graph.CopyFrom(copy_fields(model.graph, lambda field: field.number != _INITIALIZER))
    place = 0
    for tensor in model.graph.initializer:
        if tensor.name not in lengths:
            main.graph.initializer.append(tensor)
            continue
        place += -place % _ALIGNMENT
        entry = copy_fields(tensor, lambda field: field.number != _RAW_DATA and field.name not in _REFERENCE)
        for key, value in (("location", file), ("offset", str(place)), ("length", str(lengths[tensor.name]))):
            entry.external_data.add(key=key, value=value)
        entry.data_location = TensorProto.EXTERNAL
        main.graph.initializer.append(entry)
        place += lengths[tensor.name]
    return main


def _model_parts(model: onnx.ModelProto) -> Iterator[bytes | Part]:
    graph = Blob(_graph_parts(model.graph))
    yield _bytes_of(model, lambda field: field.number < _GRAPH)
    yield field_tag(_GRAPH, len(graph))
    yield from graph.parts
    yield _bytes_of(model, lambda field: field.number > _GRAPH)


def _graph_parts(graph: onnx.GraphProto) -> Iterator[bytes | Part]:
    yield _bytes_of(graph, lambda field: field.number < _INITIALIZER)
    for tensor in graph.initializer:
        parts = tuple(_tensor_parts(tensor))
        yield field_tag(_INITIALIZER, sum(map(len, parts)))
        yield from parts
    yield _bytes_of(graph, lambda field: field.number > _INITIALIZER)


def _tensor_parts(tensor: TensorProto) -> Iterator[bytes | Part]:
    data = _large_data(tensor)
    if data is None:
        yield bytes(tensor.SerializeToString(deterministic=True))
        return
    yield _bytes_of(tensor, lambda field: field.number < _RAW_DATA)
    yield field_tag(_RAW_DATA, len(data))
    yield data
    yield _bytes_of(tensor, lambda field: field.number > _RAW_DATA and field.name not in _REFERENCE)


def field_tag(number: int, length: int) -> bytes:
    """The bytes that protobuf writes before a field that has a length."""
    assert number < 16, "one byte"
    varint = [(length >> 7 * place) & 0x7F | 0x80 for place in range(varint_bytes(length))]
    varint[-1] &= 0x7F
    return bytes([number << 3 | _BYTES, *varint])


def _bytes_of(message: Message, wanted: Callable[[FieldDescriptor], bool]) -> bytes:
    return bytes(copy_fields(message, wanted).SerializeToString(deterministic=True))


def copy_fields(message: Any, wanted: Callable[[FieldDescriptor], bool]) -> Any:
    """A message of the same type with the wanted fields alone."""
    copy = type(message)()
    for field, value in message.ListFields():
        if not wanted(field):
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        elif field.message_type is not None:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    return copy
