"""Batch norm statistics measured anew."""

from __future__ import annotations

import copy

import numpy as np
import torch

from bitfront.passes.batch_norm import reestimate_batch_norm
from tests.passes.nets import image_data, plain, same_weights


def test_statistics_are_those_of_the_data() -> None:
    """With one batch the first norm's mean is that of its input; modes and momenta are restored."""
    module, data = plain(), image_data()
    images = torch.from_numpy(np.asarray(data.inputs["images"]))
    momentum = module.bn1.momentum
    assert reestimate_batch_norm(module, data.inputs, batch_size=64) == 2
    out = module.conv1(images).detach()
    assert module.bn1.running_mean is not None
    assert module.bn1.running_var is not None
    assert torch.allclose(module.bn1.running_mean, out.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(module.bn1.running_var, out.var((0, 2, 3)), atol=1e-5)
    assert module.bn1.momentum == momentum
    assert not any(part.training for part in module.modules())


def test_it_is_a_plain_average_over_batches() -> None:
    """Batches weigh alike; what is left over of the last one is not used."""
    data = image_data(count=40)
    images = torch.from_numpy(np.asarray(data.inputs["images"]))
    module = plain()
    reestimate_batch_norm(module, data.inputs, batch_size=16)
    means = [module.conv1(images[start : start + 16]).mean((0, 2, 3)).detach() for start in (0, 16)]
    assert module.bn1.running_mean is not None
    assert torch.allclose(module.bn1.running_mean, (means[0] + means[1]) / 2, atol=1e-6)


def test_a_module_without_batch_norm_is_left_alone() -> None:
    """Nothing is measured where there is nothing."""
    module = plain().conv1
    before = copy.deepcopy(module)
    assert reestimate_batch_norm(module, image_data().inputs) == 0
    assert same_weights(module, before)
