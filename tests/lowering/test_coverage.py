"""Coverage: each operator with weights is listed, and every weight counts once."""

from __future__ import annotations

import numpy as np
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
    assert "subgraph of If" in found["inside"].reason
    assert not any(name in found for name in ("n_added", "n_picked"))
    assert fixed_share(found) == pytest.approx(24 / 88)


def test_operators_that_share_what_no_layer_reads() -> None:
    """Each is listed with its reason; the shared weight counts at the first of them."""
    net = Net(("batch", 8))
    shift = net.weight("shift", 8, 8, fan_in=8)
    added = net.op("Add", ["x", shift], "added")
    found = holders_of(net, [net.op("Mul", [added, shift], "scaled")])
    assert {name: holder.weights for name, holder in found.items()} == {"n_added": 64, "n_scaled": 0}
    assert all(f"{holder.op} with weights of 8×8" in holder.reason for holder in found.values())
