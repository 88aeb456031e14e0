"""Architectures for images, small and with random weights: a family of operators each."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.experiments.zoo.network import ZooNetwork, feed_of, normal, picture, uniform
from bitfront.experiments.zoo.torch_export import torch_network

_IMAGE = feed_of(image=picture((1, 3, 64, 64), -2, 2))


def conv(
    inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Convolution, batch normalisation, activation."""
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), act())


class Residual(nn.Module):
    """A block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(inputs, outputs, 3, stride), conv(outputs, outputs, act=nn.Identity))
        same = inputs == outputs and stride == 1
        self.skip = nn.Identity() if same else conv(inputs, outputs, 1, stride, act=nn.Identity)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return functional.relu(self.body(x) + self.skip(x))


class SqueezeExcite(nn.Module):
    """Channels weighed by what they hold on average."""

    def __init__(self, channels: int, gate: type[nn.Module]) -> None:
        super().__init__()
        self.down, self.up, self.gate = (
            nn.Conv2d(channels, channels // 4, 1),
            nn.Conv2d(channels // 4, channels, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        answer: Tensor = x * self.gate(self.up(functional.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return answer


class Inverted(nn.Module):
    """A block of MobileNetV3 or EfficientNet."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            conv(inputs, wide, 1, act=act), conv(wide, wide, 5, stride, wide, act), SqueezeExcite(wide, gate),
            conv(wide, outputs, 1, act=nn.Identity),
        )  # fmt: skip
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        answer: Tensor = x + self.body(x) if self.same else self.body(x)
        return answer


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 × 7, layer normalisation over the last axis, GELU, layer scale."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(0.3 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.narrow(functional.gelu(self.wide(y)))
        answer: Tensor = x + y.permute(0, 3, 1, 2)
        return answer


def head(channels: int, classes: int = 10) -> nn.Sequential:
    """Average, linear classifier."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def resnet() -> nn.Module:
    """ResNet-18's blocks, narrow."""
    widths = (16, 16, 32, 64)
    blocks = [Residual(a, b, 2 if a != b else 1) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(conv(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1), *blocks, head(64))


def mobilenet_v3() -> nn.Module:
    """Hard-swish, hard-sigmoid gates."""
    parts = [Inverted(a, b, s, nn.Hardswish, nn.Hardsigmoid) for a, b, s in ((16, 16, 2), (16, 24, 2), (24, 24, 1))]
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.Hardswish), *parts, conv(24, 96, 1, act=nn.Hardswish), head(96))


def efficientnet() -> nn.Module:
    """SiLU, sigmoid gates."""
    parts = [Inverted(a, b, s, nn.SiLU, nn.Sigmoid) for a, b, s in ((16, 16, 1), (16, 24, 2), (24, 40, 2))]
    return nn.Sequential(conv(3, 16, 3, 2, act=nn.SiLU), *parts, conv(40, 96, 1, act=nn.SiLU), head(96))


def convnext() -> nn.Module:
    """A patchifying stem and two stages."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 4, 4), nn.GroupNorm(1, 32), ConvNeXtBlock(32), ConvNeXtBlock(32), nn.Conv2d(32, 64, 2, 2),
        ConvNeXtBlock(64), head(64),
    )  # fmt: skip


class DenseNet(nn.Module):
    """Blocks whose inputs are joined, normalised before the convolution; grouped and shuffled channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        widths = (16, 32, 48)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.convs = nn.ModuleList(nn.Conv2d(width, 16, 3, padding=1, groups=4) for width in widths)
        self.shuffle = nn.ChannelShuffle(4)
        self.head = head(64)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.convs, strict=True):
            x = torch.cat([x, self.shuffle(layer(functional.leaky_relu(norm(x))))], dim=1)
        answer: Tensor = self.head(x)
        return answer


class UNet(nn.Module):
    """Encoder and decoder with transposed convolutions, a nearest and a bilinear resize, joined by skips."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 16), conv(16, 32), conv(32, 64)
        self.up, self.d = nn.ConvTranspose2d(64, 32, 2, 2), conv(64, 32)
        self.e, self.out = conv(48, 16), nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        a = self.a(image)
        b = self.b(functional.max_pool2d(a, 2))
        c = self.c(functional.max_pool2d(b, 2))
        d = self.d(torch.cat([self.up(c), b], 1))
        e = self.e(torch.cat([functional.interpolate(d, scale_factor=2.0, mode="bilinear"), a], 1))
        return torch.sigmoid(self.out(e))


class Detector(nn.Module):
    """A pyramid of features with one head for classes and one for boxes, shared by its levels; three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.c3, self.c4, self.c5 = conv(3, 32, 3, 4), conv(32, 64, 3, 2), conv(64, 96, 3, 2)
        self.lateral = nn.ModuleList(nn.Conv2d(width, 32, 1) for width in (32, 64, 96))
        self.tower, self.classes, self.boxes = (
            conv(32, 32),
            nn.Conv2d(32, 5, 3, padding=1),
            nn.Conv2d(32, 4, 3, padding=1),
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        c3 = self.c3(image)
        c4 = self.c4(c3)
        c5 = self.c5(c4)
        p5 = self.lateral[2](c5)
        p4 = self.lateral[1](c4) + functional.interpolate(p5, scale_factor=2.0)
        p3 = self.lateral[0](c3) + functional.interpolate(p4, scale_factor=2.0)
        towers = [self.tower(level) for level in (p3, p4, p5)]
        scores = torch.cat([self.classes(t).flatten(2) for t in towers], 2).sigmoid().transpose(1, 2)
        boxes = torch.cat([self.boxes(t).flatten(2).exp() for t in towers], 2).transpose(1, 2)
        best, index = scores.amax(2).topk(20, 1)
        chosen = torch.gather(boxes, 1, index.unsqueeze(-1).expand(-1, -1, 4))
        return chosen, best, index


class SuperResolution(nn.Module):
    """Residual convolutions with PReLU, and depth to space."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 24, 5, padding=2), nn.PReLU(24)
        self.body = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1), nn.PReLU(24), nn.Conv2d(24, 24, 3, padding=1))
        self.last = nn.Conv2d(24, 12, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        x = self.act(self.first(image))
        return functional.pixel_shuffle(self.last(x + self.body(x)), 2).clamp(0, 1)


class StandardisedConv(nn.Conv2d):
    """A convolution whose weights are normalised while it runs."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return functional.conv2d(x, (self.weight - mean) / (deviation + 1e-5), self.bias, self.stride, self.padding)


def standardised() -> nn.Module:
    """Standardised weights and group normalisation."""
    parts: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 32)):
        parts += [StandardisedConv(inputs, outputs, 3, 2, 1), nn.GroupNorm(4, outputs), nn.SiLU()]
    return nn.Sequential(*parts, head(32))


def volume() -> nn.Module:
    """Three-dimensional convolutions and instance normalisation, for scans."""
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, 2, 1), nn.InstanceNorm3d(8, affine=True), nn.ReLU(), nn.Conv3d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.ConvTranspose3d(16, 4, 2, 2), nn.Flatten(2), nn.Linear(512, 8),
    )  # fmt: skip


class Diffusion(nn.Module):
    """A denoiser: an image and the time it is at, whose sines shift the features."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 64))
        self.first, self.mid, self.out = (
            nn.Conv2d(3, 32, 3, padding=1),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.Conv2d(32, 3, 1),
        )
        self.norm, self.shift = nn.GroupNorm(8, 32), nn.Linear(64, 64)

    def forward(self, image: Tensor, time: Tensor) -> Tensor:  # noqa: D102
        angles = time * torch.exp(-torch.arange(16) * 0.5)
        scale, shift = self.shift(self.time(torch.cat([angles.sin(), angles.cos()], 1)))[..., None, None].chunk(2, 1)
        x = self.first(image)
        x = x + self.mid(functional.silu(self.norm(x) * (1 + scale) + shift))
        answer: Tensor = self.out(functional.silu(x))
        return answer


_SMALL = picture((1, 3, 32, 32), 0, 1)
VISION: tuple[ZooNetwork, ...] = (
    torch_network("resnet", "classifier", resnet, _IMAGE),
    torch_network("mobilenet-v3", "classifier", mobilenet_v3, _IMAGE),
    torch_network("efficientnet", "classifier", efficientnet, _IMAGE),
    torch_network("convnext", "classifier", convnext, _IMAGE),
    torch_network("convnext-fp16", "classifier in FP16", convnext,
                  lambda g: {"image": picture((1, 3, 64, 64), -2, 2)(g).astype("float16")}, dtype=torch.float16),
    torch_network("densenet", "classifier, grouped", DenseNet, _IMAGE),
    torch_network("unet", "segmentation", UNet, _IMAGE),
    torch_network("detector", "detector, 3 outputs", Detector, _IMAGE),
    torch_network("super-resolution", "image to image", SuperResolution, feed_of(image=_SMALL)),
    torch_network("standardised", "classifier, computed weights", standardised, _IMAGE),
    torch_network("volume", "3-D", volume, feed_of(scan=normal((1, 1, 16, 16, 16)))),
    torch_network("diffusion", "denoiser, 2 inputs", Diffusion, feed_of(image=_SMALL, time=uniform((1, 1), 0, 50))),
    torch_network("resnet-fixed", "classifier, batch of 1", resnet, _IMAGE, fixed=True, opset=20),
)  # fmt: skip
