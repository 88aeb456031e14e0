"""SqueezeNet 1.1 (Iandola et al., arXiv:1602.07360; 1.1 moves the pools forward and narrows the first layer).

A Fire module squeezes to few channels with a 1×1 convolution and expands with parallel 1×1 and 3×3 convolutions
whose outputs are concatenated. There is no batch norm; every convolution, the last included, ends in a ReLU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Channels of (squeeze, each expand) for fire2 to fire9, and before which of them a pool halves the map.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
POOLED_BEFORE = (2, 4, 6)


class Fire(nn.Module):
    """A fire module: squeeze, then expand twice side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, 2 · expand, h, w)."""
        squeezed = functional.relu(self.squeeze(x))
        return torch.cat((functional.relu(self.expand1(squeezed)), functional.relu(self.expand3(squeezed))), dim=1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 for 224×224 images.

    Args:
        classes: Number of scores.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        channels = 64
        layers: list[nn.Module] = []
        for number, (squeeze, expand) in enumerate(FIRES, start=2):
            if number in POOLED_BEFORE:
                layers.append(nn.MaxPool2d(3, stride=2))
            layers.append(Fire(channels, squeeze, expand))
            channels = 2 * expand
        self.fires = nn.Sequential(*layers)
        self.conv10 = nn.Conv2d(channels, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 224, 224) → scores (n, classes), none of them negative."""
        out = self.fires(functional.relu(self.conv1(images)))
        out = functional.relu(self.conv10(out))
        return torch.flatten(functional.adaptive_avg_pool2d(out, 1), 1)
