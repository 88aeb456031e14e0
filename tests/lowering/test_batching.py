"""Which axis counts the samples, as far as shapes and names of axes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from bitfront.lowering.batching import infer_batching

Shapes = Mapping[str, Sequence[int | str | None] | None]
Axes = Mapping[str, int | None]

CASES: dict[str, tuple[Shapes, Shapes, Axes, Axes, int | None]] = {
    # what it stands for → inputs, outputs, batch axes of inputs and of outputs, fixed batch
    "named": ({"x": ("n", 3)}, {"y": ("n", 4)}, {"x": 0}, {"y": 0}, None),
    "unnamed": ({"x": (None, 3)}, {"y": (None, 4)}, {"x": 0}, {"y": 0}, None),
    "minus one": ({"x": (-1, 3)}, {"y": (-1, 4)}, {"x": 0}, {"y": 0}, None),
    "zero": ({"x": (0, 3)}, {"y": (0, 4)}, {"x": 0}, {"y": 0}, None),
    "fixed": ({"x": (4, 3)}, {"y": (4, 4)}, {"x": 0}, {"y": 0}, 4),
    "fixed at one": ({"x": (1, 3)}, {"y": (1, 4)}, {"x": 0}, {"y": 0}, 1),
    "fixed, other axes dynamic": ({"x": (1, 3, "h", "w")}, {"y": (1, 4)}, {"x": 0}, {"y": 0}, 1),
    "fixed, a point cloud": ({"x": (1, "n", 3)}, {"y": (1, 4)}, {"x": 0}, {"y": 0}, 1),
    "recurrent state": ({"x": ("n", 8), "s": (2, "n", 8)}, {"y": ("n", 8)}, {"x": 0, "s": 1}, {"y": 0}, None),
    "recurrent state, unnamed": ({"x": (-1, 8), "s": (2, -1, 8)}, {"y": (-1, 8)}, {"x": 0, "s": 1}, {"y": 0}, None),
    "recurrent state, fixed": ({"x": (1, 8), "s": (2, 1, 8)}, {"y": (1, 8)}, {"x": 0, "s": 1}, {"y": 0}, 1),
    "recurrent state first, fixed": (
        {"s": (3, 4, 8), "x": (4, 8)},
        {"y": (3, 4, 8)},
        {"s": 1, "x": 0},
        {"y": 1},
        4,
    ),
    "recurrent state first, as long as the answers": (
        {"s": (3, "n", 8), "x": ("n", 8)},
        {"y": (3, "n", 8)},
        {"s": 1, "x": 0},
        {"y": 1},
        None,
    ),
    "time-major": ({"x": ("time", "batch", 8)}, {"y": ("time", "batch", 4)}, {"x": 1}, {"y": 1}, None),
    "time-major, short names": (
        {"x": ("t", "n", 8), "h": (1, "n", 8)},
        {"y": ("t", "n", 4)},
        {"x": 1, "h": 1},
        {"y": 1},
        None,
    ),
    "time-major, so many steps": ({"x": (7, "n", 8)}, {"y": ("n", 4)}, {"x": 1}, {"y": 0}, None),
    "time-major, lengths beside it": (
        {"x": (7, "N"), "lengths": ("N",)},
        {"y": ("N", 4)},
        {"x": 1, "lengths": 0},
        {"y": 0},
        None,
    ),
    "fixed, so many found": ({"x": (1, "n", 3)}, {"y": (1, 4), "f": ("n", 2)}, {"x": 0}, {"y": 0, "f": 0}, 1),
    "time-major answers": ({"x": ("n", 5, 8)}, {"y": (5, "n", 8)}, {"x": 0}, {"y": 1}, None),
    "text": (
        {"ids": ("batch", "sequence"), "mask": ("batch", "sequence")},
        {"y": ("batch", "sequence", 9)},
        {"ids": 0, "mask": 0},
        {"y": 0},
        None,
    ),
    "shared positions": (
        {"ids": ("b", "s"), "at": ("s",)},
        {"y": ("b", "s", 9)},
        {"ids": 0, "at": None},
        {"y": 0},
        None,
    ),
    "scalar": ({"x": ("n", 8), "rate": ()}, {"y": ("n", 8)}, {"x": 0, "rate": None}, {"y": 0}, None),
    "scalar, fixed": ({"rate": (), "x": (4, 8)}, {"y": (4, 8)}, {"x": 0, "rate": None}, {"y": 0}, 4),
    "anchors": ({"x": ("n", 8), "a": (100, 4)}, {"y": ("n", 8)}, {"x": 0, "a": None}, {"y": 0}, None),
    "anchors first, fixed": ({"a": (100, 4), "x": (1, 8)}, {"y": (1, 8)}, {"a": None, "x": 0}, {"y": 0}, 1),
    "a name for each": ({"a": ("u1", 8), "b": ("u2", 8)}, {"y": ("u3", 8)}, {"a": 0, "b": 0}, {"y": 0}, None),
    "one fixed, one not": ({"a": (4, 8), "b": ("n", 8)}, {"y": (4, 8)}, {"a": 0, "b": 0}, {"y": 0}, 4),
    "constant output": ({"x": ("n", 8)}, {"y": ("n", 8), "v": (1,)}, {"x": 0}, {"y": 0, "v": None}, None),
    "found rows": ({"x": ("n", 8)}, {"y": ("n", 8), "f": (2, None)}, {"x": 0}, {"y": 0, "f": None}, None),
    "unknown rank": ({"x": ("n", 8)}, {"y": None}, {"x": 0}, {}, None),
    "nothing but a scalar": ({"rate": ()}, {"y": ()}, {"rate": None}, {"y": None}, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_batch_axes(case: str) -> None:
    """Each kind of declaration gives the axes that its exporter means."""
    inputs, outputs, input_axes, output_axes, fixed = CASES[case]
    found = infer_batching(graph(inputs, outputs))
    assert dict(found.inputs) == dict(input_axes)
    assert dict(found.outputs) == dict(output_axes)
    assert found.fixed == fixed


def test_weights_among_the_inputs_have_no_samples() -> None:
    """Old files list their weights as inputs: a weight's first size is no batch."""
    made = graph({"x": ("n", 8), "w": (8, 8)}, {"y": ("n", 8)})
    made.initializer.append(TensorProto(name="w", dims=[8, 8], data_type=TensorProto.FLOAT, raw_data=bytes(256)))
    found = infer_batching(made)
    assert dict(found.inputs) == {"x": 0}
    assert found.fixed is None


def graph(inputs: Shapes, outputs: Shapes) -> onnx.GraphProto:
    """A graph of nothing but its inputs and outputs; −1 and 0 are written as sizes."""
    made = onnx.GraphProto()
    for group, shapes in ((made.input, inputs), (made.output, outputs)):
        for name, shape in shapes.items():
            group.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return made
