"""Weights as rows: exact inverses, and the layout that makes ``rows @ columns`` the layer's output."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitfront.core import LoweringError
from bitfront.lowering.rounding.im2col import Im2col
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.weight import RoundedWeight
from tests.lowering.rounding.cases import CASES, Case, layer_of, model_of, node_of

kernels = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple)
sizes = st.integers(1, 4)


@st.composite
def any_case(draw: st.DrawFn) -> Case:
    op = draw(st.sampled_from(("Conv", "ConvTranspose", "Gemm", "MatMul")))
    groups, outs, ins = draw(sizes), draw(sizes), draw(sizes)
    if op == "Conv":
        return Case(op=op, shape=(groups * outs, ins, *draw(kernels)), inputs=(), attributes={"group": groups})
    if op == "ConvTranspose":
        return Case(op=op, shape=(groups * ins, outs, *draw(kernels)), inputs=(), attributes={"group": groups})
    attributes = {"transB": draw(st.integers(0, 1))} if op == "Gemm" else {}
    return Case(op=op, shape=(ins, outs), inputs=(), attributes=attributes)


@given(any_case())
@settings(max_examples=80, deadline=None)
def test_weight_is_the_inverse_of_rows(case: Case) -> None:
    """``weight(rows(w))`` is w, element by element, for every layout."""
    view = MatrixView.of(layer_of(case))
    weight = np.arange(np.prod(case.shape)).reshape(case.shape)
    np.testing.assert_array_equal(view.weight(view.rows(weight)), weight)


@given(any_case())
@settings(max_examples=80, deadline=None)
def test_a_scale_covers_its_channel_of_the_stored_weight(case: Case) -> None:
    """Scales spread over rows and put back are constant along every axis but the channel axis."""
    layer = layer_of(case)
    view = MatrixView.of(layer)
    scales = np.arange(1, view.channels + 1, dtype=np.float32)
    ones = np.ones(case.shape, dtype=np.int8)
    rounded = RoundedWeight(integers=ones, scales=scales, bias_correction=None, bits=8)
    shape = [1] * len(case.shape)
    shape[layer.channel_axis] = -1
    np.testing.assert_array_equal(view.dequantise(rounded, None), np.broadcast_to(scales.reshape(shape), case.shape))


@pytest.mark.parametrize("transposed", [0, 1])
def test_block_scales_run_along_the_reduction_axis(transposed: int) -> None:
    """With 2 blocks of 4 over k = 7, the first 4 inputs of a channel take its first scale, the last 3 the second."""
    case = Case(op="Gemm", shape=(3, 7) if transposed else (7, 3), inputs=(), attributes={"transB": transposed})
    scales = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
    integers = np.ones(case.shape, dtype=np.int8)
    rounded = RoundedWeight(integers=integers, scales=scales, bias_correction=None, bits=4)
    values = MatrixView.of(layer_of(case)).dequantise(rounded, 4)
    rows = values if transposed else values.T
    assert rows[1].tolist() == [3.0, 3.0, 3.0, 3.0, 4.0, 4.0, 4.0]


def _output_error(case: Case, *, swap_axes: bool = False) -> float:
    """Largest difference between the runtime's output of the layer and rows @ columns."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=case.shape).astype(np.float32)
    inputs = rng.normal(size=case.inputs).astype(np.float32)
    model = model_of([node_of(case)], {"layer.weight": weight}, case.inputs, "layer")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": inputs})
    view = MatrixView.of(layer_of(case))
    if swap_axes:
        weight = np.ascontiguousarray(weight.swapaxes(-1, -2)).reshape(case.shape)
    (columns,) = Im2col.of(view, node_of(case)).columns(inputs, 10_000)
    product = view.rows(weight) @ columns
    if case.op.startswith("Conv"):
        expected = np.moveaxis(expected, 0, 1)
        return float(np.abs(product.reshape(expected.shape) - expected).max())
    return float(np.abs(product[0].T.reshape(expected.shape) - expected).max())


@pytest.mark.parametrize("name", CASES)
def test_rows_times_columns_is_the_layers_output(name: str) -> None:
    """The unfolded input times the rows is what ONNX Runtime computes, for every attribute a layer may have."""
    assert _output_error(CASES[name]) < 1e-4


@pytest.mark.parametrize("name", ["conv", "transpose", "gemm-transb"])
def test_the_output_oracle_rejects_swapped_axes(name: str) -> None:
    """A weight whose last two axes are swapped gives another output."""
    assert _output_error(CASES[name], swap_axes=True) > 0.1


def test_thinned_columns_are_a_part_of_all_columns() -> None:
    """Keeping fewer positions keeps some of the columns and changes none."""
    case = CASES["conv"]
    unfolding = Im2col.of(MatrixView.of(layer_of(case)), node_of(case))
    inputs = np.random.default_rng(2).normal(size=case.inputs).astype(np.float32)
    (full,), (thin,) = unfolding.columns(inputs, 10_000), unfolding.columns(inputs, 12)
    everything = {column.tobytes() for column in full[0].T}
    kept = {column.tobytes() for column in thin[0].T}
    assert kept < everything
    assert len(kept) >= 20


def test_other_layouts_are_refused() -> None:
    """A MatMul over a stack of matrices is no layer this can round; the message names it."""
    case = Case(op="MatMul", shape=(2, 3, 4), inputs=(), attributes={})
    with pytest.raises(LoweringError, match=r"layer 'stack': cannot round a MatMul weight of shape \(2, 3, 4\)"):
        MatrixView.of(layer_of(case, "stack"))
