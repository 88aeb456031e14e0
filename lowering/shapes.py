"""Shape inference and checking without large weights: their names, types and shapes are all that is looked at."""

from __future__ import annotations

import onnx

from bitfront.lowering import weight_files
from bitfront.lowering.serialise import copy_fields
from bitfront.lowering.weight_files import inline_bytes, is_detached


def infer_shapes(model: onnx.ModelProto, *, data_prop: bool = False) -> onnx.ModelProto:
    """A copy of the model with inferred types and shapes.

    Args:
        model: The model; not modified.
        data_prop: Whether values of small constants are followed too.

    Raises:
        onnx.shape_inference.InferenceError: If operators and shapes disagree.
    """
    light, held = _without_weights(model)
    if not held:
        return onnx.shape_inference.infer_shapes(model, data_prop=data_prop)
    inferred = onnx.shape_inference.infer_shapes(light, data_prop=data_prop)
    return restored(inferred, model, held)


def checkable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred shapes and its large initialisers as inputs, for the checker.

    Args:
        model: The model; not modified.
    """
    light, _ = _without_weights(model)
    return onnx.shape_inference.infer_shapes(light)


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of the model whose large initialisers are inputs; the model itself where it has none."""
    return _without_weights(model)[0]


def restored(light: onnx.ModelProto, model: onnx.ModelProto, names: frozenset[str] | None = None) -> onnx.ModelProto:
    """``light``, in place, with the large initialisers of ``model`` again, in the order they have there.

    Args:
        light: Made of ``without_weights(model)``; new initialisers of its own stay behind those of ``model``.
        model: Where the initialisers are.
        names: Which initialisers were taken out; None for the large ones.
    """
    held = _large(model) if names is None else names
    if not held:
        return light
    declared = {value.name for value in model.graph.input}
    inputs = [value for value in light.graph.input if value.name not in held or value.name in declared]
    own = {tensor.name: tensor for tensor in light.graph.initializer}
    first = [tensor if tensor.name in held else own.pop(tensor.name, None) for tensor in model.graph.initializer]
    tensors = [*(tensor for tensor in first if tensor is not None), *own.values()]
    kept = onnx.GraphProto(input=inputs, initializer=tensors)
    del light.graph.input[:], light.graph.initializer[:]
    light.graph.input.extend(kept.input)
    light.graph.initializer.extend(kept.initializer)
    return light


def _large(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the initialisers that are detached or could be, in a model that has one that is."""
    if not any(is_detached(tensor) for tensor in model.graph.initializer):
        return frozenset()
    return frozenset(
        tensor.name
        for tensor in model.graph.initializer
        if is_detached(tensor) or inline_bytes([tensor]) >= weight_files.DETACHED_TENSOR
    )


def _without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, frozenset[str]]:
    held = _large(model)
    if not held:
        return model, held
    light = copy_fields(model, lambda field: field.name != "graph")
    light.graph.CopyFrom(copy_fields(model.graph, lambda field: field.name != "initializer"))
    declared = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.name not in held:
            light.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return light, held
