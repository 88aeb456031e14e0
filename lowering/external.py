"""Tensors that an ONNX file keeps in files beside it: where they lie, how large they are, reading them.

Their sizes are added up before anything is read. A network beyond one ONNX file (2 GB) is refused, and so is data
outside the model's own folder: a model file must not be able to read anything else on the machine.
"""

from __future__ import annotations

from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from bitfront.core import ModelError
from bitfront.core.formatting import first_line
from bitfront.lowering.graph import constants_of

LIMIT = 2**31 - 1  # bytes of one protobuf message
_BITS: dict[int, int] = {TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4}


def check_sizes(path: Path, model: onnx.ModelProto | None) -> None:
    """Refuse a network beyond 2 GB, from what files and tensors say of themselves.

    Args:
        path: The model's file.
        model: The model without its external data; None checks the file alone.

    Raises:
        ModelError: If it is too large, or a tensor's data does not fit its shape, or lies outside the folder.
    """
    total = path.stat().st_size
    if model is not None:
        total += sum(_stored_bytes(tensor, path) for tensor in external_tensors(model))
    if total > LIMIT:
        raise ModelError(
            f"'{path}': the network has {total / 1e9:.2f} GB, more than one ONNX file can hold ({LIMIT / 1e9:.2f} GB)",
            "search a part of the network, or a smaller one",
        )


def load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Read external data into the model, in place; ``check_sizes`` comes first.

    Raises:
        ModelError: If it cannot be read.
    """
    for tensor in external_tensors(model):
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.resolve().parent))
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"'{path}': external data of tensor '{tensor.name}' cannot be read ({first_line(error)})",
                "the data file may be truncated: copy it again",
            ) from error
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _stored_bytes(tensor: TensorProto, path: Path) -> int:
    """Bytes of a tensor's external data, which its shape and its file allow."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    target = _file_of(tensor, entries.get("location", ""), path)
    offset = _whole(entries.get("offset", "0"), "offset", tensor, path)
    available = target.stat().st_size - offset
    length = _whole(entries["length"], "length", tensor, path) if "length" in entries else available
    if tensor.data_type not in helper.get_all_tensor_dtypes() or tensor.data_type == TensorProto.STRING:
        raise ModelError(
            f"'{path}': tensor '{tensor.name}' keeps data of type {tensor.data_type} in '{target.name}', which cannot "
            "be external",
            "export it again",
        )
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"'{path}': tensor '{tensor.name}' has shape {tuple(tensor.dims)}", "export it again")
    width = _BITS.get(tensor.data_type) or 8 * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    wanted = (prod(tensor.dims) * width + 7) // 8
    if length != wanted:
        raise ModelError(
            f"'{path}': tensor '{tensor.name}' of shape {tuple(tensor.dims)} takes {wanted:,} bytes, but its external "
            f"data has {length:,}",
            "the data file may be truncated: copy it again",
        )
    if length > available:
        raise ModelError(
            f"'{path}': external data of tensor '{tensor.name}' cannot be read: '{target.name}' has "
            f"{max(available, 0):,} bytes from {offset:,} on, expected {length:,}",
            "the data file may be truncated: copy it again",
        )
    return length


def _file_of(tensor: TensorProto, location: str, path: Path) -> Path:
    folder = path.resolve().parent
    try:
        target = (folder / location).resolve()
        inside, there = bool(location) and target.is_relative_to(folder), target.is_file()
    except (OSError, ValueError, RuntimeError):
        inside, there = True, False  # no name that a file can have
    if not inside:
        raise ModelError(
            f"'{path}': tensor '{tensor.name}' keeps its data in '{location}', outside the model's folder",
            "move the data file beside the model and save the model with a relative location",
        )
    if not there:
        raise ModelError(
            f"'{path}': tensor '{tensor.name}' keeps its data in '{location}', which is missing",
            "copy the data file beside the model",
        )
    return target


def _whole(text: str, what: str, tensor: TensorProto, path: Path) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise ModelError(
            f"'{path}': tensor '{tensor.name}': expected a number of bytes as the {what} of its external data, got "
            f"'{text[:40]}'",
            "save the model anew",
        )
    return int(text)


def external_tensors(model: onnx.ModelProto) -> list[TensorProto]:
    """Tensors of a model, its subgraphs and functions that keep their data in another file."""
    return [tensor for tensor in constants_of(model) if tensor.data_location == TensorProto.EXTERNAL]
