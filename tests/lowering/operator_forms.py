"""How operators are written from opset to opset: forms of the operators whose meaning or attributes changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bitfront.core import Array
from bitfront.lowering.opset import OPSET

FIRST_OPSET = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How an operator is written in a range of opsets.

    Attributes:
        first, last: The range, both ends included.
        feeds: Arrays fed at run time: the operator's first inputs.
        constants: Its further inputs; None for one left out.
        attributes: As in the node.
        outputs: Number of outputs read.
        name: Tells forms of one operator apart.
    """

    first: int = FIRST_OPSET
    last: int = OPSET
    feeds: Sequence[Array] = ()
    constants: Sequence[Array | None] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    name: str = ""


def floats(*shape: int, low: float = -2, high: float = 2, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def ints(*shape: int, high: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, high, shape)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


X = floats(2, 4, 6, 5)
TWICE = floats(2, 4, 6, 5, low=-4, high=4, seed=2)
Y = floats(4, 1, 5, seed=1)
POSITIVE = floats(2, 4, 6, 5, low=0.1)
MAP = floats(2, 4, 6, 6)

UNARY = (
    *("Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Identity", "LeakyRelu", "MeanVarianceNormalization", "Neg"),
    *("NonZero", "Relu", "Shape", "Sigmoid", "Sign", "Size", "Tanh"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
VARIADIC = ("Max", "Min", "Mean", "Sum")
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def reduction(name: str) -> list[Form]:
    data = [POSITIVE] if name == "LogSum" else [X]
    last = 17 if name != "Sum" else 12
    found = []
    for label, axes, keep in (("some", [1, 2], 0), ("default", None, 1)):
        given: Mapping[str, Any] = {} if axes is None else {"axes": axes}
        constants = [] if axes is None else [whole(*axes)]
        found += [
            Form(name=label, last=last, feeds=data, attributes={**given, "keepdims": keep}),
            Form(name=label, first=last + 1, feeds=data, constants=constants, attributes={"keepdims": keep}),
        ]
    return found


def flattening() -> list[Form]:
    # Below 13 all axes from this one on are one.
    forms = [Form(name=f"axis{axis}", feeds=[X], attributes={"axis": axis}) for axis in range(4)]
    return [
        *forms,
        Form(name="default", feeds=[X]),
        Form(name="negative", first=11, feeds=[X], attributes={"axis": -2}),
    ]


def resizing() -> list[Form]:
    forms = []
    for mode in ("nearest", "linear"):
        for label, scale in (("twice", 2.0), ("fraction", 1.3), ("less", 0.6)):
            scales = np.array([1, 1, scale, scale], np.float32)
            forms.append(
                Form(name=f"{mode}-{label}", last=10, feeds=[X], constants=[scales], attributes={"mode": mode})
            )
            newer = [np.zeros(0, np.float32), scales]
            forms.append(Form(name=f"{mode}-{label}", first=11, feeds=[X], constants=newer, attributes={"mode": mode}))
    mixed = [np.array([1, 1, 1.5, 0.6], np.float32)]
    forms.append(Form(name="nearest-mixed", last=10, feeds=[X], constants=mixed))
    sizes = [np.zeros(0, np.float32), np.zeros(0, np.float32), whole(2, 4, 9, 7)]
    kinds = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
    forms += [
        Form(
            name=f"cubic-{kind}",
            first=11,
            feeds=[X],
            constants=sizes,
            attributes={"mode": "cubic", "coordinate_transformation_mode": kind},
        )
        for kind in kinds
    ]
    rounding = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    for kind in rounding:
        forms.append(Form(name=kind, first=11, feeds=[X], constants=sizes, attributes={"nearest_mode": kind}))
    return forms


def upsampling() -> list[Form]:
    forms = []
    for mode in ("nearest", "linear"):
        for scale in (2.0, 1.5):
            scales = [1.0, 1.0, scale, scale]
            attributes = {"mode": mode, "scales": scales}
            forms.append(Form(name=f"{mode}-{scale:g}", last=8, feeds=[X], attributes=attributes))
            constants = [np.array(scales, np.float32)]
            forms.append(
                Form(
                    name=f"{mode}-{scale:g}", first=9, last=9, feeds=[X], constants=constants, attributes={"mode": mode}
                )
            )
    return forms


def recurrent(gates: int, name: str) -> list[Form]:
    weights = [floats(2, gates * 4, 3, seed=2), floats(2, gates * 4, 4, seed=3), floats(2, gates * 8, seed=4)]
    both: dict[str, Any] = {"hidden_size": 4, "direction": "bidirectional"}
    if name == "GRU":
        both["linear_before_reset"] = 1
    return [Form(feeds=[floats(5, 2, 3)], constants=weights, attributes=both, outputs=2)]


def padding() -> list[Form]:
    forms = []
    for mode in ("constant", "reflect", "edge"):
        pads = [0, 1, 2, 0, 0, 0, 1, 2]
        old: dict[str, Any] = {"pads": pads, "mode": mode}
        new: list[Array | None] = [whole(*pads)]
        if mode == "constant":
            old["value"], new = 1.5, [*new, np.array(1.5, np.float32)]
        forms.append(Form(name=mode, last=10, feeds=[X], attributes=old))
        forms.append(Form(name=mode, first=11, feeds=[X], constants=new, attributes={"mode": mode}))
    return forms


def pooling(name: str) -> list[Form]:
    window = {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    forms = [Form(name="window", feeds=[MAP], attributes=window)]
    if name == "LpPool":
        return forms
    forms += [
        Form(name="same", feeds=[MAP], attributes={"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"}),
        Form(
            name="ceil", first=10, feeds=[MAP], attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
        ),
    ]
    if name == "MaxPool":
        return [*forms, Form(name="indices", first=8, feeds=[MAP], attributes=window, outputs=2)]
    return [*forms, Form(name="padding", feeds=[MAP], attributes={**window, "count_include_pad": 1})]
