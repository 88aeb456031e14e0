"""Network of the zoo: an ONNX file, and how one sample for it is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bitfront.core import Array, DataError

Feed = Mapping[str, Array]
MakeFeed = Callable[[np.random.Generator], dict[str, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooNetwork:
    """Network of the zoo and its inputs.

    Attributes:
        name: Short, unique in the zoo.
        origin: The package that carries it, or what it was made with (``torch``, ``onnx``).
        kind: What it does, in a word or two.
        model: From the folder of installed packages to the file's bytes; external data is read in.
        feed: One sample as the network takes it, batch axis of length 1 included.
        axes: Input → axis of the samples, 0 where it is not named; None for a value that all samples share.
    """

    name: str
    origin: str
    kind: str
    model: Callable[[Path], bytes]
    feed: MakeFeed
    axes: Mapping[str, int | None] = field(default_factory=dict)

    def feeds(self, count: int, *, seed: int) -> list[Feed]:
        """``count`` different samples; the same for the same seed."""
        generator = np.random.default_rng(seed)
        return [self.feed(generator) for _ in range(count)]

    def stacked(self, feeds: Sequence[Feed]) -> dict[str, Array]:
        """Samples joined along each input's own batch axis, as a person would save them for ``--calib``."""
        joined = {}
        for name in feeds[0]:
            axis = self.axes.get(name, 0)
            arrays = [feed[name] for feed in feeds]
            joined[name] = arrays[0] if axis is None else np.concatenate(arrays, axis=axis)
        return joined


def uniform(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Callable[[np.random.Generator], Array]:
    """Maker of float32 arrays with entries between ``low`` and ``high``."""
    return lambda generator: generator.uniform(low, high, shape).astype(np.float32)


def normal(shape: tuple[int, ...], scale: float = 1.0) -> Callable[[np.random.Generator], Array]:
    """Maker of float32 arrays with normally distributed entries."""
    return lambda generator: (scale * generator.standard_normal(shape)).astype(np.float32)


def picture(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Callable[[np.random.Generator], Array]:
    """Maker of smooth float32 images (…, h, w): a few plane waves, scaled to ``low`` to ``high``."""

    def make(generator: np.random.Generator) -> Array:
        rows, columns = np.mgrid[: shape[-2], : shape[-1]] / max(shape[-2:])
        waves = np.zeros(shape)
        for _ in range(4):
            across, down, phase = generator.uniform(-12, 12, (3, *shape[:-2], 1, 1))
            waves += np.sin(across * columns + down * rows + phase)
        waves += 0.3 * generator.standard_normal(shape)
        scaled = (waves - waves.min()) / (waves.max() - waves.min())
        return np.asarray(low + (high - low) * scaled, dtype=np.float32)

    return make


def page(shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Callable[[np.random.Generator], Array]:
    """Maker of float32 images (1, channels, h, w) of printed lines, dark on light, scaled to ``low`` to ``high``."""

    def make(generator: np.random.Generator) -> Array:
        image = Image.new("L", (shape[-1], shape[-2]), int(generator.integers(200, 256)))
        draw = ImageDraw.Draw(image)
        size = min(24, int(0.6 * shape[-2]))
        for top in range(int(0.2 * size), shape[-2] - size, 2 * size):
            words = "".join(chr(code) for code in generator.integers(97, 123, max(2, shape[-1] // size)))
            draw.text((size // 2, top), words, fill=int(generator.integers(0, 90)), font=ImageFont.load_default(size))
        pixels = np.asarray(image, dtype=np.float32) / 255 + 0.01 * generator.standard_normal(shape)
        return np.asarray(low + (high - low) * pixels, dtype=np.float32)

    return make


def tokens(
    shape: tuple[int, ...], below: int, dtype: type[np.generic] = np.int64
) -> Callable[[np.random.Generator], Array]:
    """Maker of integer arrays with entries from 1 to ``below`` − 1."""
    return lambda generator: generator.integers(1, below, shape).astype(dtype)


def sound(samples: int, *, scale: float = 0.3) -> Callable[[np.random.Generator], Array]:
    """Maker of float32 waveforms (1, samples) at 16 kHz: harmonics of a gliding tone, and noise."""

    def make(generator: np.random.Generator) -> Array:
        time = np.arange(samples) / 16_000
        pitch = generator.uniform(90, 300) * (1 + 0.2 * np.sin(2 * np.pi * generator.uniform(1, 4) * time))
        phase = 2 * np.pi * np.cumsum(pitch) / 16_000
        wave = sum(np.sin(k * phase) / k for k in range(1, 8)) + 0.2 * generator.standard_normal(samples)
        return np.asarray(scale * wave / np.abs(wave).max(), dtype=np.float32)[None]

    return make


def constant(value: Array) -> Callable[[np.random.Generator], Array]:
    """Maker of the same array every time."""
    return lambda generator: value.copy()  # noqa: ARG005


def feed_of(**makers: Callable[[np.random.Generator], Array]) -> MakeFeed:
    """Sample maker from one maker an input."""
    return feed_named(makers)


def feed_named(makers: Mapping[str, Callable[[np.random.Generator], Array]]) -> MakeFeed:
    """Sample maker from input name → maker, for names that are no Python words."""
    return lambda generator: {name: make(generator) for name, make in makers.items()}


def carried(relative: str) -> Callable[[Path], bytes]:
    """Reader of a file below the folder of installed packages.

    Raises:
        DataError: When called, if the file is not there.
    """

    def read(site: Path) -> bytes:
        path = site / relative
        if not path.is_file():
            raise DataError(f"no file '{path}'", "run scripts/zoo-env, which installs the packages that carry networks")
        import onnx

        return bytes(onnx.load(str(path)).SerializeToString())

    return read
