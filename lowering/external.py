"""Tensors that an ONNX file keeps in files beside it: where they lie, how large they are, reading them.

Their sizes are added up before anything is read. Data outside the model's own folder is refused: a model file must not
be able to read anything else on the machine.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from bitfront.core import ModelError
from bitfront.core.blob import FileRange
from bitfront.core.formatting import first_line
from bitfront.lowering import weight_files
from bitfront.lowering.graph import constants_of
from bitfront.lowering.weight_files import WeightFile, inline_bytes, refer

_WIDEST = 8  # bytes of the largest element


def network_bytes(path: Path, model: onnx.ModelProto) -> int:
    """Bytes of a network, from what its files and tensors say of themselves.

    Args:
        path: The model's file.
        model: The model without its external data.

    Raises:
        ModelError: If external data is missing, truncated or outside the model's folder.
    """
    return path.stat().st_size + sum(_stored_range(tensor, path).length for tensor in external_tensors(model))


def load_external_data(model: onnx.ModelProto, path: Path, weights: WeightFile | None = None) -> None:
    """Read external data into the model, in place; ``network_bytes`` comes first.

    Args:
        model: The model.
        path: Its file.
        weights: With it large initialisers are detached instead: they stay in the files they are in, but for those that
            lie where their elements cannot be mapped, which are copied to this one. None reads all.

    Raises:
        ModelError: If it cannot be read.
    """
    own = sum(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer)
    for place, tensor in enumerate(external_tensors(model)):  # those of the main graph come first
        if weights is not None and place < own:
            found = _stored_range(tensor, path)
            if found.length >= weight_files.DETACHED_TENSOR:
                refer(tensor, found if found.offset % _WIDEST == 0 else weights.append(found))
                continue
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.resolve().parent))
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"'{path}': external data of tensor '{tensor.name}' cannot be read ({first_line(error)})",
                "the data file may be truncated: copy it again",
            ) from error
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def _stored_range(tensor: TensorProto, path: Path) -> FileRange:
    """The range of a file that holds a tensor's external data, which its shape and its file allow."""
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
    wanted = inline_bytes([tensor])
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
    return FileRange(path=target, offset=offset, length=length)


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
