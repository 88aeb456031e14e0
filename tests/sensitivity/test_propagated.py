"""Schemes scored in their own layers beside the whole network run with each."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy.stats import spearmanr

import bitfront.sensitivity.propagated
from bitfront.backends import get_backend
from bitfront.backends.base import CompiledModel
from bitfront.backends.ort.cpu import OrtCpuBackend
from bitfront.core import (
    FP32,
    Array,
    Artifact,
    BackendError,
    CalibrationSettings,
    ContentStore,
    Inputs,
    Precision,
    Scheme,
)
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.interpreter import InterpreterError
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.parts import NetworkPart
from bitfront.sensitivity.divergence_metric import OutputReading
from bitfront.sensitivity.injection import InjectedNetwork
from bitfront.sensitivity.score import Scoring, planned_steps, score_sensitivities
from bitfront.sensitivity.table import SensitivityTable
from tests.references import make_reference

SAMPLES = 24
GENERATOR = np.random.default_rng(0)


def _weight(name: str, *shape: int) -> onnx.TensorProto:
    fan = math.prod(shape[1:]) if len(shape) == 4 else shape[0]
    return numpy_helper.from_array((GENERATOR.standard_normal(shape) / math.sqrt(fan)).astype(np.float32), name)


def network(batch: int | str = "n") -> onnx.ModelProto:
    """A residual CNN of six layers: strided, depthwise and pointwise convolutions, a clamp, a pool, a classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="depthwise", pads=[1, 1, 1, 1], group=16),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="pointwise"),
        helper.make_node("Add", ["c2", "r0"], ["s"]),
        helper.make_node("Relu", ["s"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3"], ["c3"], name="down", strides=[2, 2]),
        helper.make_node("Sigmoid", ["c3"], ["g"]),
        helper.make_node("Mul", ["c3", "g"], ["silu"]),
        helper.make_node("GlobalAveragePool", ["silu"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w4", "b4"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["rh"]),
        helper.make_node("Gemm", ["rh", "w5", "b5"], ["y"], name="head"),
    ]
    weights = [
        _weight("w0", 16, 3, 3, 3),
        _weight("w1", 16, 1, 3, 3),
        _weight("w2", 16, 16, 1, 1),
        _weight("w3", 32, 16, 3, 3),
        _weight("w4", 32, 32),
        _weight("w5", 32, 8),
        *(numpy_helper.from_array(np.full(size, 0.1, np.float32), f"b{k}") for k, size in ((0, 16), (4, 32), (5, 8))),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (batch, 3, 12, 12))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (batch, 8))],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


INPUTS: Inputs = {"x": np.random.default_rng(1).standard_normal((SAMPLES, 3, 12, 12)).astype(np.float32)}
LAYERS = {"stem", "depthwise", "pointwise", "down", "hidden", "head"}
READ = (OutputReading(kind="classes", axis=1),)


def lowerer(model: onnx.ModelProto | None = None) -> Lowerer:
    reference = make_reference(model or NETWORK, "net")
    return Lowerer(reference, get_dialect("ort-cpu"), INPUTS, CalibrationSettings(), ContentStore(None))


NETWORK = network()


def score(
    made: Lowerer | None = None,
    *,
    scoring: Scoring = Scoring.PROPAGATED,
    backend: OrtCpuBackend | None = None,
    store: ContentStore | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> SensitivityTable:
    made = made or lowerer()
    return score_sensitivities(
        made,
        backend or get_backend("ort-cpu"),
        INPUTS,
        samples=SAMPLES,
        read=READ,
        precisions=tuple(Precision),
        threads=1,
        store=store or ContentStore(None),
        on_step=on_step,
        batching=made.reference.batching,
        scoring=scoring,
    )


def pairs(one: SensitivityTable, other: SensitivityTable, column: str) -> NDArray[np.float64]:
    values = np.array(
        [
            (getattr(a, column), getattr(b, column))
            for a, b in zip(one.rows, other.rows, strict=True)
            if a.scheme != FP32
        ]
    )
    usable: NDArray[np.float64] = values[np.isfinite(values).all(axis=1)]
    return usable


@pytest.fixture(scope="module")
def tables() -> tuple[SensitivityTable, SensitivityTable]:
    return score(), score(scoring=Scoring.WHOLE)


def test_scores_rank_as_those_of_the_whole_network(tables: tuple[SensitivityTable, SensitivityTable]) -> None:
    """Both contexts' common loss too; what was carried to the outputs itself comes out the same."""
    for column in ("single_layer", "loss"):
        found = pairs(*tables, column)
        assert len(found) > 30
        assert spearmanr(*found.T).statistic > 0.95
    ratios = pairs(*tables, "single_layer")
    assert np.mean(np.abs(np.log(ratios[:, 0] / ratios[:, 1])) < 0.05) > 0.4
    assert [(row.group, row.scheme) for row in tables[0].rows] == [(row.group, row.scheme) for row in tables[1].rows]


def test_only_parts_are_compiled() -> None:
    """Neither the whole network nor a scheme is written for the backend, but for FP32's choice of metric."""
    held: list[int] = []

    class Counting(OrtCpuBackend):
        def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
            names = {node.name for node in onnx.load_model_from_string(artifact.data).graph.node}
            held.append(len(names & LAYERS))
            return super().compile(artifact, threads=threads, batch_size=batch_size)

    score(backend=Counting())
    assert sorted(held)[-2:] == [1, len(LAYERS)]
    assert len(held) > 30


def test_steps_are_told_as_planned() -> None:
    """Each scheme once, and each group left out."""
    steps: list[str] = []
    made = lowerer()
    score(made, on_step=steps.append)
    assert len(steps) == planned_steps(made.quantisable, tuple(Precision))
    assert sum("restored" in step for step in steps) == len(made.quantisable.groups)


@pytest.mark.parametrize("kept", [1, 5, SAMPLES])
def test_blocks_of_samples_score_the_same(
    kept: int, monkeypatch: pytest.MonkeyPatch, tables: tuple[SensitivityTable, SensitivityTable]
) -> None:
    """However many samples fit into memory; a mean that a bias corrects is a block's, so less is left of few."""
    made = lowerer()
    network = InjectedNetwork(made.reference, made.parts.values())
    _, tensors = network.read({"x": INPUTS["x"][:1]})
    each = 2 * sum(array.nbytes for run in tensors for array in run.values())
    monkeypatch.setattr(bitfront.sensitivity.propagated, "LIVE_BYTES", kept * each + 1)
    found = score(made)
    for row, other in zip(found.rows, tables[0].rows, strict=True):
        least = 0.1 if "gptq" in row.scheme.text else 0.8
        assert least * other.single_layer - 1e-9 <= row.single_layer <= 1.25 * other.single_layer + 1e-9, row


@pytest.mark.parametrize("batch", [1, 8])
def test_fixed_batches(batch: int, tables: tuple[SensitivityTable, SensitivityTable]) -> None:
    """A network with a batch of its own is scored in whole batches."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(NETWORK)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    found = pairs(score(lowerer(fixed)), tables[0], "single_layer")
    np.testing.assert_allclose(found[:, 0], found[:, 1], rtol=0.05, atol=1e-9)


def test_a_finished_scoring_runs_nothing() -> None:
    """Everything comes from the store."""

    class Refusing(OrtCpuBackend):
        def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
            raise AssertionError(f"compiled {artifact.digest} for {threads} and {batch_size}")

    store = ContentStore(None)
    first = score(store=store)
    assert score(store=store, backend=Refusing()).frame().equals(first.frame())


def test_schemes_and_groups_that_the_backend_refuses() -> None:
    """A refused scheme is dropped with the reason; a group none of whose parts runs is scored in the whole network."""

    class Picky(OrtCpuBackend):
        def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
            model = onnx.load_model_from_string(artifact.data)
            names = {node.name for node in model.graph.node}
            alone = len(names & LAYERS) == 1
            if alone and "depthwise" in names:
                raise BackendError("no depthwise convolution alone", "none")
            if alone and "down" in names and any(t.data_type == TensorProto.INT4 for t in model.graph.initializer):
                raise BackendError("no four bits there", "none")
            return super().compile(artifact, threads=threads, batch_size=batch_size)

    rows = {(row.group, row.scheme.text): row for row in score(backend=Picky()).rows}
    whole = {(row.group, row.scheme.text): row for row in score(scoring=Scoring.WHOLE).rows}
    assert rows["down", "int4:gptq"].dropped == "no four bits there"
    assert not rows["down", "int8:nearest"].dropped
    for text in ("int8:nearest", "int4:mse"):
        assert rows["depthwise", text].single_layer == whole["depthwise", text].single_layer


def test_what_a_corrected_bias_takes_away_does_not_count() -> None:
    """GPTQ's corrections belong to a rounded prefix: alone, a layer's mean error is taken away instead."""
    made = lowerer()
    scheme = Scheme.parse("int4:gptq")
    (part,) = [part for name, part in made.parts.items() if name == "down"]

    class Shifted(Lowerer):
        def _rounded(self, layer, scheme):  # type: ignore[no-untyped-def]
            found = super()._rounded(layer, scheme)
            return replace(found, bias_correction=np.full(32, 9, np.float32)) if layer.name == "down" else found

    shifted = Shifted(made.reference, made.dialect, INPUTS, CalibrationSettings(), ContentStore(None))
    assert shifted.lower_part(part, scheme).digest == made.lower_part(part, scheme).digest
    one, other = ({(r.group, r.scheme): r.single_layer for r in score(each).rows} for each in (made, shifted))
    assert one["down", scheme] == other["down", scheme]


def part_of(made: Lowerer, name: str) -> NetworkPart:
    return made.parts[name]


def test_parts() -> None:
    """A layer with the clamp that alone reads it; what others read is a result; its numbers are the network's."""
    made = lowerer()
    assert set(made.parts) == {group.name for group in made.quantisable.groups}
    ops = {name: [node.op_type for node in part.model.graph.node] for name, part in made.parts.items()}
    assert ops["stem"] == ["Conv", "Relu"]
    assert ops["pointwise"] == ["Conv"]
    assert ops["down"] == ["Conv"]  # the clamp behind it is none
    network = InjectedNetwork(made.reference, made.parts.values())
    answers, (tensors,) = network.read({"x": INPUTS["x"][:4]})
    for part in made.parts.values():
        artifact = made.lower_part(part, FP32)
        compiled = get_backend("ort-cpu").compile(artifact, threads=1)
        found = dict(zip(compiled.output_names, compiled.run({n: tensors[n] for n in part.inputs}), strict=True))
        for name in part.outputs:
            np.testing.assert_allclose(np.asarray(found[name]), np.asarray(tensors[name]), atol=1e-4)
    nothing = network.answers({"x": INPUTS["x"][:4]}, [{}])
    np.testing.assert_array_equal(nothing[0], answers[0])


def test_an_error_added_to_the_last_result_is_that_of_the_output() -> None:
    """And one added before a linear layer comes out through it."""
    made = lowerer()
    network = InjectedNetwork(made.reference, made.parts.values())
    fed = {"x": INPUTS["x"][:4]}
    answers, _ = network.read(fed)
    error: Array = np.random.default_rng(2).standard_normal((4, 8)).astype(np.float32)
    (result,) = part_of(made, "head").outputs
    moved = network.answers(fed, [{result: error}])
    assert np.abs(np.subtract(np.subtract(moved[0], answers[0]), error)).max() < 1e-5


def test_layers_that_share_a_weight_far_apart_have_no_part() -> None:
    """Another layer stands between them: the whole network is run for their group."""
    shared = onnx.ModelProto()
    shared.CopyFrom(NETWORK)
    nodes = {node.name: node for node in shared.graph.node}
    middle = helper.make_node("Gemm", ["rh", "w4", "b4"], ["h2"], name="again")
    nodes["head"].input[0] = "h2"
    shared.graph.node.insert(len(shared.graph.node) - 1, middle)
    between = helper.make_node("Gemm", ["h", "w6", "b4"], ["h1"], name="between")
    shared.graph.initializer.append(_weight("w6", 32, 32))
    relu = next(node for node in shared.graph.node if list(node.output) == ["rh"])
    relu.input[0] = "h1"
    shared.graph.node.insert(list(shared.graph.node).index(relu), between)
    made = lowerer(shared)
    (tied,) = [group.name for group in made.quantisable.groups if len(group.layers) == 2]
    assert tied not in made.parts
    found = {row.group: row.single_layer for row in score(made).rows if row.scheme.text == "int8:nearest"}
    assert found[tied] > 0


def test_large_networks_are_scored_on_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """So many as the work allows, whole batches, and no fewer than there must be."""
    macs = 16 * 27 * 144 + 16 * 9 * 144 + 256 * 144 + 32 * 16 * 9 * 25 + 32 * 32 + 32 * 8
    work = 4 * 6 * macs
    assert score().samples == SAMPLES
    for most, expected in ((12 * work, 12), (2 * work, 8)):
        monkeypatch.setattr(bitfront.sensitivity.propagated, "MOST_MACS", most + 1)
        assert score().samples == expected


def test_a_scheme_refused_for_later_samples_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it ran on earlier ones, and was one of those whose errors were carried to the outputs."""
    monkeypatch.setattr(bitfront.sensitivity.propagated, "LIVE_BYTES", 1)  # a sample a block
    seen: dict[str, int] = {}

    class Tiring(OrtCpuBackend):
        def compile(self, artifact: Artifact, *, threads: int, batch_size: int | None = None) -> CompiledModel:
            model = onnx.load_model_from_string(artifact.data)
            names = {node.name for node in model.graph.node} & LAYERS
            int4 = any(tensor.data_type == TensorProto.INT4 for tensor in model.graph.initializer)
            if names == {"stem"} and int4:
                seen[artifact.digest] = seen.get(artifact.digest, 0) + 1
                if seen[artifact.digest] > 2:
                    raise BackendError("no more of it", "none")
            return super().compile(artifact, threads=threads, batch_size=batch_size)

    rows = {(row.group, row.scheme.text): row for row in score(backend=Tiring()).rows}
    assert rows["stem", "int4:mse"].dropped == "no more of it"
    assert math.isnan(rows["stem", "int4:mse"].single_layer)
    assert rows["stem", "int8:nearest"].single_layer > 0


def test_what_the_interpreter_does_not_run_is_scored_in_the_whole_network(
    monkeypatch: pytest.MonkeyPatch, tables: tuple[SensitivityTable, SensitivityTable]
) -> None:
    """The backend's own runtime may run more than it."""

    def refused(*_: object) -> InjectedNetwork:
        raise InterpreterError("no such operator", "none")

    monkeypatch.setattr(bitfront.sensitivity.propagated, "InjectedNetwork", refused)
    assert score().frame().equals(tables[1].frame())
