"""Labels of images: numbers of the folders that they lie in, or a file that lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from bitfront.core import DataError
from bitfront.search.inputs.data.base import DataRequest, missing_labels
from bitfront.search.inputs.data.lines import read_lines, whole_labels

_LINE = re.compile(r"\s*(.+?)\s*[\t, ]\s*([^\s,]+)\s*")  # a path may hold spaces and commas, a label none


def read_labels(request: DataRequest, folder: Path, images: Sequence[Path]) -> list[int]:
    """The class number of each image.

    Raises:
        DataError: If an image has none, or folders and the network's classes do not go together.
    """
    listed = request.options.path("labels")
    if listed is not None:
        return _from_file(listed, folder, images)
    names = [path.relative_to(folder).parts for path in images]
    alone = next((path for path, parts in zip(images, names, strict=True) if len(parts) == 1), None)
    if alone is not None:
        hint = f"'{alone.name}' lies in no class folder: give each class a folder, or --data-options labels=labels.txt"
        if any(len(parts) > 1 for parts in names):
            raise DataError(f"{request.where}: labels are missing", hint)
        raise missing_labels(request, hint)
    return _from_folders(request, [parts[0] for parts in names])


def _from_folders(request: DataRequest, folders: Sequence[str]) -> list[int]:
    path = request.options.path("classes")
    if path is not None:
        order = {line.strip(): index for index, line in enumerate(read_lines(path, "a file of class names"))}
        for name in folders:
            if name not in order:
                raise DataError(f"'{path}': class folder '{name}' of '{request.spec}' is not in it", "add it")
        return [order[name] for name in folders]
    order = {name: index for index, name in enumerate(sorted(set(folders)))}
    shape = request.reference.output_shapes[request.reference.output_names[0]]
    classes = shape[1] if shape is not None and len(shape) > 1 else None
    if classes is not None and classes > 1 and classes != len(order):
        raise DataError(
            f"{request.where}: has {len(order)} class folders, and the network tells {classes} classes apart, so their "
            "numbers are not known",
            "name all classes in their order, a line each, in a file: --data-options classes=classes.txt",
        )
    return [order[name] for name in folders]


def _from_file(path: Path, folder: Path, images: Sequence[Path]) -> list[int]:
    """Labels from lines ``PATH LABEL``, with a space, a tab or a comma between; paths are relative to the folder."""
    found: dict[str, str] = {}
    for number, line in enumerate(read_lines(path, "a file of labels"), 1):
        parts = _LINE.fullmatch(line)
        if parts is None:
            raise DataError(f"'{path}': line {number}: expected PATH LABEL, got '{line[:80]}'", "write an image a line")
        found[parts[1]] = parts[2]
    texts = []
    for image in images:
        name = image.relative_to(folder).as_posix()
        if name not in found:
            raise DataError(
                f"'{path}': has no label for the image '{name}' of '{folder}'", "add the line, or take the image away"
            )
        texts.append(found[name])
    return whole_labels(texts, str(path))
