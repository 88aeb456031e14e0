"""Reading an ONNX file, with clear words for everything that can be wrong with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError

from bitfront.core import ModelError
from bitfront.core.blob import FileRange
from bitfront.core.formatting import first_line
from bitfront.lowering import weight_files
from bitfront.lowering.external import load_external_data, network_bytes
from bitfront.lowering.graph import graphs_of, sort_nodes
from bitfront.lowering.interpreter import Interpreter
from bitfront.lowering.normalise import IR_VERSION
from bitfront.lowering.opset import OPSET, opset_of
from bitfront.lowering.reference import ReferenceModel, make_reference
from bitfront.lowering.serialise import file_of
from bitfront.lowering.shapes import checkable
from bitfront.lowering.weight_files import WeightFile, inline_bytes, refer
from bitfront.lowering.wire import read_large


def load_reference(
    path: Path,
    interpreter: Interpreter,
    *,
    skipped: Collection[str] = (),
    fixed_inputs: Mapping[str, float] | None = None,
) -> ReferenceModel:
    """Load, check and normalise an ONNX file.

    Args:
        path: The file; its external data must lie in the same folder or below it.
        interpreter: Computes constants; kept with the network.
        skipped: Steps of normalising to leave out.
        fixed_inputs: Input of one element → the number it always is, by which branches may be decided.

    Raises:
        ModelError: If the file is missing, truncated, too large or no valid ONNX, or its external data is missing or
            outside.
    """
    if not path.is_file():
        raise ModelError(f"no model file '{path}'", "check the path given to --model")
    _check_size(path)
    try:
        model, inside = _parsed(path)
    except (DecodeError, ValueError, OSError, RecursionError) as error:
        raise ModelError(
            f"'{path}' is no readable ONNX file ({first_line(error)})", "it may be truncated: copy or export it again"
        ) from error
    if not model.graph.node:
        raise ModelError(f"'{path}' holds no network: its graph is empty", "it may be truncated: export it again")
    weights = WeightFile() if network_bytes(path, model) >= weight_files.DETACHED_NETWORK else None
    load_external_data(model, path, weights)
    for place, data in inside.items():
        assert weights is not None, "the file alone is large enough"
        tensor = model.graph.initializer[place]
        if (wanted := inline_bytes([tensor])) != data.length:
            raise ModelError(
                f"'{path}': tensor '{tensor.name}' of shape {tuple(tensor.dims)} takes {wanted:,} bytes, but its data "
                f"has {data.length:,}",
                "it may be damaged: copy or export it again",
            )
        refer(tensor, weights.append(data))
    try:
        file_of(model)
    except (EncodeError, ValueError) as error:
        raise ModelError(f"'{path}' is no valid ONNX model: {first_line(error)}", "export it again") from error
    given = onnx.ModelProto()
    given.CopyFrom(model)
    sort_nodes(model.graph)
    _check(model, path)
    made = make_reference(model, str(path), interpreter, skipped=skipped, fixed_inputs=fixed_inputs, weights=weights)
    return replace(made, given=given)


def _check_size(path: Path) -> None:
    size = path.stat().st_size
    if size > weight_files.LIMIT:
        raise ModelError(
            f"'{path}' has {size / 1e9:.2f} GB, more than one ONNX file can hold ({weight_files.LIMIT / 1e9:.2f} GB)",
            "save it with its weights as external data",
        )


def _parsed(path: Path) -> tuple[onnx.ModelProto, dict[int, FileRange]]:
    """The model in a file without its external data, and which of its initialisers' bytes were left in the file."""
    if path.stat().st_size >= weight_files.DETACHED_NETWORK:
        return read_large(path)
    return onnx.load(str(path), load_external_data=False), {}


def _check(model: onnx.ModelProto, path: Path) -> None:
    """Refuse what is no valid ONNX.

    Raises:
        ModelError: If the checker or shape inference finds a fault, or an input has no shape.
    """
    if not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        raise ModelError(
            f"'{path}' does not say which opset its standard operators are of (opset_import is missing)",
            "export it again",
        )
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opset_of(model) <= newest:
        raise ModelError(
            f"'{path}' is of opset {opset_of(model)}; opsets 1 to {newest} are known", "export it with one of those"
        )
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        kind = value.type
        if value.name not in constants and kind.HasField("tensor_type") and not kind.tensor_type.HasField("shape"):
            raise ModelError(
                f"'{path}': input '{value.name}' declares no shape, not even how many axes it has",
                "export it with shapes; axes of any size may stay open",
            )
    try:
        inferred = checkable(_with_group_norms(model))
        for value in inferred.graph.output:
            if value.type.HasField("tensor_type"):
                # The checker insists on output shapes, which exporters may leave out where inference knows none either.
                value.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(inferred)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
        EncodeError,
        DecodeError,
    ) as error:
        raise ModelError(f"'{path}' is no valid ONNX model: {first_line(error)}", "export it again") from error


def _with_group_norms(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, of opset 21 where it has a GroupNormalization of 18 to 20: deprecated, though runtimes have it."""
    nodes = (node for graph in graphs_of(model.graph) for node in graph.node)
    if not 18 <= opset_of(model) < OPSET or all(node.op_type != "GroupNormalization" for node in nodes):
        return model
    newer = onnx.ModelProto()
    newer.CopyFrom(model)
    for entry in newer.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    newer.ir_version = max(newer.ir_version, IR_VERSION)
    return newer
