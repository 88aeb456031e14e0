"""Small graphs of every operator version from opset 7 on that a later opset replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.lowering.opset import OPSET
from bitfront.precision import Array

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A model of one operator at one opset, with arrays to feed it."""

    model: onnx.ModelProto
    feeds: Mapping[str, Array]


def _floats(*shape: int, low: float = -2, high: float = 2, seed: int = 0) -> Array:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def _ints(*shape: int, high: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, high, shape)


def _whole(*values: int) -> Array:
    return np.array(values, np.int64)


X = _floats(2, 4, 6, 5)
TWICE = _floats(2, 4, 6, 5, low=-4, high=4, seed=2)
Y = _floats(4, 1, 5, seed=1)
POSITIVE = _floats(2, 4, 6, 5, low=0.1)
MAP = _floats(2, 4, 6, 6)

_UNARY = (
    *("Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Identity", "LeakyRelu", "MeanVarianceNormalization", "Neg"),
    *("NonZero", "Relu", "Shape", "Sigmoid", "Sign", "Size", "Tanh"),
)
_BINARY = ("Add", "Sub", "Mul", "Div", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")
_VARIADIC = ("Max", "Min", "Mean", "Sum")
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def _reduction(name: str) -> list[Form]:
    data = [POSITIVE] if name == "LogSum" else [X]
    last = 17 if name != "Sum" else 12
    found = []
    for label, axes, keep in (("some", [1, 2], 0), ("default", None, 1)):
        given: Mapping[str, Any] = {} if axes is None else {"axes": axes}
        constants = [] if axes is None else [_whole(*axes)]
        found += [
            Form(name=label, last=last, feeds=data, attributes={**given, "keepdims": keep}),
            Form(name=label, first=last + 1, feeds=data, constants=constants, attributes={"keepdims": keep}),
        ]
    return found


def _flattening() -> list[Form]:
    # Below 13 all axes from this one on are one.
    forms = [Form(name=f"axis{axis}", feeds=[X], attributes={"axis": axis}) for axis in range(4)]
    return [
        *forms,
        Form(name="default", feeds=[X]),
        Form(name="negative", first=11, feeds=[X], attributes={"axis": -2}),
    ]


def _resizing() -> list[Form]:
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
    sizes = [np.zeros(0, np.float32), np.zeros(0, np.float32), _whole(2, 4, 9, 7)]
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


def _upsampling() -> list[Form]:
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


def _recurrent(gates: int, name: str) -> list[Form]:
    weights = [_floats(2, gates * 4, 3, seed=2), _floats(2, gates * 4, 4, seed=3), _floats(2, gates * 8, seed=4)]
    both: dict[str, Any] = {"hidden_size": 4, "direction": "bidirectional"}
    if name == "GRU":
        both["linear_before_reset"] = 1
    return [Form(feeds=[_floats(5, 2, 3)], constants=weights, attributes=both, outputs=2)]


def _padding() -> list[Form]:
    forms = []
    for mode in ("constant", "reflect", "edge"):
        pads = [0, 1, 2, 0, 0, 0, 1, 2]
        old: dict[str, Any] = {"pads": pads, "mode": mode}
        new: list[Array | None] = [_whole(*pads)]
        if mode == "constant":
            old["value"], new = 1.5, [*new, np.array(1.5, np.float32)]
        forms.append(Form(name=mode, last=10, feeds=[X], attributes=old))
        forms.append(Form(name=mode, first=11, feeds=[X], constants=new, attributes={"mode": mode}))
    return forms


def _pooling(name: str) -> list[Form]:
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


FORMS: dict[str, list[Form]] = {
    **{name: [Form(feeds=[X])] for name in _UNARY},
    **{name: [Form(feeds=[X, Y])] for name in _BINARY},
    **{name: [Form(feeds=[X, TWICE, POSITIVE])] for name in _VARIADIC},
    **{name: [Form(feeds=[POSITIVE])] for name in ("Log", "Reciprocal", "Sqrt")},
    **{f"Reduce{name}": _reduction(name) for name in _REDUCTIONS},
    **{name: _flattening() for name in ("Hardmax", "Softmax", "LogSoftmax")},
    **{
        name: [
            Form(name="axis", feeds=[X], attributes={"axis": 2, "keepdims": 0}),
            Form(name="default", feeds=[X]),
            Form(
                name="last",
                first=12,
                feeds=[_ints(2, 4, 6, 5, high=3).astype(np.float32)],
                attributes={"axis": 1, "select_last_index": 1},
            ),
        ]
        for name in ("ArgMax", "ArgMin")
    },
    **{name: _pooling(name) for name in ("AveragePool", "MaxPool", "LpPool")},
    "BatchNormalization": [
        Form(feeds=[X], constants=[_floats(4, low=0.5, seed=seed) for seed in range(3)] + [_floats(4, low=0.5)])
    ],
    "Cast": [
        Form(name="int", feeds=[X], attributes={"to": TensorProto.INT64}),
        Form(name="half", feeds=[X], attributes={"to": TensorProto.FLOAT16}),
        Form(name="bool", feeds=[_ints(2, 4, 6, 5, high=3).astype(np.float32)], attributes={"to": TensorProto.BOOL}),
    ],
    "CastLike": [Form(feeds=[X], constants=[_whole(1)])],
    "Clip": [
        Form(name="both", last=10, feeds=[X], attributes={"min": -0.5, "max": 0.75}),
        Form(name="low", last=10, feeds=[X], attributes={"min": -0.5}),
        Form(name="none", last=10, feeds=[X]),
        Form(name="both", first=11, feeds=[X], constants=[np.array(-0.5, np.float32), np.array(0.75, np.float32)]),
        Form(name="high", first=11, feeds=[X], constants=[None, np.array(0.75, np.float32)]),
    ],
    "Compress": [Form(feeds=[X], constants=[np.array([True, False, True])], attributes={"axis": 1})],
    "Concat": [
        Form(feeds=[X, X], attributes={"axis": 1}),
        Form(first=11, name="negative", feeds=[X, X], attributes={"axis": -1}),
    ],
    "ConstantOfShape": [
        Form(feeds=[_whole(2, 3)], attributes={"value": numpy_helper.from_array(np.array([7.0], np.float32))})
    ],
    "Conv": [
        Form(feeds=[MAP], constants=[_floats(6, 2, 3, 3), _floats(6)], attributes={"group": 2, "pads": [1, 0, 1, 1]}),
        Form(name="same", feeds=[MAP], constants=[_floats(6, 4, 3, 3)], attributes={"auto_pad": "SAME_LOWER"}),
    ],
    "ConvTranspose": [
        Form(feeds=[MAP], constants=[_floats(4, 3, 3, 3)], attributes={"strides": [2, 2], "output_padding": [1, 1]}),
        Form(
            name="same",
            feeds=[MAP],
            constants=[_floats(4, 3, 3, 3)],
            attributes={"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        ),
        Form(
            name="shape",
            feeds=[MAP],
            constants=[_floats(4, 3, 3, 3)],
            attributes={"strides": [2, 2], "output_shape": [12, 12]},
        ),
    ],
    "CumSum": [Form(feeds=[X], constants=[np.array(2, np.int32)], attributes={"reverse": 1})],
    "DFT": [
        Form(last=19, feeds=[_floats(2, 8, 1)], attributes={"axis": 1}),
        Form(first=20, feeds=[_floats(2, 8, 1)], constants=[None, np.array(1)]),
    ],
    "DepthToSpace": [
        Form(feeds=[X], attributes={"blocksize": 2}),
        Form(name="CRD", first=11, feeds=[X], attributes={"blocksize": 2, "mode": "CRD"}),
    ],
    "DequantizeLinear": [
        Form(
            feeds=[_ints(2, 3, high=200).astype(np.uint8)],
            constants=[np.array(0.1, np.float32), np.array(99, np.uint8)],
        ),
        Form(
            name="axis",
            first=13,
            feeds=[_ints(2, 3).astype(np.int8)],
            constants=[_floats(3, low=0.1), np.zeros(3, np.int8)],
        ),
    ],
    "QuantizeLinear": [
        Form(feeds=[X], constants=[np.array(0.02, np.float32), np.array(99, np.uint8)]),
        Form(name="axis", first=13, feeds=[X], constants=[_floats(4, low=0.1), np.zeros(4, np.int8)]),
    ],
    "QLinearMatMul": [
        Form(
            feeds=[_ints(2, 3).astype(np.uint8)],
            constants=[
                *(np.array(0.1, np.float32), np.array(2, np.uint8), _ints(3, 4).astype(np.uint8)),
                *(np.array(0.1, np.float32), np.array(2, np.uint8), np.array(0.1, np.float32), np.array(2, np.uint8)),
            ],
        )
    ],
    "Dropout": [Form(feeds=[X], last=11, attributes={"ratio": 0.3}), Form(first=12, feeds=[X])],
    "Equal": [Form(feeds=[_ints(2, 3), _ints(3, seed=1)])],
    "Expand": [Form(feeds=[Y], constants=[_whole(2, 1, 6, 5)])],
    "Flatten": [
        *(Form(name=f"axis{axis}", feeds=[X], attributes={"axis": axis}) for axis in (0, 2, 4)),
        Form(name="negative", first=11, feeds=[X], attributes={"axis": -1}),
    ],
    "Gather": [Form(feeds=[X], constants=[_whole(1, 0, 3)], attributes={"axis": 1})],
    "GatherElements": [Form(feeds=[X], constants=[_ints(2, 4, 6, 3)], attributes={"axis": 3})],
    "GatherND": [
        Form(feeds=[X], constants=[_ints(3, 2, high=2)]),
        Form(name="batch", first=12, feeds=[X], constants=[_ints(2, 3, 1, high=4)], attributes={"batch_dims": 1}),
    ],
    "Gemm": [
        Form(
            feeds=[_floats(3, 4)],
            constants=[_floats(5, 4), _floats(5)],
            attributes={"alpha": 0.5, "beta": 2.0, "transB": 1},
        ),
        Form(name="no-bias", first=11, feeds=[_floats(3, 4)], constants=[_floats(4, 5)]),
    ],
    "GridSample": [
        Form(
            feeds=[MAP], last=19, constants=[_floats(2, 3, 3, 2, low=-1, high=1)], attributes={"mode": mode}, name=mode
        )
        for mode in ("bilinear", "nearest", "bicubic")
    ],
    "GroupNormalization": [
        Form(
            first=18,
            last=20,
            feeds=[X],
            constants=[_floats(2, seed=1), _floats(2, seed=2)],
            attributes={"num_groups": 2, "epsilon": 0.01},
        )
    ],
    "GRU": _recurrent(3, "GRU"),
    "LSTM": _recurrent(4, "LSTM"),
    "RNN": _recurrent(1, "RNN"),
    "IsInf": [Form(feeds=[np.array([1, np.inf, -np.inf, np.nan], np.float32)])],
    "IsNaN": [Form(feeds=[np.array([1, np.inf, -np.inf, np.nan], np.float32)])],
    "LRN": [Form(feeds=[X], attributes={"size": 3, "alpha": 0.2})],
    "MatMul": [Form(feeds=[X], constants=[_floats(5, 3)])],
    "MaxUnpool": [
        Form(
            feeds=[_floats(1, 1, 2, 2)],
            constants=[np.array([5, 7, 8, 10]).reshape(1, 1, 2, 2)],
            attributes={"kernel_shape": [2, 2], "strides": [2, 2]},
        )
    ],
    "Mod": [
        Form(feeds=[_ints(2, 3, high=50) - 25], constants=[_whole(7, -4, 3)]),
        Form(name="fmod", feeds=[X], constants=[Y], attributes={"fmod": 1}),
    ],
    "NegativeLogLikelihoodLoss": [Form(feeds=[_floats(3, 5)], constants=[_ints(3)])],
    "SoftmaxCrossEntropyLoss": [Form(feeds=[_floats(3, 5)], constants=[_ints(3)])],
    "NonMaxSuppression": [
        Form(
            feeds=[np.cumsum(_floats(1, 6, 4, low=0), axis=2).astype(np.float32), _floats(1, 1, 6, low=0)],
            constants=[np.array([3]), np.array([0.4], np.float32)],
        )
    ],
    "OneHot": [
        Form(feeds=[_ints(2, 3)], constants=[np.array(5), np.array([0.5, 2], np.float32)], attributes={"axis": 1})
    ],
    "PRelu": [Form(feeds=[X], constants=[_floats(4, 1, 1)])],
    "Pad": _padding(),
    "Pow": [
        Form(feeds=[POSITIVE], constants=[np.array(1.5, np.float32)]),
        Form(name="types", first=12, feeds=[X], constants=[np.array(3)]),
    ],
    "Reshape": [
        Form(feeds=[X], constants=[_whole(0, -1, 10)]),
        Form(
            name="zero",
            first=14,
            feeds=[np.zeros((0, 3), np.float32)],
            constants=[_whole(3, 0)],
            attributes={"allowzero": 1},
        ),
    ],
    "Resize": _resizing(),
    "Upsample": _upsampling(),
    "RoiAlign": [
        Form(
            feeds=[MAP],
            constants=[np.array([[0, 0, 4, 4], [1, 1, 5, 3]], np.float32), _whole(0, 1)],
            attributes={"output_height": 3, "output_width": 2, "sampling_ratio": 2},
            name="average",
        ),
        Form(
            feeds=[MAP],
            constants=[np.array([[0, 0, 4, 4], [1, 1, 5, 3]], np.float32), _whole(0, 1)],
            attributes={"output_height": 3, "output_width": 2, "sampling_ratio": 2, "mode": "max"},
            name="max",
        ),
    ],
    "Scatter": [Form(last=10, feeds=[X], constants=[_ints(2, 4, 6, 5, high=2), TWICE], attributes={"axis": 0})],
    "ScatterElements": [
        Form(
            feeds=[X],
            constants=[np.broadcast_to(np.arange(4)[::-1].reshape(1, 4, 1, 1), X.shape), TWICE],
            attributes={"axis": 1},
        ),
        Form(
            name="add",
            first=16,
            feeds=[X],
            constants=[_ints(2, 4, 6, 5, high=2), TWICE],
            attributes={"axis": 0, "reduction": "add"},
        ),
    ],
    "ScatterND": [
        Form(feeds=[X], constants=[_whole(1, 3).reshape(1, 2), _floats(1, 6, 5)]),
        Form(
            name="add",
            first=16,
            feeds=[X],
            constants=[_whole(1, 3, 1, 3).reshape(2, 2), _floats(2, 6, 5)],
            attributes={"reduction": "add"},
        ),
    ],
    "Slice": [
        Form(last=9, feeds=[X], attributes={"starts": [0, 1], "ends": [2, -1], "axes": [1, 2]}),
        Form(last=9, name="no-axes", feeds=[X], attributes={"starts": [0, 1], "ends": [2, 3]}),
        Form(first=10, feeds=[X], constants=[_whole(-1, 1), _whole(-9, 5), _whole(1, 2), _whole(-1, 2)]),
    ],
    "SpaceToDepth": [Form(feeds=[MAP], attributes={"blocksize": 2})],
    "Split": [
        Form(last=12, feeds=[X], attributes={"axis": 2, "split": [2, 4]}, outputs=2),
        Form(last=12, name="equal", feeds=[X], attributes={"axis": 2}, outputs=2),
        Form(first=13, feeds=[X], constants=[_whole(2, 4)], attributes={"axis": 2}, outputs=2),
        Form(first=13, last=17, name="equal", feeds=[X], attributes={"axis": 2}, outputs=3),
        Form(first=18, name="equal", feeds=[X], attributes={"axis": 2, "num_outputs": 4}, outputs=4),
    ],
    "Squeeze": [
        Form(last=12, feeds=[X[:, :1]], attributes={"axes": [1]}),
        Form(last=12, name="all", feeds=[X[:1, :1]]),
        Form(first=13, feeds=[X[:, :1]], constants=[_whole(1)]),
    ],
    "Unsqueeze": [
        Form(last=12, feeds=[X], attributes={"axes": [0, 3]}),
        Form(first=11, last=12, name="negative", feeds=[X], attributes={"axes": [-1]}),
        Form(first=13, feeds=[X], constants=[_whole(0, -1)]),
    ],
    "Tile": [Form(feeds=[X], constants=[_whole(1, 2, 1, 3)])],
    "TopK": [
        Form(last=9, feeds=[X], attributes={"k": 3, "axis": 2}, outputs=2),
        Form(first=10, feeds=[X], constants=[_whole(3)], attributes={"axis": 2}, outputs=2),
    ],
    "Transpose": [Form(feeds=[X], attributes={"perm": [2, 0, 3, 1]}), Form(name="default", feeds=[X])],
    "Where": [Form(feeds=[_ints(2, 4, 6, 5, high=2).astype(np.bool_), X], constants=[Y])],
}


def replaced_versions() -> Iterator[tuple[str, int, int]]:
    """(operator, first opset, last opset) of every version that a later one, up to ``OPSET``, replaced."""
    versions: dict[str, set[int]] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= OPSET:
            versions.setdefault(schema.name, set()).add(schema.since_version)
    for name, found in sorted(versions.items()):
        ordered = sorted(found)
        for since, until in pairwise(ordered):
            if until > FIRST_OPSET:
                yield name, max(since, FIRST_OPSET), until - 1


def samples() -> dict[str, Callable[[], Sample]]:
    """Readable id → what makes the sample; operators with bodies and of no tensors are in ``BODIES``."""
    found: dict[str, Callable[[], Sample]] = {}
    for name, first, last in replaced_versions():
        for form in FORMS.get(name, ()):
            opset = max(first, form.first)
            if opset <= min(last, form.last):
                label = f"{name}-{opset}" + (f"-{form.name}" if form.name else "")
                found[label] = lambda name=name, form=form, opset=opset: _sample(name, form, opset)  # type: ignore[misc]
        if name in BODIES:
            found[f"{name}-{first}"] = lambda make=BODIES[name], opset=first: make(opset)  # type: ignore[misc]
    return found


def _sample(name: str, form: Form, opset: int) -> Sample:
    feeds = {f"x{place}": array for place, array in enumerate(form.feeds)}
    constants = {f"c{place}": array for place, array in enumerate(form.constants) if array is not None}
    further = [f"c{place}" if array is not None else "" for place, array in enumerate(form.constants)]
    outputs = [f"y{place}" for place in range(form.outputs)]
    node = helper.make_node(name, [*feeds, *further], outputs, name="the operator", **form.attributes)
    return Sample(model=_model([node], feeds, outputs, constants, opset), feeds=feeds)


def _model(
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, Array],
    outputs: Sequence[str],
    constants: Mapping[str, Array],
    opset: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "single",
        [_info(name, array, open_axes=nodes[0].op_type in ("Shape", "Size")) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(array, order="C"), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def _info(name: str, array: Array, *, open_axes: bool) -> onnx.ValueInfoProto:
    shape = [f"{name}_{axis}" for axis in range(array.ndim)] if open_axes else array.shape
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def _squeeze(opset: int, source: str, result: str) -> list[onnx.NodeProto]:
    """A node of an operator that took attributes before opset 13 and takes inputs from then on."""
    if opset < 13:
        return [helper.make_node("Unsqueeze", [source], [result], axes=[1])]
    axes = numpy_helper.from_array(_whole(1), "")
    return [
        helper.make_node("Constant", [], [f"{result}_axes"], value=axes),
        helper.make_node("Unsqueeze", [source, f"{result}_axes"], [result]),
    ]


def _constant(opset: int) -> Sample:
    made = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(Y))
    feeds = {"x": X}
    return Sample(
        model=_model([made, helper.make_node("Add", ["x", "c"], ["y"])], feeds, ["y"], {}, opset), feeds=feeds
    )


def _if(opset: int) -> Sample:
    branches = {}
    for name, source in (("then_branch", "x"), ("else_branch", "negative")):
        out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, (2, 1, 3))
        branches[name] = helper.make_graph(_squeeze(opset, source, f"{name}_y"), name, [], [out])
    nodes = [helper.make_node("Neg", ["x"], ["negative"]), helper.make_node("If", ["c"], ["y"], **branches)]
    feeds = {"x": _floats(2, 3), "c": np.array(True)}
    return Sample(model=_model(nodes, feeds, ["y"], {}, opset), feeds=feeds)


def _loop(opset: int) -> Sample:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "x"], ["sum"]),
            *_squeeze(opset, "sum", "row"),
        ],
        "body",
        [
            value("i", TensorProto.INT64, ()),
            value("go", TensorProto.BOOL, ()),
            value("state", TensorProto.FLOAT, (2, 3)),
        ],
        [
            value("go_on", TensorProto.BOOL, ()),
            value("sum", TensorProto.FLOAT, (2, 3)),
            value("row", TensorProto.FLOAT, (2, 1, 3)),
        ],
    )
    node = helper.make_node("Loop", ["n", "start", "x"], ["y", "rows"], body=body)
    feeds = {"x": _floats(2, 3)}
    constants = {"n": np.array(3), "start": np.array(True)}
    return Sample(model=_model([node], feeds, ["y", "rows"], constants, opset), feeds=feeds)


def _scan(opset: int) -> Sample:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Add", ["state", "row"], ["sum"]), *_squeeze(opset, "sum", "out")],
        "body",
        [value("state", TensorProto.FLOAT, (3,)), value("row", TensorProto.FLOAT, (3,))],
        [value("sum", TensorProto.FLOAT, (3,)), value("out", TensorProto.FLOAT, (3, 1))],
    )
    if opset == 8:  # has a batch axis and lengths
        node = helper.make_node("Scan", ["", "s", "x"], ["y", "rows"], body=body, num_scan_inputs=1)
        feeds = {"x": _floats(2, 5, 3)}
        return Sample(
            model=_model([node], feeds, ["y", "rows"], {"s": np.zeros((2, 3), np.float32)}, opset), feeds=feeds
        )
    node = helper.make_node("Scan", ["s", "x"], ["y", "rows"], body=body, num_scan_inputs=1)
    feeds = {"x": _floats(5, 3)}
    return Sample(model=_model([node], feeds, ["y", "rows"], {"s": np.zeros(3, np.float32)}, opset), feeds=feeds)


def _optional(opset: int) -> Sample:
    nodes = [helper.make_node("Optional", ["x"], ["o"]), helper.make_node("OptionalGetElement", ["o"], ["y"])]
    nodes.append(helper.make_node("OptionalHasElement", ["o"], ["has"]))
    feeds = {"x": X}
    return Sample(model=_model(nodes, feeds, ["y", "has"], {}, opset), feeds=feeds)


BODIES: dict[str, Callable[[int], Sample]] = {
    "Constant": _constant,
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
    "Optional": _optional,
    "OptionalGetElement": _optional,
    "OptionalHasElement": _optional,
}
