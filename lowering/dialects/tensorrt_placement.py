"""Placement of Q/DQ pairs in a TensorRT network, and of nodes that compute in FP16; for a whole graph at once.

Q/DQ, after "Q/DQ Layer-Placement Recommendations" in NVIDIA's "Working with Quantized Types":

- the *input* of every INT8 layer is quantised; no output is, and nothing stands between a convolution and its Relu;
- where all that read what a layout operator (MaxPool, Reshape …) or a Concat writes read it quantised, its inputs are
  quantised as well, with the same scale: it runs on 8-bit tensors. Averages stay floating;
- where the sum of an INT8 convolution and a shortcut is quantised further on, the shortcut is quantised too, so that
  convolution, sum and Relu become one kernel that writes 8 bits. The convolution's own result is not: that would
  tear the kernel apart. Of two convolutions the later one is taken for the one to fuse with.

A tensor has one quantiser, whoever reads it.

FP16: the floating side of an INT8 layer (bias, sum, result) is FP16, as INT8 kernels with an FP16 epilogue are the
fastest, unless a layer beside it (nothing but glue between) is FP32 and none is FP16, or it writes an output of the
network, or a value, the bias or a scale does not fit FP16. INT4 layers compute in FP16 where their values fit: only
there are weights unfolded inside the kernel. Glue runs FP16 when all it reads was written in FP16 or is a shortcut
dequantised for it (greatest fixed point, as in ``lowering.fp16``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from bitfront.core import Precision, Scheme
from bitfront.lowering.dialects.tensorrt_rules import is_joining, is_layout_op
from bitfront.lowering.fp16 import FP16_MAX, Ranges, fits_fp16, glue_runs_fp16, stays_fp32
from bitfront.lowering.graph import GraphView
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.weight import RoundedWeight

_ACTIVATIONS = frozenset(("Relu", "Clip"))


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisedReads:
    """Reads of tensors behind a Q/DQ pair.

    Attributes:
        pairs: (node index, tensor): the node reads the tensor dequantised; others read it as it was written.
        shares: Quantised tensor → representative of the tensors whose scale it shares.
    """

    pairs: frozenset[tuple[int, str]]
    shares: Mapping[str, str]


def quantised_reads(
    view: GraphView, integer: Collection[int], has_range: Callable[[str], bool] = lambda _: True
) -> QuantisedReads:
    """Find the reads behind Q/DQ pairs in a graph.

    Args:
        view: The graph.
        integer: Node indices of INT8 layers.
        has_range: Whether a tensor can be quantised; glue beside one that cannot stays floating.
    """
    pairs: set[tuple[int, str]] = set()
    parent: dict[str, str] = {}

    def root(tensor: str) -> str:
        while parent.setdefault(tensor, tensor) != tensor:
            tensor = parent[tensor]
        return tensor

    for index in range(len(view.nodes) - 1, -1, -1):
        node = view.nodes[index]
        if index in integer:
            pairs.add((index, node.input[0]))
        elif is_joining(view, index) or is_layout_op(view, index):
            results = [name for name in node.output if name and view.consumers(name)]
            if not results or not all(_read_quantised(view, name, pairs) for name in node.output if name):
                continue
            sources = list(node.input) if node.op_type == "Concat" else [node.input[0]]
            if not all(map(has_range, (*results, *sources))):
                continue
            pairs.update((index, name) for name in sources)
            for name in (*results, *sources):
                parent[root(name)] = root(sources[0])
        elif node.op_type == "Add" and _ends_quantised(view, node.output[0], pairs):
            shortcut = _shortcut(view, index, integer)
            if shortcut and has_range(shortcut):
                pairs.add((index, shortcut))
    return QuantisedReads(pairs=frozenset(pairs), shares={tensor: root(tensor) for _, tensor in pairs})


def _read_quantised(view: GraphView, tensor: str, pairs: set[tuple[int, str]]) -> bool:
    """Whether nobody reads the tensor but as 8 bit."""
    if view.is_output(tensor) or view.is_captured(tensor):
        return False
    return all((reader, tensor) in pairs for reader in view.consumers(tensor))


def _ends_quantised(view: GraphView, tensor: str, pairs: set[tuple[int, str]]) -> bool:
    """Whether the tensor, or what an activation that alone reads it makes of it, is quantised for some reader."""
    readers = view.consumers(tensor)
    if any((reader, tensor) in pairs for reader in readers):
        return True
    if len(readers) != 1 or view.nodes[readers[0]].op_type not in _ACTIVATIONS or view.is_output(tensor):
        return False
    return _ends_quantised(view, view.nodes[readers[0]].output[0], pairs)


def _shortcut(view: GraphView, index: int, integer: Collection[int]) -> str:
    """The operand of an Add that does not come from the INT8 convolution it fuses with; empty where none does."""
    operands = [name for name in view.nodes[index].input if name not in view.initializers and view.is_float(name)]
    if len(set(operands)) != 2 or view.shape(operands[0]) != view.shape(operands[1]):
        return ""
    fusing = []
    for name in operands:
        producer = view.producer(name)
        alone = view.consumers(name) == [index] and not view.is_output(name) and not view.is_captured(name)
        if producer in integer and producer is not None and view.nodes[producer].op_type == "Conv" and alone:
            fusing.append((producer, name))
    if not fusing:
        return ""
    return str(next(name for name in operands if name != max(fusing)[1]))


def fp16_nodes(
    view: GraphView,
    layers: Mapping[int, Layer],
    schemes: Mapping[str, Scheme],
    ranges: Ranges,
    weights: Mapping[str, RoundedWeight],
    reads: QuantisedReads,
) -> frozenset[int]:
    """Indices of the nodes that compute, or have their floating side, in FP16.

    Args:
        view: The graph.
        layers: Node index → layer.
        schemes: Layer name → scheme.
        ranges: Tensor name → (low, high).
        weights: Layer name → rounded weight.
        reads: Who reads what quantised.
    """
    beside = _neighbours(view, layers)
    chosen = {index: schemes[layer.name] for index, layer in layers.items()}
    fixed: set[int] = set()
    for index, scheme in chosen.items():
        if scheme.precision is Precision.FP16:
            fixed.add(index)
        elif scheme.precision.is_integer and _fits(view, index, ranges, weights[layers[index].name]):
            kinds = {chosen[other].precision for other in beside[index]}
            beside_fp16 = Precision.FP16 in kinds or Precision.INT4 in kinds
            beside_fp32 = Precision.FP32 in kinds or view.is_output(view.nodes[index].output[0])
            if scheme.weights.group_size is not None or beside_fp16 or not beside_fp32:
                fixed.add(index)
    if not any(scheme.precision is not Precision.FP32 for scheme in chosen.values()):
        return frozenset()
    # What runs between Q/DQ of one scale runs on 8-bit tensors, whatever its floating type: the one all runtimes know.
    between = {index for index, _ in reads.pairs if view.nodes[index].op_type != "Add"}
    candidates = (index for index in range(len(view.nodes)) if index not in layers and index not in between)
    fp16 = fixed | {index for index in candidates if glue_runs_fp16(view, index, ranges)}
    while True:
        broken = {index for index in fp16 - fixed if not _fed_fp16(view, index, fp16, reads)}
        if not broken:
            return frozenset(fp16)
        fp16 -= broken


def _fed_fp16(view: GraphView, index: int, fp16: Collection[int], reads: QuantisedReads) -> bool:
    node = view.nodes[index]
    sources = [
        name
        for position, name in enumerate(node.input)
        if name and name not in view.initializers and view.is_float(name) and not stays_fp32(node.op_type, position)
    ]
    # A dequantised shortcut is of the type its sum asks for; elsewhere a tensor keeps the type it was written in.
    given = [name for name in sources if not (node.op_type == "Add" and (index, name) in reads.pairs)]
    return bool(given) and all(view.producer(name) in fp16 for name in given)


def _fits(view: GraphView, index: int, ranges: Ranges, rounded: RoundedWeight) -> bool:
    node = view.nodes[index]
    bias = view.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if bias is not None and not np.all(np.abs(bias) <= FP16_MAX):
        return False
    activations = all(fits_fp16(name, ranges) for name in (node.input[0], node.output[0]))
    return activations and float(rounded.scales.max(initial=0.0)) <= FP16_MAX


def _neighbours(view: GraphView, layers: Mapping[int, Layer]) -> dict[int, set[int]]:
    """Layer → layers that read what it wrote, or wrote what it reads, with nothing but glue between.

    What has passed one join ends at the next, as in ``QuantisableLayers.edges``.
    """
    beside: dict[int, set[int]] = {index: set() for index in layers}
    reach: dict[str, frozenset[tuple[int, bool]]] = {}
    for index, node in enumerate(view.nodes):
        sources = [reach[name] for name in node.input if reach.get(name)]
        before = frozenset[tuple[int, bool]]().union(*sources)
        if index in layers:
            for source, _ in before:
                beside[source].add(index)
                beside[index].add(source)
            before = frozenset(((index, False),))
        elif len(sources) > 1:
            before = frozenset((source, True) for source, joined in before if not joined)
        for name in node.output:
            reach[name] = before
    return beside
