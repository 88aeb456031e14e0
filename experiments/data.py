"""Images and labels of the ready-made workloads, from one data folder.

The folder is ``--data``'s, else the environment variable ``BITFRONT_DATA``'s, else ``../shared/data`` beside the
checkout. Images come back as float32 (n, channels, h, w), normalised as the published weights expect. A file that
is missing or damaged is a ``DataError`` that names it.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitfront.core import Array, DataError, Labelled, WorkloadError

ENVIRONMENT = "BITFRONT_DATA"
IMAGENET_SIDE = 224
INPUT_NAME = "images"


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """(x / 255 − mean) / std, per RGB channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (n, h, w, 3) → float32 (n, 3, h, w)."""
        # One channel at a time: no second float copy of all images stands beside the result.
        count, height, width, channels = pixels.shape
        out = np.empty((count, channels, height, width), np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            np.multiply(pixels[..., channel], np.float32(1 / (255 * std)), out=out[:, channel])
            out[:, channel] -= np.float32(mean / std)
        return out


IMAGENET_STATISTICS = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SYMMETRIC = Normalisation(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # x / 127.5 − 1


def data_folder(option: Path | None) -> Path:
    """The folder to read: ``option`` (of ``--data``), the environment's, or the default; it need not exist."""
    if option is not None:
        return option
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    return Path(__file__).resolve().parents[2] / "shared" / "data"


def data_file(folder: Path, name: str) -> Path:
    """``name`` inside ``folder``.

    Raises:
        DataError: If there is no such file.
    """
    path = folder / name
    if not path.is_file():
        raise DataError(
            f"no file '{name}' in the data folder '{folder}'",
            f"say with --data (or {ENVIRONMENT}) where the folder with pretrained weights and images is",
        )
    return path


def load_cifar(path: Path, normalisation: Normalisation) -> Labelled:
    """An ``.npz`` with ``images`` uint8 (n, 32, 32, 3) and ``labels`` (n,).

    Raises:
        DataError: If the file is damaged or holds something else.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            pixels, labels = archive["images"], archive["labels"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"'{path}': expected an .npz with 'images' and 'labels': {error}", _REPLACE) from error
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (32, 32, 3) or labels.shape != pixels.shape[:1]:
        raise DataError(
            f"'{path}': expected images uint8 (n, 32, 32, 3) and labels (n,), "
            f"got {pixels.dtype} {pixels.shape} and {labels.shape}",
            _REPLACE,
        )
    return Labelled(inputs={INPUT_NAME: normalisation.apply(pixels)}, labels=labels)


def load_imagenet(archive: Path, table: Path, normalisation: Normalisation, limit: int | None = None) -> Labelled:
    """A ``.zip`` of 224×224 JPEG files with a ``.csv`` of ``file`` and ``label``.

    Args:
        archive: The images.
        table: The labels; its order is the order of the samples unless there is a limit.
        normalisation: What the network expects.
        limit: Decode only so many, a ``spread_sample`` of the table; None for all.

    Raises:
        DataError: If a file is damaged, or an image of the table is missing or has another size.
        WorkloadError: If Pillow is not installed.
    """
    names, labels = _read_table(table)
    if limit is not None:
        rows = spread_sample(len(names), limit)
        names, labels = [names[row] for row in rows], labels[rows]
    return Labelled(inputs={INPUT_NAME: normalisation.apply(_decode(archive, names))}, labels=labels)


def spread_sample(count: int, wanted: int, seed: int = 0) -> NDArray[np.int64]:
    """``wanted`` of ``count`` indices (all of them if there are fewer) in a fixed random order.

    Files may be sorted by class; in this order every prefix, as ``--calib-samples`` takes it, covers the classes.
    """
    return np.random.default_rng(seed).permutation(count)[:wanted]


def take(data: Labelled, rows: NDArray[np.int64]) -> dict[str, Array]:
    """The inputs of those samples, in that order."""
    return {name: array[rows] for name, array in data.inputs.items()}


_REPLACE = "replace the file by an intact copy"


def _read_table(path: Path) -> tuple[list[str], NDArray[np.int64]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [row["file"] for row in rows], np.array([int(row["label"]) for row in rows], np.int64)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"'{path}': expected a table with 'file' and 'label': {error}", _REPLACE) from error


def _decode(path: Path, names: list[str]) -> NDArray[np.uint8]:
    try:
        from PIL import Image
    except ImportError as error:
        raise WorkloadError(
            "the ImageNet workloads need Pillow, which is not installed", "install the 'demo' extra"
        ) from error
    pixels = np.empty((len(names), IMAGENET_SIDE, IMAGENET_SIDE, 3), np.uint8)
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for row, name in enumerate(names):
                with Image.open(io.BytesIO(archive.read(name))) as image:
                    pixels[row] = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        what = f"image '{name}'" if name else "the archive"
        expected = f"a JPEG of {IMAGENET_SIDE} by {IMAGENET_SIDE} pixels"
        raise DataError(f"'{path}': {what} cannot be read, expected {expected}: {error}", _REPLACE) from error
    return pixels
