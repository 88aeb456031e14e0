"""A rounded weight comes from the cache only for the very same problem: each part of its key is tried alone.

Each case is rounded after another one that differs in one thing, in the same store, and has to come out as in a store
of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from bitfront.core import ContentStore, Inputs
from bitfront.lowering.layers import Layer
from bitfront.lowering.rounding.network import round_network
from tests.lowering.rounding.cases import Case, images, layer_of, model_of, node_of, residual_network, weight_scheme
from tests.references import INTERPRETER

MODEL, LAYERS = residual_network()


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of ``round_network``, and which layer of it is looked at."""

    model: onnx.ModelProto
    layers: tuple[Layer, ...] = tuple(LAYERS)
    calibration: Inputs
    bits: int = 4
    method: str = "gptq"
    group_size: int | None = None
    activations: tuple[float, float] | None = None
    key: str = "network and calibration"
    watched: str = "c"

    def run(self, store: ContentStore) -> dict[str, NDArray[Any]]:
        bounds = None if self.activations is None else dict.fromkeys(("x", "ra", "f"), self.activations)
        found = round_network(
            self.model,
            list(self.layers),
            self.calibration,
            weights=weight_scheme(self.method, self.bits, self.group_size),
            activations=bounds,
            interpreter=INTERPRETER,
            store=store,
            key=self.key,
        )
        return found[self.watched].to_arrays()


def _scaled(factor: float) -> onnx.ModelProto:
    """The network with other weights in its last layer."""
    model = onnx.ModelProto()
    model.CopyFrom(MODEL)
    for tensor in model.graph.initializer:
        if tensor.name == "c.weight":
            value = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array((value * factor)[:, ::-1].copy(), "c.weight"))
    return model


def _matrix() -> tuple[onnx.ModelProto, tuple[Layer, ...]]:
    """One product whose rows differ in size, so that blocks have other scales."""
    case = Case(op="MatMul", shape=(40, 6), inputs=(64, 40), attributes={})
    rng = np.random.default_rng(8)
    weight = (rng.normal(size=case.shape) * np.repeat([1.0, 0.1, 3.0], [16, 16, 8])[:, None]).astype(np.float32)
    layer = layer_of(case)
    return model_of([node_of(case)], {layer.weight: weight}, ("batch", 40), "layer"), (layer,)


BASE = Job(model=MODEL, calibration=images(40))
MATRIX, MATRIX_LAYERS = _matrix()
BLOCKS = Job(
    model=MATRIX,
    layers=MATRIX_LAYERS,
    calibration={"x": np.random.default_rng(1).normal(size=(64, 40)).astype(np.float32)},
    method="mse",
    watched="layer",
)
PAIRS = {
    "network": (BASE, replace(BASE, model=_scaled(0.5), key="another network")),
    "calibration inputs": (BASE, replace(BASE, calibration=images(40, seed=5), key="other inputs")),
    "bits": (BASE, replace(BASE, bits=8)),
    "method": (replace(BASE, method="nearest"), replace(BASE, method="mse")),
    "block size": (BLOCKS, replace(BLOCKS, group_size=16)),
    "limits of scales": (BASE, replace(BASE, activations=(-1e-9, 1e-9))),
    "layers before it": (BASE, replace(BASE, layers=(LAYERS[2],))),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_what_differs_is_rounded_anew(name: str, order: int) -> None:
    """In the store of the other one it comes out as in its own."""
    first, second = PAIRS[name][::order]
    own = second.run(ContentStore(None))
    assert _differ(own, first.run(ContentStore(None))), "the test says nothing otherwise"
    shared = ContentStore(None)
    first.run(shared)
    assert not _differ(second.run(shared), own)
    assert not _differ(second.run(shared), own), "and from the cache the same"


def _differ(one: dict[str, NDArray[Any]], other: dict[str, NDArray[Any]]) -> bool:
    return set(one) != set(other) or any(not np.array_equal(one[name], other[name]) for name in one)


def test_of_layers_that_share_a_weight_the_larger_limit_counts() -> None:
    """Scales are kept large enough for both biases."""
    case = Case(op="Gemm", shape=(4, 8), inputs=(16, 8), attributes={"transB": 1})
    layers = [replace(layer_of(case, name), weight="w") for name in ("small", "large")]
    nodes = [node_of(case, name, "x", f"{name}.bias") for name in ("small", "large")]
    for node in nodes:
        node.input[1] = "w"
    tiny = np.random.default_rng(0).normal(0, 1e-6, (4, 8)).astype(np.float32)
    biases = {"small.bias": np.full(4, 1.0, np.float32), "large.bias": np.full(4, 1000.0, np.float32)}
    model = model_of(nodes, {"w": tiny, **biases}, ("batch", 8), "large")
    found = round_network(
        model,
        layers,
        {},
        weights=weight_scheme("mse", 8),
        activations={"x": (-0.5, 0.5)},
        interpreter=INTERPRETER,
        store=ContentStore(None),
        key="k",
    )
    step = 1.0 / 255
    for name in ("small", "large"):
        assert (1000.0 / (step * found[name].scales.astype(np.float64)) < 2**31).all()
