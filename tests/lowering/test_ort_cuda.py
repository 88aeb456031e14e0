"""The ONNX Runtime CUDA dialect: what is written, and that its numbers are right on the processor's provider."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from bitfront.core import FP16, FP32, CalibrationSettings, ContentStore, LoweringError, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import support_of
from bitfront.lowering.dialects.ort_cuda import OrtCudaDialect
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import expected_outputs, outputs_of, sqnr_db, text_of, uniform
from tests.lowering.topologies import TOPOLOGIES, Net, inputs_of, reference_of
from tests.references import make_reference

GOLDEN = Path(__file__).parent / "golden" / "ort_cuda"
# Lowest signal-to-noise ratio in dB of any output of any topology. FP16 has 11 bits, blocks of 4 bits cost most.
FLOOR_DB = {"fp16": 54.0, "int8:mse": 28.0, "int4:mse:block32": 14.0, "int4:gptq:weight-only": 12.0}


@cache
def cuda_lowerer(name: str) -> Lowerer:
    reference = reference_of(name)
    return Lowerer(reference, OrtCudaDialect(), inputs_of(reference), CalibrationSettings(), ContentStore(None))


def alternating(lowerer: Lowerer) -> dict[str, Scheme]:
    """FP16 and FP32 in turns."""
    return {layer.name: FP32 if index % 2 else FP16 for index, layer in enumerate(lowerer.quantisable.layers)}


def worst_db(name: str, model: bytes) -> float:
    found = outputs_of(model, inputs_of(reference_of(name), seed=5))
    return min(sqnr_db(wanted, actual) for wanted, actual in zip(expected_outputs(name), found, strict=True))


@pytest.mark.parametrize("text", ["fp16", "alternating", "int8:mse", "int4:mse:block32"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_golden_graph(name: str, text: str, update_golden: bool) -> None:
    """The written graph is pinned as text."""
    lowerer = cuda_lowerer(name)
    schemes = alternating(lowerer) if text == "alternating" else uniform(lowerer, text)
    if all(scheme == FP32 for scheme in schemes.values()):
        pytest.skip(f"no layer of {name} may be {text}")
    found = text_of(lowerer.lower(schemes).data)
    path = GOLDEN / f"{name}.{text.replace(':', '_')}.txt"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("text", FLOOR_DB)
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_numerics(name: str, text: str) -> None:
    """Every scheme stays within its rounding error of FP32, as run by the processor's provider."""
    lowerer = cuda_lowerer(name)
    assert worst_db(name, lowerer.lower(uniform(lowerer, text)).data) >= FLOOR_DB[text]


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_mixes_are_valid(name: str) -> None:
    """FP16 and FP32 in turns lose no more than FP16 alone; any mix of what is offered runs."""
    lowerer = cuda_lowerer(name)
    assert worst_db(name, lowerer.lower(alternating(lowerer)).data) >= FLOOR_DB["fp16"]
    rng = np.random.default_rng(23)
    for _ in range(2):
        mix = {layer.name: layer.schemes[rng.integers(len(layer.schemes))] for layer in lowerer.quantisable.layers}
        assert worst_db(name, lowerer.lower(mix).data) >= 9.0


@pytest.mark.parametrize(
    ("constant", "factor", "shift"),
    [
        pytest.param("b.weight_h", 1.01, 0.0, id="weights-off-by-a-percent"),
        pytest.param("b.bias_h", 1.0, 0.05, id="bias-moved"),
        pytest.param("a.weight_h", -1.0, 0.0, id="sign"),
    ],
)
def test_numerics_see_planted_bugs(constant: str, factor: float, shift: float) -> None:
    """The oracle refuses a half graph whose constants are slightly wrong."""
    lowerer = cuda_lowerer("chain")
    model = onnx.load_from_string(lowerer.lower(uniform(lowerer, "fp16")).data)
    (tensor,) = [entry for entry in model.graph.initializer if entry.name == constant]
    wrong = (numpy_helper.to_array(tensor).astype(np.float32) * factor + shift).astype(np.float16)
    tensor.CopyFrom(numpy_helper.from_array(wrong, constant))
    assert worst_db("chain", model.SerializeToString()) < FLOOR_DB["fp16"]


def test_half_chain_is_cast_at_its_ends_alone() -> None:
    """A network all in FP16 holds two Casts and no FP32 weight, and its file is half the size."""
    lowerer = cuda_lowerer("chain")
    full, half = lowerer.lower(uniform(lowerer, "fp32")).data, lowerer.lower(uniform(lowerer, "fp16")).data
    graph = onnx.load_from_string(half).graph
    assert [node.op_type for node in graph.node].count("Cast") == 2
    assert {tensor.data_type for tensor in graph.initializer} == {TensorProto.FLOAT16}
    assert len(half) < 0.6 * len(full)


@pytest.mark.parametrize("block", [32, 64])
def test_blocks_compute_on_half_activations(block: int) -> None:
    """4-bit blocks read FP16 activations, with FP16 scales, in the block size asked for."""
    lowerer = cuda_lowerer("gemm")
    name = lowerer.quantisable.layers[0].name
    schemes = {**uniform(lowerer, "fp32"), name: Scheme.parse(f"int4:mse:block{block}")}
    model = lowerer.lower(schemes).data
    graph = onnx.load_from_string(model).graph
    (node,) = [node for node in graph.node if node.op_type == "MatMulNBits"]
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert types[node.input[2]] == TensorProto.FLOAT16
    assert next(entry.i for entry in node.attribute if entry.name == "block_size") == block
    assert worst_db("gemm", model) >= FLOOR_DB["int4:mse:block32"]
    saved = len(lowerer.lower(uniform(lowerer, "fp32")).data) - len(model)
    assert abs(saved - (lowerer.weight_bytes(name, FP32) - lowerer.weight_bytes(name, schemes[name]))) < 900


def test_what_is_offered_and_why_not() -> None:
    """W4A8 has no kernel; blocks larger than the layer and half weights beyond FP16 are refused with the reason."""
    layers = {layer.name: layer for layer in cuda_lowerer("gemm").quantisable.layers}
    assert {scheme.text for scheme in layers["a"].schemes} >= {"fp16", "int8:mse", "int4:mse:block64"}
    assert "no kernel" in layers["a"].refused["int4:gptq"]
    assert layers["a"].refused["int4:mse:block128"] == "its 64 inputs are fewer than the block size 128"
    conv = cuda_lowerer("chain").quantisable.layers[0]
    assert conv.refused["int4:mse:block64"] == "block-wise weights are for Gemm and MatMul"
    model = TOPOLOGIES["straight_out"]()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.flat[0] = -7e4
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "a.weight"))
    reference = make_reference(model, "large")
    large = Lowerer(reference, OrtCudaDialect(), None, CalibrationSettings(), ContentStore(None))
    with pytest.raises(LoweringError, match="cannot be fp16: its largest weight, 70000, is beyond FP16's 65504"):
        large.lower({"a": FP16})


def test_activations_beyond_fp16_are_a_typed_failure() -> None:
    """A half layer whose calibrated output does not fit is refused by tensor; glue that does not fit stays full."""
    net = Net()
    a = net.op("Relu", [net.conv("x", "a", (16, 16))], "ra")
    factor = net.constant("factor", np.array(3e4, np.float32))
    scaled = net.op("Mul", [a, factor], "scaled")
    reference = make_reference(net.model([net.conv(scaled, "b", (8, 16))]), "scaled")
    settings, store = CalibrationSettings(), ContentStore(None)
    lowerer = Lowerer(reference, OrtCudaDialect(), inputs_of(reference), settings, store)
    with pytest.raises(LoweringError, match="layer 'b' cannot be fp16: its activation 'scaled' reaches"):
        lowerer.lower({"a": FP16, "b": FP16})
    graph = onnx.load_from_string(lowerer.lower({"a": FP16, "b": FP32}).data).graph
    (mul,) = [node for node in graph.node if node.op_type == "Mul"]
    assert list(mul.input) == ["ra", "factor"]
    bare = Lowerer(reference, OrtCudaDialect(), None, settings, store)
    assert bare.lower({"a": FP16, "b": FP16}).data, "without calibration inputs nothing is known of activations"


def test_dialect_by_name() -> None:
    """The registry knows it; FP16 computes in half, blocks in their own way, weight-only in float."""
    dialect = get_dialect("ort-cuda")
    assert dialect.name == "ort-cuda"
    kinds = {text: support_of(dialect, Scheme.parse(text)).compute_type for text in (*FLOOR_DB, "fp32")}
    assert kinds == {
        "fp16": ComputeType.FP16,
        "int8:mse": ComputeType.INT8,
        "int4:mse:block32": ComputeType.WEIGHT_ONLY,
        "int4:gptq:weight-only": ComputeType.FP32,
        "fp32": ComputeType.FP32,
    }
