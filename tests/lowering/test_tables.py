"""Tables of vectors: embeddings that are looked up, positions that are cut out, and heads that share them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import CalibrationSettings, ContentStore, Inputs
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import outputs_of, sqnr_db, uniform
from tests.references import make_reference

ENTRIES, WIDTH = 96, 32
FLOOR_DB = {"fp16": 60.0, "int8:mse:weight-only": 38.0, "int4:mse:weight-only": 14.0}


def _table(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, NDArray[np.generic]],
    inputs: dict[str, tuple[int, list[int | str]]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tables",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _positions(table: NDArray[np.float32]) -> onnx.ModelProto:
    """As many positions as the input is long, added to it."""
    axis = table.ndim - 2
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=1, end=2, name="shape"),
        helper.make_node("Slice", ["positions", "zero", "shape", "axis"], ["cut"], name="positions"),
        helper.make_node("Add", ["x", "cut"], ["y"], name="add"),
    ]
    constants: dict[str, NDArray[np.generic]] = {"positions": table, "zero": np.array([0]), "axis": np.array([axis])}
    return _model(nodes, constants, {"x": (TensorProto.FLOAT, ["n", "time", WIDTH])})


def _lowerer(model: onnx.ModelProto, inputs: Inputs) -> Lowerer:
    reference = make_reference(model, "tables")
    return Lowerer(reference, get_dialect("ort-cpu"), inputs, CalibrationSettings(), ContentStore(None))


@pytest.mark.parametrize("text", FLOOR_DB)
@pytest.mark.parametrize("shape", [(ENTRIES, WIDTH), (1, ENTRIES, WIDTH)], ids=["2-axes", "3-axes"])
def test_positions_that_are_cut_out(shape: tuple[int, ...], text: str) -> None:
    """A table of which the first rows are taken is stored with a scale a row."""
    model = _positions(_table(*shape))
    inputs = {"x": np.random.default_rng(0).normal(size=(4, 20, WIDTH)).astype(np.float32)}
    lowerer = _lowerer(model, inputs)
    (layer,) = lowerer.quantisable.layers
    assert (layer.op, layer.channels) == ("Slice", ENTRIES)
    written = lowerer.lower(uniform(lowerer, text))
    (expected,), (found,) = outputs_of(model.SerializeToString(), inputs), outputs_of(written.data, inputs)
    assert sqnr_db(expected, found) >= FLOOR_DB[text]
    assert written.size_bytes < lowerer.lower(uniform(lowerer, "fp32")).size_bytes


def test_a_mask_is_no_table() -> None:
    """What is cut out and not finite (a mask) stays as it is, with the reason."""
    table = np.triu(np.full((ENTRIES, WIDTH), -np.inf, np.float32), 1)
    lowerer = _lowerer(_positions(table), {"x": np.zeros((2, 5, WIDTH), np.float32)})
    assert lowerer.quantisable.left_alone == {"positions": "its table has values that are not finite"}


@pytest.mark.parametrize("text", ["fp16", "int8:mse:weight-only"])
def test_a_head_that_shares_its_table(text: str) -> None:
    """An embedding that a Gemm reads as rows is one group with it, and is stored once."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
        helper.make_node("Tanh", ["embedded"], ["hidden"], name="tanh"),
        helper.make_node("Gemm", ["hidden", "table"], ["y"], transB=1, name="head"),
    ]
    model = _model(nodes, {"table": _table(ENTRIES, WIDTH)}, {"ids": (TensorProto.INT64, ["n"])})
    inputs = {"ids": np.random.default_rng(0).integers(0, ENTRIES, 40)}
    lowerer = _lowerer(model, inputs)
    (group,) = lowerer.quantisable.groups
    assert group.layers == ("embed", "head")
    assert group.reason == "share the weight 'table'"
    schemes = uniform(lowerer, text)
    assert {scheme.text for scheme in schemes.values()} == {text}
    written = lowerer.lower(schemes)
    (expected,), (found,) = outputs_of(model.SerializeToString(), inputs), outputs_of(written.data, inputs)
    assert sqnr_db(expected, found) >= FLOOR_DB[text] - 6
    stored = [tensor for tensor in onnx.load_from_string(written.data).graph.initializer if len(tensor.dims) == 2]
    assert sum(tuple(tensor.dims) == (ENTRIES, WIDTH) for tensor in stored) == 1


def test_a_table_multiplied_by_its_columns_is_none() -> None:
    """A Gemm that reads a table without transposing it has other channels: both stay as they are."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["embedded"], name="embed"),
        helper.make_node("Gemm", ["embedded", "table"], ["y"], name="head"),
    ]
    model = _model(nodes, {"table": _table(ENTRIES, ENTRIES)}, {"ids": (TensorProto.INT64, ["n"])})
    lowerer = _lowerer(model, {"ids": np.arange(8)})
    assert lowerer.quantisable.left_alone == {
        "embed": "its table is also read by Gemm 'head'",
        "head": "its weight is also read by Gather 'embed'",
    }
