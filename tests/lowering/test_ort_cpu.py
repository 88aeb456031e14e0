"""The ONNX Runtime CPU dialect: what is written, what the runtime makes of it, and that the numbers are right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from bitfront.backends import get_backend
from bitfront.core import FP32, CalibrationSettings, ContentStore, Inputs, LoweringError, Scheme
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.candidates import (
    FLOOR_DB,
    check_numerics,
    lowerer_of,
    measured_db,
    outputs_of,
    saturates,
    sqnr_db,
    text_of,
    uniform,
    with_bug,
)
from tests.lowering.topologies import TOPOLOGIES, inputs_of
from tests.references import make_reference

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_operators_after_optimisation(name: str, update_golden: bool) -> None:
    """What the runtime executes for each uniform scheme is pinned: a fusion that is lost shows.

    Sorted and without layout reorders, which the runtime places anew at every load.
    """
    lowerer = lowerer_of(name)
    found = {}
    for text in ("fp32", *FLOOR_DB):
        schemes = uniform(lowerer, text)
        if text != "fp32" and all(scheme == FP32 for scheme in schemes.values()):
            continue
        operators = get_backend("ort-cpu").compile(lowerer.lower(schemes), threads=1).operators()
        found[text] = " ".join(sorted(op for op in operators if not op.startswith("Reorder")))
    path = GOLDEN / f"{name}.operators.json"
    if update_golden:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq"])
@pytest.mark.parametrize("name", TOPOLOGIES)
def test_golden_graph(name: str, text: str, update_golden: bool) -> None:
    """The written graph is pinned as text."""
    lowerer = lowerer_of(name)
    found = text_of(lowerer.lower(uniform(lowerer, text)).data)
    path = GOLDEN / f"{name}.{text.replace(':', '_')}.txt"
    if update_golden:
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_numerics(name: str, update_golden: bool) -> None:
    """Each uniform scheme reaches the pinned SQNR against FP32, which is above the scheme's floor."""
    lowerer = lowerer_of(name)
    models = {text: lowerer.lower(uniform(lowerer, text)).data for text in FLOOR_DB}
    path = GOLDEN / f"{name}.sqnr_db.json"
    if update_golden:
        found = {text: [round(value, 1) for value in measured_db(name, model)] for text, model in models.items()}
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    pinned = json.loads(path.read_text(encoding="utf-8"))
    for text, model in models.items():
        assert min(pinned[text]) >= FLOOR_DB[text]
        check_numerics(name, model, pinned[text])


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
    """The oracle of the numerics sees a wrong scale, zero point or sign."""
    lowerer = lowerer_of("chain")
    model = lowerer.lower(uniform(lowerer, "int8:mse")).data
    pinned = json.loads((GOLDEN / "chain.sqnr_db.json").read_text(encoding="utf-8"))["int8:mse"]
    check_numerics("chain", model, pinned)
    with pytest.raises(AssertionError):
        check_numerics("chain", with_bug(model, stored, position, factor=factor, shift=shift), pinned)


def test_numerics_rejects_a_swapped_axis() -> None:
    """Per-channel scales on the input axis of a square weight are seen."""
    lowerer = lowerer_of("residual")
    proto = onnx.load_from_string(lowerer.lower(uniform(lowerer, "int8:mse")).data)
    (reader,) = [node for node in proto.graph.node if node.input[0] == "b.weight_8"]
    reader.attribute[0].i = 1
    with pytest.raises(AssertionError):
        check_numerics("residual", proto.SerializeToString(), [FLOOR_DB["int8:mse"]])


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_random_mixes_are_valid(name: str) -> None:
    """Any mix of offered schemes, tied layers apart included, compiles and stays above the lowest floor."""
    lowerer = lowerer_of(name)
    rng = np.random.default_rng(23)
    for _ in range(5):
        mix = {layer.name: layer.schemes[rng.integers(len(layer.schemes))] for layer in lowerer.quantisable.layers}
        assert min(measured_db(name, lowerer.lower(mix).data)) >= 9.0


@pytest.mark.parametrize("name", ["chain", "depthwise", "clips", "gemm", "conv_transpose"])
def test_floating_layer_between_integer_ones_stays_floating(name: str) -> None:
    """A layer left at FP32 is not rounded to 8 bits by the runtime behind our back."""
    lowerer = lowerer_of(name)
    first, middle, last = (layer.name for layer in lowerer.quantisable.layers)
    integer = Scheme.parse("int8:mse")
    model = get_backend("ort-cpu").compile(lowerer.lower({first: integer, middle: FP32, last: integer}), threads=1)
    op = next(layer.op for layer in lowerer.quantisable.layers if layer.name == middle)
    assert model.operators().count(op) == 1
    # Nothing dequantises a weight at every run: DequantizeLinear stands before the floating layer and at the end.
    assert model.operators().count("DequantizeLinear") <= 2


def check_same_outputs(model: bytes, plain: bytes, inputs: Inputs) -> None:
    """Equal to the bit in integer kernels; run as written, floating sums may put a few values one code further."""
    found, wanted = (np.asarray(outputs_of(which, inputs)[0], np.float64) for which in (model, plain))
    if not saturates():
        np.testing.assert_array_equal(found, wanted)
        return
    step = np.diff(np.unique(wanted)).min()
    assert np.abs(found.astype(np.float64) - wanted.astype(np.float64)).max() <= 1.01 * step
    assert np.mean(found != wanted) < 0.02


def test_shortcut_as_convolution_copies_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slice and Pad written as a 1×1 convolution give the very same outputs as written one by one."""
    lowerer = lowerer_of("padded_shortcut")
    schemes, inputs = uniform(lowerer, "int8:mse"), inputs_of(lowerer.reference, seed=5)
    model = lowerer.lower(schemes).data
    monkeypatch.setattr("bitfront.lowering.dialects.qdq.shortcut_at", lambda *_: None)
    plain = lowerer.lower(schemes).data
    assert "Slice" in text_of(plain)
    assert "Slice" not in text_of(model)
    check_same_outputs(model, plain, inputs)


def test_channels_of_zeros_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input channels filled up to four give the very same outputs; one Pad serves both readers."""
    lowerer = lowerer_of("image_stem")
    schemes, inputs = uniform(lowerer, "int8:mse"), inputs_of(lowerer.reference, seed=5)
    model = lowerer.lower(schemes).data
    monkeypatch.setattr("bitfront.lowering.dialects.ort_cpu.missing_channels", lambda *_: 0)
    plain = lowerer.lower(schemes).data
    assert text_of(model).count("= Pad(x_q,") == 1
    assert "Pad" not in text_of(plain)
    check_same_outputs(model, plain, inputs)


@pytest.mark.parametrize("text", ["int8:mse", "int4:gptq"])
def test_widened_convolutions_change_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow convolutions with channels of zeros give the very same outputs as they are."""
    lowerer = lowerer_of("narrow")
    schemes, inputs = uniform(lowerer, text), inputs_of(lowerer.reference, seed=5)
    model = lowerer.lower(schemes).data
    monkeypatch.setattr("bitfront.lowering.dialects.ort_cpu.padded_channels", lambda *_: {})
    plain = lowerer.lower(schemes).data
    assert "[16, 1, 3, 3]" in text_of(model)
    assert "[16, 1, 3, 3]" not in text_of(plain)
    check_same_outputs(model, plain, inputs)


def test_widened_convolution_without_a_bias() -> None:
    """A narrow convolution whose optional bias is an empty name is widened all the same."""
    model = TOPOLOGIES["narrow"]()
    model.graph.node[0].input[2] = ""
    reference = make_reference(model, "no bias")
    lowerer = Lowerer(
        reference, get_dialect("ort-cpu"), inputs_of(reference), CalibrationSettings(), ContentStore(None)
    )
    widened = lowerer.lower(uniform(lowerer, "int8:mse")).data
    assert "[16, 1, 3, 3]" in text_of(widened)
    inputs = inputs_of(reference, seed=5)
    expected = outputs_of(lowerer.lower(uniform(lowerer, "fp32")).data, inputs)[0]
    assert sqnr_db(expected, outputs_of(widened, inputs)[0]) > FLOOR_DB["int8:mse"] - 3


def test_same_schemes_same_bytes() -> None:
    """Writing the same request twice, by two lowerers, gives the same bytes."""
    lowerer = lowerer_of("residual")
    schemes = uniform(lowerer, "int4:gptq")
    first = lowerer.lower(schemes).data
    lowerer_of.cache_clear()
    again = lowerer_of("residual")
    assert again is not lowerer
    assert again.lower(schemes).data == first


def test_four_bit_file_is_smaller_than_eight_bit_file() -> None:
    """Storage shows in the file: each precision's file is smaller than the one above it."""
    lowerer = lowerer_of("padded_shortcut")
    sizes = [len(lowerer.lower(uniform(lowerer, text)).data) for text in ("fp32", "fp16", "int8:mse", "int4:gptq")]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 4


def test_shared_weight_is_stored_once_or_apart_as_needed() -> None:
    """Layers that share a weight share its integers at one scheme, and have their own at different ones."""
    lowerer = lowerer_of("shared_weight")
    names = [layer.name for layer in lowerer.quantisable.layers]
    eight, four = Scheme.parse("int8:mse"), Scheme.parse("int4:gptq")
    together = text_of(lowerer.lower(dict.fromkeys(names, eight)).data)
    assert together.count("a.weight_8: int8[16, 16, 3, 3]") == 1
    apart = lowerer.lower({names[0]: eight, names[1]: four, names[2]: FP32}).data
    assert "a.weight_8: int8[16, 16, 3, 3]" in text_of(apart)
    assert "a.weight_4: int4[16, 16, 3, 3]" in text_of(apart)
    assert min(measured_db("shared_weight", apart)) >= 12.0


def test_refused_scheme_names_layer_and_reason() -> None:
    """A scheme that the dialect refuses is an error with the layer, the reason and what may be used."""
    lowerer = lowerer_of("conv_transpose")
    schemes = {**uniform(lowerer, "fp32"), "up": Scheme.parse("int8:mse")}
    with pytest.raises(LoweringError, match=r"layer 'up' cannot be int8:mse: .*no integer ConvTranspose"):
        lowerer.lower(schemes)
    with pytest.raises(LoweringError, match=r"layer 'a' cannot be int4:nearest"):
        lowerer.lower({**uniform(lowerer, "fp32"), "a": Scheme.parse("int4:nearest")})
    with pytest.raises(LoweringError, match="layer 'b' has no scheme"):
        lowerer.lower({"a": FP32, "up": FP32})


@pytest.mark.parametrize("text", ["fp16", "int8:mse", "int4:gptq", "int8:mse:weight-only", "int4:mse:block32"])
def test_weight_bytes_is_what_the_file_holds(text: str) -> None:
    """The predicted bytes of a layer are those its initialisers take, names and message framing aside."""
    lowerer = lowerer_of("gemm")
    schemes = {**uniform(lowerer, "fp32"), "a": Scheme.parse(text)}
    saved = len(lowerer.lower(uniform(lowerer, "fp32")).data) - len(lowerer.lower(schemes).data)
    predicted = lowerer.weight_bytes("a", FP32) - lowerer.weight_bytes("a", schemes["a"])
    assert abs(saved - predicted) < 900
