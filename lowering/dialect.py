"""The seam between a choice and how one runtime wants it written in ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

import onnx

from bitfront.lowering.graph import GraphView
from bitfront.lowering.inventory import Layer
from bitfront.lowering.rounding.weight import RoundedWeight
from bitfront.precision import LayerChoice


class Arithmetic(Enum):
    """What a choice computes in on a runtime, which is what its speed depends on.

    ``HALF`` is 16-bit floating arithmetic where that is faster than ``FLOAT``; ``BLOCK`` is floating activations with
    weights that have a scale per block, in a fused kernel. A runtime converts where ``INTEGER``, ``HALF`` and the other
    two meet.
    """

    FLOAT = "float"
    HALF = "half"
    INTEGER = "integer"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A network with a choice for each layer.

    Attributes:
        reference: Normalised FP32 network; never modified.
        layers: All its layers.
        choices: Layer name → choice.
        ranges: Tensor name → (low, high) of its values on the calibration inputs.
        weights: Layer name → rounded weight, for every layer with an integer precision.
    """

    reference: onnx.ModelProto
    layers: tuple[Layer, ...]
    choices: Mapping[str, LayerChoice]
    ranges: Mapping[str, tuple[float, float]]
    weights: Mapping[str, RoundedWeight]


class Dialect(Protocol):
    """How a runtime wants choices written."""

    @property
    def name(self) -> str:
        """Kept in configs; the same for every backend that reads this dialect."""
        ...

    def offers(
        self, layer: Layer, node: onnx.NodeProto, view: GraphView
    ) -> tuple[tuple[LayerChoice, ...], dict[str, str]]:
        """Choices the layer may take, ``fp32`` first, and choice text → reason for those it may not.

        Args:
            layer: The layer, its choices not filled in yet.
            node: Its node.
            view: The graph around it.
        """
        ...

    def arithmetic(self, choice: LayerChoice) -> Arithmetic:
        """What a layer of this choice computes in."""
        ...

    def weight_bytes(self, layer: Layer, choice: LayerChoice) -> int:
        """Bytes that the layer's weights, scales and zero points take in the file."""
        ...

    def write(self, candidate: Candidate) -> onnx.ModelProto:
        """Write the reference with every layer as its choice says.

        Raises:
            LoweringError: If a tensor that must be quantised has no range, or values do not fit their type.
        """
        ...


@runtime_checkable
class StoresTables(Protocol):
    """A dialect that can store tables which are looked up (embeddings) in other types than FP32."""

    def table_choices(self, layer: Layer) -> tuple[tuple[LayerChoice, ...], dict[str, str]]:
        """Choices a table may take, ``fp32`` first, and choice text → reason for those it may not."""
        ...
