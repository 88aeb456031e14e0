"""The demonstration's network: a small residual CNN for 8×8 digits with depthwise-separable links.

Dense 3×3 convolutions in residual blocks (He et al., arXiv:1512.03385) gain most from integer arithmetic; the
depthwise convolutions between them (Howard et al., arXiv:1704.04861) gain nothing in latency and suffer first at
4 bits, so that one precision for all layers is not the best answer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """A residual block: two 3×3 convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Forward pass, (n, channels, h, w) → the same shape."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + x)


class SeparableLink(nn.Module):
    """A depthwise 3×3 and a pointwise convolution that change the map's size and channels between blocks."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, ⌈h / stride⌉, ⌈w / stride⌉)."""
        out = functional.relu6(self.bn1(self.depthwise(x)))
        return functional.relu6(self.bn2(self.pointwise(out)))


class DigitsNet(nn.Module):
    """A classifier of 8×8 grey images.

    Args:
        narrow: Channels of the stem and the first block.
        wide: Channels of the second and third block.
        classes: Number of logits.
    """

    def __init__(self, narrow: int = 64, wide: int = 96, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, narrow, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(narrow)
        self.block1 = ResidualBlock(narrow)
        self.widen = SeparableLink(narrow, wide, stride=1)
        self.block2 = ResidualBlock(wide)
        self.reduce = SeparableLink(wide, wide, stride=2)
        self.block3 = ResidualBlock(wide)
        self.classifier = nn.Linear(wide, classes)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1, 8, 8) → logits (n, classes)."""
        out = functional.relu(self.stem_norm(self.stem(images)))
        out = self.block2(self.widen(self.block1(out)))
        out = self.block3(self.reduce(out))
        pooled = functional.adaptive_avg_pool2d(out, 1)
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits
