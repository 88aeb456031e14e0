"""Number of a file's weights that a search decides over."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from bitfront.backends.registry import default_interpreter
from bitfront.core import FP32, CalibrationSettings, ContentStore
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.load import load_reference
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.unquantised import unquantised_weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Layers and weights that a search may decide over.

    Attributes:
        layers: Layers that may take another precision than FP32.
        weights: Numbers among the constants of the file, subgraphs included, or of the network with all constants
            computed where those are more.
        searchable: Of these, those of layers that may take another precision.
        integer: Of these, those of layers that may compute in integers.
        left_alone: Operator with weights that is no layer → why.
    """

    layers: int
    weights: int
    searchable: int
    integer: int
    left_alone: dict[str, str]


def coverage_of(path: Path) -> Coverage:
    """Count weights on ONNX Runtime's processor provider.

    Raises:
        EngineError: If the network is refused.
    """
    reference = load_reference(path, default_interpreter())
    quantisable = Lowerer(
        reference, get_dialect("ort-cpu"), None, CalibrationSettings(), ContentStore(None)
    ).quantisable
    open_ = [layer for layer in quantisable.layers if layer.schemes != (FP32,)]
    weights = {layer.weight: layer.parameters for layer in open_}
    integer = {
        layer.weight: layer.parameters
        for layer in open_
        if any(scheme.precision.is_integer and not scheme.is_weight_only for scheme in layer.schemes)
    }
    return Coverage(
        layers=len(open_),
        weights=max(weight_count(onnx.load(str(path))), weight_count(reference.proto)),
        searchable=sum(weights.values()),
        integer=sum(integer.values()),
        left_alone={
            name: each.reason for name, each in unquantised_weights(reference.proto, quantisable).operators.items()
        }
        | dict(quantisable.left_alone),
    )


def weight_count(model: onnx.ModelProto) -> int:
    """Numbers among a model's constants, of any type: initialisers, sparse ones, and those of Constant nodes."""
    total = 0
    for graph in _graphs(model.graph):
        total += sum(math.prod(tensor.dims) for tensor in graph.initializer)
        total += sum(math.prod(tensor.values.dims) for tensor in graph.sparse_initializer)
        for node in graph.node:
            if node.op_type == "Constant":
                total += sum(math.prod(item.t.dims) for item in node.attribute if item.HasField("t"))
    return total


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for item in node.attribute:
            for inner in (*([item.g] if item.HasField("g") else []), *item.graphs):
                yield from _graphs(inner)
