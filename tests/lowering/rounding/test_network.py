"""Rounding a whole network: what each layer sees, what is kept, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from bitfront.core import ContentStore, DataError, Inputs, LoweringError, ModelError, UsageError
from bitfront.core.scheme_text import METHODS
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding import layerwise as layerwise_module
from bitfront.lowering.rounding import network as network_module
from bitfront.lowering.rounding.bias_overflow import min_scales_for_bias
from bitfront.lowering.rounding.layerwise import LayerwiseEngine
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.methods import (
    ROUNDING_METHODS,
    SCALE_METHODS,
    RoundingProblem,
    ScaleMethod,
    Solution,
    register,
)
from bitfront.lowering.rounding.network import round_network
from bitfront.lowering.rounding.scales import mse_scales
from bitfront.lowering.rounding.weight import RoundedWeight
from tests.lowering.rounding.cases import (
    CASES,
    Case,
    images,
    layer_of,
    model_of,
    node_of,
    residual_network,
    weight_scheme,
)
from tests.lowering.topologies import Net
from tests.references import INTERPRETER, make_reference

Arrays = dict[str, NDArray[Any]]


def _round(
    model: onnx.ModelProto,
    layers: list[Layer],
    calibration: Inputs,
    *,
    method: str = "gptq",
    bits: int = 4,
    group_size: int | None = None,
    activations: dict[str, tuple[float, float]] | None = None,
    store: ContentStore | None = None,
) -> dict[str, RoundedWeight]:
    return dict(
        round_network(
            model,
            layers,
            calibration,
            weights=weight_scheme(method, bits, group_size),
            activations=activations,
            interpreter=INTERPRETER,
            store=store or ContentStore(None),
            key="network and calibration",
        )
    )


def _tensors(model: onnx.ModelProto, inputs: Inputs, names: list[str]) -> Arrays:
    """Named tensors of the whole model, run at once."""
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _with_rounded(model: onnx.ModelProto, layers: list[Layer], rounded: dict[str, RoundedWeight]) -> onnx.ModelProto:
    """The model with ŵ and corrected biases in place."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in changed.graph.initializer}
    for layer in layers:
        weight, bias = rounded[layer.name], tensors[f"{layer.name}.bias"]
        assert weight.bias_correction is not None
        tensors[layer.weight].CopyFrom(
            numpy_helper.from_array(MatrixView.of(layer).dequantise(weight, None), layer.weight)
        )
        bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + weight.bias_correction, bias.name))
    return changed


def test_layers_see_the_rounded_prefix() -> None:
    """Each layer's two inputs are those of the whole network, as it is and with the layers before it rounded."""
    model, layers = residual_network()
    calibration = images(70)
    rounded = _round(model, layers, calibration)
    changed = _with_rounded(model, layers, rounded)
    sources = {"a": "x", "b": "ra", "c": "f"}
    exact = _tensors(model, calibration, ["ra", "f"]) | dict(calibration)
    behind = _tensors(changed, calibration, ["ra", "f"]) | dict(calibration)
    walk = LayerwiseEngine(model, layers, calibration, INTERPRETER)
    assert [layer.name for layer in walk.layers] == ["a", "b", "c"]
    for layer in layers:
        assert walk.advance() is layer
        pairs = list(walk.inputs())
        name = sources[layer.name]
        np.testing.assert_allclose(np.concatenate([pair[0] for pair in pairs]), exact[name], atol=1e-5)
        np.testing.assert_allclose(np.concatenate([pair[1] for pair in pairs]), behind[name], atol=1e-5)
        weight = MatrixView.of(layer).dequantise(rounded[layer.name], None)
        walk.finish(weight, 1 if layer.op == "Conv" else -1)


def test_gptq_is_given_the_moments_of_what_a_layer_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 X Xᵀ of the inputs X behind the rounded prefix, and 2 (X̃ − X) Xᵀ with those of the network as it is, shrunk."""
    model, layers = residual_network()
    calibration = images(64)
    seen: list[RoundingProblem] = []
    gptq = ROUNDING_METHODS["gptq"]

    def watched(problem: RoundingProblem) -> Solution:
        seen.append(problem)
        return gptq.round(problem)

    monkeypatch.setitem(ROUNDING_METHODS, "gptq", replace(gptq, round=watched))
    rounded = _round(model, layers, calibration)
    exact = _tensors(model, calibration, ["f"])["f"].astype(np.float64).T
    behind = _tensors(_with_rounded(model, layers, rounded), calibration, ["f"])["f"].astype(np.float64).T
    found = seen[-1]
    assert found.hessian is not None
    assert found.mismatch is not None
    hessian, mismatch = 2 * behind @ behind.T, 2 * (exact - behind) @ behind.T
    mismatch *= 1 - len(behind) / 64
    np.testing.assert_allclose(found.hessian[0], hessian, atol=1e-3 * np.abs(hessian).max())
    np.testing.assert_allclose(found.mismatch[0], mismatch, atol=1e-2 * np.abs(mismatch).max())
    assert np.abs(hessian - 2 * exact @ exact.T).max() > 5e-3 * np.abs(hessian).max(), "the test says nothing otherwise"


def test_bias_correction_puts_each_channels_mean_right() -> None:
    """With corrected biases every layer's output has the FP32 network's channel means on the calibration inputs."""
    model, layers = residual_network()
    calibration = images(64)
    rounded = _round(model, layers, calibration)
    exact = _tensors(model, calibration, ["a", "b", "c"])
    behind = _tensors(_with_rounded(model, layers, rounded), calibration, ["a", "b", "c"])
    doubled = {
        name: replace(weight, bias_correction=2 * weight.bias_correction)
        for name, weight in rounded.items()
        if weight.bias_correction is not None
    }
    wrong = _tensors(_with_rounded(model, layers, doubled), calibration, ["a", "b", "c"])
    for layer in layers:
        axes = tuple(axis for axis in range(exact[layer.name].ndim) if axis != 1)
        means = exact[layer.name].mean(axis=axes)
        np.testing.assert_allclose(behind[layer.name].mean(axis=axes), means, atol=1e-4)
        assert np.abs(wrong[layer.name].mean(axis=axes) - means).max() > 1e-3, "a doubled correction must show"


def test_gptq_follows_the_network_better_than_nearest() -> None:
    """On inputs it has not seen, the 4-bit network's output is closer to FP32's with GPTQ than with nearest."""
    model, layers = residual_network()
    unseen = images(200, seed=9)
    exact = _tensors(model, unseen, ["c"])["c"]
    errors = []
    for method in ("nearest", "gptq"):
        rounded = _round(model, layers, images(256), method=method)
        corrected = {
            name: weight
            if weight.bias_correction is not None
            else replace(weight, bias_correction=np.zeros(1, np.float32))
            for name, weight in rounded.items()
        }
        output = _tensors(_with_rounded(model, layers, corrected), unseen, ["c"])["c"]
        errors.append(float(((output - exact) ** 2).mean()))
    assert errors[1] < 0.5 * errors[0]


def test_few_samples_do_not_move_weights_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many samples as inputs, what the prefix seems to ask of a layer is chance, and is left."""
    generator = np.random.default_rng(3)
    net = Net(("n", 96))
    for name, source in (("a", "x"), ("b", "a_relu"), ("c", "b_relu")):
        net.weight(f"{name}.weight", 96, 96, fan_in=96)
        net.weight(f"{name}.bias", 96, fan_in=96)
        net.op("Gemm", [source, f"{name}.weight", f"{name}.bias"], name, transB=1)
        net.op("Relu", [name], f"{name}_relu")
    model = make_reference(net.model(["c_relu"]), "net").proto
    layers = list(collect_layers(model, get_dialect("ort-cpu")).layers)
    samples, unseen = ({"x": generator.normal(size=(n, 96)).astype(np.float32)} for n in (96, 500))
    exact = _tensors(model, unseen, ["c"])["c"]

    def error() -> float:
        rounded = _round(model, layers, samples)
        output = _tensors(_with_rounded(model, layers[2:], rounded), unseen, ["c"])["c"]
        return float(((output - exact) ** 2).mean())

    shrunk = error()
    monkeypatch.setattr(network_module, "shrinkage", lambda *_: 1.0)
    assert shrunk < 0.75 * error()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bits", [4, 8])
def test_the_same_call_gives_the_same_bytes(method: str, bits: int) -> None:
    """Rounding is deterministic, bit for bit, and reads back from its arrays unchanged."""
    model, layers = residual_network()
    first = _round(model, layers, images(40), method=method, bits=bits)
    second = _round(model, layers, images(40), method=method, bits=bits)
    for name, weight in first.items():
        again = RoundedWeight.from_arrays(second[name].to_arrays())
        assert {key: array.tobytes() for key, array in weight.to_arrays().items()} == {
            key: array.tobytes() for key, array in again.to_arrays().items()
        }
        assert (weight.bias_correction is None) == (method != "gptq")


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_every_layout_is_rounded_within_its_shape(name: str, method: str) -> None:
    """Codes have the weight's shape, one scale an entry of its channel axis, and ŵ is near w at 8 bits."""
    case = CASES[name]
    weight = np.random.default_rng(5).normal(size=case.shape).astype(np.float32)
    layer = layer_of(case)
    model = model_of([node_of(case)], {layer.weight: weight}, case.inputs, "layer")
    calibration = {"x": np.random.default_rng(6).normal(size=case.inputs).astype(np.float32)}
    rounded = _round(model, [layer], calibration, method=method, bits=8)["layer"]
    assert rounded.integers.shape == case.shape
    assert rounded.integers.dtype == np.int8
    assert rounded.scales.shape == (case.shape[layer.channel_axis],)
    error = MatrixView.of(layer).dequantise(rounded, None) - weight
    assert np.abs(error).max() < (2.0 if method == "gptq" else 0.6) * 4.5 / 127
    if rounded.bias_correction is not None:
        outs = case.shape[layer.channel_axis] * (layer.conv_groups if case.op == "ConvTranspose" else 1)
        assert rounded.bias_correction.shape == (outs,)


@pytest.mark.parametrize("method", METHODS)
def test_block_scales(method: str) -> None:
    """Blocks of 16 over k = 40 have 3 scales a channel, and are closer to the weight than one scale a channel."""
    case = Case(op="MatMul", shape=(40, 6), inputs=(64, 40), attributes={})
    rng = np.random.default_rng(8)
    weight = (rng.normal(size=case.shape) * np.repeat([1.0, 0.1, 3.0], [16, 16, 8])[:, None]).astype(np.float32)
    layer = layer_of(case)
    model = model_of([node_of(case)], {layer.weight: weight}, ("batch", 40), "layer")
    calibration = {"x": rng.normal(size=case.inputs).astype(np.float32)}
    errors = []
    for group_size in (None, 16):
        rounded = _round(model, [layer], calibration, method=method, group_size=group_size)["layer"]
        values = MatrixView.of(layer).dequantise(rounded, group_size)
        errors.append(float(((calibration["x"] @ (values - weight)) ** 2).sum()))
    assert rounded.scales.shape == (6, 3)
    assert errors[1] < 0.7 * errors[0]


def test_layers_with_one_weight_share_codes() -> None:
    """Two layers that share a weight have one set of integers and scales, and a bias correction each."""
    case = Case(op="MatMul", shape=(6, 6), inputs=(), attributes={})
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["one"], name="n_one"),
        helper.make_node("Relu", ["one"], ["r"], name="r"),
        helper.make_node("MatMul", ["r", "shared"], ["two"], name="n_two"),
    ]
    model = model_of(nodes, {"shared": rng.normal(size=(6, 6)).astype(np.float32)}, ("batch", 6), "two")
    layers = [replace(layer_of(case, name), weight="shared") for name in ("one", "two")]
    rounded = _round(model, layers, {"x": rng.normal(size=(50, 6)).astype(np.float32)})
    np.testing.assert_array_equal(rounded["one"].integers, rounded["two"].integers)
    np.testing.assert_array_equal(rounded["one"].scales, rounded["two"].scales)
    corrections = [rounded[name].to_arrays()["bias_correction"] for name in ("one", "two")]
    assert not np.array_equal(corrections[0], corrections[1])


@pytest.mark.parametrize("method", METHODS)
def test_tiny_weights_with_large_biases_get_guarded_scales(method: str) -> None:
    """With activation ranges given, no scale lies below the bias guard; the others stay as they were."""
    model, layers = residual_network()
    for tensor in model.graph.initializer:
        if tensor.name == "a.weight":
            weight = numpy_helper.to_array(tensor).copy()
            weight[2] *= 1e-9
            tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
        if tensor.name == "a.bias":
            bias = numpy_helper.to_array(tensor)
    ranges = {"x": (-3.0, 3.0)}
    free = _round(model, layers, images(32), method=method)["a"]
    guarded = _round(model, layers, images(32), method=method, activations=ranges)["a"]
    limits = min_scales_for_bias(bias, ranges["x"])
    assert (guarded.scales >= limits).all()
    assert free.scales[2] < limits[2]
    np.testing.assert_array_equal(np.delete(guarded.scales, 2), np.delete(free.scales, 2))


def test_stored_results_are_used(tmp_path: Path) -> None:
    """A second call reads the store, without calibration inputs; another setting does not find those entries."""
    model, layers = residual_network()
    store = ContentStore(tmp_path)
    first = _round(model, layers, images(32), store=store)
    again = _round(model, layers, {}, store=ContentStore(tmp_path))
    np.testing.assert_array_equal(first["b"].integers, again["b"].integers)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(DataError, match="needs calibration samples for the inputs x, got none"):
        _round(model, layers, {}, store=store, bits=8)
    assert _round(model, layers, {}, store=store, method="mse")["a"].bias_correction is None


def test_what_is_not_registered_is_named() -> None:
    """By the registry it is missing in, with the nearest name; scales that nobody finds are refused."""
    model, layers = residual_network()
    for word, message, hint in (
        ("mse+gtpq", "no rounding method is called 'gtpq'", "did you mean gptq?"),
        ("zzz+nearest", "no scale method is called 'zzz'", "use one of absmax, mse"),
        ("mse:tensor", "weights are rounded symmetrically, with a scale per channel or group", "leave out"),
        ("mse:asymmetric", "weights are rounded symmetrically", "leave out"),
    ):
        with pytest.raises(LoweringError, match=message) as caught:
            _round(model, layers, images(4), method=word)
        assert hint in str(caught.value.hint)
    with pytest.raises(UsageError, match="a method 'mse' is registered already"):
        register(replace(SCALE_METHODS["mse"], uses_calibration=True))
    register(SCALE_METHODS["mse"])


@pytest.mark.parametrize("group_size", [None, 16])
def test_a_scale_method_with_calibration_is_given_the_importance(
    group_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean squares of the inputs; by it the error of the layer's output comes down."""
    weighted = ScaleMethod(name="weighted", find=mse_scales, uses_calibration=True)
    monkeypatch.setitem(SCALE_METHODS, "weighted", weighted)
    case = Case(op="MatMul", shape=(40, 6), inputs=(64, 40), attributes={})
    rng = np.random.default_rng(8)
    weight = rng.normal(size=case.shape).astype(np.float32)
    weight[::4] *= 4
    layer = layer_of(case)
    model = model_of([node_of(case)], {layer.weight: weight}, ("batch", 40), "layer")
    inputs = rng.normal(size=case.inputs).astype(np.float32)
    inputs[:, ::4] *= 0.05
    errors = []
    for method in ("mse", "weighted+nearest"):
        rounded = _round(model, [layer], {"x": inputs}, method=method, group_size=group_size)["layer"]
        values = MatrixView.of(layer).dequantise(rounded, group_size)
        errors.append(float(((inputs @ (values - weight)) ** 2).sum()))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(("samples", "kept"), [(10, 8), (3, 4)])
def test_fixed_batches_are_fed_whole(samples: int, kept: int) -> None:
    """With a batch of 4, 10 samples give two batches, and 3 samples are repeated to make one."""
    model, layers = residual_network(batch=4)
    walk = LayerwiseEngine(model, layers, images(samples), INTERPRETER)
    walk.advance()
    assert [len(exact) for exact, _ in walk.inputs()] == [4] * (kept // 4)
    assert set(_round(model, layers, images(samples))) == {"a", "b", "c"}


def test_memory_limits_the_number_of_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for little more than a chunk, one chunk is kept."""
    model, layers = residual_network()
    assert LayerwiseEngine(model, layers, images(128), INTERPRETER).chunks == 4
    monkeypatch.setattr(layerwise_module, "LIVE_BYTES", 300_000)
    assert LayerwiseEngine(model, layers, images(128), INTERPRETER).chunks == 1


def test_calibration_that_is_not_finite_is_refused() -> None:
    """The message names the layer whose inputs are not finite."""
    model, layers = residual_network()
    broken = images(32)
    broken["x"][3, 1, 2, 2] = np.nan
    with pytest.raises(DataError, match="layer 'a': its inputs are not finite"):
        _round(model, layers, broken)


def test_weights_that_are_not_finite_are_refused() -> None:
    """The message names layer and weight."""
    case = CASES["matmul"]
    model = model_of([node_of(case)], {"layer.weight": np.full(case.shape, np.inf, np.float32)}, case.inputs, "layer")
    with pytest.raises(ModelError, match=r"layer 'layer': weight 'layer.weight' has values that are not finite"):
        _round(model, [layer_of(case)], {}, method="nearest")


def test_blocks_are_refused_for_convolutions() -> None:
    """The message names the layer and its operator."""
    model, layers = residual_network()
    with pytest.raises(
        LoweringError, match="layer 'a': group_size 16 applies to Gemm, MatMul and tables, this is a Conv"
    ):
        _round(model, layers, {}, method="mse", group_size=16)
