"""Networks whose channels depend on each other in all the ways that pruning has to get right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.experiments.networks import DigitsNet, ResNetCifar
from bitfront.passes.batch_norm import reestimate_batch_norm
from bitfront.passes.data import TrainingData
from tests.passes.nets import plain, trained_looking


class Grouped(nn.Module):
    """A grouped convolution between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 32, 3, padding=1, groups=4)
        self.bn = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 16, 1)
        self.classifier = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        out = functional.relu(self.grouped(functional.relu(self.conv1(images))))
        out = functional.relu(self.conv2(functional.relu(self.bn(out))))
        logits: Tensor = self.classifier(out.mean((2, 3)))
        return logits


class Concatenated(nn.Module):
    """Each layer reads all before it; a transposed convolution at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.conv3 = nn.Conv2d(20, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(28)
        self.up = nn.ConvTranspose2d(28, 10, 2, stride=2)
        self.conv4 = nn.Conv2d(10, 5, 1)

    def forward(self, images: Tensor) -> Tensor:
        first = functional.relu(self.conv1(images))
        both = torch.cat((first, functional.relu(self.conv2(first))), 1)
        out = functional.relu(self.bn(torch.cat((both, self.conv3(both)), 1)))
        logits: Tensor = self.conv4(functional.relu(self.up(out))).mean((2, 3))
        return logits


class Transformer(nn.Module):
    """One block over the rows of an image: attention with three projections, then two layers."""

    def __init__(self, width: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.embed = nn.Linear(24, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 64), nn.Linear(64, width)
        self.classifier = nn.Linear(width, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.embed(images.permute(0, 2, 1, 3).flatten(2))
        x = x + self.attention(self.norm1(x))
        x = x + self.down(functional.gelu(self.up(self.norm2(x))))
        logits: Tensor = self.classifier(x.mean(1))
        return logits


class Attention(nn.Module):
    """Multi-head attention that keeps its number of heads as an attribute."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        query, key, value = (
            part(x).view(n, tokens, self.heads, self.size).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        weights = (query @ key.transpose(2, 3) * self.size**-0.5).softmax(-1)
        mixed: Tensor = self.out((weights @ value).transpose(1, 2).reshape(n, tokens, self.heads * self.size))
        return mixed


class Fixed(nn.Module):
    """Widths written into ``forward``, and a norm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.GroupNorm(1, 8)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.classifier = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        out = self.norm(self.conv2(functional.relu(self.conv1(images))))
        out = functional.relu(self.conv3(functional.relu(out)))
        logits: Tensor = self.classifier(out.mean((2, 3)).reshape(-1, 8))
        return logits


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return trained_looking(make())


# Name → (network, side and channels of its images).
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "plain": (plain, (3, 8)),
    "resnet": (lambda: _seeded(lambda: ResNetCifar(8)), (3, 16)),
    "digits": (lambda: _seeded(lambda: DigitsNet(16, 24)), (1, 8)),
    "grouped": (lambda: _seeded(Grouped), (3, 8)),
    "concatenated": (lambda: _seeded(Concatenated), (3, 8)),
    "transformer": (lambda: _seeded(Transformer), (3, 8)),
}


def net(name: str) -> tuple[nn.Module, TrainingData]:
    """The network in evaluation mode, and inputs without labels."""
    make, (channels, side) = NETS[name]
    images = np.random.default_rng(0).normal(size=(24, channels, side, side)).astype(np.float32)
    module, data = make(), TrainingData(inputs={"images": images})
    reestimate_batch_norm(module, data.inputs)  # or signals fade from norm to norm
    return module, data
