"""The forms of every operator that a later opset replaced."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, numpy_helper

from tests.lowering.operator_forms import (
    BINARY,
    MAP,
    POSITIVE,
    REDUCTIONS,
    TWICE,
    UNARY,
    VARIADIC,
    Form,
    X,
    Y,
    flattening,
    floats,
    ints,
    padding,
    pooling,
    recurrent,
    reduction,
    resizing,
    upsampling,
    whole,
)

FORMS: dict[str, list[Form]] = {
    **{name: [Form(feeds=[X])] for name in UNARY},
    **{name: [Form(feeds=[X, Y])] for name in BINARY},
    **{name: [Form(feeds=[X, TWICE, POSITIVE])] for name in VARIADIC},
    **{name: [Form(feeds=[POSITIVE])] for name in ("Log", "Reciprocal", "Sqrt")},
    **{f"Reduce{name}": reduction(name) for name in REDUCTIONS},
    **{name: flattening() for name in ("Hardmax", "Softmax", "LogSoftmax")},
    **{
        name: [
            Form(name="axis", feeds=[X], attributes={"axis": 2, "keepdims": 0}),
            Form(name="default", feeds=[X]),
            Form(
                name="last",
                first=12,
                feeds=[ints(2, 4, 6, 5, high=3).astype(np.float32)],
                attributes={"axis": 1, "select_last_index": 1},
            ),
        ]
        for name in ("ArgMax", "ArgMin")
    },
    **{name: pooling(name) for name in ("AveragePool", "MaxPool", "LpPool")},
    "BatchNormalization": [
        Form(feeds=[X], constants=[floats(4, low=0.5, seed=seed) for seed in range(3)] + [floats(4, low=0.5)])
    ],
    "Cast": [
        Form(name="int", feeds=[X], attributes={"to": TensorProto.INT64}),
        Form(name="half", feeds=[X], attributes={"to": TensorProto.FLOAT16}),
        Form(name="bool", feeds=[ints(2, 4, 6, 5, high=3).astype(np.float32)], attributes={"to": TensorProto.BOOL}),
    ],
    "CastLike": [Form(feeds=[X], constants=[whole(1)])],
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
        Form(feeds=[whole(2, 3)], attributes={"value": numpy_helper.from_array(np.array([7.0], np.float32))})
    ],
    "Conv": [
        Form(feeds=[MAP], constants=[floats(6, 2, 3, 3), floats(6)], attributes={"group": 2, "pads": [1, 0, 1, 1]}),
        Form(name="same", feeds=[MAP], constants=[floats(6, 4, 3, 3)], attributes={"auto_pad": "SAME_LOWER"}),
    ],
    "ConvTranspose": [
        Form(feeds=[MAP], constants=[floats(4, 3, 3, 3)], attributes={"strides": [2, 2], "output_padding": [1, 1]}),
        Form(
            name="same",
            feeds=[MAP],
            constants=[floats(4, 3, 3, 3)],
            attributes={"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        ),
        Form(
            name="shape",
            feeds=[MAP],
            constants=[floats(4, 3, 3, 3)],
            attributes={"strides": [2, 2], "output_shape": [12, 12]},
        ),
    ],
    "CumSum": [Form(feeds=[X], constants=[np.array(2, np.int32)], attributes={"reverse": 1})],
    "DFT": [
        Form(last=19, feeds=[floats(2, 8, 1)], attributes={"axis": 1}),
        Form(first=20, feeds=[floats(2, 8, 1)], constants=[None, np.array(1)]),
    ],
    "DepthToSpace": [
        Form(feeds=[X], attributes={"blocksize": 2}),
        Form(name="CRD", first=11, feeds=[X], attributes={"blocksize": 2, "mode": "CRD"}),
    ],
    "DequantizeLinear": [
        Form(
            feeds=[ints(2, 3, high=200).astype(np.uint8)],
            constants=[np.array(0.1, np.float32), np.array(99, np.uint8)],
        ),
        Form(
            name="axis",
            first=13,
            feeds=[ints(2, 3).astype(np.int8)],
            constants=[floats(3, low=0.1), np.zeros(3, np.int8)],
        ),
    ],
    "QuantizeLinear": [
        Form(feeds=[X], constants=[np.array(0.02, np.float32), np.array(99, np.uint8)]),
        Form(name="axis", first=13, feeds=[X], constants=[floats(4, low=0.1), np.zeros(4, np.int8)]),
    ],
    "QLinearMatMul": [
        Form(
            feeds=[ints(2, 3).astype(np.uint8)],
            constants=[
                *(np.array(0.1, np.float32), np.array(2, np.uint8), ints(3, 4).astype(np.uint8)),
                *(np.array(0.1, np.float32), np.array(2, np.uint8), np.array(0.1, np.float32), np.array(2, np.uint8)),
            ],
        )
    ],
    "Dropout": [Form(feeds=[X], last=11, attributes={"ratio": 0.3}), Form(first=12, feeds=[X])],
    "Equal": [Form(feeds=[ints(2, 3), ints(3, seed=1)])],
    "Expand": [Form(feeds=[Y], constants=[whole(2, 1, 6, 5)])],
    "Flatten": [
        *(Form(name=f"axis{axis}", feeds=[X], attributes={"axis": axis}) for axis in (0, 2, 4)),
        Form(name="negative", first=11, feeds=[X], attributes={"axis": -1}),
    ],
    "Gather": [Form(feeds=[X], constants=[whole(1, 0, 3)], attributes={"axis": 1})],
    "GatherElements": [Form(feeds=[X], constants=[ints(2, 4, 6, 3)], attributes={"axis": 3})],
    "GatherND": [
        Form(feeds=[X], constants=[ints(3, 2, high=2)]),
        Form(name="batch", first=12, feeds=[X], constants=[ints(2, 3, 1, high=4)], attributes={"batch_dims": 1}),
    ],
    "Gemm": [
        Form(
            feeds=[floats(3, 4)],
            constants=[floats(5, 4), floats(5)],
            attributes={"alpha": 0.5, "beta": 2.0, "transB": 1},
        ),
        Form(name="no-bias", first=11, feeds=[floats(3, 4)], constants=[floats(4, 5)]),
    ],
    "GridSample": [
        Form(feeds=[MAP], last=19, constants=[floats(2, 3, 3, 2, low=-1, high=1)], attributes={"mode": mode}, name=mode)
        for mode in ("bilinear", "nearest", "bicubic")
    ],
    "GroupNormalization": [
        Form(
            first=18,
            last=20,
            feeds=[X],
            constants=[floats(2, seed=1), floats(2, seed=2)],
            attributes={"num_groups": 2, "epsilon": 0.01},
        )
    ],
    "GRU": recurrent(3, "GRU"),
    "LSTM": recurrent(4, "LSTM"),
    "RNN": recurrent(1, "RNN"),
    "IsInf": [Form(feeds=[np.array([1, np.inf, -np.inf, np.nan], np.float32)])],
    "IsNaN": [Form(feeds=[np.array([1, np.inf, -np.inf, np.nan], np.float32)])],
    "LRN": [Form(feeds=[X], attributes={"size": 3, "alpha": 0.2})],
    "MatMul": [Form(feeds=[X], constants=[floats(5, 3)])],
    "MaxUnpool": [
        Form(
            feeds=[floats(1, 1, 2, 2)],
            constants=[np.array([5, 7, 8, 10]).reshape(1, 1, 2, 2)],
            attributes={"kernel_shape": [2, 2], "strides": [2, 2]},
        )
    ],
    "Mod": [
        Form(feeds=[ints(2, 3, high=50) - 25], constants=[whole(7, -4, 3)]),
        Form(name="fmod", feeds=[X], constants=[Y], attributes={"fmod": 1}),
    ],
    "NegativeLogLikelihoodLoss": [Form(feeds=[floats(3, 5)], constants=[ints(3)])],
    "SoftmaxCrossEntropyLoss": [Form(feeds=[floats(3, 5)], constants=[ints(3)])],
    "NonMaxSuppression": [
        Form(
            feeds=[np.cumsum(floats(1, 6, 4, low=0), axis=2).astype(np.float32), floats(1, 1, 6, low=0)],
            constants=[np.array([3]), np.array([0.4], np.float32)],
        )
    ],
    "OneHot": [
        Form(feeds=[ints(2, 3)], constants=[np.array(5), np.array([0.5, 2], np.float32)], attributes={"axis": 1})
    ],
    "PRelu": [Form(feeds=[X], constants=[floats(4, 1, 1)])],
    "Pad": padding(),
    "Pow": [
        Form(feeds=[POSITIVE], constants=[np.array(1.5, np.float32)]),
        Form(name="types", first=12, feeds=[X], constants=[np.array(3)]),
    ],
    "Reshape": [
        Form(feeds=[X], constants=[whole(0, -1, 10)]),
        Form(
            name="zero",
            first=14,
            feeds=[np.zeros((0, 3), np.float32)],
            constants=[whole(3, 0)],
            attributes={"allowzero": 1},
        ),
    ],
    "Resize": resizing(),
    "Upsample": upsampling(),
    "RoiAlign": [
        Form(
            feeds=[MAP],
            constants=[np.array([[0, 0, 4, 4], [1, 1, 5, 3]], np.float32), whole(0, 1)],
            attributes={"output_height": 3, "output_width": 2, "sampling_ratio": 2},
            name="average",
        ),
        Form(
            feeds=[MAP],
            constants=[np.array([[0, 0, 4, 4], [1, 1, 5, 3]], np.float32), whole(0, 1)],
            attributes={"output_height": 3, "output_width": 2, "sampling_ratio": 2, "mode": "max"},
            name="max",
        ),
    ],
    "Scatter": [Form(last=10, feeds=[X], constants=[ints(2, 4, 6, 5, high=2), TWICE], attributes={"axis": 0})],
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
            constants=[ints(2, 4, 6, 5, high=2), TWICE],
            attributes={"axis": 0, "reduction": "add"},
        ),
    ],
    "ScatterND": [
        Form(feeds=[X], constants=[whole(1, 3).reshape(1, 2), floats(1, 6, 5)]),
        Form(
            name="add",
            first=16,
            feeds=[X],
            constants=[whole(1, 3, 1, 3).reshape(2, 2), floats(2, 6, 5)],
            attributes={"reduction": "add"},
        ),
    ],
    "Slice": [
        Form(last=9, feeds=[X], attributes={"starts": [0, 1], "ends": [2, -1], "axes": [1, 2]}),
        Form(last=9, name="no-axes", feeds=[X], attributes={"starts": [0, 1], "ends": [2, 3]}),
        Form(first=10, feeds=[X], constants=[whole(-1, 1), whole(-9, 5), whole(1, 2), whole(-1, 2)]),
    ],
    "SpaceToDepth": [Form(feeds=[MAP], attributes={"blocksize": 2})],
    "Split": [
        Form(last=12, feeds=[X], attributes={"axis": 2, "split": [2, 4]}, outputs=2),
        Form(last=12, name="equal", feeds=[X], attributes={"axis": 2}, outputs=2),
        Form(first=13, feeds=[X], constants=[whole(2, 4)], attributes={"axis": 2}, outputs=2),
        Form(first=13, last=17, name="equal", feeds=[X], attributes={"axis": 2}, outputs=3),
        Form(first=18, name="equal", feeds=[X], attributes={"axis": 2, "num_outputs": 4}, outputs=4),
    ],
    "Squeeze": [
        Form(last=12, feeds=[X[:, :1]], attributes={"axes": [1]}),
        Form(last=12, name="all", feeds=[X[:1, :1]]),
        Form(first=13, feeds=[X[:, :1]], constants=[whole(1)]),
    ],
    "Unsqueeze": [
        Form(last=12, feeds=[X], attributes={"axes": [0, 3]}),
        Form(first=11, last=12, name="negative", feeds=[X], attributes={"axes": [-1]}),
        Form(first=13, feeds=[X], constants=[whole(0, -1)]),
    ],
    "Tile": [Form(feeds=[X], constants=[whole(1, 2, 1, 3)])],
    "TopK": [
        Form(last=9, feeds=[X], attributes={"k": 3, "axis": 2}, outputs=2),
        Form(first=10, feeds=[X], constants=[whole(3)], attributes={"axis": 2}, outputs=2),
    ],
    "Transpose": [Form(feeds=[X], attributes={"perm": [2, 0, 3, 1]}), Form(name="default", feeds=[X])],
    "Where": [Form(feeds=[ints(2, 4, 6, 5, high=2).astype(np.bool_), X], constants=[Y])],
}
