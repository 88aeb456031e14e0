"""A network's quantisable layers, the groups that share a scheme, and the schemes that each may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from bitfront.core import Scheme

# Operators whose second input, where it is constant, is a layer's weight.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators whose first input, where it is constant, is a table of vectors that are looked up (an embedding) or cut out
# (positions).
TABLE_READERS = ("Gather", "Slice")
# Operators with two weights, W of the inputs and R of the state before, each a layer, and where they stand.
RECURRENT = ("LSTM", "GRU", "RNN")
RECURRENT_WEIGHTS = {"W": 1, "R": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A weight that may be quantised, and the operator it belongs to.

    Attributes:
        name: Module path its weight came from (``layer1.0.conv1``), else the one that PyTorch's exporter noted at its
            node (``lowering.module_paths``), else the ONNX node's name, of a recurrent operator with ``.W`` or ``.R``;
            with ``#2`` and so on where others have it.
        node: Name of its node in the reference graph; the two layers of a recurrent operator share it.
        op: ``Conv``, ``ConvTranspose``, ``Gemm``, ``MatMul``, ``LSTM``, ``GRU``, ``RNN`` or, for a table, ``Gather`` or
            ``Slice``.
        weight: Name of its weight in the reference graph.
        weight_shape: As stored: Conv (out, in // groups, kh, kw), ConvTranspose (in, out // groups, kh, kw),
            Gemm (in, out) or (out, in) with transB, MatMul (in, out), Gather (entries, width), Slice (entries, width)
            or (1, entries, width), recurrent operators (directions, gates · hidden, in) and (…, hidden) for R.
        channel_axis: Axis of the output channels in ``weight_shape``, of the entries of a table.
        conv_groups: The ``group`` attribute; 1 for all but convolutions.
        parameters: Number of weights.
        schemes: Schemes that the layer may take, ``fp32`` first; never empty.
        refused: Scheme text → why the layer may not take it.
        operand: Position of the weight among the node's inputs.
    """

    name: str
    node: str
    op: str
    weight: str
    weight_shape: tuple[int, ...]
    channel_axis: int
    conv_groups: int
    parameters: int
    schemes: tuple[Scheme, ...]
    refused: Mapping[str, str]
    operand: int = 1

    @property
    def channel_axes(self) -> tuple[int, ...]:
        """Axes of ``weight_shape`` along which scales differ: each direction of a recurrent operator has its own."""
        return (0, self.channel_axis) if self.op in RECURRENT else (self.channel_axis,)

    @property
    def channels(self) -> int:
        """Number of scales that the weight has where each channel has one."""
        return prod(self.weight_shape[axis] for axis in self.channel_axes)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionGroup:
    """Layers that share one scheme.

    Attributes:
        name: The first layer's name; with more layers, ``first+n``.
        layers: Their names, in the network's order.
        reason: Why they belong together; empty for a single layer.
        schemes: Schemes every layer of the group may take.
    """

    name: str
    layers: tuple[str, ...]
    reason: str
    schemes: tuple[Scheme, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisableLayers:
    """Layers and groups of one network in one dialect.

    Attributes:
        layers: In the network's (topological) order.
        groups: In the order of their first layers; every layer is in exactly one.
        edges: Pairs of indices into ``groups`` that are neighbours: the second reads what the first wrote,
            with nothing but operators without weights between. Sorted, without repetition.
        left_alone: Node name → why a weighted operator is no layer (weights computed at run time, in a
            subgraph, an unsupported type, …).
    """

    layers: tuple[Layer, ...]
    groups: tuple[PrecisionGroup, ...]
    edges: tuple[tuple[int, int], ...]
    left_alone: Mapping[str, str]

    def spread(self, schemes: Mapping[str, Scheme]) -> dict[str, Scheme]:
        """Group name → scheme, spread to layer name → scheme, in the network's order."""
        by_layer = {layer: schemes[group.name] for group in self.groups for layer in group.layers}
        return {layer.name: by_layer[layer.name] for layer in self.layers}
