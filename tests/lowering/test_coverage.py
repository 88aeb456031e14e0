"""Coverage: each operator with weights is listed, and every weight counts once."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from bitfront.core import CalibrationSettings, ContentStore
from bitfront.lowering.coverage import WeightHolder, weight_holders
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.lowerer import Lowerer
from tests.lowering.topologies import Net
from tests.references import make_reference


def holders_of(net: Net, outputs: list[str]) -> dict[str, WeightHolder]:
    """Name → what is listed for a network."""
    reference = make_reference(net.model(outputs), "net")
    dialect = get_dialect("ort-cpu")
    quantisable = Lowerer(reference, dialect, None, CalibrationSettings(), ContentStore(None)).quantisable
    return {holder.name: holder for holder in weight_holders(reference, quantisable)}


def fixed_share(found: dict[str, WeightHolder]) -> float:
    """Share of the weights that no other scheme can be given."""
    return sum(holder.share for holder in found.values() if holder.is_fixed)


def test_shared_weights_count_once() -> None:
    """Also where one reader has it transposed; shares are of all weights, and sum to 1."""
    net = Net(("batch", 32))
    table = net.weight("table.weight", 64, 32, fan_in=32)
    a = net.op("Gemm", ["x", table], "a", transB=1)
    b = net.op(
        "Gemm",
        [net.op("Relu", [net.op("Gemm", [a, net.weight("w", 64, 32, fan_in=64)], "c")], "r"), table],
        "b",
        transB=1,
    )
    turned = net.op("Transpose", [table], "turned", perm=[1, 0])
    d = net.op("MatMul", ["x", turned], "d")
    found = holders_of(net, [a, b, d])
    weights = {name: holder.weights for name, holder in found.items()}
    assert weights == {"table": 2048, "n_c": 2048, "table#2": 0, "n_d": 0}
    assert found["n_d"].shape == (32, 64)
    assert sum(holder.share for holder in found.values()) == pytest.approx(1)
    assert fixed_share(found) == 0


def test_what_is_no_layer_is_listed_with_its_share() -> None:
    """Other operators and those in bodies have their reasons; positions and biases of one axis are no weights."""
    net = Net(("batch", 8))
    layer = net.op("MatMul", ["x", net.weight("w", 8, 8, fan_in=8)], "layer")
    scaled = net.op("PRelu", ["x", net.weight("slope", 1, 8, fan_in=8)], "scaled")
    net.op("Add", ["x", net.constant("bias", np.ones(8, np.float32))], "added")
    net.op("GatherND", ["x", net.constant("places", np.zeros((1, 2), np.int64))], "picked")
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "inner"], ["out"], name="inside")],
        "body",
        [],
        [helper.make_tensor_value_info("out", 1, None)],
    )
    net.weight("inner", 8, 2, fan_in=8)
    flag = net.op(
        "Greater",
        [net.op("ReduceSum", ["x"], "sum", keepdims=0), net.constant("zero", np.array(0, np.float32))],
        "flag",
    )
    net.nodes.append(helper.make_node("If", [flag], ["chosen"], name="choice", then_branch=body, else_branch=body))
    found = holders_of(net, [layer, scaled, "added", "picked", "chosen"])
    shares = {name: round(holder.share, 3) for name, holder in found.items()}
    assert shares["n_layer"] == round(64 / 88, 3)
    assert shares["n_scaled"] == round(8 / 88, 3)
    assert "PRelu with weights of 1×8" in found["n_scaled"].reason
    assert found["inside"].layer is not None
    assert found["inside"].layer.stored_only
    assert not any(name in found for name in ("n_added", "n_picked"))
    assert fixed_share(found) == pytest.approx(8 / 88)


def test_operators_that_share_what_no_layer_reads() -> None:
    """Each is listed with its reason; the shared weight counts at the first of them."""
    net = Net(("batch", 8))
    shift = net.weight("shift", 8, 8, fan_in=8)
    added = net.op("Add", ["x", shift], "added")
    found = holders_of(net, [net.op("Mul", [added, shift], "scaled")])
    assert {name: holder.weights for name, holder in found.items()} == {"n_added": 64, "n_scaled": 0}
    assert all(f"{holder.op} with weights of 8×8" in holder.reason for holder in found.values())


def test_a_layer_has_what_others_read_before_it() -> None:
    """Weights of a layer count for it, though an operator that is none reads them first, in another order."""
    net = Net(("batch", 8))
    table = net.weight("table", 16, 8, fan_in=8)
    rows = net.op("Gather", [table, net.op("ArgMax", ["x"], "places", axis=1, keepdims=0)], "rows")
    turned = net.op("Transpose", [table], "turned", perm=[1, 0])
    found = holders_of(net, [rows, net.op("Add", [rows, "x"], "added"), net.op("MatMul", ["x", turned], "layer")])
    assert {name: holder.weights for name, holder in found.items()} == {"n_rows": 0, "n_layer": 128}
    assert found["n_rows"].reason
    assert fixed_share(found) == 0


def test_biases_are_no_weights() -> None:
    """Those of operators that may be layers, whether they are or not; their layers have all of the weights."""
    net = Net(("batch", 8))
    weights = [net.weight(name, 1, 16, 8 if name == "w" else 4, fan_in=8) for name in ("w", "r")]
    steps = net.op("Unsqueeze", ["x", net.constant("first", np.array([0]))], "steps")
    net.nodes.append(
        helper.make_node(
            "LSTM", [steps, *weights, net.weight("b", 1, 32, fan_in=32)], ["", "last"], name="lstm", hidden_size=4
        )
    )
    net.op("Gemm", ["x", net.weight("v", 8, 4, fan_in=8), net.weight("c", 1, 4, fan_in=4)], "dense")
    found = holders_of(net, ["last", "dense"])
    assert {name: holder.weights for name, holder in found.items()} == {"lstm.W": 128, "lstm.R": 64, "n_dense": 32}
    assert all(holder.layer is not None and holder.layer.parameters == holder.weights for holder in found.values())


def _body(reads: str, name: str, inputs: list[tuple[str, int]], outputs: list[tuple[str, int]]) -> onnx.GraphProto:
    """Multiplies by a weight and a slope of its own, which every body calls alike."""
    weights = Net()
    weights.rng = np.random.default_rng(sum(map(ord, name)))  # what is equal would be one
    held = {"own": (8, 8), "slope": (1, 8)}
    for tensor, shape in held.items():
        weights.weight(tensor, *shape, fan_in=8)
    nodes = [
        helper.make_node("MatMul", [reads, "own"], ["product"], name=f"{name}_product"),
        helper.make_node("PRelu", ["product", "slope"], ["next"], name=f"{name}_slope"),
        helper.make_node("Identity", ["on"], ["still"], name=f"{name}_on"),
    ]
    starts, ends = (
        [helper.make_tensor_value_info(each, kind, None) for each, kind in group] for group in (inputs, outputs)
    )
    return helper.make_graph(nodes[: 1 + len(outputs)], name, starts, ends, weights.initializers)


FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


@pytest.mark.parametrize("op", ["If", "Loop", "Scan"])
def test_weights_in_bodies(op: str) -> None:
    """Each counts, whatever others are called; what no layer is stays as it is since it stands where it does."""
    net = Net(("batch", 8))
    layer = net.op("MatMul", ["x", net.weight("w", 8, 8, fan_in=8)], "layer")
    if op == "If":
        flag = net.op("Cast", [net.op("ReduceMax", ["x"], "most", keepdims=0)], "flag", to=BOOL)
        bodies = {name: _body("x", name, [], [("next", FLOAT)]) for name in ("then_branch", "else_branch")}
        net.nodes.append(helper.make_node("If", [flag], ["y"], name="control", **bodies))
    elif op == "Loop":
        body = _body("h", "body", [("i", INT64), ("on", BOOL), ("h", FLOAT)], [("still", BOOL), ("next", FLOAT)])
        times = net.constant("times", np.array(2))
        net.nodes.append(helper.make_node("Loop", [times, "", "x"], ["y"], name="control", body=body))
        bodies = {"body": body}
    else:
        body = _body("h", "body", [("h", FLOAT)], [("next", FLOAT)])
        net.nodes.append(helper.make_node("Scan", ["x"], ["y"], name="control", body=body, num_scan_inputs=1))
        bodies = {"body": body}
    found = holders_of(net, [layer, "y"])
    inner = [name for each in bodies for name in (f"{each}_product", f"{each}_slope")]
    assert set(found) == {"n_layer", *inner}
    total = 64 + 72 * len(bodies)
    for name in inner:
        assert found[name].share == pytest.approx((64 if name.endswith("product") else 8) / total)
        is_layer = name.endswith("product")
        assert found[name].reason == ("" if is_layer else f"it stands in a subgraph of {op} 'control'")
        assert (found[name].layer is not None) == is_layer
    assert fixed_share(found) == pytest.approx(8 * len(bodies) / total)
