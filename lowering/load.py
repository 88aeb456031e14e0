"""Reading an ONNX file, with clear words for everything that can be wrong with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from lowering.reference import Reference, make_reference
from precision import ModelError


def load_reference(path: Path) -> Reference:
    """Load, check and normalise an ONNX file.

    External data must lie in the model's own folder (or below it): a model file must not be able to read
    anything else on the machine.

    Raises:
        ModelError: If the file is missing, truncated, no valid ONNX, or its external data is missing or outside.
    """
    if not path.is_file():
        raise ModelError(f"no model file '{path}'", "check the path given to --model")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError) as error:
        raise ModelError(
            f"'{path}' is no readable ONNX file ({_first_line(error)})", "it may be truncated: copy or export it again"
        ) from error
    if not model.graph.node:
        raise ModelError(f"'{path}' holds no network: its graph is empty", "it may be truncated: export it again")
    _load_external_data(model, path)
    try:
        # The checker insists on output shapes that exporters may leave out and inference can fill in.
        onnx.checker.check_model(onnx.shape_inference.infer_shapes(model))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ModelError(f"'{path}' is no valid ONNX model: {_first_line(error)}", "export it again") from error
    return replace(make_reference(model, str(path)), given=bytes(model.SerializeToString()))


def _load_external_data(model: onnx.ModelProto, path: Path) -> None:
    folder = path.resolve().parent
    for tensor in tensors_of(model.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        target = (folder / location).resolve()
        if not location or not target.is_relative_to(folder):
            raise ModelError(
                f"'{path}': tensor '{tensor.name}' keeps its data in '{location}', outside the model's folder",
                "move the data file beside the model and save the model with a relative location",
            )
        if not target.is_file():
            raise ModelError(
                f"'{path}': tensor '{tensor.name}' keeps its data in '{location}', which is missing",
                "copy the data file beside the model",
            )
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except (ValueError, OSError, onnx.checker.ValidationError) as error:
            raise ModelError(
                f"'{path}': external data of tensor '{tensor.name}' cannot be read ({_first_line(error)})",
                "the data file may be truncated: copy it again",
            ) from error
        tensor.ClearField("data_location")
        del tensor.external_data[:]


def tensors_of(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Every tensor a graph holds: initialisers and attributes, those of its subgraphs included."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t] if attribute.HasField("t") else []
            found += attribute.tensors
            for body in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                found += tensors_of(body)
    return found


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
