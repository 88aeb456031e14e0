"""Training data: arrays as a workload holds them, cut into batches in an order that follows from a seed.

The rows of step s depend on (seed, s) alone, and so do the random numbers of augmentation, drawn by numpy whatever
the device: a training that is resumed in the middle sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from bitfront.core import Array, DataError, Inputs


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingData:
    """Inputs, with labels if there are any.

    Attributes:
        inputs: One array per input, shape (n, …), passed to ``forward`` as ``lowering.module_calls`` says.
        labels: Class indices (n,), or None.
    """

    inputs: Inputs
    labels: Array | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.inputs.items()}
        if self.labels is not None:
            lengths["labels"] = len(self.labels)
        if not self.inputs or len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise DataError(
                f"training data: expected inputs of one length, one sample at least, got {lengths}",
                "give every input, and the labels, for the same samples",
            )

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batch(self, rows: NDArray[np.int64], device: torch.device) -> Batch:
        """The samples of those rows, on ``device``."""
        inputs = {
            name: torch.from_numpy(np.ascontiguousarray(array[rows])).to(device) for name, array in self.inputs.items()
        }
        labels = None
        if self.labels is not None:
            labels = torch.from_numpy(np.ascontiguousarray(self.labels[rows])).to(device)
        return Batch(inputs=inputs, labels=labels)

    def batches(self, size: int, device: torch.device, limit: int | None = None) -> Iterator[Batch]:
        """Batches of all samples in order, or of the first ``limit``, ``size`` at a time."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            yield self.batch(np.arange(start, min(start + size, count)), device)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Tensors of some samples.

    Attributes:
        inputs: Input name → tensor, shape (n, …).
        labels: Shape (n,), or None.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Random mirroring and shifting of images (He et al., arXiv:1512.03385, section 4.2); the default does nothing.

    Attributes:
        mirror: Probability that an image is mirrored left to right; 0 where that changes its meaning (digits).
        shift: Largest shift in pixels along each axis; what comes in is zero.
    """

    mirror: float = 0.0
    shift: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.mirror <= 1 or self.shift < 0:
            raise DataError(
                f"augmentation: expected mirror in 0…1 and shift ≥ 0, got {self.mirror} and {self.shift}",
                "mirror is the share of images turned round, shift is in pixels",
            )

    def apply(self, batch: Batch, generator: np.random.Generator) -> Batch:
        """Augmented version of each image; inputs that are no images (n, c, h, w) stay as they are."""
        if not self.mirror and not self.shift:
            return batch
        return Batch(inputs={name: self._image(x, generator) for name, x in batch.inputs.items()}, labels=batch.labels)

    def _image(self, images: Tensor, generator: np.random.Generator) -> Tensor:
        if images.dim() != 4:
            return images
        count, _, height, width = images.shape
        down, right = (self._offsets(generator, count, images.device) for _ in range(2))
        mirrored = torch.from_numpy(generator.random(count) < self.mirror).to(images.device)
        rows = down[:, None] + torch.arange(height, device=images.device)
        columns = right[:, None] + torch.arange(width, device=images.device)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
        padded = functional.pad(images, (self.shift,) * 4)
        sample = torch.arange(count, device=images.device)[:, None, None]
        # Indices around a slice put its axis last: (n, h, w, c).
        return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()

    def _offsets(self, generator: np.random.Generator, count: int, device: torch.device) -> Tensor:
        return torch.from_numpy(generator.integers(0, 2 * self.shift + 1, count)).to(device)


def rows_of_step(count: int, batch_size: int, step: int, seed: int) -> NDArray[np.int64]:
    """Rows of one step: each epoch is a permutation of all samples, cut into whole batches.

    Args:
        count: Number of samples.
        batch_size: Rows wanted; all samples where there are fewer.
        step: From 0.
        seed: Of the permutations.
    """
    size = min(batch_size, count)
    epoch, position = divmod(step, count // size)
    order = np.random.default_rng([seed, epoch]).permutation(count)
    return order[position * size : (position + 1) * size]
