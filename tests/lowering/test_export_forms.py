"""Modules of any signature and any outputs are exported as they are, with the axes in which samples differ open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bitfront.core import Array, CalibrationSettings, ContentStore, DataError, ModelError
from bitfront.lowering.calibration import run_network
from bitfront.lowering.dialects.registry import get_dialect
from bitfront.lowering.export import Exporter
from bitfront.lowering.lowerer import Lowerer
from bitfront.lowering.module_calls import call, named_tensors
from bitfront.lowering.reference import ReferenceModel
from bitfront.search.inputs.networks.exporting import exported
from tests.references import INTERPRETER

WIDTH = 6


@dataclasses.dataclass
class Answer:
    logits: Tensor
    loss: Tensor | None = None
    states: tuple[Tensor, ...] = ()


class Encoder(nn.Module):
    """Tokens in, a mask and types if they are given; classes out, and the states they are read from."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.types = nn.Embedding(20, WIDTH), nn.Embedding(2, WIDTH)
        self.block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.head = nn.Linear(WIDTH, 3)

    def forward(
        self, ids: Tensor | None = None, mask: Tensor | None = None, types: Tensor | None = None, *, scale: float = 2.0
    ) -> Answer:
        assert ids is not None
        x = self.words(ids) if types is None else self.words(ids) + self.types(types)
        first = self.block(x) * scale
        weights = torch.ones_like(ids) if mask is None else mask
        pooled = (first * weights[:, :, None]).sum(1) / weights.sum(1, keepdim=True)
        return Answer(self.head(pooled), states=(x, first))


class Returning(nn.Module):
    """A layer, and whatever is made of its input and output."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4, 4)
        self.make = make

    def forward(self, x: Tensor) -> Any:
        return self.make(x, self.fc(x))


def tokens(lengths: list[int], seed: int = 0) -> list[Array]:
    """A sample of each length."""
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 20, length) for length in lengths]


def check(module: nn.Module, reference: ReferenceModel, inputs: Mapping[str, Array]) -> None:
    """The network answers as the module."""
    found = run_network(reference.proto, {name: inputs[name] for name in reference.input_shapes}, INTERPRETER)
    with torch.no_grad():
        outputs = named_tensors(call(module.eval(), {name: torch.from_numpy(x) for name, x in inputs.items()}))
    for array, tensor in zip(found, outputs.values(), strict=True):
        np.testing.assert_allclose(np.asarray(array, np.float32), tensor.numpy(), atol=1e-5)


def test_inputs_by_keyword_with_one_left_out() -> None:
    """In any order; the outputs have the names of the dataclass, None left out."""
    ids, types = np.stack(tokens([5] * 6)), np.tile([0, 1, 1, 0, 1], (6, 1))
    module = Encoder()
    reference = exported(module, {"types": types, "ids": ids}, "encoder", None)
    assert reference.input_shapes == {"ids": (None, 5), "types": (None, 5)}
    assert reference.output_names == ("logits", "states.0", "states.1")
    check(module, reference, {"types": types[:3], "ids": ids[:3]})


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda _, y: {"y": y, "again": y}, ("y", "again")),
        (lambda _, y: {"x": y + 1, "fc.weight": y}, ("x_2", "fc.weight_2")),
        (lambda _, y: {"linear": y + 1, "add": y}, None),
        (lambda x, y: {"same": x, "y": y}, ("same", "y")),
        (lambda _, y: (y, None, (y + 1, [y * 2])), None),
        (lambda _, y: (y, y), None),
    ],
    ids=["twice", "names that are taken", "names of others", "an input", "nested", "a tuple of one twice"],
)
def test_outputs_of_any_form(make: Any, names: tuple[str, ...] | None) -> None:
    """One tensor may be several outputs, and names may be those of other tensors."""
    module = Returning(make)
    x = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    reference = exported(module, {"x": x}, "net", None)
    if names is not None:
        assert reference.output_names == names
    check(module, reference, {"x": x})


def test_no_tensor() -> None:
    """It is refused, and so is a name that is no parameter."""
    x = np.zeros((5, 4), np.float32)
    with pytest.raises(ModelError, match=r"workload 'net': forward of Returning returns no tensor"):
        exported(Returning(lambda *_: {"cache": None}), {"x": x}, "net", None)
    with pytest.raises(ModelError, match=r"no parameter 'idz'; its parameters are 'ids', 'mask', 'types', 'scale'"):
        exported(Encoder(), {"idz": np.zeros((4, 5), np.int64)}, "net", None)


def test_axes_that_vary_are_open() -> None:
    """In all inputs alike; an axis that all samples share is not."""
    lengths, module = [3, 7, 5, 7, 2], Encoder()
    brought: dict[str, Array | list[Array]] = {
        "ids": tokens(lengths),
        "mask": [np.ones(length, np.int64) for length in lengths],
    }
    reference = exported(module, brought, "encoder", None)
    assert reference.input_shapes == {"ids": (None, None), "mask": (None, None)}
    mask = np.ones((4, 11), np.int64)
    mask[0, 4:] = 0
    check(module, reference, {"ids": np.stack(tokens([11] * 4)), "mask": mask})
    shared = exported(module, {"ids": tokens([5] * 4)}, "encoder", None)
    assert shared.input_shapes == {"ids": (None, 5)}


def test_two_axes_that_vary_alone() -> None:
    """Height and width of images, whatever the other is; as long as the example's batch at first."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            pooled: Tensor = self.conv(images).mean((2, 3))
            return pooled

    generator, module = np.random.default_rng(0), Pooled()
    sizes = [(2, 3), (3, 2), (3, 3), (2, 2)]
    images: list[Array] = [generator.normal(size=(3, *size)).astype(np.float32) for size in sizes]
    reference = exported(module, {"images": images}, "net", None)
    assert reference.input_shapes == {"images": (None, 3, None, None)}
    check(module, reference, {"images": generator.normal(size=(2, 3, 9, 5)).astype(np.float32)})


def test_a_length_that_decides_is_refused() -> None:
    """What the largest sample alone would be computed by answers others wrongly."""

    class Branching(Returning):
        def forward(self, x: Tensor) -> Any:
            return self.fc(x).sum(1) if x.shape[1] > 5 else self.fc(x).amax(1)

    generator = np.random.default_rng(0)
    brought: dict[str, Array | list[Array]] = {
        "x": [generator.normal(size=(length, 4)).astype(np.float32) for length in (3, 8)]
    }
    with pytest.raises(ModelError, match=r"workload 'net': .*(could not export|the module fails for 'x' \(1, 3, 4\))"):
        exported(Branching(None), brought, "net", None)


def test_samples_of_other_ranks_are_refused() -> None:
    """By name."""
    with pytest.raises(DataError, match=r"samples of 'ids' have 1 and 2 axes"):
        exported(Encoder(), {"ids": [np.zeros(3, np.int64), np.zeros((1, 3), np.int64)]}, "net", None)


def layer_names(reference: ReferenceModel, inputs: Mapping[str, Array]) -> list[str]:
    """Names of its layers."""
    dialect = get_dialect("ort-cpu")
    lowerer = Lowerer(reference, dialect, inputs, CalibrationSettings(), ContentStore(None))
    return [layer.name for layer in lowerer.quantisable.layers]


def test_layers_are_named_by_modules() -> None:
    """Also where the weight is written in another order, and in an export by exchange of weights."""
    inputs = {"ids": np.stack(tokens([5] * 6))}
    assert layer_names(exported(Encoder(), inputs, "encoder", None), inputs) == ["block.0", "block.2", "head"]
    exporter = Exporter(inputs, INTERPRETER, "encoder", dynamic={"ids": (1,)})
    for _ in range(2):
        reference = exporter.reference(Encoder())
        assert reference.input_shapes == {"ids": (None, None)}
        assert layer_names(reference, inputs) == ["block.0", "block.2", "head"]
