"""A folder of images, prepared as the network was trained with: from the options, or a ``preprocessor_config.json``.

Labels are the numbers of the folders that images lie in, in the order of their names, or come from a file. Samples are
in an order that is shuffled with a fixed seed, since folders are sorted by class. EXIF rotations are not applied.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bitfront.core import Array, DataError
from bitfront.core.ragged import joined
from bitfront.search.inputs.data.base import DataRequest, LoadedData, check_room, library, shuffled
from bitfront.search.inputs.images.image_labels import read_labels
from bitfront.search.inputs.images.pixels import OPTIONS, ImagePreprocessing, preprocessing

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_OPTIONS = {
    **OPTIONS,
    "samples": "images read at most",
    "labels": "file with a line PATH LABEL for each image",
    "classes": "file with a class folder's name a line, from class 0 on",
}


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Loader of folders of images."""

    form: str = "images"
    described: str = "a folder of images"
    options: Mapping[str, str] = field(default_factory=lambda: _OPTIONS)
    sequences: bool = False

    def recognises(self, spec: str) -> bool:
        """Whether it is a folder with an image in it or below it."""
        return os.path.isdir(spec) and any(_is_image(path) for path in Path(spec).rglob("*"))

    def check(self, spec: str, option: str) -> None:
        """Refuse images where nothing can read them.

        Raises:
            UsageError: If Pillow is missing.
        """
        library("PIL.Image", "pillow", "images", f"{option}: '{spec}': reading images")

    def load(self, request: DataRequest) -> LoadedData:
        """Read and prepare the images.

        Raises:
            DataError: If one cannot be read or does not fit, or how they become inputs is not known.
        """
        folder, name = Path(request.spec), request.only_input()
        paths = sorted(path for path in folder.rglob("*") if _is_image(path))
        labels = read_labels(request, folder, paths) if request.labelled else None
        chosen = shuffled(len(paths), request.most)
        prepared = preprocessing(request, name)
        array = prepared_images([paths[index] for index in chosen], prepared, request)
        found = None if labels is None else np.array([labels[index] for index in chosen], np.int64)
        return request.loaded({name: array}, found, self.form, f"in shuffled order, {prepared.text}")


def prepared_images(images: Sequence[Path | bytes], prepared: ImagePreprocessing, request: DataRequest) -> Array:
    """Images as one array (n, …), or one (n,) of arrays where they keep sizes of their own.

    Args:
        images: Files, or what is in them.
        prepared: How each becomes an array.
        request: Names the data in messages.

    Raises:
        DataError: If one cannot be read.
    """
    arrays: list[Array] = []
    for index, image in enumerate(images):
        where = f"'{image}'" if isinstance(image, Path) else f"{request.where}: image {index}"
        array = prepared.array(_opened(image, where), where)
        if not arrays:
            check_room(array.nbytes * 2 * len(images), request.where)
        arrays.append(array)
    return joined(arrays)


def _opened(image: Path | bytes, where: str) -> Any:
    """A Pillow image, decoded."""
    import io

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image) as found:
                found.load()  # what was decoded stays when the file is closed
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{where} cannot be read as an image ({str(error)[:120]})", "save it again, or take it out of the folder"
        ) from error
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
