"""MobileNetV1 (Howard et al., arXiv:1704.04861, table 1): depthwise separable blocks, any width multiplier.

Convolutions of stride 2 pad one row and column at the right and bottom alone, as the framework of the published
weights does; the export writes that as a Pad before the convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# (output channels at width 1, stride) of the 13 blocks.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
BN_EPS = 1e-3


class SeparableBlock(nn.Module):
    """A depthwise 3×3 and a pointwise convolution, each with batch norm and ReLU6."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.depthwise = nn.Conv2d(
            inputs, inputs, 3, stride=stride, padding=1 if stride == 1 else 0, groups=inputs, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(inputs, eps=BN_EPS)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(outputs, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) → (n, outputs, h // stride, w // stride)."""
        if self.stride == 2:
            x = functional.pad(x, (0, 1, 0, 1))
        out = functional.relu6(self.depthwise_norm(self.depthwise(x)))
        return functional.relu6(self.pointwise_norm(self.pointwise(out)))


class MobileNetV1(nn.Module):
    """MobileNetV1 for 224×224 images.

    Args:
        width: Width multiplier α of section 3.3; 0.25 gives 8 to 256 channels.
        classes: Number of logits.
    """

    def __init__(self, width: float = 0.25, classes: int = 1000) -> None:
        super().__init__()
        channels = int(32 * width)
        self.conv1 = nn.Conv2d(3, channels, 3, stride=2, bias=False)
        self.conv1_norm = nn.BatchNorm2d(channels, eps=BN_EPS)
        blocks = []
        for full, stride in BLOCKS:
            blocks.append(SeparableBlock(channels, int(full * width), stride))
            channels = int(full * width)
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Conv2d(channels, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, 224, 224) → logits (n, classes)."""
        out = functional.relu6(self.conv1_norm(self.conv1(functional.pad(images, (0, 1, 0, 1)))))
        pooled = functional.adaptive_avg_pool2d(self.blocks(out), 1)
        return torch.flatten(self.classifier(pooled), 1)
