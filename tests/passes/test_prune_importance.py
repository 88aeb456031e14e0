"""Importances: what a gate's derivative says, what norms say, and what a silent channel is worth."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from torch import Tensor, nn
from torch.nn import functional

from bitfront.passes.data import TrainingData
from bitfront.passes.prune import StructuredPrune
from bitfront.passes.prune_groups import PruneGroup, find_prune_groups
from bitfront.passes.prune_importance import TEMPERATURE, Importance, unit_importances
from tests.passes.nets import Plain, image_data, plain


def scored(importance: Importance, module: nn.Module, data: TrainingData) -> dict[str, Tensor]:
    groups: tuple[PruneGroup, ...] = find_prune_groups(module, data.inputs)
    return unit_importances(module, groups, importance, data, batch_size=7)


def test_gates_are_derivatives() -> None:
    """Per sample Σ x ∂L/∂x is the slope of the loss as the channel's columns fade, whatever the batch size."""
    module, data = plain().double(), image_data(count=10)
    data = TrainingData(inputs={"images": np.asarray(data.inputs["images"], np.float64)}, labels=data.labels)
    images, labels = torch.from_numpy(data.inputs["images"]), torch.from_numpy(data.labels)

    def losses(scale: float, name: str, columns: list[int]) -> Tensor:
        faded = copy.deepcopy(module)
        faded.get_submodule(name).weight.data[:, columns] *= scale  # type: ignore[index, operator]
        with torch.no_grad():
            return functional.cross_entropy(faded(images), labels, reduction="none")

    step = 1e-5
    for group, name, columns in (("conv1", "conv2", [3]), ("conv2", "classifier", list(range(48, 64)))):
        slopes = (losses(1 + step, name, columns) - losses(1 - step, name, columns)) / (2 * step)
        taylor, fisher = (scored(kind, module, data)[group][3] for kind in (Importance.TAYLOR, Importance.FISHER))
        assert taylor.item() == pytest.approx(slopes.abs().mean().item(), rel=1e-4)
        assert fisher.item() == pytest.approx(slopes.square().mean().item() / 2, rel=1e-4)


def test_curvature_is_the_second_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs that are orthogonal over the probes give the Hessian's diagonal exactly, with labels and without."""
    module = _smooth().double()
    images = np.asarray(image_data(count=6).inputs["images"], np.float64)
    groups = [group for group in find_prune_groups(module, {"images": images}) if group.name == "0"]
    pattern, asked = torch.from_numpy(hadamard(8)).double(), itertools.count()
    monkeypatch.setattr("bitfront.passes.prune_importance._PROBES", 8)
    monkeypatch.setattr(
        "bitfront.passes.prune_importance._signs", lambda like: pattern[next(asked) % 8].expand_as(like)
    )

    def loss(scale: float, unit: int, labels: Tensor, temperature: float) -> Tensor:
        faded = copy.deepcopy(module)
        faded.get_parameter("3.weight").data[:, unit] *= scale
        with torch.no_grad():
            return functional.cross_entropy(faded(torch.from_numpy(images)) / temperature, labels)

    own = (module(torch.from_numpy(images)).detach() / TEMPERATURE).softmax(1)
    step = 1e-3
    for labels, given, temperature in ((torch.arange(6) % 4, np.arange(6) % 4, 1.0), (own, None, TEMPERATURE)):
        data = TrainingData(inputs={"images": images}, labels=given)
        found = unit_importances(module, groups, Importance.HESSIAN, data, batch_size=6)["0"]
        for unit in range(8):
            low, middle, high = (loss(scale, unit, labels, temperature) for scale in (1 - step, 1, 1 + step))
            curvature = (low - 2 * middle + high) / step**2
            assert found[unit].item() == pytest.approx(abs(curvature.item()) / 2, rel=1e-3, abs=1e-8)


def test_curvature_needs_few_signs() -> None:
    """On a few hundred samples without labels it is what ``fisher`` estimates: the divergence's second-order change."""
    module, data = plain(), TrainingData(inputs=image_data(count=512).inputs)
    curvature, fisher = (scored(kind, module, data) for kind in (Importance.HESSIAN, Importance.FISHER))
    for name in ("conv1", "conv2"):
        assert (curvature[name] - fisher[name]).norm() < 0.3 * fisher[name].norm()


def _smooth() -> nn.Sequential:
    """Without kinks, so that differences have a limit."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3), nn.SiLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    ).eval()


def test_magnitude_sums_over_members() -> None:
    """Squares of the filter and of the columns that read it."""
    module = plain()
    found = scored(Importance.MAGNITUDE, module, image_data())
    rows, columns = module.conv1.weight[3], module.conv2.weight[:, 3]
    assert found["conv1"][3].item() == pytest.approx((rows.square().sum() + columns.square().sum()).item(), rel=1e-6)
    rows, columns = module.conv2.weight[3], module.classifier.weight[:, 48:64]
    assert found["conv2"][3].item() == pytest.approx((rows.square().sum() + columns.square().sum()).item(), rel=1e-6)


@pytest.mark.parametrize("importance", [Importance.TAYLOR, Importance.FISHER, Importance.HESSIAN])
def test_silent_channels_go_first(importance: Importance) -> None:
    """Channels that are always zero are worth nothing, without labels too: removing them changes no output."""
    module: Plain = plain()
    silent = [1, 4, 5, 8, 9, 11, 13, 15]
    for parameter in (module.bn1.weight, module.bn1.bias):
        parameter.data[silent] = 0
    data = TrainingData(inputs=image_data().inputs)
    assert scored(importance, module, data)["conv1"][silent].eq(0).all()
    pruned = StructuredPrune(sparsity={"conv1": 0.5}, importance=importance).apply(module, data)
    images = torch.from_numpy(np.asarray(data.inputs["images"]))
    assert torch.allclose(pruned(images), module(images), atol=1e-5)
