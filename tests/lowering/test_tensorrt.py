"""The TensorRT dialect: what is written, that published rules hold, and that the numbers are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfront.core import (
    FP16,
    FP32,
    CalibrationSettings,
    ContentStore,
    Inputs,
    LoweringError,
    PrecisionConfig,
    Scheme,
)
from bitfront.lowering.apply import apply_config
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import support_of
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.dialects.tensorrt import fp16_scale, symmetric_scale, with_fp16_scales
from bitfront.lowering.dialects.tensorrt_check import check_tensorrt_graph
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.rounding.matrix import MatrixView
from bitfront.lowering.rounding.weight import RoundedWeight
from tests.lowering.candidates import FLOOR_DB, sqnr_db, text_of, uniform, with_bug
from tests.lowering.candidates import lowerer_of as cpu_lowerer
from tests.lowering.tensorrt_candidates import (
    LEVELS,
    NETWORKS,
    grouped,
    mixed,
    network,
    run,
    single_vector,
    trt_lowerer,
)
from tests.lowering.topologies import TOPOLOGIES, inputs_of
from tests.references import make_reference

GOLDEN = Path(__file__).parent / "golden" / "tensorrt"
# A symmetric signed quantiser spends half its integers on values that a Relu never gives: one bit, 6.02 dB of noise.
ONE_BIT_DB = 6.02
TOLERANCE_DB = 0.75
HALF_FLOOR_DB = 56.0
# Optimised, the CPU provider rounds the activations in front of blocks to 8 bits.
BLOCK_FLOOR_DB = {"ORT_DISABLE_ALL": HALF_FLOOR_DB, "ORT_ENABLE_ALL": 36.0}


def schemes_of(lowerer: Lowerer, text: str) -> dict[str, Scheme]:
    return mixed(lowerer) if text == "mixed" else uniform(lowerer, text)


def inputs_for(name: str) -> Inputs:
    return inputs_of(trt_lowerer(name).reference, seed=5)


def worst_db(name: str, model: bytes, level: str) -> float:
    """The lowest SQNR of an output against the FP32 network."""
    inputs = inputs_for(name)
    expected = run(trt_lowerer(name).lower(uniform(trt_lowerer(name), "fp32")).data, inputs, "ORT_DISABLE_ALL")
    return min(sqnr_db(wanted, found) for wanted, found in zip(expected, run(model, inputs, level), strict=True))


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq:block64", "mixed"])
@pytest.mark.parametrize("name", NETWORKS)
def test_golden_graph(name: str, text: str, update_golden: bool) -> None:
    """The written graph is pinned as text; none is where the scheme is offered to no layer."""
    lowerer = trt_lowerer(name)
    schemes = schemes_of(lowerer, text)
    path = GOLDEN / f"{name}.{text.replace(':', '_')}.txt"
    if all(scheme == FP32 for scheme in schemes.values()):
        assert not path.exists()
        return
    found = text_of(lowerer.lower(schemes).data)
    if update_golden:
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NETWORKS)
def test_published_rules_hold(name: str) -> None:
    """Uniform schemes, mixes and random assignments, tied layers apart included, break no published rule."""
    lowerer = trt_lowerer(name)
    rng = np.random.default_rng(29)
    texts = {scheme.text for layer in lowerer.quantisable.layers for scheme in layer.schemes}
    candidates = [uniform(lowerer, text) for text in sorted(texts)] + [mixed(lowerer, start) for start in range(4)]
    candidates += [
        {layer.name: layer.schemes[rng.integers(len(layer.schemes))] for layer in lowerer.quantisable.layers}
        for _ in range(12)
    ]
    for schemes in candidates:
        proto = onnx.load_from_string(lowerer.lower(schemes).data)
        onnx.checker.check_model(proto)
        assert check_tensorrt_graph(proto) == (), schemes


@pytest.mark.parametrize("name", NETWORKS)
def test_fp32_is_the_network(name: str) -> None:
    """FP32 throughout gives the reference's outputs to the bit, with no Cast, Q or DQ in the graph."""
    lowerer = trt_lowerer(name)
    inputs = inputs_for(name)
    model = lowerer.lower(uniform(lowerer, "fp32")).data
    for level in LEVELS:
        expected = run(lowerer.reference.proto.SerializeToString(), inputs, level)
        for wanted, found in zip(expected, run(model, inputs, level), strict=True):
            np.testing.assert_array_equal(wanted, found)
    assert not {node.op_type for node in onnx.load_from_string(model).graph.node} & {"Cast", "QuantizeLinear"}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NETWORKS)
def test_half_is_within_half_rounding(name: str, level: str) -> None:
    """FP16 throughout stays within the rounding of FP16, and inputs and outputs stay FP32."""
    lowerer = trt_lowerer(name)
    model = lowerer.lower(uniform(lowerer, "fp16")).data
    floor = 20.0 if name == "small_values" else HALF_FLOOR_DB
    assert worst_db(name, model, level) >= floor
    graph = onnx.load_from_string(model).graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


def int8_floor_db(name: str) -> float:
    """What the CPU dialect reaches with the same layers at INT8, less the bit that symmetric quantisers lose."""
    cpu, schemes = cpu_lowerer(name), uniform(trt_lowerer(name), "int8:mse")
    offered = {layer.name: layer.schemes for layer in cpu.quantisable.layers}
    same = {layer: scheme if scheme in offered[layer] else FP32 for layer, scheme in schemes.items()}
    return worst_db(name, cpu.lower(same).data, "ORT_ENABLE_ALL") - ONE_BIT_DB - TOLERANCE_DB


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_int8_is_within_the_quantisation_error(name: str) -> None:
    """INT8 is as exact as in the CPU dialect but for one bit of the activations, optimised or not."""
    lowerer = trt_lowerer(name)
    model = lowerer.lower(uniform(lowerer, "int8:mse")).data
    floor = int8_floor_db(name)
    for level in LEVELS:
        assert worst_db(name, model, level) >= floor


@pytest.mark.parametrize(
    ("name", "level"),
    [
        *((name, level) for name in ("projection", "wide_gemm") for level in LEVELS),
        # Optimised, ONNX Runtime divides the bias by scales this small in FP16 (``WeightBiasQuantization``).
        ("small_values", "ORT_DISABLE_ALL"),
    ],
)
def test_int8_of_other_networks(name: str, level: str) -> None:
    """Convolved shortcuts, wide products and clamped scales keep the floor that 8 bits of the topologies have."""
    assert (
        worst_db(name, trt_lowerer(name).lower(uniform(trt_lowerer(name), "int8:mse")).data, level)
        >= FLOOR_DB["int8:mse"]
    )


@pytest.mark.parametrize(
    ("stored", "position", "factor", "shift"),
    [
        pytest.param("b.weight_8", 1, 2.0, 0, id="weight-scale-doubled"),
        pytest.param("b.weight_8", 0, -1, 0, id="codes-negated"),
        pytest.param("ra_q", 1, 2.0, 0, id="activation-scale-doubled"),
        pytest.param("ra_q", 2, 1, 3, id="zero-point-off"),
    ],
)
def test_int8_oracle_rejects_planted_bugs(stored: str, position: int, factor: float, shift: float) -> None:
    """The oracle sees a wrong scale, sign or zero point."""
    lowerer = trt_lowerer("chain")
    model = with_bug(lowerer.lower(uniform(lowerer, "int8:mse")).data, stored, position, factor=factor, shift=shift)
    assert worst_db("chain", model, "ORT_DISABLE_ALL") < int8_floor_db("chain")


def test_int8_oracle_rejects_a_swapped_axis() -> None:
    """Per-channel scales on the input axis of a square weight are seen."""
    lowerer = trt_lowerer("residual")
    proto = onnx.load_from_string(lowerer.lower(uniform(lowerer, "int8:mse")).data)
    (reader,) = [node for node in proto.graph.node if node.input[0] == "b.weight_8"]
    reader.attribute[0].i = 1
    assert worst_db("residual", proto.SerializeToString(), "ORT_DISABLE_ALL") < int8_floor_db("residual")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gemm", "int4:mse:block64"),
        ("wide_gemm", "int4:mse:block64"),
        ("wide_gemm", "int4:mse:block128"),
        ("wide_gemm", "int4:gptq:block64"),
    ],
)
def test_blocks_are_the_dequantised_weights(name: str, text: str) -> None:
    """INT4 blocks compute what FP32 does with ŵ = integers · scales and the corrected bias, to FP16's rounding."""
    lowerer = trt_lowerer(name)
    schemes = uniform(lowerer, text)
    proto = onnx.ModelProto()
    proto.CopyFrom(lowerer.reference.proto)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes = {node.name: node for node in proto.graph.node}
    for layer in lowerer.quantisable.layers:
        if schemes[layer.name].weights.group_size is None:
            continue
        rounded = lowerer._rounded(layer, schemes[layer.name])
        weight = MatrixView.of(layer).dequantise(rounded, schemes[layer.name].weights.group_size)
        stored[layer.weight].CopyFrom(onnx.numpy_helper.from_array(weight, layer.weight))
        if layer.op == "Gemm" and rounded.bias_correction is not None:
            node = nodes[layer.node]
            bias = onnx.numpy_helper.to_array(stored[node.input[2]]) if len(node.input) > 2 else np.float32(0)
            total = (bias + rounded.bias_correction).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(total, f"{layer.name}.corrected"))
            del node.input[2:]
            node.input.append(f"{layer.name}.corrected")
    inputs = inputs_for(name)
    expected = run(proto.SerializeToString(), inputs, "ORT_DISABLE_ALL")
    model = lowerer.lower(schemes).data
    for level in LEVELS:
        for wanted, found in zip(expected, run(model, inputs, level), strict=True):
            assert sqnr_db(wanted, found) >= BLOCK_FLOOR_DB[level]
    integers = next(tensor.name for tensor in onnx.load_from_string(model).graph.initializer if tensor.data_type == 22)
    wrong = with_bug(model, integers, 1, factor=2.0)
    assert sqnr_db(expected[0], run(wrong, inputs, "ORT_DISABLE_ALL")[0]) < 10


def test_small_scales_do_not_underflow() -> None:
    """Where scales would underflow in FP16 they are clamped, and integers are those of the clamped scale."""
    rounded = RoundedWeight(
        integers=np.array([[127, -64], [100, 3]], np.int8),
        scales=np.array([2.0**-16, 0.5], np.float32),
        bias_correction=None,
        bits=8,
    )
    changed, scales = with_fp16_scales(rounded, rounded.scales[:, None])
    assert scales.dtype == np.float16
    assert scales.tolist() == [2.0**-14, 0.5]
    np.testing.assert_array_equal(changed.integers, [[32, -16], [100, 3]])
    before = rounded.integers * rounded.scales[:, None]
    assert np.abs(changed.integers * scales.astype(np.float32)[:, None] - before).max() <= 2.0**-15


@pytest.mark.parametrize("scale", [1e-9, 2.0**-14, 0.0123, 1.0, 300.7])
def test_half_scale_clips_nothing_more(scale: float) -> None:
    """A scale in FP16 is normal, not below the exact one, and within one FP16 step of it or of the smallest."""
    found = fp16_scale(scale)
    assert float(np.float16(found)) == found
    assert max(scale, 2.0**-14) <= found <= max(scale, 2.0**-14) * (1 + 2.0**-10)


def test_symmetric_scale_covers_the_larger_side() -> None:
    """Scale = max(|low|, |high|) / 127, and 1 for a tensor of zeros."""
    assert symmetric_scale(-2.54, 1.0) == np.float32(0.02)
    assert symmetric_scale(0.0, 1.27) == np.float32(0.01)
    assert symmetric_scale(0.0, 0.0) == 1.0


def test_shortcut_is_quantised_and_the_fused_convolution_is_not() -> None:
    """Of a sum of two convolutions the earlier one is the shortcut; the later one's result stays floating."""
    text = text_of(trt_lowerer("projection").lower(uniform(trt_lowerer("projection"), "int8:mse")).data)
    assert "sum_h = Add(s_d, c_h)" in text
    assert "c_q" not in text
    assert "pa = MaxPool(ra_d)" in text


def test_floating_side_of_integer_layers() -> None:
    """INT8 layers have FP16 bias and result but beside FP32 layers and network outputs."""
    lowerer = trt_lowerer("chain")
    eight = Scheme.parse("int8:mse")
    alone = text_of(lowerer.lower({"a": eight, "b": eight, "c": eight}).data)
    assert "a.bias_h: float16[16]" in alone
    assert "c.bias: float[8]" in alone
    beside_full = text_of(lowerer.lower({"a": FP32, "b": eight, "c": FP32}).data)
    assert "float16" not in beside_full
    beside_half = text_of(lowerer.lower({"a": FP16, "b": eight, "c": FP16}).data)
    assert "b.bias_h: float16[24]" in beside_half
    assert beside_half.count("Cast(") == 2


def test_values_beyond_half_precision() -> None:
    """A half layer whose activations leave FP16 is an error that names them; an INT8 layer keeps an FP32 side."""
    model = TOPOLOGIES["chain"]()
    for tensor in model.graph.initializer:
        if tensor.name == "b.weight":
            value = onnx.numpy_helper.to_array(tensor) * np.float32(1e5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    reference = make_reference(model, "large")
    lowerer = Lowerer(
        reference, get_dialect("tensorrt"), inputs_of(reference), CalibrationSettings(), ContentStore(None)
    )
    eight = Scheme.parse("int8:mse")
    assert "b.bias: float[24]" in text_of(lowerer.lower({"a": eight, "b": eight, "c": eight}).data)
    with pytest.raises(LoweringError, match="layer 'c' cannot be fp16: its activation 'rb' reaches"):
        lowerer.lower({"a": eight, "b": eight, "c": FP16})


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq:block128"])
def test_round_trip(tmp_path: Path, text: str) -> None:
    """The same schemes give the same bytes by two lowerers, and by a config read back from JSON."""
    lowerers = [
        Lowerer(
            network("wide_gemm"),
            get_dialect("tensorrt"),
            inputs_of(network("wide_gemm")),
            CalibrationSettings(),
            ContentStore(tmp_path),
        )
        for _ in range(2)
    ]
    schemes = uniform(lowerers[0], text)
    model = lowerers[0].lower(schemes).data
    assert lowerers[1].lower(schemes).data == model
    config = PrecisionConfig.from_json(lowerers[0].config(schemes).to_json(), "config.json")
    again = apply_config(
        config, network("wide_gemm"), calibration=None, store=ContentStore(tmp_path), allow_new_weights=False
    ).data
    assert again == model


@pytest.mark.parametrize("text", ["fp32", "fp16", "int8:mse", "int4:mse:block64", "int4:mse:block128"])
def test_weight_bytes_is_what_the_file_holds(text: str) -> None:
    """The predicted bytes of a layer are those its initialisers take, names and message framing aside."""
    lowerer = trt_lowerer("wide_gemm")
    schemes = {**uniform(lowerer, "fp32"), "b": Scheme.parse(text)}
    saved = len(lowerer.lower(uniform(lowerer, "fp32")).data) - len(lowerer.lower(schemes).data)
    assert abs(saved - (lowerer.weight_bytes("b", FP32) - lowerer.weight_bytes("b", schemes["b"]))) < 1100


def test_compute_types() -> None:
    """Every precision is computed in here."""
    dialect = get_dialect("tensorrt")
    kinds = {text: support_of(dialect, Scheme.parse(text)).compute_type for text in ("fp32", "fp16", "int8:mse")}
    assert kinds == {"fp32": ComputeType.FP32, "fp16": ComputeType.FP16, "int8:mse": ComputeType.INT8}
    assert support_of(dialect, Scheme.parse("int4:mse:block64")).compute_type is ComputeType.WEIGHT_ONLY


@pytest.mark.parametrize(
    ("model", "layer", "text", "reason"),
    [
        pytest.param(TOPOLOGIES["gemm"](), "c", "int8:mse", "40 inputs and 10 outputs are fewer", id="small-gemm"),
        pytest.param(single_vector(), "a", "int8:mse", "single vector", id="gemv"),
        pytest.param(grouped(8, 16, 2), "b", "int8:mse", "channels by fours, not 2 in and 2 out", id="grouped"),
        pytest.param(grouped(12, 12, 1), "b", "int8:mse", "channels by eights", id="depthwise"),
        pytest.param(TOPOLOGIES["conv_transpose"](), "up", "int8:mse", "group by group", id="grouped-transpose"),
        pytest.param(TOPOLOGIES["conv_transpose"](), "b", "int8:mse", "8 input and 4 output", id="few-channels"),
        pytest.param(TOPOLOGIES["gemm"](), "b", "int4:mse:block64", "48 inputs are not divisible by", id="block"),
        pytest.param(TOPOLOGIES["chain"](), "a", "int4:mse:block64", "for Gemm and MatMul", id="conv-block"),
        pytest.param(TOPOLOGIES["chain"](), "a", "int4:gptq", "for weights alone", id="w4a8"),
    ],
)
def test_refusals(model: onnx.ModelProto, layer: str, text: str, reason: str) -> None:
    """What TensorRT cannot do, or does slower, is refused with the reason."""
    reference = make_reference(model, "refused")
    lowerer = Lowerer(
        reference, get_dialect("tensorrt"), inputs_of(reference), CalibrationSettings(), ContentStore(None)
    )
    with pytest.raises(LoweringError, match=f"layer '{layer}' cannot be {text}: .*{reason}"):
        lowerer.lower({**uniform(lowerer, "fp32"), layer: Scheme.parse(text)})
    assert Scheme.parse(text) not in next(x for x in lowerer.quantisable.layers if x.name == layer).schemes
