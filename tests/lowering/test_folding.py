"""Constants computed in the graph: weights are found behind them, and no written file is larger for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bitfront.core import FP32, Array, CalibrationSettings, ContentStore, Scheme
from bitfront.lowering.collect_layers import collect_layers
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.equivalence import equivalent_to_given
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.output_difference import sqnr_db
from tests.lowering.candidates import uniform
from tests.references import INTERPRETER, make_reference

FLOAT, HALF, BF16, DOUBLE = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE
node = helper.make_node


def _normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _model(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Array] | Mapping[str, Array | TensorProto],
    *,
    inputs: int,
    opset: int = 21,
) -> onnx.ModelProto:
    tensors = []
    for name, value in weights.items():
        tensors.append(value if isinstance(value, TensorProto) else numpy_helper.from_array(np.asarray(value), name))
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ("n", inputs))],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _brain(value: NDArray[np.float32]) -> TensorProto:
    raw = (value.view(np.uint32) >> 16).astype(np.uint16)
    return TensorProto(name="h", data_type=BF16, dims=value.shape, raw_data=raw.tobytes())


def _lowerer(model: onnx.ModelProto, inputs: int) -> Lowerer:
    feeds = {"x": _normal(16, inputs, seed=9)}
    reference = equivalent_to_given(replace(make_reference(model, "net"), given=model), feeds)
    assert (reference.skipped_steps, reference.notices) == ((), ())
    return Lowerer(reference, get_dialect("ort-cpu"), feeds, CalibrationSettings(), ContentStore(None))


def _computed(size: int) -> dict[str, tuple[list[onnx.NodeProto], dict[str, Array | TensorProto]]]:
    """Ways in which a weight of ``size`` rows is made of constants."""
    value, one = _normal(size, size), np.array([1])
    axes = np.array([0])
    return {
        "half": ([node("Cast", ["h"], ["w"], to=FLOAT)], {"h": value.astype(np.float16)}),
        "brain": ([node("Cast", ["h"], ["w"], to=FLOAT)], {"h": _brain(value)}),
        "double": ([node("Cast", ["h"], ["w"], to=FLOAT)], {"h": value.astype(np.float64)}),
        "integers": (
            [node("Cast", ["h"], ["c"], to=FLOAT), node("Mul", ["c", "s"], ["w"])],
            {"h": np.rint(value * 20).astype(np.int8), "s": np.array(0.05, np.float32)},
        ),
        "scaled": ([node("Mul", ["h", "s"], ["w"])], {"h": value, "s": np.array(0.5, np.float32)}),
        "shifted": ([node("Add", ["h", "h"], ["w"])], {"h": value}),
        "transposed": ([node("Transpose", ["h"], ["w"], perm=[1, 0])], {"h": value}),
        "joined": ([node("Concat", ["h", "h"], ["w"], axis=1)], {"h": value}),
        "reshaped": ([node("Reshape", ["h", "s"], ["w"])], {"h": value.ravel(), "s": np.array([size, size])}),
        "squeezed": ([node("Squeeze", ["h", "a"], ["w"])], {"h": value[None], "a": axes}),
        "sliced": (
            [node("Slice", ["h", "a", "b", "a"], ["w"])],
            {"h": np.concatenate([value, value]), "a": axes, "b": one * size},
        ),
        "passed": ([node("Identity", ["h"], ["w"])], {"h": value}),
        "chained": (
            [
                node("Cast", ["h"], ["c"], to=FLOAT),
                node("Transpose", ["c"], ["t"], perm=[1, 0]),
                node("Mul", ["t", "s"], ["w"]),
            ],
            {"h": value.astype(np.float16), "s": np.array(0.5, np.float32)},
        ),
    }


@pytest.mark.parametrize("size", [40, 257])
@pytest.mark.parametrize("way", _computed(2))
def test_computed_weights_are_layers(way: str, size: int) -> None:
    """A weight made of constants of any size is a layer's, and the FP32 file is no larger than the one given."""
    made, weights = _computed(size)[way]
    model = _model([*made, node("MatMul", ["x", "w"], ["y"], name="fc")], weights, inputs=size)
    lowerer = _lowerer(model, size)
    (layer,) = lowerer.quantisable.layers
    written = lowerer.lower({layer.name: FP32}).data
    assert len(written) <= 1.01 * model.ByteSize() + 64
    feeds = {"x": _normal(4, size, seed=5)}
    wanted = INTERPRETER.load(model, optimised=False).run(feeds)[0]
    assert sqnr_db(wanted, INTERPRETER.load(written).run(feeds)[0]) > 110
    small = lowerer.lower(uniform(lowerer, "int8:mse")).data
    assert len(small) < 1.2 * layer.parameters + 2000
    assert sqnr_db(wanted, INTERPRETER.load(small).run(feeds)[0]) > 25


def test_a_weight_given_in_half_stays_half() -> None:
    """FP16 in, FP16 out: neither FP32 nor FP16 as a scheme makes the file larger."""
    nodes = [node("Cast", ["h"], ["w"], to=FLOAT), node("MatMul", ["x", "w"], ["y"], name="fc")]
    model = _model(nodes, {"h": _normal(64, 64).astype(np.float16)}, inputs=64)
    lowerer = _lowerer(model, 64)
    for text in ("fp32", "fp16"):
        assert len(lowerer.lower(uniform(lowerer, text)).data) < 1.03 * model.ByteSize()


def test_the_fingerprint_follows_what_is_written() -> None:
    """Equal numbers stored in other types make other files, so they are other networks."""
    value = _normal(64, 64).astype(np.float16)
    made = [node("Cast", ["h"], ["w"], to=FLOAT)]
    product = node("MatMul", ["x", "w"], ["y"], name="fc")
    half = make_reference(_model([*made, product], {"h": value}, inputs=64), "half")
    wide = make_reference(_model([product], {"w": value.astype(np.float32)}, inputs=64), "wide")
    assert half.proto.graph.initializer == wide.proto.graph.initializer
    assert half.fingerprint != wide.fingerprint
    assert half.architecture == wide.architecture


@pytest.mark.parametrize(
    ("grow", "sizes"),
    [
        pytest.param(node("Tile", ["row", "sizes"], ["grid"]), [200, 1], id="tile"),
        pytest.param(node("Expand", ["row", "sizes"], ["grid"]), [200, 64], id="expand"),
        pytest.param(node("Tile", ["row", "sizes"], ["grid"]), [4000, 1], id="large-tile"),
        pytest.param(node("ConstantOfShape", ["sizes"], ["grid"]), [200, 64], id="constant-of-shape"),
    ],
)
def test_grids_stay_small(grow: onnx.NodeProto, sizes: list[int]) -> None:
    """What is made large in the graph stays as small in the file as it was given."""
    nodes = [
        grow,
        node("MatMul", ["x", "w"], ["a"], name="fc"),
        node("ReduceMax", ["grid", "zero"], ["top"], keepdims=1),
        node("Add", ["a", "top"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "row": _normal(1, 64),
        "sizes": np.array(sizes),
        "w": _normal(16, 64),
        "zero": np.array([0]),
    }
    model = _model(nodes, weights, inputs=16)
    lowerer = _lowerer(model, 16)
    written = lowerer.lower(uniform(lowerer, "fp32")).data
    assert len(written) <= 1.05 * model.ByteSize()
    feeds = {"x": _normal(4, 16, seed=5)}
    assert sqnr_db(INTERPRETER.load(model).run(feeds)[0], INTERPRETER.load(written).run(feeds)[0]) > 110


def test_shapes_that_grow_from_known_ones() -> None:
    """A grid made of an input's own, fixed, sizes is not written out either."""
    nodes = [
        node("Shape", ["x"], ["sizes"], start=1),
        node("Concat", ["many", "sizes"], ["shape"], axis=0),
        node("Expand", ["one", "shape"], ["grid"]),
        node("ReduceSum", ["grid", "zero"], ["sum"], keepdims=1),
        node("MatMul", ["x", "w"], ["a"], name="fc"),
        node("Add", ["a", "sum"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "many": np.array([900]),
        "one": np.ones((1, 1), np.float32),
        "zero": np.array([0]),
        "w": _normal(32, 32),
    }
    model = _model(nodes, weights, inputs=32)
    lowerer = _lowerer(model, 32)
    assert len(lowerer.lower(uniform(lowerer, "fp32")).data) <= 1.05 * model.ByteSize()


@pytest.mark.parametrize("rows", [40, 512])
@pytest.mark.parametrize("reader", ["Gather", "Slice"])
def test_computed_tables_are_layers(reader: str, rows: int) -> None:
    """A table given in FP16, of any size, is a layer, whether it is looked up or cut out."""
    cut = node("Gather", ["c", "places"], ["r"]) if reader == "Gather" else node("Slice", ["c", "zero", "count"], ["r"])
    nodes = [
        node("Cast", ["h"], ["c"], to=FLOAT),
        node("Shape", ["x"], ["count"], end=1),
        node("Squeeze", ["count"], ["n"]),
        node("Range", ["first", "n", "step"], ["places"]),
        cut,
        node("Add", ["x", "r"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "h": _normal(rows, 256).astype(np.float16),
        "zero": np.array([0]),
        "first": np.array(0),
        "step": np.array(1),
    }
    lowerer = _lowerer(_model(nodes, weights, inputs=256), 256)
    assert [(layer.op, layer.weight_shape) for layer in lowerer.quantisable.layers] == [(reader, (rows, 256))]


def test_large_constants_that_lead_to_no_weight_stay() -> None:
    """Whether an operator leaves an input out beside one that leaves an output out, or cuts what was computed."""
    large = 1 << 17
    nodes = [
        node("TopK", ["row", "all"], ["", "places"]),
        node("Cast", ["places"], ["p"], to=FLOAT),
        node("Expand", ["one", "all"], ["grid"]),
        node("Unsqueeze", ["x", "axis"], ["maps"]),
        node("Conv", ["maps", "w", ""], ["c"]),
        node("Squeeze", ["c", "axis"], ["a"]),
        node("Add", ["a", "p"], ["b"]),
        node("Add", ["b", "grid"], ["d"]),
        node("Slice", ["d", "zero", "axis", "axis"], ["y"]),
    ]
    weights: dict[str, Array] = {
        "row": np.zeros(large, np.float32),
        "all": np.array([large]),
        "one": np.ones(1, np.float32),
        "w": _normal(1, 1, 1),
        "zero": np.array([0]),
        "axis": np.array([1]),
    }
    proto = make_reference(_model(nodes, weights, inputs=large), "net").proto
    assert {"TopK", "Expand"} <= {each.op_type for each in proto.graph.node}


def _tied() -> onnx.ModelProto:
    """One matrix, read as it is and transposed."""
    nodes = [
        node("MatMul", ["x", "E"], ["h"], name="in"),
        node("Transpose", ["E"], ["Et"], perm=[1, 0]),
        node("MatMul", ["h", "Et"], ["y"], name="out"),
    ]
    return _model(nodes, {"E": _normal(64, 64) / 8}, inputs=64)


def test_a_shared_weight_is_stored_once() -> None:
    """A matrix that is read twice is in the FP32 file once."""
    lowerer = _lowerer(_tied(), 64)
    assert [layer.name for layer in lowerer.quantisable.layers] == ["in", "out"]
    assert len(lowerer.lower(uniform(lowerer, "fp32")).data) < 1.03 * _tied().ByteSize()


def _language_model(kind: int = FLOAT) -> onnx.ModelProto:
    """An embedding whose table is, transposed, the output layer's weight."""
    nodes = [
        node("Gather", ["E", "ids"], ["e"], name="embedding"),
        node("ReduceMean", ["e", "one"], ["h"], keepdims=0),
        node("Transpose", ["E"], ["Et"], perm=[1, 0]),
        node("MatMul", ["h", "Et"], ["y"], name="out"),
    ]
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    table = _normal(400, 64, seed=3) / 4
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ("n", 6))],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(table.astype(dtype), "E"), numpy_helper.from_array(np.array([1]), "one")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("text", "share", "least_db"),
    [("fp32", 1.01, 120), ("fp16", 0.52, 60), ("int8:mse:weight-only", 0.28, 35), ("int4:mse:weight-only", 0.33, 12)],
)
@pytest.mark.parametrize("optimised", [True, False], ids=["optimised", "plain"])
def test_an_embedding_is_a_layer(text: str, share: float, least_db: float, optimised: bool) -> None:
    """A table that is looked up is stored as its scheme says, and once where the output layer is rounded alike."""
    model = _language_model()
    feeds = {"ids": np.random.default_rng(0).integers(0, 400, (32, 6))}
    reference = make_reference(model, "net")
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), feeds, CalibrationSettings(), ContentStore(None))
    table, out = lowerer.quantisable.layers
    assert (table.op, table.weight_shape, table.channel_axis) == ("Gather", (400, 64), 0)
    other = text if text.startswith(("fp", "int8")) else "int4:gptq:weight-only"
    schemes = {table.name: Scheme.parse(text), out.name: Scheme.parse(other)}
    written = lowerer.lower(schemes).data
    assert len(written) < share * model.ByteSize()
    wanted = INTERPRETER.load(model).run(feeds)[0]
    assert sqnr_db(wanted, INTERPRETER.load(written, optimised=optimised).run(feeds)[0]) > least_db


def test_tables_that_are_not_tied_are_stored_both() -> None:
    """A transposed table of the same size, but other numbers, is not tied to the embedding."""
    model = _language_model()
    model.graph.initializer.append(numpy_helper.from_array(_normal(400, 64, seed=4) / 4, "F"))
    next(entry for entry in model.graph.node if entry.op_type == "Transpose").input[0] = "F"
    feeds = {"ids": np.random.default_rng(0).integers(0, 400, (32, 6))}
    lowerer = Lowerer(
        make_reference(model, "net"), get_dialect("ort-cpu"), feeds, CalibrationSettings(), ContentStore(None)
    )
    written = lowerer.lower(uniform(lowerer, "fp32")).data
    assert sqnr_db(INTERPRETER.load(model).run(feeds)[0], INTERPRETER.load(written).run(feeds)[0]) > 120


def test_an_embedding_given_in_half() -> None:
    """A table given in FP16 is found, and written in FP16 where it is to be as it was."""
    model = _language_model(HALF)
    feeds = {"ids": np.random.default_rng(0).integers(0, 400, (32, 6))}
    reference = equivalent_to_given(replace(make_reference(model, "net"), given=model), feeds)
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), feeds, CalibrationSettings(), ContentStore(None))
    assert [layer.op for layer in lowerer.quantisable.layers] == ["Gather", "MatMul"]
    assert len(lowerer.lower(uniform(lowerer, "fp32")).data) < 1.02 * model.ByteSize()


def test_tables_that_are_no_layers() -> None:
    """Small tables and tables along other axes are left; one that something else reads is only stored."""
    nodes = [
        node("Gather", ["small", "ids"], ["a"], name="small"),
        node("Gather", ["other", "ids"], ["b"], name="other", axis=1),
        node("Gather", ["read", "ids"], ["c"], name="read"),
        node("Neg", ["read"], ["d"]),
    ]
    weights = {"small": _normal(10, 10), "other": _normal(64, 64), "read": _normal(64, 64)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ("n",))],
        [helper.make_tensor_value_info(name, FLOAT, None) for name in "abcd"],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    reference = make_reference(model, "net", skipped=("constants", "simplify"))
    found = collect_layers(reference.proto, get_dialect("ort-cpu"))
    (layer,) = found.layers
    assert (layer.name, layer.stored_only) == ("read", True)
    assert "its table is also read by Neg" in layer.refused["int4:gptq:weight-only"]
    assert not found.left_alone
    other = collect_layers(make_reference(_language_model(), "net").proto, get_dialect("openvino"))
    assert other.left_alone == {"embedding": "dialect 'openvino' keeps tables as they are"}


def test_names_of_computed_tensors_are_free_or_changed() -> None:
    """Tensors that are written back take no name that the file has given away."""
    nodes = [
        node("Cast", ["h"], ["w_f"], to=FLOAT),
        node("Transpose", ["w_f"], ["w"], perm=[1, 0]),
        node("MatMul", ["x", "w"], ["a"], name="first"),
        node("Cast", ["g"], ["v"], to=FLOAT),
        node("MatMul", ["a", "v"], ["y"], name="second"),
    ]
    model = _model(nodes, {"h": _normal(40, 40).astype(np.float16), "g": _normal(40, 40).astype(np.float16)}, inputs=40)
    lowerer = _lowerer(model, 40)
    feeds = {"x": _normal(4, 40, seed=5)}
    wanted = INTERPRETER.load(model).run(feeds)[0]
    for text in ("fp32", "fp16", "int8:mse"):
        for other in ("fp32", "fp16", "int8:mse"):
            schemes = {"first": uniform(lowerer, text)["first"], "second": uniform(lowerer, other)["second"]}
            written = onnx.load_model_from_string(lowerer.lower(schemes).data)
            onnx.checker.check_model(written)
            assert sqnr_db(wanted, INTERPRETER.load(written).run(feeds)[0]) > 25


def test_what_must_not_be_folded() -> None:
    """Random tensors are drawn in every run."""
    nodes = [
        node("RandomNormal", [], ["r"], shape=[16, 16]),
        node("MatMul", ["x", "r"], ["y"], name="drawn"),
    ]
    reference = make_reference(_model(nodes, {}, inputs=16), "net")
    assert "RandomNormal" in {made.op_type for made in reference.proto.graph.node}
    lowerer = Lowerer(reference, get_dialect("ort-cpu"), None, CalibrationSettings(), ContentStore(None))
    assert lowerer.quantisable.left_alone == {"drawn": "its weight is computed at run time"}
