"""Importances: what a gate's derivative says, what norms say, and what a silent channel is worth."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from passes.data import TrainingData
from passes.prune import StructuredPrune
from passes.prune_groups import PruneGroup, find_prune_groups
from passes.prune_importance import Importance, unit_importances
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


def test_magnitude_sums_over_members() -> None:
    """Squares of the filter and of the columns that read it."""
    module = plain()
    found = scored(Importance.MAGNITUDE, module, image_data())
    rows, columns = module.conv1.weight[3], module.conv2.weight[:, 3]
    assert found["conv1"][3].item() == pytest.approx((rows.square().sum() + columns.square().sum()).item(), rel=1e-6)
    rows, columns = module.conv2.weight[3], module.classifier.weight[:, 48:64]
    assert found["conv2"][3].item() == pytest.approx((rows.square().sum() + columns.square().sum()).item(), rel=1e-6)


@pytest.mark.parametrize("importance", [Importance.TAYLOR, Importance.FISHER])
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
