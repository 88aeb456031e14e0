"""Placement of FP16 in a graph: which part runs in it, and where values are cast; decided for a whole graph at once.

Layers of the caller's choosing do. The operators between layers (glue) follow them: one runs in FP16 when everything
floating that it computes on was written in FP16, so that a region is cast once on its way in and once on its way out.
Glue that reads both an FP16 and an FP32 tensor stays FP32: an addition loses nothing then, at the price of a cast. Glue
before the first FP16 layer stays FP32 as well.

The answer is the greatest fixed point: all glue that could starts in FP16, and what breaks the rule is taken out until
nothing does (``lowering.placement`` does the same for 8-bit tensors).

FP16 holds numbers up to 65504; what goes beyond is infinite from there on. Glue whose constants or calibrated results
do not fit stays FP32; a layer whose input or output does not fit is an error that names the tensor.

Not handled: bodies of If, Loop and Scan; what they read from outside is cast back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfront.core import LoweringError
from bitfront.lowering.graph import GraphView

FP16_MAX = float(np.finfo(np.float16).max)

Ranges = Mapping[str, tuple[float, float]]

# Operators that compute on FP16 as they do on FP32, one type throughout, and that need no wider sums. Softmax and
# normalisations are not among them: their sums and exponentials are where FP16 loses accuracy.
_GLUE = frozenset(
    (
        *("Relu", "Clip", "LeakyRelu", "PRelu", "Elu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu", "Mish"),
        *("Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Sum", "Where"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("Concat", "Split", "Slice", "Pad", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"),
        *("Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Resize"),
    )
)
# Floating operands that are FP32 by the operator's definition: the scales of Resize.
_FP32_OPERANDS: Mapping[str, frozenset[int]] = {"Resize": frozenset((2,))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fp16Placement:
    """Nodes that run in FP16, and tensors that are cast.

    Attributes:
        nodes: Indices of the nodes that run in FP16, layers included.
        tensors: Floating tensors they write, FP16 from now on.
        cast_to_fp16: FP32 tensors that some of them read: each needs a Cast to FP16.
        cast_to_fp32: Tensors of ``tensors`` that others read, subgraphs and the graph's outputs included: each needs a
            Cast back to FP32.
        constants: FP32 initialisers that some of them read, weights and biases of layers included: to be stored as
            FP16 for these readers.
    """

    nodes: frozenset[int]
    tensors: frozenset[str]
    cast_to_fp16: frozenset[str]
    cast_to_fp32: frozenset[str]
    constants: frozenset[str]


def fp16_regions(view: GraphView, fp16_layers: Collection[int], runs_fp16: Callable[[int], bool]) -> Fp16Placement:
    """The largest part of a graph that can run in FP16, and its casts.

    Args:
        view: The graph.
        fp16_layers: Indices of the layers that write FP16.
        runs_fp16: Whether a node that is no layer can run in FP16, whatever is around it; ``glue_runs_fp16`` for the
            usual operators. It must be false for layers that do not.
    """
    layers = set(fp16_layers)
    fp16 = layers | {index for index in range(len(view.nodes)) if index not in layers and runs_fp16(index)}
    while True:
        broken = {
            index
            for index in fp16 - layers
            if not (sources := _activations(view, index)) or any(view.producer(name) not in fp16 for name in sources)
        }
        if not broken:
            break
        fp16 -= broken
    tensors = {name for index in fp16 for name in view.nodes[index].output if name and view.is_float(name)}
    read = {name for index in fp16 for name in _floats_read(view, index)}
    return Fp16Placement(
        nodes=frozenset(fp16),
        tensors=frozenset(tensors),
        cast_to_fp16=frozenset(name for name in read if name not in view.initializers and name not in tensors),
        cast_to_fp32=frozenset(name for name in tensors if _is_read_as_fp32(view, name, fp16)),
        constants=frozenset(name for name in read if name in view.initializers),
    )


def glue_runs_fp16(view: GraphView, index: int, ranges: Ranges) -> bool:
    """Whether a node is glue that may run in FP16: a known operator whose constants and calibrated results fit FP16.

    Args:
        view: The graph.
        index: The node.
        ranges: Tensor name → (low, high); tensors without one are taken to fit.
    """
    node = view.nodes[index]
    if node.op_type not in _GLUE or node.domain not in ("", "ai.onnx"):
        return False
    if not all(fits_fp16(name, ranges) for name in node.output):
        return False
    for name in _floats_read(view, index):
        value = view.array(name)
        # An infinite bound of a Clip stays one; a finite number must not become infinite.
        if value is not None and node.op_type != "Clip" and not np.all(np.abs(value) <= FP16_MAX):
            return False
    return any(view.is_float(name) for name in node.output)


def fits_fp16(tensor: str, ranges: Ranges) -> bool:
    """Whether a tensor's calibrated values fit FP16; one without a range is taken to."""
    low, high = ranges.get(tensor, (0.0, 0.0))
    return max(abs(low), abs(high)) <= FP16_MAX


def require_fp16(layer: str, tensors: Iterable[str], ranges: Ranges) -> None:
    """Refuse an FP16 layer one of whose activations does not fit FP16.

    Args:
        layer: Its name, for the message.
        tensors: Activations it reads and writes.
        ranges: Tensor name → (low, high); tensors without one are taken to fit.

    Raises:
        LoweringError: If one does not; names it.
    """
    for name in tensors:
        if not fits_fp16(name, ranges):
            low, high = ranges[name]
            raise LoweringError(
                f"layer '{layer}' cannot be fp16: its activation '{name}' reaches from {low:g} to {high:g} on the "
                f"calibration inputs, beyond FP16's {FP16_MAX:g}",
                "leave the layer at fp32",
            )


def fp16_constant(value: NDArray[np.float32]) -> NDArray[np.float16]:
    """A constant as FP16; a Clip's bound beyond its range becomes the end of the range, which bounds nothing."""
    return np.clip(value, -FP16_MAX, FP16_MAX).astype(np.float16)


def stays_fp32(op: str, position: int) -> bool:
    """Whether the operand at ``position`` of an FP16 node is FP32 all the same."""
    return position in _FP32_OPERANDS.get(op, ())


def _floats_read(view: GraphView, index: int) -> list[str]:
    """Floating tensors and initialisers that an FP16 node reads as FP16."""
    node = view.nodes[index]
    return [
        name
        for position, name in enumerate(node.input)
        if name and view.is_float(name) and not stays_fp32(node.op_type, position)
    ]


def _activations(view: GraphView, index: int) -> list[str]:
    return [name for name in _floats_read(view, index) if name not in view.initializers]


def _is_read_as_fp32(view: GraphView, tensor: str, fp16: set[int]) -> bool:
    if view.is_output(tensor) or view.is_captured(tensor):
        return True
    # Shape and Size read a tensor of any type.
    return any(
        reader not in fp16 and view.nodes[reader].op_type not in ("Shape", "Size") for reader in view.consumers(tensor)
    )
