"""An exporter gives what a real export gives, up to the names of inner tensors, whatever it exported before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from bitfront.core import Inputs
from bitfront.experiments.networks import ResNetCifar
from bitfront.lowering import export
from bitfront.lowering.calibration import run_network
from bitfront.lowering.export import Exporter
from bitfront.lowering.reference import ReferenceModel, make_reference, read_reference
from tests.passes.nets import trained_looking
from tests.references import INTERPRETER, export_reference


class Literal(nn.Module):
    """Its width is a number in the traced graph."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.conv(images).flatten(2).mean(2).reshape(-1, self.width) * self.width)
        return logits


class Flat(nn.Module):
    """A pooled map, flattened."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.fc = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(self.conv(images), 1), 1))
        return logits


class Pooled(nn.Module):
    """A depthwise convolution between two others, and a mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, groups=width)
        self.fc = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.depthwise(torch.relu(self.norm(self.conv(images)))).mean((2, 3)))
        return logits


class Twice(nn.Module):
    """Two layers with one weight, and a parameter that is not used."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(torch.relu(self.first(x.mean((2, 3)))))
        return out


# Name → (network of a width, channels and side of its images).
NETS: dict[str, tuple[Callable[[int], nn.Module], int, int]] = {
    "pooled": (Pooled, 3, 8),
    "resnet": (lambda _: ResNetCifar(8), 3, 16),
    "literal": (Literal, 3, 8),
    "flat": (Flat, 3, 8),
    "twice": (lambda _: Twice(3), 3, 8),
}


def made(name: str, width: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return trained_looking(NETS[name][0](width), seed)


def images(name: str) -> Inputs:
    _, channels, side = NETS[name]
    return {"x": np.random.default_rng(0).normal(size=(6, channels, side, side)).astype(np.float32)}


def anonymous(reference: ReferenceModel) -> list[object]:
    """The graph with tensors numbered in the order in which nodes mention them, and weights as values."""
    graph = reference.proto.graph
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    numbers: dict[str, int] = {}

    def number(name: str) -> object:
        if name in weights:
            array = weights[name]
            return array.dtype.str, array.shape, array.tobytes()
        return numbers.setdefault(name, len(numbers))

    nodes = [
        (
            node.op_type,
            [number(name) for name in node.input],
            [number(name) for name in node.output],
            sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute),
        )
        for node in graph.node
    ]
    return [nodes, *(value.SerializeToString(deterministic=True) for value in (*graph.input, *graph.output))]


def outputs(reference: ReferenceModel, name: str) -> list[NDArray[np.float32]]:
    """What ONNX Runtime gives."""
    inputs = {key: array[: reference.fixed_batch or 6] for key, array in images(name).items()}
    return [np.asarray(array, np.float32) for array in run_network(reference.proto, inputs, INTERPRETER)]


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Modules that were really exported."""
    found: list[nn.Module] = []
    real = export._program

    def counted(module: nn.Module, *rest: Any) -> torch.onnx.ONNXProgram:
        found.append(module)
        return real(module, *rest)

    monkeypatch.setattr(export, "_program", counted)
    return found


@pytest.mark.parametrize(
    ("name", "batch"), [("pooled", None), ("pooled", 3), ("resnet", None)], ids=["pooled", "fixed batch", "resnet"]
)
def test_exchanged_weights_are_a_real_export(name: str, batch: int | None, exports: list[nn.Module]) -> None:
    """Other weights and fewer channels of one structure cost no export, and come out as if they were the first."""
    exporter = Exporter(images(name), INTERPRETER, name, batch=batch)
    exporter.reference(made(name, 16, 1))
    module = made(name, 8, 2).train()
    found = exporter.reference(module)
    assert len(exports) == 1
    assert module.training
    alone = Exporter(images(name), INTERPRETER, name, batch=batch).reference(module)
    wanted = export_reference(module, images(name), name=name, batch=batch)
    assert found.fingerprint == alone.fingerprint
    for one, other in zip(outputs(found, name), outputs(wanted, name), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    if name != "resnet":  # whose flattened map has no width in it here
        assert anonymous(found) == anonymous(wanted)
    assert found.input_shapes == wanted.input_shapes


def test_a_flattened_map_of_another_width_costs_no_export(exports: list[nn.Module]) -> None:
    exporter = Exporter(images("flat"), INTERPRETER, "flat")
    for width in (16, 8):
        module = made("flat", width, 2)
        (found,) = outputs(exporter.reference(module), "flat")
        np.testing.assert_allclose(found, module.eval()(torch.from_numpy(images("flat")["x"])).detach(), atol=1e-5)
    assert len(exports) == 1


def test_widths_in_the_graph_are_exported_anew(exports: list[nn.Module]) -> None:
    """A graph that has another module's width in it is not taken for this one's."""
    exporter = Exporter(images("literal"), INTERPRETER, "literal")
    for width in (16, 8):
        module = made("literal", width, 2)
        (found,) = outputs(exporter.reference(module), "literal")
        np.testing.assert_allclose(found, module.eval()(torch.from_numpy(images("literal")["x"])).detach(), atol=1e-4)
    assert len(exports) == 2  # each of them


def test_parameters_without_initialiser_are_exported(exports: list[nn.Module]) -> None:
    """Where the graph lacks a parameter, nothing is exchanged; one tied to another is not lacking."""
    exporter = Exporter(images("twice"), INTERPRETER, "twice")
    for seed in (1, 2):
        module = made("twice", 3, seed)
        wanted = export_reference(module, images("twice"), name="twice")
        assert anonymous(exporter.reference(module)) == anonymous(wanted)
    assert len(exports) > 2


def test_structures_are_kept_apart(exports: list[nn.Module]) -> None:
    """Another structure is exported, and the first one is still known afterwards."""
    exporter = Exporter(images("pooled"), INTERPRETER, "nets")
    exporter.reference(made("pooled", 16, 1))
    exporter.reference(made("literal", 16, 1))
    exporter.reference(made("pooled", 8, 2))
    assert len(exports) == 2


def test_disagreement_is_seen(monkeypatch: pytest.MonkeyPatch, exports: list[nn.Module]) -> None:
    """Planted bug: weights that are written wrongly do not pass for the module's."""
    real = export._with_weights

    def wrong(graph: onnx.ModelProto, module: nn.Module) -> onnx.ModelProto | None:
        proto = real(graph, module)
        assert proto is not None
        tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == "depthwise.weight")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
        return proto

    exporter = Exporter(images("pooled"), INTERPRETER, "pooled")
    exporter.reference(made("pooled", 16, 1))
    monkeypatch.setattr(export, "_with_weights", wrong)
    module = made("pooled", 8, 2)
    found = exporter.reference(module)
    assert len(exports) == 3
    assert anonymous(found) == anonymous(export_reference(module, images("pooled"), name="pooled"))


def test_nothing_is_known_of_how_a_variant_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph is what a file of it is read as, whatever steps made it, and whatever constants were computed from."""

    def told(*args: Any, **more: Any) -> ReferenceModel:
        return replace(
            make_reference(*args, **more), applied_steps=("layer-forms",), skipped_steps=("slices",), notices=("so",)
        )

    monkeypatch.setattr(export, "make_reference", told)
    for name in ("pooled", "literal"):  # the second one is exported anew for another width
        exporter = Exporter(images(name), INTERPRETER, name)
        for width in (16, 8):
            found = exporter.reference(made(name, width, 2))
            assert replace(found, module_paths={}) == read_reference(found.proto, name, INTERPRETER)
