"""The OpenVINO dialect: what is written, what the runtime makes of it, and that the numbers are right."""

from __future__ import annotations

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from bitfront.backends import Backend, get_backend
from bitfront.core import FP16, FP32, Artifact, CalibrationSettings, ContentStore, Inputs, Scheme
from bitfront.lowering.compute_type import ComputeType
from bitfront.lowering.dialect import support_of
from bitfront.lowering.dialects.openvino import PRECISION_KEY
from bitfront.lowering.dialects.openvino_quantisers import shared_ranges
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.graph import GraphView
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.placement import Placement
from tests.lowering import candidates
from tests.lowering.candidates import FLOOR_DB, TOLERANCE_DB, sqnr_db, text_of, uniform, with_bug
from tests.lowering.topologies import TOPOLOGIES, inputs_of, reference_of

if find_spec("openvino") is None:  # imported, it would report so before anybody can stop it
    pytest.skip("OpenVINO is not installed", allow_module_level=True)

GOLDEN = Path(__file__).parent / "golden" / "openvino"
# A Concat's inputs share one quantiser here, which costs the narrower ones log₂ 3 bits at most.
SHARED_DB = 9.6
BF16_FLOOR_DB = 40.0


@cache
def lowerer_of(name: str) -> Lowerer:
    reference = reference_of(name)
    dialect = get_dialect("openvino")
    return Lowerer(reference, dialect, inputs_of(reference), CalibrationSettings(), ContentStore(None))


@cache
def backend() -> Backend:
    return get_backend("openvino")


def outputs_of(model: bytes, inputs: Inputs) -> tuple[NDArray[np.generic], ...]:
    return backend().compile(Artifact.onnx(model), threads=1).run(inputs)


@cache
def fp16_floor_db() -> float:
    """BF16, where the processor computes in it, keeps 8 significant bits."""
    return BF16_FLOOR_DB if backend().capabilities().supported.get("half-arithmetic", True) else FLOOR_DB["fp16"]


def operators_of(model: bytes) -> tuple[str, ...]:
    return backend().compile(Artifact.onnx(model), threads=1, batch_size=1).operators()


def measured_db(name: str, model: bytes) -> list[float]:
    """SQNR of each output against FP32 on ONNX Runtime."""
    found = outputs_of(model, inputs_of(reference_of(name), seed=5))
    expected = candidates.expected_outputs(name)
    return [sqnr_db(wanted, actual) for wanted, actual in zip(expected, found, strict=True)]


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_golden_graph(name: str, text: str, update_golden: bool) -> None:
    """The written graph is pinned as text."""
    lowerer = lowerer_of(name)
    found = text_of(lowerer.lower(uniform(lowerer, text)).data)
    path = GOLDEN / f"{name}.{text.replace(':', '_')}.txt"
    if update_golden:
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_numerics(name: str) -> None:
    """Each uniform scheme stays above its floor against FP32, and near what it reaches on ONNX Runtime.

    Weight-only storage of Gemm and MatMul makes the inputs 8-bit here, so it has the floor alone.
    """
    lowerer = lowerer_of(name)
    pinned = json.loads((GOLDEN.parent / f"{name}.sqnr_db.json").read_text(encoding="utf-8"))
    for text in ("fp16", "int8:mse", "int4:gptq", "int8:mse:weight-only", "int4:mse:block32"):
        found = measured_db(name, lowerer.lower(uniform(lowerer, text)).data)
        half = fp16_floor_db() if text == "fp16" else FLOOR_DB["fp16"]
        assert min(found) >= (half if text == "fp16" else FLOOR_DB[text])
        if "weight-only" not in text:
            for ours, theirs in zip(found, pinned[text], strict=True):
                assert ours >= min(theirs, half) - SHARED_DB


@pytest.mark.parametrize(
    ("stored", "position", "factor", "shift"),
    [
        pytest.param("b.weight_8", 1, 2.0, 0, id="weight-scale-doubled"),
        pytest.param("b.weight_8", 0, -1, 0, id="codes-negated"),
        pytest.param("ra_q", 1, 2.0, 0, id="activation-scale-doubled"),
        pytest.param("ra_q", 2, 1, 1, id="zero-point-off-by-one"),
    ],
)
def test_numerics_rejects_planted_bugs(stored: str, position: int, factor: float, shift: float) -> None:
    """The comparison sees a wrong scale, zero point or sign."""
    lowerer = lowerer_of("chain")
    model = lowerer.lower(uniform(lowerer, "int8:mse")).data
    (sound,) = measured_db("chain", model)
    (planted,) = measured_db("chain", with_bug(model, stored, position, factor=factor, shift=shift))
    assert planted < sound - TOLERANCE_DB


@pytest.mark.parametrize("text", ["int8:mse", "int4:gptq"])
@pytest.mark.parametrize("name", ["chain", "residual", "depthwise", "concat", "pooling", "narrow", "image_stem"])
def test_convolutions_run_in_eight_bits(name: str, text: str) -> None:
    """Every convolution of a uniform integer request runs on 8-bit tensors."""
    lowerer = lowerer_of(name)
    schemes = uniform(lowerer, text)
    operators = operators_of(lowerer.lower(schemes).data)
    convolutions = [operator for operator in operators if operator.startswith(("Convolution", "GroupConvolution"))]
    assert len(convolutions) >= sum(layer.op == "Conv" for layer in lowerer.quantisable.layers)
    assert {operator.partition("(")[2] for operator in convolutions} <= {"u8)", "i8)"}


def test_concat_copies_eight_bit_tensors() -> None:
    """What a Concat joins has one quantiser, so that it neither requantises its inputs nor its result."""
    lowerer = lowerer_of("concat")
    model = lowerer.lower(uniform(lowerer, "int8:mse")).data
    graph = onnx.load_model_from_string(model).graph
    producers = {name: node for node in graph.node for name in node.output}
    joins = [node for node in graph.node if node.op_type == "Concat"]
    assert joins
    for node in joins:
        quantisers = {tuple(producers[name].input[1:]) for name in node.input}
        assert {producers[name].op_type for name in node.input} == {"QuantizeLinear"}
        assert len(quantisers) == 1
    assert "Concatenation(u8)" in operators_of(model)


def test_concat_of_unlike_ranges_keeps_its_quantisers() -> None:
    """Tensors whose common range is more than thrice their own are not made coarser for a Concat's sake."""
    view = GraphView(reference_of("concat").proto.graph)
    (index,) = [at for at, node in enumerate(view.nodes) if node.op_type == "Concat"]
    left, right = view.nodes[index].input[:2]
    result = view.nodes[index].output[0]
    placement = Placement(quantised=frozenset({index}), fused_activations={}, required_int8=frozenset())
    near = shared_ranges(view, placement, {left: (0.0, 1.0), right: (-0.5, 1.5), result: (-0.5, 1.5)})
    assert set(near) >= {left, right, result}
    assert set(near.values()) == {(-0.5, 1.5)}
    assert shared_ranges(view, placement, {left: (0.0, 1.0), right: (0.0, 3.1), result: (0.0, 3.1)}) == {}


@pytest.mark.parametrize("name", ["residual", "concat", "padded_shortcut", "squeeze_excite", "gemm", "conv_transpose"])
def test_random_mixes_are_valid(name: str) -> None:
    """Any mix of offered schemes compiles and stays above the lowest floor."""
    lowerer = lowerer_of(name)
    rng = np.random.default_rng(23)
    for _ in range(2):
        mix = {layer.name: layer.schemes[rng.integers(len(layer.schemes))] for layer in lowerer.quantisable.layers}
        assert min(measured_db(name, lowerer.lower(mix).data)) >= 9.0


@pytest.mark.parametrize("name", ["chain", "clips", "conv_transpose"])
def test_floating_layer_between_integer_ones_stays_floating(name: str) -> None:
    """A layer left at FP32 between integer ones runs in FP32, without any shield."""
    lowerer = lowerer_of(name)
    first, middle, last = (layer.name for layer in lowerer.quantisable.layers)
    integer = Scheme.parse("int8:mse")
    model = lowerer.lower({first: integer, middle: FP32, last: integer}).data
    compiled = backend().compile(Artifact.onnx(model), threads=1, batch_size=1)
    profile = compiled.profile({key: array[:1] for key, array in inputs_of(lowerer.reference, seed=5).items()})
    (layer,) = [entry for entry in profile if middle in entry.nodes]
    assert layer.precision == "f32"


@pytest.mark.parametrize(
    ("schemes", "half"),
    [
        pytest.param(["fp16", "fp16", "fp16"], True, id="all-half"),
        pytest.param(["fp16", "int8:mse", "int8:mse"], True, id="half-and-integer"),
        pytest.param(["fp16", "fp32", "fp16"], False, id="one-full"),
        pytest.param(["int8:mse", "int8:mse", "int8:mse"], False, id="no-floating-layer"),
        pytest.param(["fp32", "fp32", "fp32"], False, id="all-full"),
    ],
)
def test_sixteen_bits_are_allowed_where_every_floating_layer_is_fp16(schemes: list[str], half: bool) -> None:
    """The file's metadata allows 16-bit arithmetic only where no layer was to stay in FP32."""
    lowerer = lowerer_of("chain")
    names = [layer.name for layer in lowerer.quantisable.layers]
    model = lowerer.lower({name: Scheme.parse(text) for name, text in zip(names, schemes, strict=True)}).data
    metadata = {entry.key for entry in onnx.load_model_from_string(model).metadata_props}
    assert (PRECISION_KEY in metadata) == half


def test_compute_types() -> None:
    """FP16 may compute in 16 bits; integers do unless only the weight is stored so."""
    dialect = get_dialect("openvino")
    assert support_of(dialect, FP32).compute_type is ComputeType.FP32
    assert support_of(dialect, FP16).compute_type is ComputeType.FP16
    assert support_of(dialect, Scheme.parse("int4:gptq")).compute_type is ComputeType.INT8
    assert support_of(dialect, Scheme.parse("int4:gptq:weight-only")).compute_type is ComputeType.FP32
    assert support_of(dialect, Scheme.parse("int4:mse:block32")).compute_type is ComputeType.WEIGHT_ONLY


@pytest.mark.parametrize("name", ["gemm", "sequence_matmul"])
def test_block_wise_weights_stay_compressed(name: str) -> None:
    """Block-wise INT4 runs on 4-bit weights instead of being unfolded, and is as exact as in MatMulNBits."""
    lowerer = lowerer_of(name)
    schemes = uniform(lowerer, "int4:mse:block32")
    assert any(scheme.weights.group_size for scheme in schemes.values())
    assert "FullyConnected(i4)" in operators_of(lowerer.lower(schemes).data)


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq", "int8:mse:weight-only", "int4:mse:block32"])
def test_weight_bytes_is_what_the_file_holds(text: str) -> None:
    """The predicted bytes of a layer are those its initialisers take, names and message framing aside."""
    lowerer = lowerer_of("gemm")
    schemes = {**uniform(lowerer, "fp32"), "a": Scheme.parse(text)}
    saved = len(lowerer.lower(uniform(lowerer, "fp32")).data) - len(lowerer.lower(schemes).data)
    predicted = lowerer.weight_bytes("a", FP32) - lowerer.weight_bytes("a", schemes["a"])
    assert abs(saved - predicted) < 900
