"""Which glue runs half, and where casts stand."""

from __future__ import annotations

import numpy as np
import pytest

from bitfront.core import LoweringError
from bitfront.lowering.fp16 import Fp16Placement, fits_fp16, fp16_constant, fp16_regions, glue_runs_fp16, require_fp16
from bitfront.lowering.graph import GraphView
from tests.lowering.topologies import TOPOLOGIES, Net, reference_of
from tests.references import make_reference

_NO_RANGES: dict[str, tuple[float, float]] = {}


def placed(name: str, fp16_outputs: set[str]) -> tuple[GraphView, Fp16Placement]:
    """The placement of a topology with the layers that write these tensors in half."""
    view = GraphView(reference_of(name).proto.graph)
    layers = {index for index, node in enumerate(view.nodes) if set(node.output) & fp16_outputs}
    assert len(layers) == len(fp16_outputs)
    return view, fp16_regions(view, layers, lambda index: glue_runs_fp16(view, index, _NO_RANGES))


def test_glue_between_half_layers_runs_half() -> None:
    """A chain all in half is cast at its input and its output alone."""
    _, found = placed("chain", {"a", "b", "c"})
    assert found.tensors == {"a", "ra", "b", "rb", "c"}
    assert found.cast_to_fp16 == {"x"}
    assert found.cast_to_fp32 == {"c"}
    assert found.constants == {f"{layer}.{part}" for layer in "abc" for part in ("weight", "bias")}


def test_activation_behind_a_half_layer_runs_half_before_the_cast() -> None:
    """One half layer among full ones is cast at its input and behind its Relu."""
    _, found = placed("chain", {"b"})
    assert found.tensors == {"b", "rb"}
    assert (found.cast_to_fp16, found.cast_to_fp32) == (frozenset({"ra"}), frozenset({"rb"}))


def test_mixed_addition_stays_full() -> None:
    """An Add of a half and a full tensor is full; of two half ones it is half."""
    _, mixed = placed("residual", {"b", "c"})
    assert "sum" not in mixed.tensors
    assert mixed.cast_to_fp32 == {"c"}
    _, both = placed("residual", {"a", "b", "c"})
    assert {"sum", "rsum"} <= both.tensors
    assert both.cast_to_fp32 == {"rsum"}


def test_nothing_half_is_nothing_to_cast() -> None:
    """Without half layers no glue runs half, not even glue that reads constants alone."""
    for name in TOPOLOGIES:
        _, found = placed(name, set())
        assert found == Fp16Placement(
            nodes=frozenset(),
            tensors=frozenset(),
            cast_to_fp16=frozenset(),
            cast_to_fp32=frozenset(),
            constants=frozenset(),
        )


def test_captured_and_output_tensors_are_raised() -> None:
    """What a subgraph reads and what the network gives is FP32."""
    _, found = placed("captured", {"a", "b"})
    assert found.cast_to_fp32 == {"ra", "b"}
    _, found = placed("two_consumers", {"a", "b"})
    assert "a" in found.cast_to_fp32


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_reader_finds_its_type(name: str) -> None:
    """With every layer half: each node of a region reads half or cast tensors, each node outside full or cast ones."""
    view = GraphView(reference_of(name).proto.graph)
    layers = {i for i, node in enumerate(view.nodes) if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")}
    found = fp16_regions(view, layers, lambda index: glue_runs_fp16(view, index, _NO_RANGES))
    assert layers <= found.nodes
    for index, node in enumerate(view.nodes):
        for tensor in node.input:
            if not view.is_float(tensor) or tensor in view.initializers:
                continue
            if index in found.nodes:
                assert tensor in found.tensors | found.cast_to_fp16
            else:
                assert tensor not in found.tensors or tensor in found.cast_to_fp32


def test_results_beyond_fp16_keep_glue_full() -> None:
    """Glue whose calibrated result does not fit FP16 is left full; a layer's is an error that names the tensor."""
    view = GraphView(reference_of("residual").proto.graph)
    (add,) = [index for index, node in enumerate(view.nodes) if node.op_type == "Add"]
    assert glue_runs_fp16(view, add, {"sum": (-65504.0, 65504.0)})
    assert not glue_runs_fp16(view, add, {"sum": (-65505.0, 1.0)})
    assert not fits_fp16("sum", {"sum": (0.0, 7e4)})
    with pytest.raises(LoweringError, match=r"layer 'c' cannot be fp16: its activation 'sum' reaches from 0 to 70000 "):
        require_fp16("c", ["x", "sum"], {"sum": (0.0, 7e4)})
    require_fp16("c", ["x", "sum"], {"sum": (0.0, 6e4)})


def test_constants_beyond_fp16_keep_glue_full() -> None:
    """A factor of a million is not made infinite, but an infinite bound of a Clip may be."""
    net = Net()
    large = net.constant("large", np.array(1e6, np.float32))
    low = net.constant("low", np.array(0, np.float32))
    scaled = net.op("Mul", [net.conv("x", "a", (16, 16)), large], "scaled")
    view = GraphView(make_reference(net.model([net.op("Clip", [scaled, low, large], "y")]), "large").proto.graph)
    kinds = {node.op_type: glue_runs_fp16(view, index, _NO_RANGES) for index, node in enumerate(view.nodes)}
    assert kinds == {"Conv": False, "Mul": False, "Clip": True}
    assert fp16_constant(np.array([-1e6, 0.5, np.inf], np.float32)).tolist() == [-65504, 0.5, 65504]


def test_scales_of_resize_stay_full() -> None:
    """Resize runs half on its image while its scales stay FP32."""
    net = Net()
    scales = net.constant("scales", np.array([1, 1, 2, 2], np.float32))
    doubled = net.op("Resize", [net.conv("x", "a", (16, 16)), "", scales], "doubled", mode="nearest")
    view = GraphView(make_reference(net.model([net.op("Relu", [doubled], "y")]), "resize").proto.graph)
    found = fp16_regions(view, {0}, lambda index: glue_runs_fp16(view, index, _NO_RANGES))
    assert found.tensors == {"a", "doubled", "y"}
    assert found.constants == {"a.weight", "a.bias"}
