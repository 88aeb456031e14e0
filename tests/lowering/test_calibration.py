"""Activation ranges from a network in ONNX Runtime, against its own activations computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import CalibrationSettings, ContentStore, DataError, LoweringError, ModelError, RangeMethod
from bitfront.lowering import calibration
from bitfront.lowering.calibration import calibrate
from tests.references import INTERPRETER

WEIGHT = np.random.default_rng(3).normal(size=(4, 5)).astype(np.float32)


def _network(batch: int | None = None) -> onnx.ModelProto:
    """Input "x" (n, 4) → MatMul "h" → Relu "r" → Mul by zero "z"; "i" counts in int64."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Mul", ["r", "nil"], ["z"]),
        helper.make_node("Cast", ["r"], ["i"], to=TensorProto.INT64),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch or "n", 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch or "n", 5])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.zeros(1, np.float32), "nil")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _inputs(count: int = 50) -> dict[str, NDArray[np.float32]]:
    return {"x": np.random.default_rng(5).standard_t(3, size=(count, 4)).astype(np.float32)}


def _settings(method: RangeMethod = RangeMethod.MINMAX, samples: int = 512) -> CalibrationSettings:
    return CalibrationSettings(method=method, samples=samples, percentile=98.0)


def _run(
    proto: onnx.ModelProto,
    inputs: dict[str, NDArray[np.float32]],
    settings: CalibrationSettings | None = None,
    tensors: tuple[str, ...] = ("x", "h", "r", "z"),
    store: ContentStore | None = None,
    key: str = "k",
) -> dict[str, tuple[float, float]]:
    return calibrate(
        proto,
        inputs,
        settings or _settings(),
        tensors,
        interpreter=INTERPRETER,
        store=store or ContentStore(None),
        key=key,
    )


@pytest.mark.parametrize("batch", [None, 1, 8])
def test_minmax_is_the_extremes_with_zero(batch: int | None) -> None:
    """Min-max is each tensor's smallest and largest value over all samples, however they are batched."""
    inputs = _inputs()
    hidden = inputs["x"] @ WEIGHT
    found = _run(_network(batch), inputs)
    assert list(found) == ["x", "h", "r", "z"]
    assert found["x"] == (inputs["x"].min(), inputs["x"].max())
    assert found["h"] == pytest.approx((hidden.min(), hidden.max()), rel=1e-5)
    assert found["r"] == pytest.approx((0, hidden.max()), rel=1e-5)
    assert found["z"] == (0.0, 0.0)


@pytest.mark.parametrize("method", list(RangeMethod))
def test_batching_does_not_change_ranges(method: RangeMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample at a time, padded eights, chunks of three: the same ranges by every method."""
    expected = _run(_network(), _inputs(), _settings(method))
    assert expected["h"][0] < 0 < expected["h"][1]
    for batch in (1, 8):
        found = _run(_network(batch), _inputs(), _settings(method))
        np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-5)
    monkeypatch.setattr(calibration, "_CHUNK_BYTES", 200)
    found = _run(_network(), _inputs(), _settings(method))
    np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-5)


def test_percentile_follows_the_values() -> None:
    """The percentile reaches the histogram of inner tensors: 98 % of the values lie inside."""
    inputs = _inputs(2000)
    low, high = _run(_network(), inputs, _settings(RangeMethod.PERCENTILE, 2000))["h"]
    hidden = inputs["x"] @ WEIGHT
    assert np.mean((hidden >= low) & (hidden <= high)) == pytest.approx(0.98, abs=0.005)


def test_only_the_first_samples_count() -> None:
    """``samples`` limits what is read, from the first on."""
    inputs = _inputs()
    found = _run(_network(), inputs, _settings(samples=7))
    assert found["x"] == (inputs["x"][:7].min(), inputs["x"][:7].max())


def test_ranges_are_kept(tmp_path: Path) -> None:
    """A second call reads the store; another key, method or tensor does not hit the entry."""
    store = ContentStore(tmp_path)
    first = _run(_network(), _inputs(), store=store)
    nothing: dict[str, NDArray[np.float32]] = {}
    assert _run(_network(), nothing, store=store) == first
    assert list(_run(_network(), nothing, tensors=("z", "h", "r", "x"), store=store)) == ["z", "h", "r", "x"]
    for changed in ({"key": "other"}, {"settings": _settings(RangeMethod.MSE)}, {"tensors": ("h",)}):
        with pytest.raises(DataError, match="no array for the network's input 'x'"):
            _run(_network(), nothing, store=store, **changed)


def test_the_network_is_left_as_it_was() -> None:
    """Calibration works on a copy."""
    proto = _network()
    before = proto.SerializeToString()
    _run(proto, _inputs())
    assert proto.SerializeToString() == before


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_inputs_are_named(value: float) -> None:
    """NaN or infinity in the inputs names the input and the samples."""
    inputs = _inputs()
    inputs["x"][[11, 30], 2] = value
    with pytest.raises(DataError, match="calibration input 'x': NaN or infinite on calibration samples 11, 30"):
        _run(_network(), inputs)


@pytest.mark.parametrize("batch", [None, 8])
def test_overflow_inside_is_named(batch: int | None) -> None:
    """Finite inputs that overflow inside name the tensor, the sample, and how large the inputs were."""
    inputs = _inputs()
    inputs["x"][48] = 3e38
    with pytest.raises(DataError, match=r"tensor 'h': .* sample 48 \(counted from 0\)\n.*'x' -.* to 3e\+38"):
        _run(_network(batch), inputs, tensors=("h",))


def test_unusable_tensors_are_refused() -> None:
    """A tensor that is not there, and one of integers, is refused by name."""
    with pytest.raises(LoweringError, match="tensor 'nowhere' cannot be calibrated"):
        _run(_network(), _inputs(), tensors=("h", "nowhere"))
    with pytest.raises(LoweringError, match="tensor 'i': expected a floating type to calibrate, got int64"):
        _run(_network(), _inputs(), tensors=("i",))


def test_unusable_inputs_and_networks_are_refused() -> None:
    """No samples, wrong shapes and a network that the runtime refuses each have their error."""
    with pytest.raises(DataError, match="at least one sample"):
        _run(_network(), _inputs(0))
    with pytest.raises(DataError, match=r"refused calibration inputs 'x' float32 \(1, 3\)"):
        _run(_network(), {"x": _inputs()["x"][:, :3]})
    broken = _network()
    broken.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="ONNX Runtime refused the FP32 network"):
        _run(broken, _inputs())
