"""The divergence metric of each output, chosen by the metric's declaration and by how the graph ends.

    kl       class scores or probabilities, ``kl:2`` with the classes on axis 2 (``sensitivity.divergence``)
    nsr      numbers: boxes, key points, embeddings, images
    changed  integers and other answers that are right or wrong: the share of them that changed
    -        not read, or the same for every sample

A divergence metric is one of these per output, in the network's order, with commas between: ``kl:1``, ``nsr,nsr``,
``kl:1,-``. Outputs behind the last one do not count.

Which it is: the metric's declaration (``core.metric``) where there is one; else class probabilities where
the graph ends in Softmax or LogSoftmax; else numbers. A shape does not tell scores from boxes, and the divergence of a
softmax over pixels says nothing, while the noise of logits still ranks layers: so numbers are the rule in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx

from bitfront.core import Array, OutputsRead
from bitfront.lowering.graph import GraphView, attribute

KL = "kl"
NSR = "nsr"
CHANGED = "changed"
UNREAD = "-"

CLASSES = "classes"
VALUES = "values"

_WORDS = {
    KL: "mean KL divergence from the FP32 output, in nats",
    NSR: "noise-to-signal power ratio of the output",
    CHANGED: "share of answers that differ from FP32's",
}
# Operators that keep each value, and those that keep which axis holds the channels.
_PASSING = frozenset(("Identity", "Cast", "Dropout"))
_RESHAPING = frozenset(("Squeeze", "Unsqueeze", "Flatten", "Reshape"))
_KEEPING = frozenset(
    ("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Sigmoid", "Tanh", "BatchNormalization", "Resize", "Pad", "LeakyRelu")
)
_CHANNELS_AT = {"Conv": 1, "ConvTranspose": 1, "MatMul": -1, "Gemm": -1, "LayerNormalization": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputReading:
    """The way the metric reads one output.

    Attributes:
        kind: ``classes``, ``values`` or ``unread``.
        axis: Of the classes, as far as the graph tells; None where it does not.
    """

    kind: str
    axis: int | None = None


def output_readings(model: onnx.ModelProto, declared: OutputsRead) -> tuple[OutputReading, ...]:
    """The way each output of a network is read.

    Args:
        model: The network; types and shapes are not needed.
        declared: What the metric says: one kind for all outputs, or one each from the first on, the others being
            unread; None where it says nothing.
    """
    view = GraphView(model.graph)
    found = []
    for index, name in enumerate(view.outputs):
        probabilities, axis = _ending(view, name)
        if declared is None:
            kind = CLASSES if probabilities else VALUES
        elif isinstance(declared, str):
            kind = declared
        else:
            kind = declared[index] if index < len(declared) else "unread"
        found.append(OutputReading(kind=kind, axis=axis))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputForm:
    """Shape, type and variation of an output over all samples, or over some of them.

    Attributes:
        shape: (n, …).
        floating: Whether it holds floating-point numbers.
        constant: Whether every sample's row is the first one's.
        first: Row of the first sample; None without samples.
    """

    shape: tuple[int, ...]
    floating: bool
    constant: bool
    first: Array | None = None

    @classmethod
    def of(cls, output: Array) -> OutputForm:
        """The form of an output, (n, …)."""
        rows = output if output.ndim else output[None][:0]
        return cls(
            shape=output.shape,
            floating=bool(np.issubdtype(output.dtype, np.floating)),
            constant=bool((rows == rows[:1]).all()),
            first=np.array(rows[0]) if len(rows) else None,
        )

    def followed_by(self, more: OutputForm) -> OutputForm:
        """The form of the output together with that of further samples."""
        if self.first is None or more.first is None:
            return self if more.first is None else more
        same = self.constant and more.constant and bool(np.all(self.first == more.first))
        return replace(self, shape=(self.shape[0] + more.shape[0], *self.shape[1:]), constant=same)


def choose_divergence_metric(read: Sequence[OutputReading], outputs: Sequence[OutputForm], samples: int) -> str:
    """Choose the divergence metric for outputs that are read so.

    Outputs without one row a sample, and those that are the same for every sample, do not count unless all are such.

    Args:
        read: One an output.
        outputs: Forms of the FP32 network's.
        samples: n.
    """
    rules = [_rule(reading, output) for reading, output in zip(read, outputs, strict=True)]
    rows = [output.shape[:1] == (samples,) for output in outputs]
    varying = [row and not (output.constant and samples > 1) for row, output in zip(rows, outputs, strict=True)]
    for counted in (varying, rows):
        kept = [rule if counts else UNREAD for rule, counts in zip(rules, counted, strict=True)]
        if any(rule != UNREAD for rule in kept):
            return ",".join(kept)
    # Nothing that the metric reads can be measured: whatever can be.
    return ",".join(NSR if row and output.floating else UNREAD for row, output in zip(rows, outputs, strict=True))


def metric_in_words(divergence_metric: str) -> str:
    """A divergence metric in words."""
    rules = [head.split(":")[0] for head in divergence_metric.split(",")]
    return " plus ".join(words for rule, words in _WORDS.items() if rule in rules)


def _rule(reading: OutputReading, output: OutputForm) -> str:
    if reading.kind == "unread":
        return UNREAD
    if not output.floating:
        return CHANGED
    if reading.kind == VALUES or len(output.shape) < 2:
        return NSR
    axis = _class_axis(reading.axis, output.shape)
    return f"{KL}:{axis}" if output.shape[axis] > 1 else NSR


def _class_axis(known: int | None, shape: tuple[int, ...]) -> int:
    """The axis of the classes: the graph's, else of (n, classes, 1…), (n, positions, classes), (n, classes, h, w)."""
    if known is not None:
        axis = known % len(shape) if -len(shape) <= known < len(shape) else 0
        if axis > 0 and shape[axis] > 1:
            return axis
    return 2 if len(shape) == 3 and shape[2] > 1 else 1


def _ending(view: GraphView, tensor: str) -> tuple[bool, int | None]:
    """Whether an output holds class probabilities or their logarithms, and the axis of its channels."""
    whole, shaped = True, True  # whether each value, and each axis, is still where it was
    turns: list[list[int]] = []
    while (index := view.producer(tensor)) is not None:
        node = view.nodes[index]
        operator = node.op_type
        if operator in ("Softmax", "LogSoftmax"):
            axis = int(attribute(node, "axis", -1))
            return whole, _turned(axis, turns) if shaped else None
        if operator in _CHANNELS_AT:
            return False, _turned(_CHANNELS_AT[operator], turns) if shaped else None
        if operator == "Transpose" and (perm := attribute(node, "perm", None)):
            turns.append([int(axis) for axis in perm])
        elif operator in _RESHAPING:
            shaped = False
        elif operator in _KEEPING:
            whole = False
        elif operator not in _PASSING:
            break
        tensor = next((name for name in node.input if name and name not in view.initializers), "")
    return False, None


def _turned(axis: int, turns: Sequence[Sequence[int]]) -> int:
    """Position of an axis after transpositions, the last one first."""
    for perm in reversed(turns):
        axis = list(perm).index(axis % len(perm))
    return axis
