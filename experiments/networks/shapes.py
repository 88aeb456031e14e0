"""Networks of well-known shapes with random weights, for studies of cost: what they answer does not matter.

chain      residual blocks of two 3×3 convolutions of 32 channels on 16×16 maps, as many layers as asked for
resnet50   bottleneck blocks 3, 4, 6, 3 (He et al., arXiv:1512.03385, table 1) on 224×224 images
encoder    post-norm transformer encoder (Devlin et al., arXiv:1810.04805): 12 layers of width 768 by default
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """Residual block of two 3×3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, width, height, width) to the same."""
        return functional.relu(x + 0.2 * self.second(functional.relu(self.first(x))))


class Chain(nn.Module):
    """A stem, residual blocks and a classifier: ``layers`` weighted layers in all."""

    def __init__(self, layers: int, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(width) for _ in range((layers - 2) // 2)))
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 16, 16) to logits."""
        answer: Tensor = self.head(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))
        return answer


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions with batch norm, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, k, stride=s, padding=k // 2, bias=False), nn.BatchNorm2d(o))
            for i, o, k, s in sizes
        )
        self.shortcut = nn.Sequential()
        if stride > 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) to (n, 4 · width, …)."""
        out = functional.relu(self.convolutions[0](x))
        out = functional.relu(self.convolutions[1](out))
        return functional.relu(self.convolutions[2](out) + self.shortcut(x))


class ResNet50(nn.Module):
    """ResNet-50."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        inputs = 64
        for stage, count in enumerate((3, 4, 6, 3)):
            for block in range(count):
                width = 64 * 2**stage
                blocks.append(Bottleneck(inputs, width, 2 if stage and not block else 1))
                inputs = 4 * width
        self.stem = nn.Sequential(nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False), nn.BatchNorm2d(64))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, 224, 224) to logits."""
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, stride=2, padding=1)
        answer: Tensor = self.head(self.blocks(x).mean((2, 3)))
        return answer


class EncoderLayer(nn.Module):
    """Self-attention and a feed-forward part, each with a shortcut and a norm behind it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.attention_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, positions, width) to the same."""
        split = [part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)]
        scores = split[0] @ split[1].transpose(-1, -2) / split[0].shape[-1] ** 0.5
        mixed = (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)
        x = self.attention_norm(x + self.output(mixed))
        answer: Tensor = self.norm(x + self.down(functional.gelu(self.up(x))))
        return answer


class Encoder(nn.Module):
    """Embeddings, encoder layers and a classifier on the first position."""

    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 30522) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(1, 512, width) * 0.02)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads) for _ in range(layers)))
        self.head = nn.Linear(width, 2)

    def forward(self, ids: Tensor) -> Tensor:
        """Token numbers (n, positions) to logits (n, 2)."""
        x = self.embedding(ids) + self.positions[:, : ids.shape[1]]
        answer: Tensor = self.head(self.layers(x)[:, 0])
        return answer
