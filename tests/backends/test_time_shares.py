"""Shares of time: operators are found by the nodes' names in theirs, and everything sums to 1."""

from __future__ import annotations

import pytest

from bitfront.backends.base import ExecutedLayer
from bitfront.backends.time_shares import time_shares


def ran(name: str, latency_us: float | None, kind: str = "Conv", nodes: tuple[str, ...] | None = None) -> ExecutedLayer:
    """An operator that ran."""
    return ExecutedLayer(
        name=name,
        kind=kind,
        precision="fp32",
        nodes=(name,) if nodes is None else nodes,
        detail="",
        latency_us=latency_us,
    )


@pytest.mark.parametrize(
    ("executed", "names", "expected"),
    [
        ("conv", ["conv", "conv.1"], ["conv"]),
        ("conv.1", ["conv", "conv.1"], ["conv.1"]),
        ("fused conv.1", ["conv", "conv.1"], ["conv.1"]),
        ("fc/MatMulAddFusion", ["fc", "c"], ["fc"]),
        ("a + b", ["a", "b", "ab"], ["a", "b"]),
        ("layer.conv.1", ["conv.1", "conv"], []),
        ("/l/conv/Conv_nchwc", ["/l/conv/Conv"], ["/l/conv/Conv"]),
        ("conv_1", ["conv"], []),
    ],
    ids=["itself", "longer", "fused", "suffix", "two", "inside another", "layout", "a word goes on"],
)
def test_nodes_are_found_as_whole_names(executed: str, names: list[str], expected: list[str]) -> None:
    """Time goes to the names that stand whole in the operator's, evenly; else to the operator's type."""
    shares = time_shares([ran(executed, 3.0)], names)
    assert shares is not None
    assert {name for name, share in shares.named.items() if share} == set(expected)
    assert shares.others == ({} if expected else {"Conv": 1.0})
    assert sum(shares.named.values()) + sum(shares.others.values()) == pytest.approx(1)


def test_shares() -> None:
    """Operators of one node add up, bodies count once, types are the largest first."""
    executed = [
        ran("a", 2.0),
        ran("fused a", 1.0),
        ran("r", 1.0, "Relu"),
        ran("s", 4.0, "Softmax"),
        ran("i", 9.0, "If"),
    ]
    shares = time_shares([*executed, ran("unknown", None)], ["a", "b"])
    assert shares is not None
    assert shares.named == {"a": 3 / 8, "b": 0.0}
    assert list(shares.others.items()) == [("Softmax", 0.5), ("Relu", 0.125)]
    assert time_shares([ran("a", None)], ["a"]) is None
    assert time_shares([], ["a"]) is None


def test_operators_named_after_what_they_give() -> None:
    """ONNX Runtime calls a convolution fused with the Relu behind it by the Relu's result."""
    executed = [ran("/Relu_output_0_nchwc", 3.0), ran("sum", 1.0), ran("other", 1.0, "Softmax")]
    shares = time_shares(executed, ["conv", "last"], {"/Relu_output_0": "conv", "sum": "last"})
    assert shares is not None
    assert shares.named == {"conv": 0.6, "last": 0.2}
    assert shares.others == {"Softmax": 0.2}
