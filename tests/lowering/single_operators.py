"""Small graphs of every operator version from opset 7 on that a later opset replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import Array
from bitfront.lowering.opset import OPSET
from tests.lowering.operator_forms import FIRST_OPSET, Form, X, Y, floats, whole
from tests.lowering.operator_table import FORMS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A model of one operator at one opset, with arrays to feed it."""

    model: onnx.ModelProto
    feeds: Mapping[str, Array]


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
    axes = numpy_helper.from_array(whole(1), "")
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
    feeds = {"x": floats(2, 3), "c": np.array(True)}
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
    feeds = {"x": floats(2, 3)}
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
        feeds = {"x": floats(2, 5, 3)}
        return Sample(
            model=_model([node], feeds, ["y", "rows"], {"s": np.zeros((2, 3), np.float32)}, opset), feeds=feeds
        )
    node = helper.make_node("Scan", ["s", "x"], ["y", "rows"], body=body, num_scan_inputs=1)
    feeds = {"x": floats(5, 3)}
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
