"""NaN, infinities and masks inside a network: what reads them stays floating, everything else is quantised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import (
    Array,
    CalibrationSettings,
    ContentStore,
    DataError,
    Inputs,
    LoweringError,
    PrecisionConfig,
    RangeMethod,
    Scheme,
)
from bitfront.lowering.apply import apply_config
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.ranges import UNBOUNDED, is_bounded
from tests.lowering.candidates import outputs_of, sqnr_db, uniform
from tests.references import make_reference

Nodes = Sequence[onnx.NodeProto]

DIALECTS = ("ort-cpu", "openvino", "ort-cuda", "tensorrt")
WIDTH, LENGTH, CLASSES = 32, 8, 16
LOWER = np.tril(np.ones((1, LENGTH, LENGTH)))


def _node(op: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes)


def _model(
    nodes: Nodes, weights: dict[str, Array], inputs: dict[str, list[int | str]], outputs: Sequence[str] = ("y",)
) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    shared = {
        "wq": rng.normal(size=(WIDTH, WIDTH)) * 0.2,
        "wo": rng.normal(size=(WIDTH, WIDTH)) * 0.2,
        "wc": rng.normal(size=(WIDTH, CLASSES)) * 0.2,
    }
    read = {name for node in nodes for name in node.input}
    constants = {name: value.astype(np.float32) for name, value in shared.items()} | weights
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items() if name in read],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _attention(
    mask: Nodes, weights: dict[str, Array], inputs: dict[str, list[int | str]] | None = None
) -> onnx.ModelProto:
    """One head: ``mask`` makes "sm" of the scores "s"; projections before and behind, and a classifier."""
    nodes = [
        _node("MatMul", ["x", "wq"], "q"),
        _node("Transpose", ["x"], "k", perm=[0, 2, 1]),
        _node("MatMul", ["q", "k"], "s"),
        *mask,
        _node("Softmax", ["sm"], "p", axis=-1),
        _node("MatMul", ["p", "x"], "o"),
        _node("MatMul", ["o", "wo"], "h"),
        _node("Relu", ["h"], "r"),
        _node("MatMul", ["r", "wc"], "y"),
    ]
    return _model(nodes, weights, {"x": ["n", LENGTH, WIDTH], **(inputs or {})})


def _added(value: float) -> Callable[[], onnx.ModelProto]:
    mask = np.where(LOWER > 0, 0, value).astype(np.float32)
    return lambda: _attention([_node("Add", ["s", "m"], "sm")], {"m": mask})


def _where(value: float) -> Callable[[], onnx.ModelProto]:
    weights: dict[str, Array] = {"keep": LOWER > 0, "no": np.array(value, np.float32)}
    return lambda: _attention([_node("Where", ["keep", "s", "no"], "sm")], weights)


def _nan_replaced() -> onnx.ModelProto:
    """0 · ∞ where the mask hides, replaced before the softmax."""
    mask = [
        _node("Mul", ["s", "m"], "b"),
        _node("Sub", ["b", "b"], "d"),
        _node("IsNaN", ["d"], "i"),
        _node("Where", ["i", "low", "s"], "sm"),
    ]
    hidden = np.where(LOWER > 0, 1, np.inf).astype(np.float32)
    return _attention(mask, {"m": hidden, "low": np.array(-30, np.float32)})


def _logarithm() -> onnx.ModelProto:
    """The logarithm of 0 = −∞, clipped, added to the scores."""
    mask = [
        _node("Log", ["m"], "l"),
        _node("Add", ["s", "l"], "a"),
        _node("Clip", ["a", "low", "high"], "sm"),
    ]
    ends = {"low": np.array(-20, np.float32), "high": np.array(50, np.float32)}
    # A constant folds: the zero comes from the data.
    return _attention(
        [_node("Relu", ["x"], "rx"), _node("ReduceMax", ["rx", "axis"], "m"), *mask], {**ends, "axis": np.array([2])}
    )


def _masked_pool() -> onnx.ModelProto:
    """Hidden positions are −∞ for a maximum over time; the convolutions before and behind read finite numbers."""
    rng = np.random.default_rng(4)
    weights: dict[str, Array] = {
        "c1": (rng.normal(size=(WIDTH, WIDTH, 1)) * 0.2).astype(np.float32),
        "keep": np.arange(LENGTH).reshape(1, 1, LENGTH) < 5,
        "no": np.array(-np.inf, np.float32),
    }
    nodes = [
        _node("Transpose", ["x"], "t", perm=[0, 2, 1]),
        _node("Conv", ["t", "c1"], "c"),
        _node("Where", ["keep", "c", "no"], "v"),
        _node("MaxPool", ["v"], "mp", kernel_shape=[LENGTH]),
        _node("Flatten", ["mp"], "f"),
        _node("MatMul", ["f", "wc"], "y"),
    ]
    return _model(nodes, weights, {"x": ["n", LENGTH, WIDTH]})


def _mask_input() -> onnx.ModelProto:
    """The mask is an input, of 0 and −∞."""
    return _attention([_node("Add", ["s", "m"], "sm")], {}, {"m": ["n", LENGTH, LENGTH]})


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "added-inf": _added(-np.inf),
    "added-float-min": _added(float(np.finfo(np.float32).min)),
    "added-1e30": _added(-1e30),
    "added-10000": _added(-10000.0),
    "where-inf": _where(-np.inf),
    "where-float-min": _where(float(np.finfo(np.float32).min)),
    "where-1e9": _where(-1e9),
    "nan-replaced": _nan_replaced,
    "logarithm": _logarithm,
    "masked-pool": _masked_pool,
    "mask-input": _mask_input,
}


def _inputs(name: str, seed: int = 5) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    found = {"x": rng.normal(size=(48, LENGTH, WIDTH)).astype(np.float32)}
    if name == "logarithm":
        found["x"][:, 3:5] = -np.abs(found["x"][:, 3:5])
    if name == "mask-input":
        kept = rng.random((48, LENGTH, LENGTH)) < 0.6
        found["m"] = np.where(kept | np.eye(LENGTH, dtype=bool), 0, -np.inf).astype(np.float32)
    return found


def _lowerer(
    model: onnx.ModelProto, inputs: Inputs, dialect: str = "ort-cpu", method: RangeMethod = RangeMethod.MINMAX
) -> Lowerer:
    settings = CalibrationSettings(method=method)
    return Lowerer(make_reference(model, "net.onnx"), get_dialect(dialect), inputs, settings, ContentStore(None))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_masked_networks_are_quantised(name: str, dialect: str) -> None:
    """Every layer takes INT8, the answers stay near FP32's, and the config holds finite ranges and applies again."""
    inputs = _inputs(name)
    lowerer = _lowerer(NETWORKS[name](), inputs, dialect)
    schemes = uniform(lowerer, "int8:mse")
    assert {scheme.text for scheme in schemes.values()} == {"int8:mse"}
    artifact = lowerer.lower(schemes).data
    (wanted,), (found,) = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, inputs), outputs_of(artifact, inputs)
    assert np.isfinite(wanted.astype(np.float32)).all()
    assert sqnr_db(wanted, found) > 25
    config = lowerer.config(schemes)
    assert all(is_bounded(bounds) for bounds in config.ranges.values())
    read = PrecisionConfig.from_json(config.to_json(), "config")
    reference = lowerer.reference
    again = apply_config(read, reference, calibration=None, store=ContentStore(None), allow_new_weights=False).data
    assert again == artifact


@pytest.mark.parametrize("method", list(RangeMethod))
@pytest.mark.parametrize("name", ["where-inf", "nan-replaced", "mask-input"])
def test_every_method_leaves_masks_out(name: str, method: RangeMethod) -> None:
    """Histograms are of tensors with a range alone."""
    lowerer = _lowerer(NETWORKS[name](), _inputs(name), method=method)
    assert UNBOUNDED in lowerer.ranges.values()
    assert is_bounded(lowerer.ranges["q"])


@pytest.mark.parametrize("text", ["int4:gptq", "int4:gptq:weight-only", "fp16"])
@pytest.mark.parametrize("name", ["where-inf", "added-float-min", "masked-pool"])
def test_other_schemes_beside_masks(name: str, text: str) -> None:
    """GPTQ, which walks through the network, passes by what is masked."""
    inputs = _inputs(name)
    lowerer = _lowerer(NETWORKS[name](), inputs)
    (wanted,), (found,) = (outputs_of(lowerer.lower(uniform(lowerer, text)).data, inputs) for text in ("fp32", text))
    assert sqnr_db(wanted, found) > 8


def _read_by_a_layer(value: float) -> onnx.ModelProto:
    """A layer reads masked values; an activation behind it makes numbers of its results."""
    nodes = [
        _node("Where", ["keep", "x", "no"], "v"),
        _node("MatMul", ["v", "wq"], "q"),
        _node("Sigmoid", ["q"], "g"),
        _node("MatMul", ["g", "wc"], "y"),
    ]
    keep = np.arange(WIDTH).reshape(1, 1, WIDTH) > 0
    weights: dict[str, Array] = {"keep": keep, "no": np.array(value, np.float32)}
    return _model(nodes, weights, {"x": ["n", LENGTH, WIDTH]})


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("value", [-np.inf, -3e38], ids=["inf", "float-min"])
def test_a_layer_that_reads_a_mask_stays_floating(value: float, dialect: str) -> None:
    """What needs the mask's range is refused with the reason; the other layer takes its scheme."""
    inputs = _inputs("")
    lowerer = _lowerer(_read_by_a_layer(value), inputs, dialect)
    schemes = uniform(lowerer, "int8:mse")
    first, second = schemes
    with pytest.raises(
        LoweringError, match=r"layer 'n_q' cannot be int8:mse: tensor 'v' holds NaN, infinities or mask"
    ):
        lowerer.lower(schemes)
    fp32 = Scheme.parse("fp32")
    (wanted,), (found,) = (
        outputs_of(lowerer.lower({first: fp32, second: scheme}).data, inputs) for scheme in (fp32, schemes[second])
    )
    assert sqnr_db(wanted, found) > 25
    gptq = Scheme.parse("int4:gptq:weight-only")
    if gptq in lowerer.quantisable.layers[0].schemes:
        with pytest.raises(LoweringError, match="layer 'n_q' cannot be int4:gptq:weight-only: tensor 'v' holds NaN"):
            lowerer.lower({first: gptq, second: fp32})
        assert np.isfinite(lowerer.rounded(gptq)[second].scales).all()


def test_a_convolution_that_writes_a_mask_is_refused() -> None:
    """A convolution's result must be quantised, and a bias of float32's least number cannot be."""
    bias = np.zeros(WIDTH, np.float32)
    bias[3] = np.finfo(np.float32).min
    rng = np.random.default_rng(4)
    weights: dict[str, Array] = {"c1": rng.normal(size=(WIDTH, WIDTH, 1)).astype(np.float32), "b": bias}
    nodes = [
        _node("Transpose", ["x"], "t", perm=[0, 2, 1]),
        _node("Conv", ["t", "c1", "b"], "c"),
        _node("Softmax", ["c"], "p", axis=1),
        _node("ReduceMean", ["p", "axis"], "y", keepdims=0),
    ]
    lowerer = _lowerer(_model(nodes, {**weights, "axis": np.array([2])}, {"x": ["n", LENGTH, WIDTH]}), _inputs(""))
    with pytest.raises(LoweringError, match=r"tensor 'c' holds NaN, infinities or masks .*, but a layer beside it"):
        lowerer.lower(uniform(lowerer, "int8:mse"))


@pytest.mark.parametrize("value", [-np.inf, float(np.finfo(np.float32).min)], ids=["inf", "float-min"])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
@pytest.mark.parametrize("text", ["int8:mse", "int4:gptq", "int4:gptq:weight-only", "int4:mse:block32"])
def test_classes_that_are_ruled_out(text: str, op: str, value: float) -> None:
    """A classifier whose bias rules classes out is quantised as far as that can be, and rules out the same ones."""
    bias = np.zeros(CLASSES, np.float32)
    bias[[2, 9]] = value
    nodes = [
        _node("MatMul", ["x", "wq"], "q"),
        _node("Relu", ["q"], "r"),
        _node("ReduceMax", ["r", "axis"], "m", keepdims=0),
        *([_node("Gemm", ["m", "wc", "b"], "y")] if op == "Gemm" else []),
        *([_node("MatMul", ["m", "wc"], "z"), _node("Add", ["z", "b"], "y")] if op == "MatMul" else []),
    ]
    model = _model(nodes, {"b": bias, "axis": np.array([1])}, {"x": ["n", LENGTH, WIDTH]})
    inputs = _inputs("")
    lowerer = _lowerer(model, inputs)
    schemes = uniform(lowerer, text)
    if op == "Gemm" and np.isinf(value) and text in ("int8:mse", "int4:gptq"):
        assert schemes["n_y"].text == "fp32"
        assert "bias has values that are not finite" in lowerer.quantisable.layers[1].refused[text]
    (wanted,), (found,) = (
        outputs_of(lowerer.lower(chosen).data, inputs) for chosen in (uniform(lowerer, "fp32"), schemes)
    )
    ruled = [2, 9]
    assert (found[:, ruled].astype(np.float64) <= -1e38).all()
    rest = np.setdiff1d(np.arange(CLASSES), ruled)
    assert sqnr_db(wanted[:, rest], found[:, rest]) > 8


def test_an_answer_that_is_no_number_blames_the_samples() -> None:
    """A fully masked softmax is NaN; where nothing replaces that, the samples and the tensor are named."""
    model = _mask_input()
    inputs = _inputs("mask-input")
    inputs["m"][[7, 20], 2] = -np.inf
    with pytest.raises(DataError, match=r"tensor 'p': NaN or infinite on calibration samples 7, 20 \(counted from 0\)"):
        assert _lowerer(model, inputs).ranges
