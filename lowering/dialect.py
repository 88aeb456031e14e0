"""The seam between a scheme and how one runtime wants it written in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import onnx

from bitfront.core import Scheme
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight


class ComputeType(Enum):
    """What a scheme computes in on a runtime, which is what its speed depends on.

    ``HALF`` is 16-bit floating arithmetic where that is faster than ``FLOAT``; ``BLOCK`` is floating activations with
    weights that have a scale per block, in a fused kernel. A runtime converts where ``INTEGER``, ``HALF`` and the other
    two meet.
    """

    FLOAT = "float"
    HALF = "half"
    INTEGER = "integer"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoweringRequest:
    """A network with a scheme for each layer.

    Attributes:
        reference: Normalised FP32 network; never modified.
        layers: All its layers.
        schemes: Layer name → scheme.
        ranges: Tensor name → (low, high) of its values on the calibration inputs.
        weights: Layer name → rounded weight, for every layer with an integer precision.
    """

    reference: onnx.ModelProto
    layers: tuple[Layer, ...]
    schemes: Mapping[str, Scheme]
    ranges: Mapping[str, tuple[float, float]]
    weights: Mapping[str, RoundedWeight]


class Dialect(Protocol):
    """How a runtime wants schemes written."""

    @property
    def name(self) -> str:
        """Kept in configs; the same for every backend that reads this dialect."""
        ...

    def offers(self, layer: Layer, node: onnx.NodeProto, view: GraphView) -> tuple[tuple[Scheme, ...], dict[str, str]]:
        """Schemes the layer may take, ``fp32`` first, and scheme text → reason for those it may not.

        Args:
            layer: The layer, its schemes not filled in yet.
            node: Its node.
            view: The graph around it.
        """
        ...

    def arithmetic(self, scheme: Scheme) -> ComputeType:
        """What a layer of this scheme computes in."""
        ...

    def weight_bytes(self, layer: Layer, scheme: Scheme) -> int:
        """Bytes that the layer's weights, scales and zero points take in the file."""
        ...

    def write(self, request: LoweringRequest) -> onnx.ModelProto:
        """Write the reference with every layer as its scheme says.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or values do not fit their type.
        """
        ...


@runtime_checkable
class HasSessionSettings(Protocol):
    """A dialect whose models must be run with settings of the runtime's session."""

    def session_settings(self, request: LoweringRequest) -> Mapping[str, str]:
        """Key → value by the runtime's own names, for the model that ``write`` makes of the request."""
        ...


@runtime_checkable
class StoresTables(Protocol):
    """A dialect that can store tables which are looked up (embeddings) in other types than FP32."""

    def table_schemes(self, layer: Layer) -> tuple[tuple[Scheme, ...], dict[str, str]]:
        """Schemes a table may take, ``fp32`` first, and scheme text → reason for those it may not."""
        ...
