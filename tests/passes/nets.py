"""Small networks and data that the tests of the passes share."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.passes.data import TrainingData

Module = TypeVar("Module", bound=nn.Module)


class Plain(nn.Module):
    """Convolutions with batch norm and dropout, then a classifier; images (n, 3, 8, 8)."""

    def __init__(self, width: int = 16, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * width * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(images)))
        out = functional.max_pool2d(functional.relu(self.bn2(self.conv2(out))), 2)
        logits: Tensor = self.classifier(self.dropout(torch.flatten(out, 1)))
        return logits


def plain(seed: int = 0, dropout: float = 0.0) -> Plain:
    """Random weights, and batch norms whose statistics, weights and shifts are no defaults."""
    torch.manual_seed(seed)
    return trained_looking(Plain(dropout=dropout), seed)


def trained_looking(module: Module, seed: int = 0) -> Module:
    """Norms with statistics, weights and shifts that differ from channel to channel; evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in (
                (part.weight, 0.5, 1.5),
                (part.bias, -0.5, 0.5),
                (part.running_mean, -0.3, 0.3),
                (part.running_var, 0.5, 1.5),
            ):
                assert tensor is not None
                with torch.no_grad():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return module.eval()


def image_data(count: int = 64, side: int = 8, classes: int = 5, seed: int = 0) -> TrainingData:
    """Random images whose label is a linear function of them."""
    generator = np.random.default_rng(seed)
    images = generator.normal(size=(count, 3, side, side)).astype(np.float32)
    labels = (images.reshape(count, -1) @ generator.normal(size=(3 * side * side, classes))).argmax(axis=1)
    return TrainingData(inputs={"images": images}, labels=labels)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    """Whether all parameters and buffers are equal to the last bit."""
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)
